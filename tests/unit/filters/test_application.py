"""The filters that shape an application's contract."""

from __future__ import annotations

import ast
import configparser
import json

import pytest
import yaml
from ansible.errors import AnsibleFilterError

from plugin_utils.application import commands, nginx, plan, settings, sharding
from plugin_utils.application import units as systemd
from tests.unit.app.paths import ROOT

CONTRACT = yaml.safe_load((ROOT / "playbooks/profiles/standin.yml").read_text())["app_contract"]
VALUES = {
    "deployment": "/d",
    "python": "/d/.venv/bin/python",
    "venv": "/d/.venv",
    "app_run": "/lib/app_run",
    "adopting": "/run/adopting",
}


def assigned(text: str) -> dict:
    """Run assignments as Python would."""
    names: dict = {}
    exec(compile(text, "settings.py", "exec"), {}, names)
    return names


def test_settings_keep_their_types() -> None:
    values = {
        "TEXT": 'it\'s "so"\n\\',
        "YES": True,
        "NONE": None,
        "NUMBER": 7,
        "HALF": 0.5,
        "NESTED": {"a": [1, "two", {"three": None}], "b": ("x", 1)},
        "DIGITS": "5000",
    }
    assert assigned(settings.python_assignments(values)) == values


def test_settings_do_not_carry_the_controllers_types() -> None:
    class Tagged(str):
        def __repr__(self) -> str:
            return "Tagged()"

    assert ast.literal_eval(settings.python_literal({Tagged("k"): [Tagged("v")]})) == {"k": ["v"]}


@pytest.mark.parametrize("name", ["A B", "1A", "A=1;import os", ""])
def test_a_setting_that_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(AnsibleFilterError, match="not a name"):
        settings.python_assignments({name: 1})


@pytest.mark.parametrize("value", [object(), float("inf"), float("nan")])
def test_a_value_without_a_literal_is_refused(value: object) -> None:
    with pytest.raises(AnsibleFilterError, match="no form"):
        settings.python_literal(value)


def test_ini_is_read_back_as_it_was() -> None:
    sections = {"secrets": {"key": "a%(b)s #;=$", "empty": "", "none": None}, "machine": {"on": True, "n": 3}}
    parser = configparser.RawConfigParser()
    parser.read_string(settings.ini_sections(sections))
    assert dict(parser["secrets"]) == {"key": "a%(b)s #;=$", "empty": "", "none": ""}
    assert dict(parser["machine"]) == {"on": "true", "n": "3"}


@pytest.mark.parametrize("value", ["a\nb", "a\rb"])
def test_an_ini_value_of_two_lines_is_refused(value: str) -> None:
    with pytest.raises(AnsibleFilterError, match="one line"):
        settings.ini_sections({"s": {"k": value}})


def test_a_command_is_filled() -> None:
    argv = ["{python}", "manage.py", "--queue={queue}", "{arguments}"]
    values = {**VALUES, "queue": "q", "arguments": ["one", "two words"]}
    assert commands.contract_command(argv, values) == [
        "/d/.venv/bin/python",
        "manage.py",
        "--queue=q",
        "one",
        "two words",
    ]


def test_a_command_with_an_unknown_placeholder_is_refused() -> None:
    with pytest.raises(AnsibleFilterError, match="wants {email}, known are: "):
        commands.contract_command(["create", "{email}"], VALUES)


def test_a_units_command_is_literal_apart_from_its_specifiers() -> None:
    argv = ["/bin/x", "a b", 'say "hi"', "50%", "$HOME", "back\\slash", "127.0.0.1:%i"]
    assert commands.systemd_exec(argv, ["%i"]) == (
        '/bin/x "a b" "say \\"hi\\"" 50%% $$HOME "back\\\\slash" 127.0.0.1:%i'
    )


@pytest.mark.parametrize(("memory", "expected"), [(500, 2), (3000, 2), (3001, 3), (24000, 4)])
def test_size_by_memory(memory: int, expected: int) -> None:
    assert commands.by_memory(CONTRACT["django"]["processes"], memory) == expected


def test_a_host_below_all_sizes_is_refused() -> None:
    with pytest.raises(AnsibleFilterError, match="smaller than any size"):
        commands.by_memory([{"above_mb": 1000, "value": 1}], 512)


