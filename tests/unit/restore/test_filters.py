"""Filters of restores: what is refused before any host is contacted, where one stands, what speaks against it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from filter_plugins import postgresql_upgrade as upgrade
from filter_plugins import restore

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
TYPED: dict[str, Any] = {
    "what": "database",
    "site": "chat",
    "backup_hosts": ["mon1"],
    "database_hosts": ["db1", "db2"],
    "uploads_backend": "local",
    "realm": None,
}
GIVEN: dict[str, Any] = {"what": "database", "to": "latest", "version": 15, "repository": "", "set": ""}
CHOSEN: dict[str, Any] = {
    "repo": 1,
    "place": "mon1",
    "set": "20261125-023000F",
    "stop": "2026-11-25T02:31:00+00:00",
    "database_bytes": 10 << 30,
    "reaches": "2026-11-25T11:59:30+00:00",
    "earliest": "2026-11-01T02:31:00+00:00",
    "system_id": "77",
    "version": 15,
    "annotations": {"release": "12.1"},
}
CLUSTER = [{"name": "db1", "role": "replica"}, {"name": "db2", "role": "leader"}]


def look(marker: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    data = {"marker": {}, "there": True, "running": True, "system_id": "77", "free": 50 << 30, "aside": []}
    deployed = changes.pop("deployed", 15)
    return {"major": {"marker": marker or {}, "deployed": deployed}, "restore": data | changes}


def looks(marker: dict[str, Any] | None = None, **changes: Any) -> dict[str, dict[str, Any]]:
    return {"db1": look(marker, **changes), "db2": look(marker, **changes)}


def state(**changes: Any) -> dict[str, Any]:
    return restore.restore_state(looks(), GIVEN, CLUSTER) | {"chosen": CHOSEN} | changes


@pytest.mark.parametrize(
    ("typed", "word"),
    [
        ({}, ""),
        ({"to": "2026-11-25T11:00:00Z"}, ""),
        ({"to": "2026-11-25 13:00:00+02:00"}, ""),
        ({"to": "name:20261125T110000Z-upgrade"}, ""),
        ({"what": ""}, "say what to restore"),
        ({"what": "all"}, "not all"),
        ({"to": "yesterday"}, "latest, a time with its zone"),
        ({"to": "2026-11-25T11:00:00"}, "with its zone"),
        ({"to": "2026-11-26T11:00:00Z"}, "in the future"),
        ({"to": "name:a b"}, "names no restore point"),
        ({"repository": "5"}, "repository is"),
        ({"repository": "4", "set": "20261125-023000F_20261125-083000I"}, ""),
        ({"set": "newest"}, "label of a backup"),
        ({"confirm": "other"}, "-e confirm=chat"),
        ({"confirm": "chat"}, ""),
        ({"limit": "db1"}, "--limit"),
        ({"leader": "app1"}, "leader=app1"),
        ({"backup_hosts": []}, "no backup host"),
        ({"what": "uploads", "to": "name:x"}, "database's"),
        ({"what": "uploads", "uploads_backend": "s3"}, "S3"),
        ({"what": "table"}, "say which table"),
        ({"what": "table", "table": "a; drop"}, "not a; drop"),
        ({"what": "table", "table": "zulip.zerver_message"}, ""),
        ({"what": "organization"}, "say which organisation"),
        ({"what": "organization", "realm": ""}, ""),
        ({"what": "organization", "realm": "a_b"}, "say which organisation"),
        ({"action": "undo"}, "action is"),
        ({"action": "back"}, "confirm=chat"),
        ({"action": "back", "confirm": "chat", "what": ""}, ""),
        ({"action": "forget_old", "what": ""}, ""),
    ],
)
def test_what_is_typed(typed: dict[str, Any], word: str) -> None:
    problem = restore.restore_options_problem(TYPED | typed, NOW)
    assert word in problem if word else problem == ""
    assert "\n" not in problem


def test_a_target_is_in_utc() -> None:
    assert restore.restore_target("2026-11-25 13:00:00+02:00") == "2026-11-25T11:00:00+00:00"
    assert restore.restore_target("") == "latest"
    assert restore.restore_target("name:x") == "name:x"


def test_the_name_has_to_be_the_sites() -> None:
    assert restore.restore_confirm_problem(" chat\n", "chat", "all is lost") == ""
    for typed in ("", None, "Chat"):
        assert "-e confirm=chat" in restore.restore_confirm_problem(typed, "chat", "all is lost")


def test_the_leader_leads_again_unless_told_otherwise() -> None:
    assert restore.restore_state(looks(), GIVEN, CLUSTER)["leader"] == "db2"
    assert restore.restore_state(looks(), GIVEN | {"leader": "db1"}, CLUSTER)["leader"] == "db1"
    assert restore.restore_state(looks(), GIVEN)["leader"] == "db1"


@pytest.mark.parametrize(
    ("seen", "given", "word"),
    [
        (looks(), {}, ""),
        (looks(), {"version": 17}, "db1 runs PostgreSQL 15"),
        (looks(deployed=0, there=False, system_id=""), {}, "what=site"),
        (looks(deployed=0, there=False, system_id=""), {"what": "site"}, ""),
        (looks(), {"what": "site"}, "empty hosts"),
        (looks({"phase": "stopped", "from": 15, "to": 17, "serial": 1}), {}, "upgrade of PostgreSQL"),
        (looks({"phase": "complete", "from": 15, "to": 17, "serial": 1}), {}, "action=commit"),
        (looks({"phase": "prepared", "from": 15, "to": 17, "serial": 1}), {}, ""),
    ],
)
def test_hosts_that_are_not_those_of_such_a_restore(seen: Any, given: dict[str, Any], word: str) -> None:
    problem = restore.restore_state(seen, GIVEN | given, CLUSTER)["problem"]
    assert word in problem if word else problem == ""


def begun(phase: str, **changes: Any) -> dict[str, Any]:
    kept = {"what": "database", "to": "latest", "leader": "db2", "system_id": "77", "chosen": CHOSEN, "serial": 3}
    return {"restore": kept | {"phase": phase, "repository": "", "set": ""} | changes}


def test_a_run_that_was_killed_goes_on_with_the_same_backup() -> None:
    seen = {"db1": look(begun("stopping", serial=2)), "db2": look(begun("stopped"))}
    found = restore.restore_state(seen, GIVEN)
    assert (found["phase"], found["leader"], found["chosen"], found["problem"]) == ("stopped", "db2", CHOSEN, "")
    assert restore.restore_due(found, "recovered")
    assert not restore.restore_due(found, "stopped")


def test_another_target_or_repository_asks_for_a_backup_anew_while_nothing_is_recovered() -> None:
    for given in ({"to": "2026-11-25T11:00:00+00:00"}, {"repository": "2"}, {"set": "20261124-023000F"}):
        found = restore.restore_state(looks(begun("stopped")), GIVEN | given)
        assert (found["chosen"], found["problem"]) == ({}, "")
    found = restore.restore_state(looks(begun("recovered")), GIVEN | {"to": "2026-11-25T11:00:00+00:00"})
    assert "finish it" in found["problem"]
    assert "finish it" in restore.restore_state(looks(begun("stopped")), GIVEN | {"what": "site"})["problem"]


def test_the_marker_keeps_what_the_next_run_needs() -> None:
    reached = restore.restore_reach(state(), "stopped", {"aside": "/x"})
    again = restore.restore_state(looks({"restore": reached["marker"] | {"repository": "", "set": ""}}), GIVEN)
    assert again["phase"] == "stopped"
    assert again["chosen"] == CHOSEN
    assert again["marker"]["aside"] == "/x"
    assert again["marker"]["serial"] == 1


def test_nothing_is_due_before_a_restore_begins() -> None:
    assert not restore.restore_due(state(), "stopped")
    assert not restore.restore_due({"phase": "none"}, "serving")


def test_the_way_back() -> None:
    given = GIVEN | {"action": "back", "what": "", "to": ""}
    assert "nothing to go back to" in restore.restore_state(looks(), given, CLUSTER)["problem"]
    seen = {"db1": look(aside=["/var/lib/postgresql/15/main.before-20261125T110000Z"]), "db2": look()}
    found = restore.restore_state(seen, given, CLUSTER)
    assert (found["leader"], found["phase"], found["archived"], found["problem"]) == ("db1", "none", True, "")
    early = {"db1": look(begun("recovered")), "db2": look(begun("recovered"), aside=["/x.before-20261125T110000Z"])}
    found = restore.restore_state(early, given)
    assert (found["leader"], found["phase"], found["archived"]) == ("db2", "none", False)
    marker = restore.restore_reach(found, "stopped")["marker"]
    again = restore.restore_state(looks({"restore": marker}), given)
    assert (again["phase"], again["archived"], again["leader"], again["problem"]) == ("stopped", False, "db2", "")
    assert "going back" in restore.restore_state(looks({"restore": marker}), GIVEN)["problem"]


def test_what_is_asked_of_the_backups() -> None:
    words = restore.restore_choose_words(state(), GIVEN | {"repository": "2", "set": "20261125-023000F"})
    assert words == ["--json", "--to=latest", "--version=15", "--repo=2", "--set=20261125-023000F", "--system-id=77"]
    assert "--system-id=77" not in restore.restore_choose_words(state(), GIVEN | {"other_cluster": True})
    assert restore.restore_choose_words({}, GIVEN) == ["--json", "--to=latest", "--version=15"]


@pytest.mark.parametrize(
    ("changes", "given", "release", "word"),
    [
        ({}, {}, "12.1", ""),
        ({"free": 12 << 30}, {}, "12.1", "GiB free"),
        ({"free": 12 << 30, "phase": "stopped"}, {}, "12.1", ""),
        ({}, {"factor": "1000000"}, "12.1", "db2 has 50.0 GiB free"),
        ({}, {"version": 17}, "12.1", "PostgreSQL 15, not 17"),
        ({}, {}, "12.0", "deploy 12.1"),
        ({}, {"any_release": True}, "12.0", ""),
        ({}, {}, "12.10", ""),
        ({}, {}, "", ""),
    ],
)
def test_what_speaks_against_it(changes: dict[str, Any], given: dict[str, Any], release: str, word: str) -> None:
    found = "; ".join(restore.restore_problems(state(**changes), CHOSEN, GIVEN | given, release))
    assert word in found if word else found == ""


def test_a_site_that_still_writes() -> None:
    assert restore.restore_seems_alive(CHOSEN, "2026-11-25T12:01:00+00:00")
    assert not restore.restore_seems_alive(CHOSEN, "2026-11-25T12:10:00+00:00")
    assert not restore.restore_seems_alive({"reaches": None})


def test_the_plan_says_what_is_lost() -> None:
    text = "\n".join(restore.restore_table(state(to="2026-11-25T11:00:00+00:00"), CHOSEN, "/data", "chat"))
    assert "what was written since 2026-11-25T11:00:00+00:00" in text
    assert "20261125-023000F in repository 1 (mon1)" in text
    assert "10.00 GiB" in text
    assert "empty" in "\n".join(restore.restore_table(state(what="site"), CHOSEN, "/data", "chat"))


def test_the_figures() -> None:
    marker = {
        "down_since": int(datetime(2026, 11, 25, 12, 0, tzinfo=UTC).timestamp()),
        "up_at": int(datetime(2026, 11, 25, 12, 5, tzinfo=UTC).timestamp()),
        "fetched": {"bytes": 10 << 30, "seconds": 100.0, "bytes_per_second": 107374182},
        "recovered": {"seconds": 7.5, "bytes": 1 << 20, "last_time": "2026-11-25T11:59:48+00:00", "timeline": 2},
        "aside": "/old",
    }
    found = restore.restore_figures(state(marker=marker))
    assert (found["rpo_seconds"], found["seconds_without_service"]) == (12.0, 300)
    text = "\n".join(restore.restore_words(state(marker=marker), "9, the newest of today", ["zerver.0700_x"]))
    for word in ("12.0 s", "107 MB/s", "9, the newest", "/old on db2", "zerver.0700_x", "timeline 2"):
        assert word in text
    assert "is gone" in "\n".join(restore.restore_words(state(what="back", marker=marker)))


def test_queues_that_are_purged() -> None:
    listed = [
        {"name": "notify_tornado", "messages": 2},
        {"name": "embed_links", "messages": 1},
        {"name": "x", "messages": 1},
    ]
    assert restore.restore_purged(listed, ["notify_tornado"], []) == ["notify_tornado"]
    assert restore.restore_purged(listed, ["notify_tornado"], ["embed_links"]) == ["embed_links", "notify_tornado"]


def test_the_last_line_of_a_program_is_the_refusal() -> None:
    assert restore.restore_refusal("<4>first\n<3>it is full\n") == "it is full"
    assert restore.restore_refusal("", "unreachable") == "unreachable"


def test_other_verbs_keep_away_meanwhile() -> None:
    guarded = upgrade.major_guard(
        '{"restore": {"what": "database", "to": "latest", "phase": "stopped"}}\n--\n15', 15, "db1"
    )
    assert "restore.yml -e what=database -e to=latest" in guarded
    seen = {"db1": {"marker": begun("stopped"), "deployed": 15}}
    found = upgrade.major_state(seen, {"action": "upgrade", "to": 17, "mode": "", "version": 15}, CLUSTER)
    assert "under way" in found["problem"]


def test_networks() -> None:
    assert restore.restore_networks(["192.0.2.1", "fd00::1"]) == ["192.0.2.1/32", "fd00::1/128"]
