"""The archive as a database host sees it: alarms, what a lost leader did not archive, and the archive_command."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.unit.app.paths import ROOT, load_program

archive = load_program("roles/pgbackrest/files/postgresql_archive", "postgresql_archive")

CONFIG = {"queue_bytes": 1 << 30, "alarm_percent": 50, "alarm_seconds": 300}
PUSH = ROOT / "roles/pgbackrest/files/pgbackrest_push"


def seen(**changes: Any) -> dict[str, Any]:
    return {
        "leads": True,
        "mode": "on",
        "data": "/data",
        "segment_bytes": 16 << 20,
        "uptime": 9999.0,
        "archived": 7,
        "failed": 0,
        "last_wal": "000000010000000000000007",
        "failed_wal": None,
        "last_age": 30.0,
        "failing": False,
        "waiting": 0,
        "oldest": None,
        "backup": None,
        "timeline": 1,
    } | changes


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"leads": False, "waiting": 99, "last_age": 9999.0}, []),
        ({"waiting": 32}, []),
        ({"waiting": 33}, ["33 WAL segments (528 MB) wait to be archived; from 1024 MB on they are dropped"]),
        ({"last_age": 301.0}, ["nothing was archived for 301 s (the last: 000000010000000000000007)"]),
        ({"last_age": 301.0, "uptime": 20.0}, []),
        ({"last_age": None, "last_wal": None}, ["nothing was archived for 9999 s (the last: none since the start)"]),
        ({"last_age": None, "uptime": 20.0}, []),
        ({"mode": "off"}, ["archive_mode is off: a restart of PostgreSQL is owed"]),
        ({"dropped": "000000010000000000000009"}, ["WAL up to 000000010000000000000009 was dropped"]),
        (
            {"last_age": 400.0, "failing": True, "failed_wal": "000000010000000000000008"},
            ["nothing was archived for 400 s", "archiving 000000010000000000000008 fails"],
        ),
    ],
)
def test_problems(changes, expected):
    found = archive.problems(seen(**changes), CONFIG)
    assert len(found) == len(expected), found
    assert all(words in text for words, text in zip(expected, found, strict=True))


def test_an_alarm_is_told_at_once_then_now_and_then():
    assert archive.told_again({}, ["a"], 1000)
    assert not archive.told_again({"problems": ["a"], "told": 1000}, ["a"], 1500)
    assert archive.told_again({"problems": ["a"], "told": 1000}, ["a", "b"], 1500)
    assert archive.told_again({"problems": ["a"], "told": 1000}, ["a"], 1600)
    assert not archive.told_again({"problems": ["a"], "told": 1000}, [], 9999)


# ---- what a leader that was lost may not have archived


def test_segments_of_the_timeline_that_ended_up_to_its_end():
    ends = archive.ended("1\t0/7000028\tno recovery target specified\n2\t0/9000000\tx\n")
    assert ends == {1: 7, 2: 9}
    done = [
        "000000010000000000000005.done",
        "000000010000000000000006.done",
        "000000010000000000000007.done",
        "000000010000000000000006.ready",
        "000000020000000000000008.done",
        "000000030000000000000009.done",
        "00000002.history.done",
        "000000010000000000000005.00000028.backup.done",
    ]
    assert archive.to_offer(done, ends) == [
        "000000010000000000000005",
        "000000010000000000000006",
        "000000020000000000000008",
    ]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    status = tmp_path / "data/pg_wal/archive_status"
    status.mkdir(parents=True)
    (status.parent / "00000002.history").write_text("1\t0/7000000\tx\n")
    for name in ("000000010000000000000005", "000000010000000000000006"):
        (status / f"{name}.done").touch()
    (status.parent / "000000010000000000000006").touch()
    return tmp_path / "data"


def test_only_what_is_still_there_is_offered_again(data):
    assert archive.offer_again(data, 2) == ["000000010000000000000006"]
    assert sorted(os.listdir(data / "pg_wal/archive_status")) == [
        "000000010000000000000005.done",
        "000000010000000000000006.ready",
    ]
    assert archive.offer_again(data, 2) == []
    assert archive.offer_again(data, 3) == []


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "spool").mkdir()
    (tmp_path / "text").mkdir()
    return CONFIG | {
        "host": "db1",
        "spool": str(tmp_path / "spool"),
        "state_directory": str(tmp_path / "state"),
        "textfile_directory": str(tmp_path / "text"),
    }


def test_it_is_offered_once_for_each_timeline(monkeypatch, config, data, tmp_path):
    monkeypatch.setattr(archive, "psql", lambda config, script: json.dumps(seen(data=str(data), timeline=2)))
    archive.check(config)
    state = json.loads((tmp_path / "state/archive.json").read_text())
    assert state["offered"] == {"mark": f"{data} 2", "segments": 1}
    ready = data / "pg_wal/archive_status/000000010000000000000006.ready"
    ready.rename(ready.with_suffix(".done"))
    archive.check(config)
    assert not ready.exists()


def test_a_replica_offers_nothing(monkeypatch, config, data):
    monkeypatch.setattr(
        archive, "psql", lambda config, script: json.dumps(seen(data=str(data), timeline=2, leads=False))
    )
    archive.check(config)
    assert (data / "pg_wal/archive_status/000000010000000000000006.done").exists()


def test_figures_and_alarm(monkeypatch, config, tmp_path, capsys):
    answers = iter([seen(waiting=40), seen()])
    monkeypatch.setattr(archive, "psql", lambda config, script: json.dumps(next(answers)))
    archive.check(config)
    assert "archive: 40 WAL segments (640 MB)" in capsys.readouterr().err
    text = (tmp_path / "text/zulip_ha_postgresql_archive.prom").read_text()
    assert "zulip_ha_postgresql_archive_alarm 1\n" in text
    archive.check(config)
    assert "well again" in capsys.readouterr().err
    assert json.loads((tmp_path / "state/archive.json").read_text())["problems"] == []


def test_what_was_dropped_is_told_until_a_backup_began_behind_it(tmp_path):
    note = tmp_path / "dropped"
    assert archive.dropped(tmp_path, seen()) == ""
    note.write_text("000000010000000000000009\n")
    assert archive.dropped(tmp_path, seen()) == "000000010000000000000009"
    early, late = "000000010000000000000009.00000028.backup", "00000002000000000000000A.00000028.backup"
    assert archive.dropped(tmp_path, seen(backup=early)) == "000000010000000000000009"
    assert archive.dropped(tmp_path, seen(backup=late, leads=False)) == "000000010000000000000009"
    assert archive.dropped(tmp_path, seen(backup=late)) == ""
    assert not note.exists()


def test_a_database_that_is_away_is_no_failure_of_the_unit(monkeypatch, tmp_path, capsys):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"host": "db1", "socket": str(tmp_path), "port": 1}))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["postgresql_archive", "canary", "--config", str(path)])
    assert archive.main() == 0
    assert capsys.readouterr().err.count("\n") == 1


# ---- pgbackrest_push


def push(folder: Path, says: str = "", status: int = 0, stopping: bool = False) -> subprocess.CompletedProcess[str]:
    """Run the archive_command with a pgbackrest that is made up."""
    fake = folder / "fake"
    fake.write_text(f"#!/bin/sh\necho \"$@\" >>{folder}/calls\n[ -z '{says}' ] || echo '{says}' >&2\nexit {status}\n")
    fake.chmod(0o755)
    state = "stopping" if stopping else "ready   "
    (folder / "postmaster.pid").write_text("1\n/data\n0\n5432\n/run\n*\n0 0\n" + state + "\n")
    (folder / "spool/archive/chat/out").mkdir(parents=True, exist_ok=True)
    return subprocess.run(
        ["sh", str(PUSH), "chat", "/data", "pg_wal/000000010000000000000009"],
        cwd=folder,
        env={**os.environ, "PGBACKREST": str(fake), "PGBACKREST_SPOOL_PATH": str(folder / "spool")},
        capture_output=True,
        text=True,
        check=False,
    )


def calls(folder: Path) -> str:
    path = folder / "calls"
    return path.read_text() if path.exists() else ""


def test_a_segment_is_handed_over(tmp_path):
    done = push(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert calls(tmp_path) == "--stanza=chat --pg1-path=/data archive-push pg_wal/000000010000000000000009\n"


def test_a_failure_is_passed_on_with_what_was_said(tmp_path):
    done = push(tmp_path, "ERROR: [082]: unable", 82)
    assert (done.returncode, done.stderr) == (82, "ERROR: [082]: unable\n")
    assert not (tmp_path / "spool/dropped").exists()


def test_what_is_dropped_is_noted(tmp_path):
    assert push(tmp_path, "WARN: dropped WAL file because archive queue exceeded 1GB").returncode == 0
    assert (tmp_path / "spool/dropped").read_text() == "000000010000000000000009\n"


def test_while_postgresql_stops_it_is_tried_for_a_moment_only(tmp_path):
    assert push(tmp_path, stopping=True).returncode == 0
    assert "--archive-timeout=1 " in calls(tmp_path)


def test_while_postgresql_stops_what_failed_before_is_not_tried(tmp_path):
    push(tmp_path)
    (tmp_path / "calls").unlink()
    (tmp_path / "spool/archive/chat/out/global.error").write_text("125\nunable to connect")
    began = time.monotonic()
    assert push(tmp_path, stopping=True).returncode == 1
    assert time.monotonic() - began < 1
    assert calls(tmp_path) == ""
    assert push(tmp_path).returncode == 0