def test_one_shard_needs_no_map() -> None:
    result = sharding.tornado_sharding(1, "chat.example.com", {}, [])
    assert result["json"] == {}
    assert result["ports"] == [9800]
    assert result["upstreams"] == {"tornado": [9800]}
    assert json.loads(sharding.sharding_json(result)) == {}


def test_several_shards_share_the_sites_own_name() -> None:
    result = sharding.tornado_sharding(2, "chat.example.com", {}, [])
    assert result["json"] == {"shard_map": {"chat.example.com": [9800, 9801]}, "shard_regexes": []}
    assert result["hosts"] == {"chat.example.com": "tornado9800_9801"}
    assert result["upstreams"] == {"tornado9800": [9800], "tornado9800_9801": [9800, 9801]}


def test_shards_by_host_and_expression() -> None:
    result = sharding.tornado_sharding(
        3, "x", {"a.example": 9800, "b.example": [9801]}, [{"regex": r"c\d+\.example", "ports": [9802]}]
    )
    assert result["json"]["shard_map"] == {"a.example": 9800, "b.example": 9801}
    assert result["json"]["shard_regexes"] == [[r"c\d+\.example", 9802]]
    assert result["regexes"] == [{"regex": r"c\d+\.example", "upstream": "tornado9802"}]


@pytest.mark.parametrize(
    ("shards", "hosts", "regexes", "message"),
    [
        (0, {}, [], "one Tornado shard or more"),
        (2, {"a": 9805}, [], "9800 to 9801"),
        (2, {"a": []}, [], "9800 to 9801"),
        (2, {"a": 9800}, [], r"assigned to \[9801\]"),
        (2, {"a": 9801}, [], r"assigned to \[9800\]"),
        (2, {"a b;": 9801}, [], "not a host name"),
        (2, {}, [{"regex": "a;b", "ports": [9800]}], "must hold no blank"),
    ],
)
def test_sharding_that_cannot_work_is_refused(shards: int, hosts: dict, regexes: list, message: str) -> None:
    with pytest.raises(AnsibleFilterError, match=message):
        sharding.tornado_sharding(shards, "x", hosts, regexes)


def units(**changes: object) -> list[dict]:
    """Return the unit files of the stand-in."""
    contract = {**CONTRACT, **changes}
    return systemd.application_unit_files(
        plan.application_plan(contract, [9800, 9801], processes=3),
        contract,
        contract["memory"],
        VALUES,
        {},
        "/lib/singleton",
        "/home/zulip",
        "/home/zulip/uploads",
    )


def test_unit_files_and_units_agree() -> None:
    files = {entry["path"]: entry for entry in units()}
    listed = systemd.application_units(plan.application_plan(CONTRACT, [9800, 9801]))
    for unit in listed["all"]:
        own = f"/etc/systemd/system/{unit}.d/50-instance.conf" if "@" in unit else f"/etc/systemd/system/{unit}"
        assert own in files, unit
    assert files["/etc/systemd/system/zulip.target.d/50-instances.conf"]["vars"]["units"] == listed["always"]
    assert files["/etc/systemd/system/zulip-active.target.d/50-instances.conf"]["vars"]["units"] == listed["active"]


def test_what_runs_once_goes_through_the_lock_and_past_the_pooler() -> None:
    files = {entry["path"].removeprefix("/etc/systemd/system/"): entry["vars"] for entry in units()}
    template = files["zulip-singleton@.service"]["unit"]
    assert template["lock"]
    assert template["direct"]
    assert template["active"]
    for singleton in CONTRACT["singletons"]:
        instance = files[f"zulip-singleton@{singleton['name']}.service.d/50-instance.conf"]["instance"]
        assert instance["exec"].startswith(f"/lib/singleton {singleton['name']} -- /d/.venv/bin/python ")
    for cron in CONTRACT["crons"]:
        unit = files[f"zulip-cron-{cron['name']}.service"]["unit"]
        assert unit["exec"].startswith(f"/lib/singleton --skip-if-held cron-{cron['name']} -- ")
        assert unit["lock"]
        assert unit["active"]


