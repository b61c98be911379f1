"""The hosts' program that restores: what it reads, what it refuses, what it removes, and the end of the archive."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.app.paths import load_program

restore = load_program("roles/pgbackrest/files/postgresql_restore", "postgresql_restore")
on_host = sys.modules["postgresql_restore_host"]
markers = sys.modules["postgresql_restore_marker"]
repositories = sys.modules["postgresql_restore_repository"]
wal = sys.modules["postgresql_restore_wal"]
server = sys.modules["postgresql_restore_server"]
recovery = sys.modules["postgresql_restore_recovery"]
SEGMENT = 16 << 20
CONFIGURATION = """
# the site's
[global]
repo1-host=mon1
repo1-host-type=tls
repo2-path=/pgbackrest
repo2-cipher-pass = open sesame=1
lock-path=/var/spool/pgbackrest/lock
spool-path=/var/spool/pgbackrest
archive-async=y
process-max=2
[global:archive-push]
compress-level=3
[chat]
pg1-path=/var/lib/postgresql/15/main
pg1-host=db1
pg2-path=/var/lib/postgresql/15/main
pg2-host=db2
"""
INFO: dict[str, Any] = {
    "name": "chat",
    "archive": [
        {"id": "15-1", "max": "000000020000000000000009", "database": {"id": 1, "repo-key": 1}},
        {"id": "15-1", "max": "000000020000000000000007", "database": {"id": 1, "repo-key": 2}},
    ],
    "backup": [
        {
            "label": "20261125-023000F",
            "database": {"id": 1, "repo-key": 1},
            "info": {"size": 5 << 30},
            "archive": {"start": "000000010000000000000003", "stop": "000000010000000000000003"},
        }
    ],
    "db": [{"id": 1, "repo-key": 1, "system-id": 77, "version": "15"}],
    "repo": [
        {"key": 1, "status": {"code": 0, "message": "ok"}},
        {
            "key": 2,
            "status": {"code": 99, "message": "[CryptoError] unable to load\n  HINT: is the passphrase correct?"},
        },
    ],
}


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host made of files, on which nothing is run."""
    monkeypatch.setattr(on_host, "RUN", tmp_path / "run")
    for module in (restore, recovery, server):
        monkeypatch.setattr(module, "running", lambda directory: False)
    monkeypatch.setattr(restore, "own", lambda path, mode=0o700: (path.mkdir(parents=True, exist_ok=True), path)[1])
    for module in (on_host, restore, recovery, server):
        monkeypatch.setattr(module, "run", lambda *arguments, **options: argparse.Namespace(stdout="", returncode=0))
    return tmp_path


def options(directory: Path, **values: Any) -> argparse.Namespace:
    given = {
        "stanza": "chat",
        "repo": 1,
        "set": "20261125-023000F",
        "to": "",
        "keep_bytes": 0,
        "jobs": 1,
        "delta": False,
    }
    return argparse.Namespace(**{"directory": directory, "new_timeline": False} | given | values)


def database(directory: Path) -> Path:
    directory.mkdir(parents=True)
    (directory / "PG_VERSION").write_text("15\n")
    return directory


# ---- configuration


def test_the_configuration_names_no_database_but_this_one() -> None:
    sections = repositories.merged_configuration([CONFIGURATION, "[global]\nprocess-max=8\n"])
    assert repositories.stanza_name(sections) == "chat"
    text = repositories.private_configuration(sections, "chat", Path("/scratch/data"), Path("/scratch/restore-spool"))
    lines = text.splitlines()
    assert "pg1-path=/scratch/data" in lines
    assert not [line for line in lines if "db1" in line or "db2" in line or "/var/" in line]
    assert {"process-max=8", "repo1-host=mon1", "repo2-cipher-pass=open sesame=1"} <= set(lines)
    assert lines.count("spool-path=/scratch/restore-spool") == 1
    archive_get = text.split("[global:archive-get]")[1].split("[")[0]
    assert "archive-async=y" in archive_get


def test_options_that_come_more_than_once_are_kept() -> None:
    sections = repositories.merged_configuration(["[chat]\nrecovery-option=a=1\nrecovery-option=b=2\n"])
    assert "recovery-option=a=1\nrecovery-option=b=2" in repositories.private_configuration(
        sections, "chat", Path("/d/m"), Path("/d/s")
    )


def test_which_stanza_has_to_be_clear() -> None:
    with pytest.raises(on_host.StepError, match="a, b"):
        repositories.stanza_name({"global": {}, "a": {}, "b": {}})
    with pytest.raises(on_host.StepError, match="no stanza"):
        repositories.stanza_name({"global": {}})


