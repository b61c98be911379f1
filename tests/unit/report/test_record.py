"""The report of a run: how it grows, how it looks, and that nothing in it is taken for HTML."""

from __future__ import annotations

import html.parser
from datetime import UTC, datetime, timedelta

import pytest

from plugin_utils.report import page, record

START = datetime(2026, 11, 23, 21, 0, 0, tzinfo=UTC)
EVIL = "<script>alert('x')</script>\"&"


def at(seconds):
    return START + timedelta(seconds=seconds)


@pytest.fixture
def begun():
    return record.report_begin("upgrade", "chat", "/reports", ["app1"], now=START)


@pytest.fixture
def full(begun):
    report = record.report_with(
        begun, {"from": "12.0", "to": "12.1", "strategy": "rolling", "restore_point": "before-12.1"}
    )
    report = record.report_phase(report, "migrate", now=at(1))
    report = record.report_phase(report, "move", now=at(120))
    return record.report_with(
        report,
        {
            "migrations": [{"app": "zerver", "name": "0700_x", "kind": "expand"}, "zerver.0701_y"],
            "moves": [{"what": "app", "from": "app1", "to": "app2", "stall_seconds": 0.42}],
            "changes": {"app1": ["/etc/a.conf"]},
            "errors": {
                "app1": {"/l": {"bytes": 99, "cut": True, "entries": 3, "groups": [{"count": 3, "text": "E [x] boom"}]}}
            },
        },
    )


def test_a_run_that_begins_is_unfinished(begun):
    assert begun["name"] == "20261123T210000Z-upgrade"
    assert begun["directory"] == "/reports/20261123T210000Z-upgrade"
    assert (begun["result"], begun["began"], begun["ended"]) == ("unfinished", "2026-11-23T21:00:00Z", "")
    assert record.report_begin("upgrade", "chat", "", [])["directory"] == ""


def test_a_phase_ends_the_one_before_it(full):
    first, second = full["phases"]
    assert (first["name"], first["ended"], first["seconds"]) == ("migrate", "2026-11-23T21:02:00Z", 119)
    assert (second["name"], second["ended"]) == ("move", "")


def test_a_phase_that_comes_by_again_goes_on(full):
    again = record.report_phase(full, "move", now=at(500))
    assert again["phases"] == full["phases"]
    ended = record.report_phase(again, "move", ends=True, now=at(130))
    assert [phase["seconds"] for phase in ended["phases"]] == [119, 10]
    assert len(record.report_phase(ended, "move", now=at(140))["phases"]) == 3


def test_nothing_changes_what_was_given(full):
    before = record.plain(full)
    record.report_with(full, {"notes": "x", "changes": {"b": []}})
    record.report_phase(full, "other")
    record.report_end(full)
    assert full == before


def test_facts_are_added(begun):
    report = record.report_with(begun, {"hosts": ["app2", "app1"], "notes": "one", "errors": {"a": 1}, "own": {"x": 1}})
    report = record.report_with(report, {"errors": {"b": 2}, "own": {"y": 2}})
    assert report["hosts"] == ["app1", "app2"]
    assert report["notes"] == ["one"]
    assert report["errors"] == {"a": 1, "b": 2}
    assert report["own"] == {"x": 1, "y": 2}
    assert record.report_with(begun, None) == begun


def test_the_end(full):
    over = record.report_end(full, "ok", " all well\n", now=at(180))
    assert (over["result"], over["message"], over["seconds"]) == ("ok", "all well", 180)
    assert over["phases"][-1]["seconds"] == 60


def test_a_failure_stays_one(full):
    failed = record.report_end(full, "failed", "no", now=at(1))
    assert record.report_end(failed, "ok", "yes")["result"] == "failed"
    assert record.report_end(failed, "ok", "yes")["message"] == "no"


