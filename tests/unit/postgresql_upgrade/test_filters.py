"""Filters of major upgrades: where one stands, what speaks against it, the way back, and the guard."""

from __future__ import annotations

import json
from typing import Any

import pytest

from filter_plugins import postgresql_upgrade as major

GIVEN: dict[str, Any] = {"action": "upgrade", "to": 17, "mode": "", "version": 15}
CLUSTER = [{"name": "db1", "role": "sync_standby"}, {"name": "db2", "role": "leader"}]
MARKER: dict[str, Any] = {
    "from": 15,
    "to": 17,
    "mode": "copy",
    "leader": "db2",
    "standby": "db1",
    "initdb": [],
    "size": 1 << 30,
    "serial": 4,
}


def look(**changes: Any) -> dict[str, Any]:
    """What `postgresql_major look` says of a host that runs 15 and has the packages of 17."""
    clusters = {
        "15": {"there": True, "programs": True, "bytes": 10 << 30, "extensions": ["plpgsql"]},
        "17": {"there": False, "programs": True, "bytes": 0, "extensions": ["plpgsql"]},
    }
    return {"marker": {}, "deployed": 15, "free": 50 << 30, "candidate": "17.1", "clusters": clusters} | changes


def looks(**changes: Any) -> dict[str, dict[str, Any]]:
    return {"db1": look(**changes), "db2": look(**changes)}


def at(phase: str, **changes: Any) -> dict[str, Any]:
    """A state at a phase, as major_state returns it."""
    marker = MARKER | {"phase": phase} | changes
    return major.major_state(looks(marker=marker), GIVEN | {"mode": marker["mode"]}, CLUSTER)


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"to": "17"}, ""),
        ({"to": "17", "mode": "link"}, ""),
        ({}, "say to which"),
        ({"to": "9.6"}, "major version"),
        ({"to": "17", "mode": "fast"}, "mode is copy, clone or link"),
        ({"to": "17", "limit": "db1"}, "--limit"),
        ({"action": "undo"}, "action is"),
        ({"action": "commit"}, ""),
        ({"action": "rollback"}, "confirm=chat"),
        ({"action": "rollback", "confirm": "other"}, "throws away"),
        ({"action": "rollback", "confirm": "chat"}, ""),
    ],
)
def test_options(given: dict[str, Any], word: str) -> None:
    problem = major.major_options_problem({"site": "chat", **given})
    assert word in problem if word else problem == ""
    assert "\n" not in problem


def test_a_fresh_state_follows_the_leader() -> None:
    state = major.major_state(looks(), GIVEN, CLUSTER)
    assert (state["phase"], state["from"], state["to"], state["mode"]) == ("none", 15, 17, "copy")
    assert state["leader"] == "db2"
    assert state["problem"] == ""


@pytest.mark.parametrize(
    ("found", "given", "word"),
    [
        ({"db1": look(deployed=0), "db2": look()}, {}, "db1 has no database"),
        ({"db1": look(deployed=14), "db2": look()}, {}, "do not agree"),
        (looks(), {"to": 15}, "on version 15 already"),
        (looks(), {"action": "commit"}, "no upgrade to commit"),
        (looks(), {"action": "rollback"}, "no upgrade to go back from"),
    ],
)
def test_what_cannot_begin(found: dict[str, Any], given: dict[str, Any], word: str) -> None:
    assert word in major.major_state(found, GIVEN | given, CLUSTER)["problem"]


@pytest.mark.parametrize(
    ("phase", "given", "word"),
    [
        ("stopped", {}, ""),
        ("stopped", {"to": 18}, "is not committed"),
        ("stopped", {"mode": "link"}, "is not committed"),
        ("stopped", {"action": "commit"}, "not complete"),
        ("stopped", {"action": "rollback"}, ""),
        ("complete", {"action": "commit"}, "set postgresql_version: 17"),
        ("complete", {"action": "commit", "version": 17}, ""),
        ("rolling_back", {}, "finish that first with -e action=rollback"),
        ("rolling_back", {"action": "rollback"}, ""),
        ("committing", {"action": "rollback"}, "finish that first with -e action=commit"),
        ("committing", {"action": "commit", "version": 17}, ""),
    ],
)
def test_what_was_begun(phase: str, given: dict[str, Any], word: str) -> None:
    problem = major.major_state(looks(marker=MARKER | {"phase": phase}), GIVEN | given, CLUSTER)["problem"]
    assert word in problem if word else problem == ""


def test_the_marker_that_is_furthest_counts() -> None:
    found = {
        "db1": look(marker=MARKER | {"phase": "stopped", "serial": 3}),
        "db2": look(marker=MARKER | {"phase": "upgraded", "serial": 4}),
    }
    assert major.major_state(found, GIVEN, CLUSTER)["phase"] == "upgraded"


