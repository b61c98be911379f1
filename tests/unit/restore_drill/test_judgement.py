"""What a drill judges by, piece by piece."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.restore_drill.conftest import command, database, judgement, words

SEGMENT = 16 << 20
ALLOWED = {"percent": 1, "rows": 100, "volatile": ["queue"]}


@pytest.mark.parametrize(
    ("lsn", "timeline", "newest", "part"),
    [
        ("0/7000128", 1, "000000010000000000000007", ""),
        # After a switch the end is the first byte of the next segment.
        ("0/8000000", 1, "000000010000000000000007", ""),
        ("0/7000000", 1, "000000010000000000000007", "1 segments before"),
        ("0/9000000", 1, "000000010000000000000007", ""),
        ("0/6FFFFFF", 1, "000000010000000000000007", "1 segments before"),
        # Across the boundary of 4 GiB.
        ("1/00000001", 1, "000000010000000100000000", ""),
        ("0/FFFFFFFF", 1, "000000010000000100000000", "1 segments before"),
        ("0/7000128", 1, "000000020000000000000007", "timeline 1"),
        ("0/7000128", 3, "000000020000000000000007", ""),
    ],
)
def test_the_end_of_replay(lsn: str, timeline: int, newest: str, part: str) -> None:
    problem = judgement.end_problem(lsn, timeline, newest, SEGMENT)
    assert part in problem
    assert bool(problem) == bool(part)


def test_segments_of_another_size() -> None:
    assert judgement.end_problem("1/4000000", 1, "000000010000000100000001", 64 << 20) != ""
    assert judgement.end_problem("1/4000001", 1, "000000010000000100000001", 64 << 20) == ""


@pytest.mark.parametrize(("lsn", "newest"), [("x", "0" * 24), ("0/0", "short"), ("0/0", "z" * 24)])
def test_what_is_no_position(lsn: str, newest: str) -> None:
    with pytest.raises(words.DrillError):
        judgement.end_problem(lsn, 1, newest, SEGMENT)


@pytest.mark.parametrize(
    ("restored", "live", "wrong"),
    [
        ((50, 100), 100, False),
        # 100 rows in any case, one per cent where that is more.
        ((50, 100), 200, False),
        ((50, 100), 201, True),
        ((50, 100000), 101010, False),
        ((50, 100000), 101011, True),
        ((50, 101011), 100000, True),
        # Restored empty, no per cent help.
        ((None, 0), 100, False),
        ((None, 0), 101, True),
    ],
)
def test_rows(restored: tuple[int | None, int], live: int, wrong: bool) -> None:
    assert bool(judgement.judge_counts({"t": restored}, {"t": live}, [], ALLOWED).problems) is wrong


def test_queues_and_tables_that_are_gone_are_not_compared() -> None:
    counts = judgement.judge_counts({"queue": (1, 0), "dropped": (9, 9)}, {"queue": 9999}, [], ALLOWED)
    assert counts == ([], 2, 9)
    assert judgement.judge_counts({}, {}, ["b", "a"], ALLOWED).problems == ["a is missing", "b is missing"]


def test_names_are_quoted() -> None:
    text = database.live_query("zulip", 'it\'s "odd"', 5, 100)
    assert '"zulip"."it\'s ""odd"""' in text
    assert "'it''s \"odd\"'" in text
    assert "id <= 5" in text
    assert "LIMIT 101" in database.live_query("zulip", "t", None, 100)


@pytest.mark.parametrize(
    ("digest", "modified", "expected"),
    [("1", 0, ([], 1, 0)), ("2", 0, (["a"], 0, 0)), ("2", 100, ([], 0, 1)), ("1", 200, ([], 1, 0))],
)
def test_hashes(digest: str, modified: float, expected: Any) -> None:
    live = {"a": {"sha256": digest, "modified": modified}}
    assert judgement.judge_hashes({"a": "1"}, live, 100) == expected
    assert judgement.judge_hashes({"a": "1"}, {}, 100) == ([], 0, 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01T00:01:00Z", 60),
        ("1970-01-01T00:01:00.5+00:00", 60.5),
        ("1970-01-01T00:01:00.123456789Z", 60.123456),
        ("1970-01-01 00:01:00", 60),
        ("1970-01-01T01:01:00+01:00", 60),
        (60, 60),
    ],
)
def test_times(text: Any, expected: float) -> None:
    assert words.timestamp(text) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["", "soon", None])
def test_what_is_no_time(text: Any) -> None:
    with pytest.raises(words.DrillError):
        words.timestamp(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\n<3>WARN: x\n<3>ERROR: y\nHINT: z\n", "ERROR: y"),
        ("psql: error: no\n  ^\n", "psql: error: no"),
        ("one\ntwo\n", "two"),
        ("", ""),
    ],
)
def test_the_line_that_says_why(text: str, expected: str) -> None:
    assert words.one_line(text) == expected


def test_keys_of_objects_however_they_are_listed() -> None:
    inventory = {"bucket": "b", "objects": [{"key": "a", "size": 1}, {"key": "b"}]}
    assert sorted(judgement.object_keys(inventory)) == ["a", "b"]
    assert sorted(judgement.object_keys(json.loads('[{"key": "c"}]'))) == ["c"]


def test_a_program_that_prints_something_else() -> None:
    with pytest.raises(words.DrillError, match="printed no JSON: 'oops'"):
        command.parsed("oops", "it")
