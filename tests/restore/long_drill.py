"""The drill is green on a site on which all is well, and red for each way in which a backup can be worth nothing.

Each fault is caused in the repository itself, seen by the drill, and taken away again.

Not part of `tests/run`: pytest tests/restore/long_drill.py
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.lab.support import wait_for
from tests.restore.conftest import PROGRAMS, Backups, figures, overrides

STATE = "/var/lib/zulip-ha/backup/drill.json"
REPOSITORY = "/var/lib/pgbackrest"
PLUGIN = "/usr/lib/nagios/plugins/check_restore_drill"
TEXTFILES = "/var/lib/prometheus/node-exporter"
CONFIG = "/etc/zulip-ha/restore-drill.json"


def last_began(site: Backups) -> str:
    """When the last drill began."""
    text = site.run(site.host, f"cat {STATE} 2>/dev/null || true")
    return str(json.loads(text)["runs"][-1]["began"]) if text else ""


def drill(site: Backups) -> dict[str, Any]:
    """Run the unit as the timer does; return what it left. A drill may take longer than one command may."""
    before = last_began(site)
    site.run(site.host, "systemctl start --no-block zulip-ha-restore-drill.service")
    wait_for("a drill that begins", lambda: last_began(site) != before, 30)

    def ended() -> str:
        asked = "systemctl show --property=ActiveState --value zulip-ha-restore-drill.service"
        state = site.run(site.host, asked)
        return state if state in ("inactive", "failed") else ""

    state = wait_for("the end of the drill", ended, 900)
    entry: dict[str, Any] = json.loads(site.run(site.host, f"cat {STATE}"))["runs"][-1]
    assert (state == "inactive") == entry["ok"], (state, entry["error"])
    return entry


def plugin(site: Backups, *words: str) -> tuple[int, str]:
    """Ask the plugin as Nagios' user would."""
    command = f"runuser -u nobody -- {PLUGIN} {shlex.join(words)}; echo status=$?"
    text, _, status = site.run(site.host, command).rpartition("status=")
    return int(status), text.strip()


def red(site: Backups, step: str, *parts: str) -> None:
    """Drill, and see it red at one step, in one line, in the journal and by the plugin."""
    since = site.run(site.host, "date '+%Y-%m-%d %H:%M:%S'")
    entry = drill(site)
    assert not entry["ok"]
    failed = [one["name"] for one in entry["steps"] if not one["ok"] and not one["skipped"]]
    assert failed[:1] == [step], entry["error"]
    for part in parts:
        assert part in entry["error"], entry["error"]
    lines = site.run(
        site.host, f"journalctl -q --no-pager -o cat -p err -u zulip-ha-restore-drill --since '{since}'"
    ).splitlines()
    assert [line for line in lines if "RED: " in line and step in line], lines
    status, text = plugin(site)
    assert status == 2, text
    assert "the last drill failed" in text
    assert "zulip_ha_restore_drill_ok 0" in metrics(site)
    # Nothing is left of it, however it ended.
    assert site.run(site.host, "ls -A /var/lib/zulip-ha/drill") == ""


def metrics(site: Backups) -> str:
    """What Prometheus reads; made here where no exporter is installed."""
    return site.run(site.host, f"cat {TEXTFILES}/zulip_ha_restore_drill.prom")


def newest_backup(site: Backups) -> dict[str, Any]:
    """The backup that the next drill restores."""
    return dict(site.program("postgresql_backup choose --to latest"))


@contextmanager
def moved(site: Backups, path: str) -> Iterator[None]:
    """A file or folder of the repository that is gone for a while."""
    site.run(site.host, f"mv {path} {path}.aside")
    try:
        yield
    finally:
        site.run(site.host, f"rm -rf {path} && mv {path}.aside {path}")


