"""What runs on an app host."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError

from plugin_utils.application import commands, files, settings, units
from plugin_utils.application.plan import active_services, application_plan
from plugin_utils.application.versions import contract_for
from tests.unit.app.paths import ROOT

ZULIP = contract_for(yaml.safe_load((ROOT / "playbooks/profiles/zulip.yml").read_text())["app_contract"], "11.5")
STANDIN = contract_for(yaml.safe_load((ROOT / "playbooks/profiles/standin.yml").read_text())["app_contract"], "1.0")
VALUES = {
    "deployment": "/d",
    "python": "/d/.venv/bin/python",
    "venv": "/d/.venv",
    "programs": "/p",
    "app_run": "/lib/app_run",
    "adopting": "/run/adopting",
}
TUSD = {"tusd": {"url": "https://example.com/tusd.tar.gz", "sha256": "ab" * 32}}


def unit_files(**options: Any) -> dict[str, dict[str, Any]]:
    """Return the unit files of Zulip by their path below systemd's folder."""
    plan = application_plan(ZULIP, [9800], **options)
    entries = units.application_unit_files(
        plan, ZULIP, ZULIP["memory"], VALUES, {"shared_secret": "s3cret"}, "/lib/singleton", "/home/zulip", "/uploads"
    )
    return {entry["path"].removeprefix("/etc/systemd/system/"): entry for entry in entries}


def test_every_queue_has_a_worker_whatever_is_said_of_some() -> None:
    plan = application_plan(ZULIP, [9800], queues=[{"name": "email_senders", "workers": 2}])
    assert len(plan["queues"]) == len(ZULIP["queues"])
    listed = units.application_units(plan)["always"]
    assert "zulip-worker@email_senders.service" in listed
    assert "zulip-worker@email_senders.2.service" in listed
    assert "zulip-worker@deferred_work.service" in listed


def test_a_second_worker_has_a_command_of_its_own() -> None:
    own = unit_files(queues=[{"name": "email_senders", "workers": 2}])[
        "zulip-worker@email_senders.2.service.d/50-instance.conf"
    ]["vars"]["instance"]
    assert own["exec"].endswith("process_queue --queue_name=email_senders --worker_num 2 --skip-checks")
    assert own["exec_reset"]


@pytest.mark.parametrize(
    ("memory_mb", "cores", "workers", "threads"),
    [(2000, 4, "auto", True), (3800, 4, "auto", True), (3900, 3, "auto", False), (2000, 1, "processes", False)]
    + [(64000, 2, "auto", True), (64000, 8, "threads", True)],
)
def test_workers_go_by_memory_and_cores_unless_told(memory_mb: int, cores: int, workers: str, threads: bool) -> None:
    plan = application_plan(ZULIP, [9800], workers=workers, memory_mb=memory_mb, cores=cores)
    assert plan["threads"] is threads
    listed = units.application_units(plan)["always"]
    assert ("zulip-workers.service" in listed) is threads
    assert any(unit.startswith("zulip-worker@") for unit in listed) is not threads


def test_a_queue_with_a_size_of_its_own_has_a_process_of_its_own() -> None:
    queues = [{"name": "email_senders", "workers": 2}]
    assert application_plan(ZULIP, [9800], queues=queues, memory_mb=2000, cores=1)["threads"] is False


def test_one_process_works_on_every_queue() -> None:
    command = unit_files(workers="threads")["zulip-workers.service"]["vars"]["unit"]["exec"]
    assert command.startswith("/d/.venv/bin/python /lib/app_run --broker /d/manage.py process_queue ")
    assert command.split("--multi_threaded ")[1].split() == sorted(queue["name"] for queue in ZULIP["queues"])