def test_a_cron_of_each_host_takes_no_lock() -> None:
    cron = {"name": "x", "description": "x", "once": False, "calendar": "daily", "command": ["{python}"]}
    files = {entry["path"].removeprefix("/etc/systemd/system/"): entry["vars"] for entry in units(crons=[cron])}
    unit = files["zulip-cron-x.service"]["unit"]
    assert unit["exec"] == "/d/.venv/bin/python"
    assert not unit["lock"]
    assert not unit["active"]
    assert "zulip-cron-x.timer" in files["zulip.target.d/50-instances.conf"]["units"]


def test_an_application_without_full_text_search_has_no_such_unit() -> None:
    commands = {name: argv for name, argv in CONTRACT["commands"].items() if name != "fts"}
    assert not any("fts" in entry["path"] for entry in units(commands=commands))


def test_a_name_that_is_no_unit_is_refused() -> None:
    with pytest.raises(AnsibleFilterError, match="not a name for a unit"):
        systemd.application_units(plan.application_plan({**CONTRACT, "queues": [{"name": "a b"}]}, [9800]))


def test_a_change_restarts_its_own_unit() -> None:
    effects = {entry["path"].removeprefix("/etc/systemd/system/"): entry["effects"] for entry in units()}
    assert effects["zulip-tornado@.service"] == [
        "restart:zulip-tornado@9800.service",
        "restart:zulip-tornado@9801.service",
        "reload:haproxy.service",
    ]
    assert effects["zulip-worker@email_senders.service.d/50-instance.conf"] == [
        "restart:zulip-worker@email_senders.service"
    ]
    assert effects["zulip-active.target.d/50-instances.conf"] == ["restart:zulip-active.target"]


def test_removed_units() -> None:
    folder = "/etc/systemd/system/"
    files = {
        folder + "zulip-worker@old.service.d/50-instance.conf": "removed",
        folder + "zulip-worker@new.service.d/50-instance.conf": "created",
        folder + "zulip-cron-old.timer": "removed",
        folder + "zulip-old@.service": "removed",
        "/etc/zulip/x": "removed",
    }
    assert systemd.removed_units(files) == ["zulip-cron-old.timer", "zulip-worker@old.service"]


def test_snippets_become_files() -> None:
    [entry] = nginx.nginx_snippet_files([{"name": "a", "content": "gzip off;"}], "server", ["reload:nginx.service"])
    assert entry["path"] == "/etc/nginx/zulip-ha/server.d/a.conf"
    assert entry["content"] == "gzip off;\n"
    assert entry["variable"] == "nginx_server_snippets"


def test_a_snippet_that_leads_elsewhere_is_refused() -> None:
    with pytest.raises(AnsibleFilterError, match="nginx_http_snippets"):
        nginx.nginx_snippet_files([{"name": "../x", "content": ""}], "http", [])


@pytest.mark.parametrize(
    ("ports", "orphans"),
    [
        ([9800], ["notify_tornado_port_9802"]),
        ([9800, 9801], ["notify_tornado_port_9802"]),
        ([9800, 9801, 9802], []),
    ],
)
def test_queues_of_shards_that_are_no_more(ports: list[int], orphans: list[str]) -> None:
    queues = [
        {"name": "notify_tornado", "consumers": 1},
        {"name": "notify_tornado_port_9800", "consumers": 1},
        {"name": "notify_tornado_port_9801", "consumers": 2},
        {"name": "notify_tornado_port_9802", "consumers": 0},
        {"name": "notify_tornadoes", "consumers": 0},
        {"name": "email_senders", "consumers": 0},
    ]
    assert sharding.orphaned_queues(queues, ports) == orphans


def test_zulip_conf_names_the_ports() -> None:
    decided = sharding.tornado_sharding(
        4,
        "chat.example.com",
        {"a.example.com": 9800, "b.example.com": 9800, "c.example.com": [9801, 9802]},
        [{"regex": "d\\d+", "ports": [9803]}, {"regex": "e", "ports": [9803]}],
    )
    assert sharding.sharding_section(decided) == {
        "9800": "a.example.com b.example.com",
        "9801_9802": "c.example.com",
        "9803_regex": "(?:d\\d+)|(?:e)",
    }
    assert sharding.sharding_section(sharding.tornado_sharding(1, "x", {}, [])) == {}