@contextmanager
def settings(site: Backups, **values: Any) -> Iterator[None]:
    """The drill's settings on the host with other values, which is what a variable comes to."""
    site.run(site.host, f"cp -a {CONFIG} {CONFIG}.before")
    change = f"import json; path = '{CONFIG}'; found = json.load(open(path)); found.update({values!r}); "
    change += "json.dump(found, open(path, 'w'))"
    site.run(site.host, f"python3 -c {shlex.quote(change)}")
    try:
        yield
    finally:
        site.run(site.host, f"mv {CONFIG}.before {CONFIG}")


@pytest.fixture(scope="module", autouse=True)
def drilled(site: Backups) -> Iterator[dict[str, Any]]:
    """A fresh backup, a place for metrics, and a drill that was good; the same again at the end."""
    site.run(site.host, f"mkdir -p {TEXTFILES}")
    site.run(site.active()[0], "systemctl start zulip-ha-restic-backup.service")
    done = site.play("backup")
    assert done.status == 0, done.text[-4000:]
    began = drill(site)
    assert began["ok"], began["error"]
    yield began
    ended = drill(site)
    assert ended["ok"], ended["error"]
    site.run(site.host, "systemctl reset-failed zulip-ha-restore-drill.service", check=False)


def test_the_verb_shows_a_green_drill(site: Backups, drilled: dict[str, Any]) -> None:
    done = site.play("restore_drill")
    assert done.status == 0, done.text[-4000:]
    assert "all is well" in done.text
    assert "the application reads a message" in done.text
    entry = json.loads(site.run(site.host, f"cat {STATE}"))["runs"][-1]
    details = {step["name"]: step["detail"] for step in entry["steps"]}
    spare = next(node for node in site.in_group("app") if node not in site.active())
    assert details["message"].startswith(spare), details["message"]
    figures(
        "drill",
        {
            "database": f"{entry['bytes'] / 1e6:.0f} MB",
            "restore and replay": f"{entry['restore_seconds']:.1f} s",
            "for each GB": f"{entry['seconds_per_gigabyte']:.0f} s",
            "the whole drill": f"{entry['seconds']:.0f} s",
        },
    )
    assert plugin(site)[0] == 0, plugin(site)
    assert "zulip_ha_restore_drill_ok 1" in metrics(site)


def test_it_is_kept_when_asked_for(site: Backups) -> None:
    done = site.play("restore_drill", "-e", "keep=true")
    assert done.status == 0, done.text[-4000:]
    counted = "select count(*) from zulip.zerver_message"
    socket = "--host /var/lib/zulip-ha/drill/socket --port 5433"
    found = site.run(site.host, f"runuser -u postgres -- psql -X -At {socket} zulip -c '{counted}'")
    assert abs(int(found) - int(site.sql(counted))) < 100
    # The unit's bounds are the instance's too.
    unit = site.run(site.host, "systemctl list-units --plain --no-legend 'zulip-ha-restored-*' | cut -d' ' -f1")
    shown = site.run(site.host, f"systemctl show {unit} --property=Nice,IOSchedulingClass,MemoryMax")
    assert "Nice=19" in shown
    assert "MemoryMax=infinity" not in shown
    site.run(site.host, f"{PROGRAMS}/restore_drill clean")
    assert site.run(site.host, "ls -A /var/lib/zulip-ha/drill") == ""


def test_a_corrupted_file(site: Backups) -> None:
    chosen = newest_backup(site)
    stanza = site.name
    # Of the whole chain: files of the full one are what an incremental one builds on.
    full = chosen["set"].partition("_")[0]
    largest = f"find {REPOSITORY}/backup/{stanza}/{full} -type f -size +8k -printf '%s %p\\n' | sort -n | tail -1"
    path = site.run(site.host, f"{largest} | cut -d' ' -f2-")
    assert path
    site.run(site.host, f"cp -a {path} {path}.aside")
    # All of it: an incremental backup may have no use for some of what the full one holds.
    damage = (
        f"head -c $(stat -c %s {path}) /dev/urandom >{path}.rotten && cat {path}.rotten >{path} && rm {path}.rotten"
    )
    try:
        site.run(site.host, damage)
        red(site, "fetch")
    finally:
        site.run(site.host, f"mv {path}.aside {path}")


