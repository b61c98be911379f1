"""What samplers see is joined without hiding a gap, and each way of being two at once is seen."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults import sampler, samples
from tests.faults.samples import judge, running_times, two_active, two_leaders

Line = dict[str, Any]


def look(node: str, begin: float, end: float, state: str) -> Line:
    return {"node": node, "from": begin, "to": end, "n": max(1, round((end - begin) * 10)), "state": state}


def commit(node: str, begin: float, timeline: int, took: float = 0.01) -> Line:
    return {"node": node, "from": begin, "to": begin + took, "timeline": timeline}


# --- two active hosts ------------------------------------------------------------------------------------------------


def test_a_move_without_overlap_is_right():
    lines = [
        look("app1", 0, 5, "active vip"),
        look("app1", 5.1, 9, ""),
        look("app2", 0, 5, ""),
        look("app2", 5.05, 9, "active"),
    ]
    assert two_active(lines) == []


def test_two_that_are_active_for_a_moment_are_seen():
    lines = [
        look("app1", 0, 5.3, "active"),
        look("app1", 5.4, 9, ""),
        look("app2", 0, 5, ""),
        look("app2", 5.1, 9, "active"),
    ]
    found = two_active(lines)
    assert [(one["nodes"], one["seconds"]) for one in found] == [(["app1", "app2"], 0.2)]


def test_a_single_look_counts_when_the_other_host_was_active_before_and_after_it():
    lines = [
        look("app1", 0, 9, "active"),
        look("app2", 0, 4, ""),
        look("app2", 4.1, 4.1, "active"),
        look("app2", 4.2, 9, ""),
    ]
    assert len(two_active(lines)) == 1
    # Between two of its looks nobody knows.
    lines[0] = look("app1", 0, 4.05, "active")
    assert two_active(lines) == []


def test_segments_that_touch_hide_nothing_between_them():
    lines = [look("app1", 0, 0.5, "active"), look("app1", 0.5, 1.0, "active"), look("app2", 0.5, 0.5, "active")]
    assert samples.segments(lines, "active")["app1"] == [(0, 1.0)]
    assert len(two_active(lines)) == 1


def thawed(active_for: float, frozen: float = 10.0) -> list[Line]:
    return [
        look("app1", 0, 5, "active"),
        look("app1", 5 + frozen, 5 + frozen + active_for, "active"),
        look("app1", 5.1 + frozen + active_for, 30, ""),
        look("app2", 0, 9, ""),
        look("app2", 9.1, 30, "active"),
    ]


def test_a_host_that_was_frozen_may_be_called_active_until_it_has_run():
    assert two_active(thawed(0.3)) == []
    found = two_active(thawed(0.7))
    assert [one["nodes"] for one in found] == [["app1", "app2"]]


def test_a_pause_that_cannot_have_cost_the_lease_excuses_nothing():
    lines = thawed(0.3, frozen=2.0)
    lines[4] = look("app2", 6.5, 30, "active")
    assert len(two_active(lines)) == 1


def test_virtual_ips_on_both_hosts_are_a_figure():
    lines = [look("app1", 0, 5, "vip"), look("app2", 4, 9, "active vip")]
    found = judge(lines, {})
    assert found["two_virtual_ips_seconds"] == 1.0
    assert found["violations"] == []


# --- two leaders -----------------------------------------------------------------------------------------------------


def test_commits_on_one_timeline_after_the_other_are_right():
    assert (
        two_leaders([commit("db1", n / 10, 1) for n in range(50)] + [commit("db2", 6 + n / 10, 2) for n in range(9)])
        == []
    )


def test_a_commit_of_the_old_leader_after_one_of_the_new_is_seen():
    lines = [commit("db1", 1, 1), commit("db2", 6, 2), commit("db1", 6.5, 1)]
    assert [(one["node"], one["newer"]) for one in two_leaders(lines)] == [("db1", 2)]
    assert judge(lines, {})["violations"] == ["db1 acknowledged a commit on timeline 1 after one on 2"]


def test_a_commit_that_was_asked_for_before_may_be_answered_late():
    """A host that was frozen reads its answer when it wakes; the commit was the old leader's by right."""
    assert two_leaders([commit("db1", 5.9, 1, took=20), commit("db2", 6, 2)]) == []


def test_two_leaders_on_one_timeline_are_seen():
    found = judge([commit("db1", 1, 3), commit("db2", 1.5, 3)], {})
    assert found["violations"] == ["db1 and db2 acknowledged commits on the same timeline 3"]


# --- whether anybody looked ------------------------------------------------------------------------------------------


