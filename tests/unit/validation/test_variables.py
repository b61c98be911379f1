"""Names and types of variables, and what the repository itself ships."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from plugin_utils.validation.known import Known, load, read
from plugin_utils.validation.variables import Layer, check, one_edit, type_problems

ROOT = Path(__file__).resolve().parents[3]
KNOWN = Known(
    names={"site_virtual_ip", "app_profile", "local_edits", "redis_port", "redis_tags", "vault_redis_password"},
    private={"__redis_unit"},
    specs={
        "redis_port": {"type": "int"},
        "redis_tags": {"type": "list", "elements": "str"},
        "vault_redis_password": {"type": "str"},
    },
    renamed={"redis_tcp": {"new": "redis_port", "since": "2.0.0"}},
    prefixes=("site_", "app_", "redis_", "vault_", "local_edits"),
)


def _check(variables: dict[str, Any], **options: Any) -> list[str]:
    return list(check([Layer(variables, hosts=("h1", "h2"), **options)], KNOWN, Path("/shipped")))


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("localedits", "local_edits", True),
        ("site_virtuel_ip", "site_virtual_ip", True),
        ("app_profil", "app_profile", True),
        ("app_porfile", "app_profile", True),
        ("aap_profile", "app_profile", True),
        ("app_profile", "app_profile", False),
        ("app_prof", "app_profile", False),
        ("ab", "ba", True),
        ("abcd", "badc", False),
        ("x", "y", True),
    ],
)
def test_one_edit(first: str, second: str, expected: bool) -> None:
    assert one_edit(first, second) is expected
    assert one_edit(second, first) is expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("redis_prot", "unknown variable `redis_prot`; do you mean `redis_port`?"),
        ("redis_zzzzzzzzzzzzz", "begin a variable of your own with another word"),
        ("localedits", "unknown variable `localedits`; do you mean `local_edits`?"),
        ("rediss_port", "unknown variable `rediss_port`; do you mean `redis_port`?"),
        ("redis_tcp", "`redis_tcp` is now named `redis_port` (since 2.0.0); rename it"),
        ("__redis_unit", "`__redis_unit` is private to its role"),
        ("__redis_port", "set `redis_port` instead"),
    ],
)
def test_names(name: str, expected: str) -> None:
    problems = _check({name: 1})
    assert len(problems) == 1
    assert expected in problems[0]


@pytest.mark.parametrize("name", ["ansible_host", "my_port", "rack", "redis_port", "__mine"])
def test_names_that_are_right(name: str) -> None:
    assert _check({name: 1}) == []


@pytest.mark.parametrize(
    ("value", "spec", "expected"),
    [
        ("true", {"type": "bool"}, 'has to be true or false, not "true"; write true without quotes'),
        ("No", {"type": "bool"}, "write false without quotes"),
        (1, {"type": "bool"}, "not 1; write true without quotes"),
        ("maybe", {"type": "bool"}, "write true or false"),
        (True, {"type": "int"}, "has to be a whole number, not true"),
        ("80", {"type": "int"}, "write 80 without quotes"),
        (1.5, {"type": "int"}, "has to be a whole number"),
        (640, {"type": "str"}, "has to be text, not 640; put it in quotes"),
        (False, {}, "has to be text, not false; put it in quotes"),
        ("a", {"type": "list"}, "write [a]"),
        ([], {"type": "dict"}, "has to be a mapping"),
        ("c", {"choices": ["a", "b"]}, '`x` cannot be "c"; choose a or b'),
        (True, {"choices": ["a", "b"]}, "not true; choose a or b"),
        (["a", 1], {"type": "list", "elements": "str"}, "`x[1]` has to be text"),
        (["c"], {"type": "list", "elements": "str", "choices": ["a"]}, "`x[0]` cannot be"),
        ([{"nmae": "n"}], {"type": "list", "elements": "dict", "options": {"name": {}}}, "do you mean `name`?"),
        ({}, {"type": "dict", "options": {"name": {"required": True}}}, "`x` lacks the key `name`"),
        ({"name": 1}, {"type": "dict", "options": {"name": {}}}, "`x.name` has to be text"),
    ],
)
def test_types(value: Any, spec: dict[str, Any], expected: str) -> None:
    problems = list(type_problems("x", value, spec))
    assert len(problems) == 1
    assert expected in problems[0]


@pytest.mark.parametrize(
    ("value", "spec"),
    [
        (True, {"type": "bool"}),
        (None, {"type": "bool"}),
        (3, {"type": "float"}),
        ("{{ later }}", {"type": "bool"}),
        (["{{ later }}"], {"type": "list", "elements": "int"}),
        ({"any": "thing"}, {"type": "dict"}),
        (object(), {"type": "raw"}),
    ],
)
def test_types_that_are_right(value: Any, spec: dict[str, Any]) -> None:
    assert list(type_problems("x", value, spec)) == []


def test_templates_are_rendered_for_each_host() -> None:
    def render(host: str, name: str) -> Any:
        if host == "h1":
            raise KeyError("a fact that is not there yet")
        return "80"

    problems = list(check([Layer({"redis_port": "{{ x }}"}, hosts=("h1", "h2", "h3"))], KNOWN, Path("/s"), render))
    assert problems == ['`redis_port` has to be a whole number, not "80"; write 80 without quotes']


def test_secrets_are_not_shown() -> None:
    problems = _check({"vault_redis_password": 987654})
    assert len(problems) == 1
    assert "987654" not in problems[0]


def test_command_line_is_named() -> None:
    assert _check({"redis_port": "80"}, command_line=True) == [
        'command line (-e): `redis_port` has to be a whole number, not "80"; write 80 without quotes,'
        ' as in -e "{redis_port: 80}"'
    ]


def test_shipped_layer_is_not_checked(tmp_path: Path) -> None:
    shipped = tmp_path / "group_vars" / "all"
    shipped.mkdir(parents=True)
    (tmp_path / "link").symlink_to(shipped)
    layer = Layer({"redis_wired": 1}, file=tmp_path / "link" / "redis.yml")
    assert list(check([layer], KNOWN, shipped)) == []


def test_repository_describes_every_site_variable() -> None:
    specs = load(ROOT / "group_vars" / "argument_specs.yml")["argument_specs"]["main"]["options"]
    shipped = load(ROOT / "group_vars" / "all" / "site.yml")
    assert specs
    for name, spec in specs.items():
        assert spec.get("description"), name
        assert spec.get("type"), name
        if name in shipped and isinstance(shipped[name], (bool, int)):
            assert list(type_problems(name, shipped[name], spec)) == []


def test_old_names_lead_to_known_ones() -> None:
    known = read(ROOT)
    assert known.renamed
    for old, entry in known.renamed.items():
        assert old not in known.names
        assert entry["new"] in known.names
        assert entry["since"]


def test_every_secret_is_known() -> None:
    known = read(ROOT)
    assert len(known.secrets) == 25
    assert set(known.secrets) <= known.names