def test_a_missing_wal_segment(site: Backups) -> None:
    site.wait_until_archived(site.now())
    for _ in range(3):
        site.sql("select pg_switch_wal()", "postgres")
        site.sql("select pg_logical_emit_message(true, 'test', 'x')", "postgres")
    site.wait_until_archived(site.now())
    chosen = newest_backup(site)
    # The one before the newest: nobody notices until it is needed.
    folder = f"{REPOSITORY}/archive/{site.name}/*/{chosen['newest_wal'][:16]}"
    names = f"ls {folder} | grep -E '^[0-9A-F]{{24}}-' | sort | tail -2 | head -1"
    name = site.run(site.host, names)
    path = site.run(site.host, f"ls {folder}/{name}")
    with moved(site, path):
        red(site, "choose", name[:24], "missing")


def test_a_wrong_key(site: Backups) -> None:
    path = "/etc/pgbackrest/pgbackrest.conf"
    site.run(site.host, f"cp -a {path} {path}.before")
    site.run(site.host, f"sed -i -E 's/^(repo1-cipher-pass=).*/\\1wrong/' {path}")
    try:
        red(site, "choose", "key")
    finally:
        site.run(site.host, f"mv {path}.before {path}")


def test_an_empty_repository(site: Backups) -> None:
    # WAL goes on into the archive.
    with moved(site, f"{REPOSITORY}/backup/{site.name}"):
        red(site, "choose")


def test_a_stale_backup(site: Backups) -> None:
    time.sleep(1)
    with settings(site, backup_max_age=0.0001):
        red(site, "choose", "old")


def test_a_stale_archive(site: Backups) -> None:
    with settings(site, max_age=-1):
        red(site, "end", "are allowed")


def test_an_application_that_does_not_answer(site: Backups) -> None:
    hosts = [{"name": "nobody", "address": "127.0.0.1"}]
    with settings(site, app_hosts=hosts):
        red(site, "message", "nobody")


def test_uploads_that_are_lost(site: Backups) -> None:
    """Of the repository of files: the packs are gone, its list of snapshots is not."""
    folder = site.run(site.host, "find /var/lib/restic -type d -name data | head -1")
    with moved(site, folder):
        red(site, "uploads")


def test_a_drill_that_stopped_running(site: Backups) -> None:
    """The dead man: the timer is off, and the state grows old."""
    past = "import json; path = '/tmp/drill.json'; found = json.load(open(path)); "
    past += "found['last_success'] = '2026-01-01T00:00:00Z'; json.dump(found, open(path, 'w'))"
    site.run(site.host, f"cp {STATE} /tmp/drill.json && python3 -c {shlex.quote(past)} && chmod 644 /tmp/drill.json")
    status, text = plugin(site, "--state", "/tmp/drill.json")
    assert status == 2, text
    assert "the last good drill ended" in text
    status, text = plugin(site, "--state", "/tmp/no-such-drill.json")
    assert (status, text) == (2, "RESTORE_DRILL CRITICAL - no drill ever ran")


def test_one_that_is_killed_leaves_nothing_to_the_next(site: Backups) -> None:
    unit = "zulip-ha-restore-drill.service"
    site.run(site.host, f"systemctl start --no-block {unit}")
    wait_for("a restore", lambda: site.run(site.host, "ls -A /var/lib/zulip-ha/drill", check=False), 60)
    site.run(site.host, f"systemctl kill --signal=KILL {unit}")
    wait_for("its end", lambda: site.run(site.host, f"systemctl is-active {unit} || true") != "activating", 60)
    entry = drill(site)
    assert entry["ok"], entry["error"]
    runs = json.loads(site.run(site.host, f"cat {STATE}"))["runs"]
    assert runs[-2]["error"] == "killed"


def test_a_site_without_drills_is_refused_in_one_line(site: Backups) -> None:
    with overrides("restore_drill_enabled: false\n"):
        done = site.play("restore_drill")
    assert done.status != 0
    assert "There is no restore drill" in done.refusal, done.text[-2000:]
