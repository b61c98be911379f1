"""The repository's host is down for longer than the spool lasts: users see nothing of it, and it catches up by itself.

Not part of `tests/run`: pytest tests/restore/long_repository_down.py
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import datetime

import pytest

from tests.lab.support import wait_for
from tests.restore.conftest import Backups, overrides

# Small, so that it is full soon.
QUEUE_MIB = 128
SEGMENT_MIB = 16
# What PostgreSQL keeps besides: what it needs to recover, and what it recycles.
WAL_MIB = 512


@pytest.fixture
def small_queue(site: Backups) -> Iterator[None]:
    """A spool that is soon full."""
    with overrides(f"pgbackrest_queue_max_mb: {QUEUE_MIB}\n"):
        done = site.play("site")
        assert done.status == 0, done.text[-6000:]
        yield
    done = site.play("site")
    assert done.status == 0, done.text[-6000:]


def archive_state(site: Backups) -> dict:
    """What the leader says of its archive."""
    return json.loads(site.run(site.leader(), "cat /var/lib/zulip-ha/backup/archive.json"))


def used_mib(site: Backups, path: str) -> float:
    """How much a folder of the leader has."""
    return int(site.run(site.leader(), f"du -sk {path} | cut -f1")) / 1024


def alarms(site: Backups, since: datetime) -> list[str]:
    """Lines of priority err that tell of the archive, on the leader."""
    lines = site.run(
        site.leader(), f"journalctl -q --no-pager -o cat -p err --since '{since:%Y-%m-%d %H:%M:%S} UTC' || true"
    ).splitlines()
    return [line for line in lines if "WAL" in line or "archiv" in line]


def write_wal(site: Backups, mib: int) -> None:
    """Make WAL as writers do, one segment after the other."""
    for _ in range(0, mib, SEGMENT_MIB):
        # A message of 1 MiB each that nobody reads, and the end of the segment.
        site.sql(
            "select pg_logical_emit_message(true, 'test', repeat(md5(n::text), 32768)) from generate_series(1, 14) n;"
            "select pg_switch_wal()",
            "postgres",
        )


def test_the_leader_serves_its_disk_is_bounded_and_the_archive_catches_up(site: Backups, small_queue: None) -> None:
    directory = site.sql("show data_directory", "postgres")
    began = site.now()
    with site.load("repository_down") as load:
        time.sleep(5)
        load.mark("the backup host is lost")
        site.docker("kill", site.host)
        # Within the queue: nothing is lost of the archive, and somebody is told.
        write_wal(site, QUEUE_MIB * 3 // 4)
        wait_for("an alarm that the queue is more than half full", lambda: alarms(site, began), 180)
        load.mark("the queue overflows")
        write_wal(site, QUEUE_MIB * 4)
        site.sql("checkpoint", "postgres")
        bound = QUEUE_MIB + WAL_MIB
        wait_for(
            "a bounded disk", lambda: used_mib(site, f"{directory}/pg_wal /var/spool/pgbackrest") < bound, 180
        )  # fmt: skip
        full = archive_state(site)
        load.mark("it is back")
        site.docker("start", site.host)
        time.sleep(15)
    verdict = load.check("--max-failed", "0", "--max-gap", "5")
    assert verdict.returncode == 0, verdict.stdout + verdict.stderr
    print(f"\nwhile it was down: {json.dumps(full)}")

    # By itself: new segments arrive, and what was dropped is known to be missing until the next backup.
    wait_for("the backup host", lambda: site.run(site.host, "systemctl is-system-running || true") != "starting", 120)
    site.sql("select pg_switch_wal()", "postgres")
    site.wait_until_archived(site.now(), 300)
    missing = site.run(site.host, "/usr/local/lib/zulip-ha/postgresql_backup choose --to latest 2>&1 || true")
    assert "missing" in missing, "WAL that was dropped is a hole that a restore must see"
    done = site.play("backup", "-e", "type=incr")
    assert done.status == 0, done.text[-3000:]
    chosen = site.program("postgresql_backup choose --to latest --json")
    assert chosen["set"]


def test_a_short_absence_leaves_no_hole(site: Backups) -> None:
    site.docker("stop", site.host)
    try:
        write_wal(site, 64)
    finally:
        site.docker("start", site.host)
    site.wait_until_archived(site.now(), 300)
    assert site.program("postgresql_backup choose --to latest --json")["set"]