def test_the_line_of_the_log(full):
    line = record.report_line({**full, "by": "iago@c1"}, "begins phase migrate", now=START)
    assert line == "2026-11-23T21:00:00Z upgrade 12.0 -> 12.1 begins phase migrate (by iago@c1)"
    assert "\n" not in record.report_line(full, "two\nlines\x1b")
    assert " -> " not in record.report_line({**full, "from": "", "to": ""}, "begins")


def test_changes_are_read_back(tmp_path):
    lines = ['{"host": "b", "files": ["/2", "/1"]}', '{"host": "b", "files": ["/1"]}', '{"host": "a", "files": ["/3"]}']
    (tmp_path / record.CHANGES).write_text("\n".join([*lines, '{"host": "a", "fi']))
    assert record.report_changes(str(tmp_path)) == {"a": ["/3"], "b": ["/1", "/2"]}
    assert record.report_changes(str(tmp_path / "none")) == {}
    assert record.report_changes("") == {}


def test_what_managed_files_wrote():
    files = {"/a": "created", "/b": "unchanged", "/c": "removed", "/d": "kept", "/e": "changed"}
    assert record.changed_files({"files": files}) == ["/a", "/c", "/e"]
    assert record.changed_files({"files": ["x"]}) == []


class Tags(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.links = set(), []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]


def fill(value, word):
    """Put a word into every text of a report."""
    if isinstance(value, dict):
        return {word + key if key in ("app1", "/l") else key: fill(entry, word) for key, entry in value.items()}
    if isinstance(value, list):
        return [fill(entry, word) for entry in value]
    return value + word if isinstance(value, str) else value


def test_everything_is_escaped(full):
    tags = Tags()
    tags.feed(page.report_html(fill({**record.report_end(full, now=at(9)), "message": "m", "notes": ["n"]}, EVIL)))
    assert "table" in tags.tags
    assert "script" not in tags.tags
    assert tags.links == []


def test_the_page_holds_what_the_report_does(full):
    text = page.report_html(record.report_end(full, now=at(180)))
    for part in (
        "12.0 -&gt; 12.1",
        "before-12.1",
        "1 min 59 s",
        "zerver.0700_x (expand)",
        "zerver.0701_y",
        "E [x] boom",
    ):
        assert part in text
    for part in ("app: app1 -&gt; app2, stall 0.42 s", "/etc/a.conf", "3 new entries, 99 bytes; only the first part"):
        assert part in text


def test_a_page_of_a_run_that_goes_on(begun):
    assert "was killed" in page.report_html(begun)
    assert "did not end" in page.report_html(record.report_phase(begun, "x"))


def test_the_table(full):
    lines = page.report_table({**record.report_end(full, "failed", "no room", now=at(3720)), "by": "iago@c1"})
    assert lines[0].split(maxsplit=1) == ["VERB", "upgrade on chat, by iago@c1"]
    text = "\n".join(lines)
    for part in (
        "failed: no room",
        "12.0 -> 12.1",
        "1 h 2 min",
        "PHASE MIGRATE",
        "3 x E [x] boom",
        "FILES ON APP1",
        "report.html",
    ):
        assert part in text


def test_the_table_of_nothing_is_short(begun):
    names = [line.split()[0] for line in page.report_table({**begun, "directory": ""})]
    assert names == ["VERB", "RESULT", "BEGAN"]


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0 s"), (0.4, "0.4 s"), (59, "59 s"), (61, "1 min 1 s"), (7260, "2 h 1 min")]
)
def test_durations(seconds, words):
    assert page.duration(seconds) == words


@pytest.mark.parametrize(
    ("move", "words"),
    [
        ({"what": "database", "from": "db1", "to": "db2", "stall_seconds": 2}, "database: db1 -> db2, stall 2 s"),
        (
            {"moved": True, "to": "app2", "seconds": {"handed_over": 0.5}, "notices": ["n"]},
            "app2, handed over 0.5 s, n",
        ),
        ({"what": "app", "moved": False, "why": "this host is not active"}, "app: not moved, this host is not active"),
        ({}, "moved"),
        ("in words", "in words"),
    ],
)
def test_moves_as_their_programs_tell_them(move, words):
    assert page._move(move) == words