def test_the_leader_may_move_before_anything_was_stopped() -> None:
    assert at("prepared", leader="db1")["leader"] == "db2"
    assert at("stopped", leader="db1")["leader"] == "db1"


def test_nothing_speaks_against_a_whole_site() -> None:
    state = major.major_state(looks(), GIVEN, CLUSTER)
    survey = {"extensions": ["plpgsql"], "tablespaces": [], "slots": [], "prepared": 0}
    assert major.major_problems(state, looks(), survey, {"minimum": 14, "maximum": 17}) == []
    assert major.major_problems(state, looks(), survey, None) == []


def test_what_speaks_against_it() -> None:
    found = looks(free=5 << 30, candidate="")
    found["db1"]["clusters"] = {
        "15": look()["clusters"]["15"],
        "17": {"there": True, "programs": False, "bytes": 0, "extensions": []},
    }
    state = major.major_state(found, GIVEN | {"mode": "link"}, CLUSTER)
    survey = {"extensions": ["plpgsql", "pgroonga"], "tablespaces": ["fast"], "slots": ["cdc"], "prepared": 2}
    said = "; ".join(major.major_problems(state, found, survey, {"minimum": 14, "maximum": 16}, ["db1 is stopped"]))
    for word in (
        "not whole: db1 is stopped",
        "supports PostgreSQL 14 to 16, not 17",
        "db1 has no package postgresql-17",
        "db1 has data in /var/lib/postgresql/17/main",
        "db2 lacks for PostgreSQL 17 the extensions pgroonga",
        "tablespaces (fast)",
        "replication slots (cdc)",
        "2 prepared",
        "db1 has 5.0 GiB free below /var/lib/postgresql and needs 12.0",
    ):
        assert word in said
    # The leader links, so that it needs none.
    assert "db2 has 5.0" not in said


def test_link_needs_a_replica() -> None:
    found = {"db2": look()}
    state = major.major_state(found, GIVEN | {"mode": "link"}, CLUSTER[1:])
    assert "no way back" in major.major_problems(state, found, {}, None)[0]


def test_the_estimate_says_how() -> None:
    state = major.major_state(looks(), GIVEN, CLUSTER)
    measured = major.major_estimate(state, {"relations": 1000}, 10 << 30, 500e6)
    assert "measured just now" in measured["how"]
    assert measured["seconds"] == pytest.approx(major.FIXED_SECONDS + 7 + 21, abs=1)
    assumed = major.major_estimate(state, {"relations": 1000}, 10 << 30, 0)
    assert "assumed" in assumed["how"]
    linked = major.major_estimate(state | {"mode": "link"}, {"relations": 1000}, 10 << 30, 0)
    assert linked["seconds"] == major.FIXED_SECONDS + 7
    assert any("about" in line for line in major.major_table(state, measured, "passed"))


DOWN = {"system": "1", "checkpoint": "0/5", "timeline": "1", "state": "shut down"}
FOLLOWED = DOWN | {"state": "shut down in recovery"}


@pytest.mark.parametrize(
    ("controls", "standby", "word"),
    [
        ({"db2": DOWN, "db1": FOLLOWED}, "db1", ""),
        ({"db2": DOWN}, "", ""),
        ({"db2": DOWN, "db1": FOLLOWED | {"checkpoint": "0/4"}}, "", "db1 stands at 0/4"),
        ({"db2": DOWN, "db1": {}}, "", "db1 stands at nothing (unknown)"),
        ({"db2": DOWN, "db1": FOLLOWED, "db3": FOLLOWED | {"system": "2"}}, "db1", "db3 stands"),
        ({"db2": DOWN | {"state": "in production"}, "db1": FOLLOWED}, "", "did not shut down cleanly"),
        ({}, "", "did not shut down cleanly (unknown)"),
    ],
)
def test_the_replicas_have_all(controls: dict[str, dict[str, str]], standby: str, word: str) -> None:
    found = major.major_stopped(at("stopping"), controls)
    assert found["standby"] == standby
    assert word in found["problem"] if word else found["problem"] == ""


def test_controls_come_from_either_task() -> None:
    said = {"stdout": json.dumps({"control": {"15": DOWN, "17": {}}})}
    hosts = {
        "db1": {"__postgresql_major_followed": said, "__postgresql_major_control": {"skipped": True}},
        "db2": {"__postgresql_major_control": said},
        "db3": {},
    }
    assert major.major_controls(hosts, ["db1", "db2", "db3"], 15) == {"db1": DOWN, "db2": DOWN, "db3": {}}


