"""What a plan means: the filters of migrations."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError

from filter_plugins.migrations import FilterModule
from plugin_utils.application.migrations import careful_migrate, migrations_judgement, migrations_known


def about(name: str, verdict: str, why: str = "a reason", locks: str = "") -> dict[str, Any]:
    operation = {"kind": "X", "model": "m", "detail": "d", "verdict": verdict, "why": why, "locks": locks}
    return {"app": "zerver", "name": name, "atomic": True, "operations": [operation], "verdict": verdict}


def plan(*pending: dict[str, Any], missing: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"pending": list(pending), "missing": list(missing), "applied_unknown": [], "applied": {}}


HARMLESS, GONE, CODE = about("0003_a", "expand"), about("0004_b", "breaks", "drops it"), about("0005_c", "unknown")


def test_nothing_and_what_is_harmless_may_roll() -> None:
    assert migrations_judgement(plan()) == {
        "rolling": True,
        "migrations": [],
        "breaking": [],
        "unknown": [],
        "why": {},
        "locks": [],
        "text": "no migrations",
        "allow": "",
        "refusal": "",
    }
    found = migrations_judgement(plan(HARMLESS))
    assert (found["rolling"], found["text"]) == (True, "older code can live with zerver.0003_a")


def test_what_breaks_and_what_nobody_knows_may_not_and_is_named() -> None:
    found = migrations_judgement(plan(HARMLESS, GONE, CODE))
    assert not found["rolling"]
    assert (found["breaking"], found["unknown"]) == (["zerver.0004_b"], ["zerver.0005_c"])
    assert found["why"] == {"zerver.0004_b": "drops it", "zerver.0005_c": "a reason"}
    assert found["text"] == (
        "older code cannot live with zerver.0004_b (drops it); "
        "nobody knows whether older code can live with zerver.0005_c (a reason)"
    )
    assert found["allow"] == '"{app_migrations_rolling: [zerver.0004_b, zerver.0005_c]}"'
    assert "strategy=offline" in found["refusal"]
    assert f"-e {found['allow']}" in found["refusal"]
    assert "\n" not in found["refusal"]


def test_what_the_operator_was_told_to_pass_is_enough() -> None:
    found = migrations_judgement(plan(HARMLESS, GONE, CODE))
    # As the shell hands it to Ansible: a list, which the inventory's checks insist on.
    operator = yaml.safe_load(*shlex.split(found["allow"]))["app_migrations_rolling"]
    assert operator == ["zerver.0004_b", "zerver.0005_c"]
    assert migrations_judgement(plan(HARMLESS, GONE, CODE), migrations_known({}, operator))["rolling"]


@pytest.mark.parametrize(
    ("contract", "operator", "rolling"),
    [
        ({"rolling": ["zerver.0004_*", "zerver.0005_c"]}, [], True),
        ({"rolling": ["zerver.0004_*"]}, [], False),
        ({"rolling": ["zerver.*"], "offline": ["zerver.0003_a"]}, [], False),
        ({"offline": ["zerver.0003_a"]}, ["zerver.000?_?"], True),
        (None, None, False),
        ({}, ["confirmation.*"], False),
    ],
)
def test_the_operator_has_the_last_word_and_offline_goes_before_rolling(
    contract: Any, operator: Any, rolling: bool
) -> None:
    known = migrations_known(contract, operator)
    assert migrations_judgement(plan(HARMLESS, GONE, CODE), known)["rolling"] is rolling


def test_what_the_contract_says_is_the_reason() -> None:
    found = migrations_judgement(plan(HARMLESS), migrations_known({"offline": ["zerver.0003_a"]}))
    assert found["why"] == {"zerver.0003_a": "the contract says so"}


def test_a_migration_that_the_release_does_not_have_is_unknown() -> None:
    found = migrations_judgement(plan(missing=("zerver.0009_x",)))
    assert (found["rolling"], found["unknown"]) == (False, ["zerver.0009_x"])
    assert migrations_judgement(plan(missing=("zerver.0009_x",)), {"operator": ["zerver.0009_x"]})["rolling"]


def test_a_long_list_is_cut_in_the_line_alone() -> None:
    found = migrations_judgement(plan(*(about(f"{number:04}_x", "unknown") for number in range(9))))
    assert found["text"].endswith("zerver.0004_x (a reason) and 4 more")
    assert found["allow"].endswith('zerver.0008_x]}"')


def test_what_users_wait_for_is_handed_on() -> None:
    found = migrations_judgement(plan(about("0006_d", "expand", locks="x takes no writes")))
    assert found["locks"] == ["zerver.0006_d: x takes no writes"]


def test_a_plan_that_nobody_could_make_holds_up_nothing() -> None:
    found = migrations_judgement({})
    assert found["rolling"]
    assert "not on the host yet" in found["text"]


@pytest.mark.parametrize("pattern", ["zerver", "zerver.", ".0001"])
def test_a_pattern_that_names_no_migration_is_refused(pattern: str) -> None:
    with pytest.raises(AnsibleFilterError, match="names no migration, which is APP.NAME"):
        migrations_known({}, [pattern])


def test_the_command_of_the_contract_is_run_by_the_program() -> None:
    command = ["{python}", "{deployment}/manage.py", "migrate", "--no-input"]
    assert careful_migrate(command, "3s") == ["{python}", "-", "--lock-timeout=3s", "--", *command[1:]]
    with pytest.raises(AnsibleFilterError, match="has to be {python} and a script"):
        careful_migrate(["sh", "-c", "x"], "3s")


def test_all_of_it_can_be_had_as_filters() -> None:
    assert set(FilterModule().filters()) == {"migrations_known", "migrations_judgement", "careful_migrate"}
