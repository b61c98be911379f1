"""The plugins, as Nagios runs them: one line, one status, never a traceback."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.unit.app.paths import ROOT

OK, WARNING, CRITICAL, UNKNOWN = range(4)
STATES = ["OK", "WARNING", "CRITICAL", "UNKNOWN"]
PLUGINS = ["check_restore_drill", "check_postgresql_backup"]


def iso(hours: float) -> str:
    """A time so many hours ago, which `check` fills in."""
    return f"@{hours}"


def at(found: re.Match[str]) -> str:
    """Return the time of such a mark."""
    moment = datetime.fromtimestamp(time.time() - float(found[1]) * 3600, UTC)
    return moment.strftime('"%Y-%m-%dT%H:%M:%SZ"')


def plugin(name: str, *words: str) -> tuple[int, str]:
    """Run a plugin; return status and line."""
    command = [sys.executable, "-B", str(ROOT / "roles/restore_drill/files" / name), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stdout + done.stderr
    assert done.stderr == ""
    return done.returncode, done.stdout


def check(name: str, state: Any, path: Path, *words: str) -> tuple[int, str]:
    """Judge a state; see that the line is one and says the same as the status."""
    path.write_text(state if isinstance(state, str) else re.sub(r'"@([0-9.]+)"', at, json.dumps(state)))
    status, text = plugin(name, "--state", str(path), *words)
    assert len(text.splitlines()) == 1, text
    assert text.split()[1] == STATES[status]
    return status, text


def drills(
    *hours_ok: tuple[float, bool], last_success: float | None = None, error: str = "canary: old"
) -> dict[str, Any]:
    runs = [
        {
            "began": iso(hours + 0.1), "ended": iso(hours), "ok": ok, "error": "" if ok else error, "seconds": 42.5,
            "bytes": 30_000_000, "seconds_per_gigabyte": 310.5, "steps": [],
        }
        for hours, ok in hours_ok
    ]  # fmt: skip
    state: dict[str, Any] = {"version": 1, "runs": runs}
    if last_success is not None:
        state["last_success"] = iso(last_success)
    return state


@pytest.mark.parametrize(
    ("state", "expected", "part"),
    [
        (drills((2, True), last_success=2), OK, "a good drill ended 2 h ago"),
        (drills((25.5, True), last_success=25.5), WARNING, "25.5 h ago"),
        # The dead man: it stopped running.
        (drills((26.1, True), last_success=26.1), CRITICAL, "the last good drill ended 26.1 h ago"),
        (drills((300, True), last_success=300), CRITICAL, "300 h ago"),
        (drills((24, True), (1, False), last_success=24), CRITICAL, "the last drill failed: canary: old"),
        (drills((1, False)), CRITICAL, "no drill was ever good"),
        (drills((26.2, True), (2.2, False), last_success=26.2), CRITICAL, "26.2 h ago; the last drill failed"),
        (drills(), CRITICAL, "no drill ever ended"),
        # One that is under way, or was killed, says nothing of how the one before went.
        ({"runs": [*drills((3, True))["runs"], {"began": iso(0), "ended": None}], "last_success": iso(3)}, OK, "3 h"),
        ({"runs": [{"began": iso(9), "ended": None, "ok": False}]}, CRITICAL, "no drill ever ended"),
        ("{", UNKNOWN, "is no JSON"),
        ("[]", UNKNOWN, "no state of drills"),
        ('{"runs": 3}', UNKNOWN, "no state of drills"),
        ('{"runs": [7]}', UNKNOWN, "no state of drills"),
        ('{"runs": [{"ended": 1}]}', UNKNOWN, "no state of drills"),
        ('{"runs": [], "last_success": "soon"}', UNKNOWN, "no state of drills"),
        ('{"runs": [], "last_success": 7}', UNKNOWN, "no state of drills"),
    ],
)
def test_restore_drill(tmp_path: Path, state: Any, expected: int, part: str) -> None:
    status, text = check("check_restore_drill", state, tmp_path / "drill.json")
    assert (status, bool(re.search(part, text))) == (expected, True), text


def test_a_drill_that_never_ran(tmp_path: Path) -> None:
    status, text = plugin("check_restore_drill", "--state", str(tmp_path / "none.json"))
    assert (status, text) == (CRITICAL, "RESTORE_DRILL CRITICAL - no drill ever ran\n")


def test_figures_of_the_drill(tmp_path: Path) -> None:
    _, text = check("check_restore_drill", drills((2, True), last_success=2), tmp_path / "drill.json")
    figures = text.partition("|")[2].split()
    assert "age_hours=2.0;25;26;0" in figures
    assert "seconds_per_gigabyte=310.5;;;0" in figures
    assert "restored=30000000B;;;0" in figures
    # What went wrong cannot pretend to be figures.
    _, text = check(
        "check_restore_drill", drills((2, False), last_success=2, error="a | b=3\nc"), tmp_path / "drill.json"
    )
    assert text.count("|") == 1
    assert "a / b=3 c" in text


def repository(**more: Any) -> dict[str, Any]:
    return {
        "number": 1,
        "place": "/var/lib/pgbackrest",
        "error": "",
        "backups": [
            {"label": "F", "type": "full", "stop": iso(40), "error": False},
            {"label": "F_I", "type": "incr", "stop": iso(3), "error": False},
        ],
        "newest_wal_at": iso(0.02),
        "missing": [],
        **more,
    }


def backups(*repositories: dict[str, Any], looked: float = 0.05, runs: Any = ()) -> dict[str, Any]:
    return {"at": iso(looked), "repositories": list(repositories), "runs": list(runs)}


FAILED = {"type": "diff", "repository": 1, "ok": False, "error": "no space left"}


@pytest.mark.parametrize(
    ("state", "expected", "part"),
    [
        (backups(repository()), OK, "repository 1: newest backup 3 h old; repository 1: newest WAL 1\\.[2-5] min old"),
        (backups(repository(backups=[{"stop": iso(14), "error": False}])), WARNING, "newest backup 14 h old"),
        (backups(repository(backups=[{"stop": iso(26), "error": False}])), CRITICAL, "newest backup 26 h old"),
        # One that is broken does not count.
        (
            backups(repository(backups=[{"stop": iso(1), "error": True}, {"stop": iso(26), "error": False}])),
            CRITICAL,
            "26 h old",
        ),
        (backups(repository(backups=[])), CRITICAL, "repository 1 has no backup"),
        (backups(repository(newest_wal_at=iso(0.1))), WARNING, "newest WAL 6(\\.[1-3])? min old"),
        (backups(repository(newest_wal_at=iso(0.3))), CRITICAL, "newest WAL 18(\\.[1-3])? min old"),
        (backups(repository(newest_wal_at=None)), CRITICAL, "repository 1 has no WAL"),
        (backups(repository(missing=["00000001000000000000000A"])), CRITICAL, "00000001000000000000000A is missing"),
        (
            backups(repository(error="does not open with this key", backups=[], newest_wal_at=None)),
            CRITICAL,
            "does not open with this key",
        ),
        (backups(repository(), runs=[FAILED]), WARNING, "the last diff backup into repository 1 failed: no space left"),
        (backups(repository(), runs=[{**FAILED, "ok": True}]), OK, "3 h old"),
        (backups(repository(), repository(number=2, backups=[])), CRITICAL, "repository 2 has no backup"),
        # The dead man: nobody looks any more.
        (backups(repository(), looked=0.6), CRITICAL, "nobody has looked since"),
        (backups(), CRITICAL, "there is no repository"),
        ("{", UNKNOWN, "is no JSON"),
        ("[]", UNKNOWN, "no state of backups"),
        ("{}", UNKNOWN, "no state of backups"),
        (backups({"number": 1}), UNKNOWN, "no state of backups"),
        (backups(repository(newest_wal_at="soon")), UNKNOWN, "no state of backups"),
    ],
)
def test_postgresql_backup(tmp_path: Path, state: Any, expected: int, part: str) -> None:
    status, text = check("check_postgresql_backup", state, tmp_path / "postgresql.json")
    assert (status, bool(re.search(part, text))) == (expected, True), text


def test_figures_of_the_backups(tmp_path: Path) -> None:
    path = tmp_path / "postgresql.json"
    _, text = check(
        "check_postgresql_backup", backups(repository(), repository(number=2)), path, "-w", "9", "-c", "1:99"
    )
    figures = text.partition("|")[2].split()
    assert "repository1_age_hours=3.0;9;1:99;0" in figures
    assert [one for one in figures if re.fullmatch(r"repository2_wal_minutes=1\.\d;5;15;0", one)]


def test_backups_that_nobody_looked_at(tmp_path: Path) -> None:
    status, text = plugin("check_postgresql_backup", "--state", str(tmp_path / "none.json"))
    assert (status, text) == (CRITICAL, "POSTGRESQL_BACKUP CRITICAL - no backup was ever looked at\n")


@pytest.mark.parametrize("name", PLUGINS)
@pytest.mark.parametrize("words", [["-w", "soon"], ["-c", "5:1"], ["-c"], ["--nonsense"], ["extra"]])
def test_a_wrong_command_line_is_unknown_in_one_line(name: str, words: list[str]) -> None:
    status, text = plugin(name, *words)
    assert status == UNKNOWN
    assert re.fullmatch(r"[A-Z_]+ UNKNOWN - .+\n", text)


@pytest.mark.parametrize("name", PLUGINS)
def test_help(name: str) -> None:
    status, text = plugin(name, "--help")
    assert status == OK
    assert "--warning" in text
    assert "--critical" in text


@pytest.mark.parametrize("name", PLUGINS)
def test_a_state_that_cannot_be_read_is_unknown(tmp_path: Path, name: str) -> None:
    status, text = plugin(name, "--state", str(tmp_path))
    assert status == UNKNOWN
    assert "directory" in text
    assert len(text.splitlines()) == 1


@pytest.mark.parametrize("name", PLUGINS)
@pytest.mark.parametrize(
    ("limits", "expected"), [(["-w", "1", "-c", "9"], WARNING), (["-w", "1", "-c", "@2:4"], CRITICAL)]
)
def test_ranges(tmp_path: Path, name: str, limits: list[str], expected: int) -> None:
    state = drills((3, True), last_success=3) if name == "check_restore_drill" else backups(repository())
    assert check(name, state, tmp_path / "state.json", *limits)[0] == expected


def test_they_are_programs() -> None:
    for name in PLUGINS:
        text = (ROOT / "roles/restore_drill/files" / name).read_text()
        assert text.startswith("#!/usr/bin/python3\n")