def test_one_process_is_one_process() -> None:
    unit = unit_files(workers="threads")["zulip-workers.service"]["vars"]["unit"]
    assert unit["environment"] == {"RUN_MAIN": "true"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"queues": [{"name": "emails"}]}, "app_queues: this release has no queue 'emails'; it has deferred_email"),
        (
            {"queues": [{"name": "email_senders", "workers": 2}], "workers": "threads"},
            "app_queues: email_senders cannot be sized where one process has all queues",
        ),
        ({"workers": "some"}, "app_workers is one of auto, processes, threads"),
        (
            {"options": ["chess"]},
            "app_options: this release has no chess; it knows incoming_mail, incoming_mail_polling",
        ),
        ({"programs": {"tuned": {}}}, "app_programs: this release has no tuned; it knows go-camo, smokescreen, tusd"),
    ],
)
def test_what_the_release_does_not_know_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(AnsibleFilterError, match=message):
        application_plan(ZULIP, [9800], **options)


def test_an_application_without_it_refuses_one_process_for_all_queues() -> None:
    with pytest.raises(AnsibleFilterError, match="no process that works on all queues"):
        application_plan(STANDIN, [9800], workers="threads")
    assert application_plan(STANDIN, [9800], memory_mb=100)["threads"] is False


def test_services_run_where_they_are_asked_for() -> None:
    assert [service["name"] for service in active_services(ZULIP, [], {})] == ["katex"]
    assert [service["name"] for service in active_services(ZULIP, ["incoming_mail"], TUSD)] == [
        "katex",
        "tus",
        "email-server",
    ]


def test_a_program_is_run_by_its_checksum() -> None:
    unit = unit_files(programs=TUSD)["zulip-tus.service"]["vars"]["unit"]
    assert unit["environment"]["PATH"].startswith("/p/tusd-abababababab:")


def test_a_secret_reaches_a_service_by_a_file() -> None:
    entries = unit_files()
    assert "s3cret" not in str(entries["zulip-katex.service"])
    assert entries["zulip-katex.service"]["vars"]["unit"]["environment_file"] == "/etc/zulip-ha/app/katex.env"
    secret = entries["/etc/zulip-ha/app/katex.env"]
    assert secret["content"] == "SHARED_SECRET=s3cret\n"
    assert (secret["sensitive"], secret["mode"]) == (True, "0600")


def test_djangos_memory_grows_with_its_processes() -> None:
    assert unit_files(processes=4)["zulip-django.service"]["vars"]["unit"]["memory"] == {
        "high": "1600M",
        "max": "2560M",
    }
    assert commands.sized({"high": "1G", "max": "2G"}, 4) == {"high": "1G", "max": "2G"}
    with pytest.raises(AnsibleFilterError, match="as 512M"):
        commands.sized({"high": "half", "max": "2G", "per_process": True}, 4)


def test_settings_can_be_expressions() -> None:
    text = settings.python_assignments(
        {"A": {"python_expression": "timedelta(days=2)"}, "B": [{"python_expression": "1 + 1"}]}
    )
    names: dict[str, Any] = {}
    exec(settings.python_imports(["from datetime import timedelta"]) + text, names)
    assert names["A"].days == 2
    assert names["B"] == [2]


@pytest.mark.parametrize("line", ["import os; os.remove('/')", "print()", "from", ""])
def test_only_imports_are_imports(line: str) -> None:
    with pytest.raises(AnsibleFilterError, match="no import statement"):
        settings.python_imports([line])


def test_what_is_no_expression_is_refused() -> None:
    with pytest.raises(AnsibleFilterError, match="A: 'x = 1' is no Python expression"):
        settings.python_assignments({"A": {"python_expression": "x = 1"}})


def test_files_of_the_operator_are_secret_and_below_etc_zulip() -> None:
    entry = files.application_files([{"path": "saml/idps/okta.crt", "content": "X"}], "zulip", "zulip", [])[0]
    assert (entry["path"], entry["mode"], entry["sensitive"]) == ("/etc/zulip/saml/idps/okta.crt", "0600", True)
    folders = files.application_file_directories([{"path": "saml/idps/okta.crt", "content": "X"}], "zulip")
    assert [folder["path"] for folder in folders] == ["/etc/zulip/saml", "/etc/zulip/saml/idps"]


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", "settings.py", "zulip-secrets.conf", ""])
def test_a_file_elsewhere_or_of_ours_is_refused(path: str) -> None:
    with pytest.raises(AnsibleFilterError, match="zulip_files"):
        files.application_files([{"path": path, "content": "X"}], "zulip", "zulip", [])