def test_a_backup_is_found_with_the_end_of_its_archive() -> None:
    found = repositories.chosen_backup(INFO, 1, "20261125-023000F")
    assert found == {
        "label": "20261125-023000F",
        "bytes": 5 << 30,
        "start": "000000010000000000000003",
        "system_id": "77",
        "version": "15",
        "newest": "000000020000000000000009",
    }


@pytest.mark.parametrize(
    ("repository", "label", "words"),
    [
        (3, "20261125-023000F", "no repository 3; there are 1, 2"),
        (1, "20200101-000000F", "no backup 20200101-000000F"),
        (2, "20261125-023000F", "HINT: is the passphrase correct"),
    ],
)
def test_a_backup_that_is_not_there(repository: int, label: str, words: str) -> None:
    with pytest.raises(on_host.StepError, match=words) as caught:
        repositories.chosen_backup(INFO, repository, label)
    assert "\n" not in str(caught.value)


# ---- the log of changes


def test_segments() -> None:
    assert wal.segment_number("000000010000000200000003", SEGMENT) == 2 * 256 + 3
    assert wal.segment_name(1, 2 * 256 + 255 + 1, SEGMENT) == "000000010000000300000000"
    assert wal.lsn_number("1/10") == (1 << 32) + 16
    assert wal.lsn_of_segment("000000010000000100000002", SEGMENT) == "1/2000000"
    assert wal.parents("1\t0/3000060\tno recovery target\n2\t0/4000000\tx\n\n") == {1, 2}


@pytest.mark.parametrize(
    ("newest", "lsn", "timelines", "word"),
    [
        ("000000010000000000000009", "0/A000000", {1, 2}, ""),
        ("000000010000000000000009", "0/9000028", {1, 2}, ""),
        ("000000010000000000000009", "0/8000000", {1, 2}, "000000010000000000000008 is missing"),
        ("000000010000000000000009", "0/8000028", {1, 2}, "000000010000000000000008 is damaged"),
        ("000000030000000000000009", "0/A000000", {1, 2}, "00000003.history"),
        ("", "0/8000000", {1}, ""),
    ],
)
def test_a_recovery_that_ends_before_the_archive(newest: str, lsn: str, timelines: set[int], word: str) -> None:
    problem = wal.end_problem(newest, lsn, SEGMENT, timelines)
    assert word in problem if word else problem == ""


LOG = """2026-11-25 22:41:50.1 UTC [1] LOG:  restored log file "000000010000000000000007" from archive
2026-11-25 22:41:50.3 UTC [2] FATAL:  the database system is not accepting connections
2026-11-25 22:41:50.3 UTC [2] DETAIL:  Hot standby mode is disabled.
2026-11-25 22:41:53.5 UTC [1] LOG:  redo done at 0/37F5448
2026-11-25 22:41:53.5 UTC [1] LOG:  last completed transaction was at log time 2026-11-25 22:41:14.184857+00
"""
ENDED = "2026-11-25 22:41:53.6 UTC [1] FATAL:  recovery ended before configured recovery target was reached\n"
UNREADABLE = """ERROR: [124]: unable to connect to mon1:8432
2026-11-25 22:41:53.6 UTC [1] FATAL:  could not restore file "000000010000000000000008" from archive: exit code 255
"""


def test_what_the_log_says() -> None:
    seen = server.read_log(LOG)
    assert seen["segment"] == "000000010000000000000007"
    assert seen["last_time"] == "2026-11-25T22:41:14.184857+00:00"
    assert seen["why"] == ""
    assert server.read_log("LOG:  recovery stopping before commit of transaction 9")["stopped"]


@pytest.mark.parametrize(
    ("log", "newest", "words"),
    [
        (
            LOG + ENDED,
            "000000010000000000000007",
            "archive ends with 000000010000000000000007, and its last change is of",
        ),
        (LOG + ENDED, "000000010000000000000009", "segment 000000010000000000000007, which is damaged, or the next is"),
        (LOG + UNREADABLE, "000000010000000000000009", "the archive could not be read: unable to connect to mon1:8432"),
        (LOG + "x FATAL:  could not map memory\n", "", "PostgreSQL ended: could not map memory"),
        ("", "", "its log says nothing"),
    ],
)
def test_why_a_server_ended(log: str, newest: str, words: str) -> None:
    assert words in server.failure(server.read_log(log), "2030-01-01T00:00:00Z", newest, SEGMENT)


# ---- settings