def test_a_node_that_nobody_looked_at_proves_nothing():
    lines = [look("app1", 0, 100, "active")]
    assert judge(lines, {"app1": [(0, 100)]})["violations"] == []
    assert (
        "app2 was looked at for 0 s of 100 s" in judge(lines, {"app1": [(0, 100)], "app2": [(0, 100)]})["violations"][0]
    )
    assert "app1 was looked at for 100 s of 200 s" in judge(lines, {"app1": [(0, 200)]})["violations"][0]
    assert judge(lines, {"app1": []})["violations"]


def test_a_node_that_did_not_run_is_not_asked_for_looks():
    times = running_times(0, 100, ["db1", "db2"], [("db1", 20, 50), ("db1", 40, 60), ("db1", 95, 120)])
    assert times == {"db1": [(0, 20), (60, 95)], "db2": [(0, 100)]}


def test_overlapping_segments_count_once():
    lines = [look("a", 0, 10, ""), look("a", 5, 12, ""), look("a", 20, 30, "")]
    assert samples.seconds_seen(lines, "a", 1, 25) == 16


# --- the sampler itself ----------------------------------------------------------------------------------------------


@pytest.fixture
def put() -> list[Line]:
    return []


def test_equal_looks_become_one_segment_and_a_pause_ends_it(put: list[Line]):
    segments = sampler.Segments(lambda **line: put.append(line))
    for moment in (0.0, 0.1, 0.2, 1.0, 1.1):
        segments.add(moment, "active")
    segments.add(1.2, "")
    segments.close()
    assert [(one["from"], one["to"], one["n"], one["state"]) for one in put] == [
        (0.0, 0.2, 3, "active"), (1.0, 1.1, 2, "active"), (1.2, 1.2, 1, ""),
    ]  # fmt: skip


def test_a_long_segment_is_told_in_parts_that_touch(put: list[Line]):
    segments = sampler.Segments(lambda **line: put.append(line))
    for n in range(23):
        segments.add(n / 10, "x")
    segments.close()
    assert len(put) > 2
    assert all(a["to"] == b["from"] for a, b in zip(put, put[1:], strict=False))
    assert sum(one["n"] for one in put) == 23


def test_an_app_host_says_what_its_files_say(put: list[Line], monkeypatch: pytest.MonkeyPatch, tmp_path):
    monkeypatch.setattr(sampler, "ACTIVE", str(tmp_path / "active"))
    host = sampler.App("127.0.0.1")
    host.segments.put = lambda **line: put.append(line)
    host.look()
    (tmp_path / "active").touch()
    host.look()
    sampler.App("").look()
    host.local = "|-- 192.0.2.1\n"
    host.look()
    host.segments.close()
    assert [one["state"] for one in put] == ["vip", "active vip", "active"]


class FakeServer:
    """psycopg2 with one connection that answers what it is told to."""

    class Error(Exception):
        pass

    def __init__(self) -> None:
        self.answers: list[Any] = []
        self.closed = 0

    def connect(self, _: str) -> FakeServer:
        return self

    cursor = __enter__ = lambda self: self

    def __exit__(self, *_: object) -> None:
        pass

    def execute(self, _: str) -> None:
        self.answer = self.answers.pop(0)
        if isinstance(self.answer, Exception):
            raise self.answer

    def fetchone(self) -> tuple[Any]:
        return (self.answer,)

    def close(self) -> None:
        self.closed += 1


def test_a_database_host_says_what_it_acknowledged(put: list[Line], monkeypatch: pytest.MonkeyPatch):
    server = FakeServer()
    monkeypatch.setitem(__import__("sys").modules, "psycopg2", server)
    monkeypatch.setattr(sampler, "say", lambda **line: put.append(line))
    host = sampler.Database()
    host.segments.put = lambda **line: put.append(line)
    server.answers = ["", "0000000A", FakeServer.Error("terminated")]
    for _ in range(3):
        host.look()
    # It is asked again only after a while, on a new connection.
    host.look()
    host.segments.close()
    assert server.closed == 1
    assert [one["state"] for one in put if "state" in one] == ["standby", "writable", "down"]
    assert [one["timeline"] for one in put if "timeline" in one] == [10]


def test_a_commit_that_is_waited_for_is_no_time_in_which_nobody_looked(put: list[Line]):
    segments = sampler.Segments(lambda **line: put.append(line))
    segments.add(1.0, "writable")
    segments.waited(1.1, 9.0)
    segments.add(9.0, "writable")
    segments.close()
    assert [(one["state"], one["from"], one["to"]) for one in put][1] == ("waiting", 1.1, 9.0)
    segments.waited(9.1, 9.2)
    assert len(put) == 3