def test_phases_are_reached_in_order() -> None:
    state = major.major_state(looks(), GIVEN, CLUSTER)
    for serial, phase in enumerate(major.PHASES[1:], start=1):
        state = major.major_reach(state, phase, {"down_since": 5} if phase == "stopping" else {})
        assert state["marker"]["serial"] == serial
        assert state["phase"] == state["marker"]["phase"] == phase
    assert state["marker"]["down_since"] == 5
    back = major.major_reach(state, "rolling_back")
    assert back["marker"]["reached"] == "complete"
    assert major.major_reach(back, "rolling_back", {"back": True})["marker"]["reached"] == "complete"


@pytest.mark.parametrize(
    ("mode", "reached", "host"),
    [
        ("copy", "complete", "db2"),
        ("clone", "complete", "db2"),
        ("link", "stopped", "db2"),
        ("link", "upgraded", "db1"),
        ("link", "complete", "db1"),
    ],
)
def test_who_leads_after_a_rollback(mode: str, reached: str, host: str) -> None:
    state = major.major_reach(at(reached, mode=mode), "rolling_back")
    assert major.major_back(state) == host


def test_what_is_due() -> None:
    due = {
        phase: [later for later in ("stopped", "upgraded", "serving") if major.major_due(at(phase), later)]
        for phase in ("none", "stopping", "stopped", "upgraded", "switched", "serving", "complete", "rolling_back")
    }
    assert due == {
        "none": [],
        "stopping": ["stopped", "upgraded", "serving"],
        "stopped": ["upgraded", "serving"],
        "upgraded": ["serving"],
        "switched": ["serving"],
        "serving": [],
        "complete": [],
        "rolling_back": [],
    }
    assert not major.major_due(at("stopped") | {"action": "rollback"}, "upgraded")


@pytest.mark.parametrize(
    ("phase", "out", "into"),
    [
        ("prepared", False, False),
        ("stopping", True, False),
        ("switched", True, False),
        ("serving", False, True),
        ("complete", False, False),
    ],
)
def test_users_are_sent_away_and_let_in(phase: str, out: bool, into: bool) -> None:
    assert (major.major_users(at(phase), False), major.major_users(at(phase), True)) == (out, into)


def test_users_and_a_rollback() -> None:
    state = major.major_reach(at("complete"), "rolling_back")
    assert (major.major_users(state, False), major.major_users(state, True)) == (True, True)
    served = major.major_reach(state, "rolling_back", {"back": True})
    assert (major.major_users(served, False), major.major_users(served, True)) == (False, True)
    early = major.major_reach(at("prepared"), "rolling_back")
    assert not major.major_users(early, False)
    assert not major.major_users(at("complete") | {"action": "commit"}, False)


def test_words() -> None:
    words = major.major_words(at("complete", down_since=100, up_at=160))
    assert "60 s" in words[0]
    assert any("postgresql_version: 17" in line for line in words)
    assert any("stanza-upgrade" in line for line in words)
    assert "keep postgresql_version: 15" in major.major_words(at("rolling_back"))[0]
    assert "no way back" in major.major_words(at("complete") | {"action": "commit"})[0]
    assert major.major_words(at("stopped")) == ["stands at stopped"]


@pytest.mark.parametrize(
    ("marker", "there", "version", "word"),
    [
        ({}, "", 17, ""),
        ({}, "15", 15, ""),
        ({}, "15", 17, "upgrade with playbooks/postgresql_upgrade.yml -e to=17"),
        ({}, "17", 15, "set postgresql_version: 17"),
        (MARKER | {"phase": "complete"}, "17", 15, "was upgraded to PostgreSQL 17"),
        (MARKER | {"phase": "complete"}, "17", 17, ""),
        (MARKER | {"phase": "prepared"}, "15", 15, ""),
        (MARKER | {"phase": "stopped"}, "15", 15, "stands at stopped"),
        (MARKER | {"phase": "serving"}, "17", 17, "stands at serving"),
        (MARKER | {"phase": "rolling_back"}, "17", 17, "-e action=rollback"),
    ],
)
def test_the_guard(marker: dict[str, Any], there: str, version: int, word: str) -> None:
    problem = major.major_guard(f"{json.dumps(marker, indent=1)}\n--\n{there}", version, "db1")
    assert word in problem if word else problem == ""
    assert "\n" not in problem


def test_the_guard_survives_a_broken_marker() -> None:
    assert major.major_guard("{\n--\n15", 15, "db1") == ""
    assert "db1" in major.major_guard("{\n--\n15", 17, "db1")