def test_targets() -> None:
    assert server.parse_target("latest") == {}
    assert server.parse_target("name:a-1") == {"recovery_target_name": "a-1"}
    moment = server.parse_target("2026-11-25T13:00:00+02:00")
    assert moment == {"recovery_target_time": "2026-11-25 11:00:00.000000+00"}
    for bad in ("yesterday", "2026-11-25T13:00:00", "name:a b", "name:"):
        with pytest.raises(on_host.StepError):
            server.parse_target(bad)


def settings(*words: str) -> dict[str, str]:
    given = restore.parser().parse_args(["recover", "--directory=/scratch/data", *words])
    found: dict[str, str] = server.server_settings(given, Path("/run/x"), "get %f %p")
    return found


def test_the_target_is_the_last_setting_so_that_no_empty_one_follows_it() -> None:
    found = settings("--to=name:x")
    assert list(found)[-1] == "recovery_target_name"
    assert found["recovery_target_time"] == ""


def test_a_scratch_instance_archives_nothing_and_a_database_that_will_serve_notes_what_it_owes() -> None:
    scratch, real = settings("--to=latest", "--keep-running"), settings("--to=latest")
    assert (scratch["archive_mode"], real["archive_mode"]) == ("off", "on")
    assert scratch["archive_command"] == real["archive_command"] == ""
    assert scratch["hot_standby"] == "off"
    assert scratch["listen_addresses"] == ""
    assert scratch["primary_conninfo"] == scratch["synchronous_standby_names"] == ""


def test_who_may_connect() -> None:
    words = ["--to=latest", "--tls", "--allow", "192.0.2.1/32", "--allow", "fd00::1/128", "192.0.2.2/32"]
    given = restore.parser().parse_args(["recover", "--directory=/scratch/data", *words])
    assert server.hba(given).splitlines() == [
        "local all postgres peer map=restore",
        "hostssl zulip zulip 192.0.2.1/32 scram-sha-256",
        "hostssl zulip zulip fd00::1/128 scram-sha-256",
        "hostssl zulip zulip 192.0.2.2/32 scram-sha-256",
    ]


def test_an_archive_that_cannot_be_read_is_not_its_end() -> None:
    command = server.restore_command(["/bin/sh", "-c", "exit $STATUS", "sh"]).replace("%f", "f").replace("%p", "p")
    statuses = {}
    for status in (0, 1, 29, 124):
        done = subprocess.run(["/bin/sh", "-c", command], env={"STATUS": str(status)}, check=False)
        statuses[status] = done.returncode
    assert statuses == {0: 0, 1: 1, 29: 255, 124: 255}


# ---- directories


def test_room() -> None:
    gib = 1 << 30
    assert restore.room_problem("/x", 14 * gib, 0, 10 * gib, 2 * gib) == ""
    assert restore.room_problem("/x", 5 * gib, 9 * gib, 10 * gib, 2 * gib) == ""
    assert "/x has 5.0 GiB free and needs 13.0" in restore.room_problem("/x", 5 * gib, 0, 10 * gib, 2 * gib)


def test_data_of_somebody_else_are_not_written_over(host: Path) -> None:
    with pytest.raises(on_host.StepError, match="did not bring"):
        restore.fetch(options(database(host / "pg/main")))


@pytest.mark.parametrize(
    ("state", "to", "same"),
    [
        ("fetched", "latest", True),
        ("recovering", "latest", True),
        ("recovered", "latest", True),
        ("recovering", "name:x", False),
        ("failed", "latest", False),
        ("fetching", "latest", False),
    ],
)
def test_what_was_fetched_is_not_fetched_again(
    host: Path, monkeypatch: pytest.MonkeyPatch, state: str, to: str, same: bool
) -> None:
    directory = database(host / "pg/main")
    kept = {"repo": 1, "set": "20261125-023000F", "to": "latest", "backup": {"bytes": 1}, "fetch_seconds": 2}
    markers.write_marker(directory, kept | {"state": state})

    def refuse(*arguments: Any) -> None:
        raise on_host.StepError("it would be fetched")

    monkeypatch.setattr(restore, "Repository", refuse)
    if same:
        assert restore.fetch(options(directory, to=to))["changed"] is False
    else:
        with pytest.raises(on_host.StepError, match="would be fetched"):
            restore.fetch(options(directory, to=to))


@pytest.mark.parametrize(
    ("marker", "words"),
    [
        ({}, "run fetch first"),
        ({"state": "fetching"}, "run fetch first"),
        ({"state": "failed", "why": "segment X is missing"}, "segment X is missing; fetch it again"),
        ({"state": "recovered", "to": "name:y"}, "was recovered to name:y"),
    ],
)
def test_only_a_whole_backup_is_recovered(host: Path, marker: dict[str, Any], words: str) -> None:
    directory = database(host / "pg/main")
    if marker:
        markers.write_marker(directory, marker)
    with pytest.raises(on_host.StepError, match=words):
        recovery.recover(options(directory, to="latest"))


def test_a_marker_is_of_one_directory(host: Path) -> None:
    markers.write_marker(database(host / "pg/main"), {"state": "fetched"})
    assert markers.read_marker(host / "pg/main")["state"] == "fetched"
    assert markers.read_marker(host / "pg/other") == {}
    (host / "pg/restore.json").write_text("{")
    assert markers.read_marker(host / "pg/main") == {}


def test_aside_and_back(host: Path) -> None:
    directory = database(host / "pg/main")
    moved = restore.aside(options(directory))
    assert moved["changed"]
    assert not directory.exists()
    # A run that was killed, and one after the backup has begun to come.
    assert restore.aside(options(directory)) == {"changed": False, "aside": moved["aside"]}
    (database(directory) / "new").touch()
    markers.write_marker(directory, {"state": "recovered", "set": "x"})
    assert restore.aside(options(directory))["changed"] is False
    assert restore.list_aside(options(directory))["aside"][0]["directory"] == moved["aside"]
    assert restore.bring_back(options(directory))["changed"]
    assert not (directory / "new").exists()
    assert (directory / "PG_VERSION").exists()
    assert not (host / "pg/restore.json").exists()
    assert restore.bring_back(options(directory)) == {"changed": False, "aside": ""}


def test_back_onto_a_timeline_of_its_own_has_to_be_recovered(host: Path) -> None:
    directory = database(host / "pg/main")
    restore.aside(options(directory))
    restore.bring_back(options(directory, new_timeline=True))
    assert markers.read_marker(directory)["state"] == "fetched"
    assert restore.bring_back(options(directory, new_timeline=True))["changed"] is False


def test_nothing_to_bring_back_is_an_error(host: Path) -> None:
    with pytest.raises(on_host.StepError, match="nothing to bring back"):
        restore.bring_back(options(host / "pg/main"))


def test_only_what_it_made_is_removed(host: Path) -> None:
    directory = database(host / "pg/main")
    with pytest.raises(on_host.StepError, match="not brought by this program"):
        restore.remove(options(directory))
    moved = Path(restore.aside(options(directory))["aside"])
    assert restore.remove(options(moved))["changed"]
    assert not moved.exists()
    assert restore.remove(options(moved)) == {"changed": False}
    markers.write_marker(database(directory), {"state": "fetched"})
    assert restore.remove(options(directory))["changed"]
    assert list((host / "pg").iterdir()) == []


def test_it_is_let_go_only_when_it_is_recovered(host: Path) -> None:
    directory = database(host / "pg/main")
    assert restore.release(options(directory)) == {"changed": False}
    markers.write_marker(directory, {"state": "recovering"})
    with pytest.raises(on_host.StepError, match="not recovered"):
        restore.release(options(directory))
    markers.write_marker(directory, {"state": "recovered"})
    assert restore.release(options(directory)) == {"changed": True}
    assert directory.exists()
    assert markers.read_marker(directory) == {}


def test_two_do_not_work_on_one_directory(host: Path) -> None:
    with (
        on_host.locked(host / "pg/main"),
        pytest.raises(on_host.StepError, match="something else works"),
        on_host.locked(host / "pg/main", patience=0),
    ):
        pass
    with on_host.locked(host / "pg/main", patience=0):
        pass


@pytest.mark.parametrize("path", ["main", "/", "/data", "/data/.."])
def test_a_directory_that_is_none(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        restore.parser().parse_args(["look", f"--directory={path}"])
    assert "no absolute path" in capsys.readouterr().err


def test_a_failure_is_one_line(host: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    directory = database(host / "pg/main")
    monkeypatch.setattr("sys.argv", ["postgresql_restore", "remove", f"--directory={directory}"])
    assert restore.main() == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    monkeypatch.setattr("sys.argv", ["postgresql_restore", "list-aside", f"--directory={directory}"])
    assert restore.main() == 0
    assert json.loads(capsys.readouterr().out) == {"aside": []}


def test_the_line_that_says_why() -> None:
    text = "P00  ERROR: [055]: unable to open missing file\n      HINT: it is gone\nP00 ERROR: [1]: x\n"
    assert on_host.last_words(text) == "unable to open missing file"
    assert on_host.last_words("one\ntwo\n") == "two"
