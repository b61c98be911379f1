"""The backup host: the repository, the schedules, what is listed and chosen, and what a broken repository changes."""

from __future__ import annotations

import json
import re
import time

import pytest

testinfra_hosts = ["ansible://backup"]

PROGRAM = "/usr/local/lib/zulip-ha/postgresql_backup"
STATE = "/var/lib/zulip-ha/backup"


@pytest.fixture(autouse=True)
def _root(host):
    with host.sudo():
        if not host.file(PROGRAM).exists:
            pytest.skip("this site has no second backup host")
        yield


@pytest.fixture
def listing(host) -> dict:
    """What there is, once the first backup has ended."""
    deadline = time.monotonic() + 300
    while True:
        found = json.loads(host.check_output(f"{PROGRAM} list --json"))
        if all(repository["backups"] for repository in found["repositories"]) or time.monotonic() > deadline:
            return found
        time.sleep(2)


def call(host, words: str) -> tuple[int, str, str]:
    done = host.run(f"{PROGRAM} {words}")
    return done.rc, done.stdout, done.stderr


def test_every_repository_has_a_backup_and_reaches_the_present(host, listing):
    for repository in listing["repositories"]:
        assert repository["error"] == ""
        assert repository["backups"], "the first backup was not made"
        newest = repository["backups"][-1]
        assert newest["database_bytes"] > 1_000_000
        assert newest["annotations"]["site"]
        assert repository["archive_age_seconds"] < 180


def test_the_archive_is_no_further_behind_than_a_minute_and_a_half(host, listing):
    reaches = listing["repositories"][0]["reaches"]
    behind = host.check_output(f"echo $(( $(date +%s) - $(date -d {reaches} +%s) ))")
    # archive_timeout, and what a canary and the way there may take
    assert int(behind) < 150


def test_a_backup_is_of_a_replica_where_there_is_one(host, listing, variables):
    members = len(variables["groups"]["database"])
    newest = listing["repositories"][0]["backups"][-1]
    if members == 1:
        pytest.skip("this site has no second database host")
    assert newest["annotations"]["source"] == "replica"


def test_schedules_are_on(host):
    for kind in ("full", "diff", "incr"):
        timer = host.service(f"zulip-ha-postgresql-backup-{kind}.timer")
        assert timer.is_running
        assert timer.is_enabled
    assert host.service("zulip-ha-postgresql-backup-metrics.timer").is_running


def test_everything_in_the_repository_is_encrypted(host, listing):
    where = listing["repositories"][0]
    if where["type"] != "posix":
        return
    path = where["place"].partition(":")[2]
    stanza = listing["stanza"]
    text = host.check_output(f"head -c 8 {path}/backup/{stanza}/backup.info")
    assert text.startswith("Salted__")
    assert host.file(path).mode == 0o750
    assert host.file(path).user == "postgres"


def test_the_configuration_is_for_nobody_else(host):
    file = host.file("/etc/pgbackrest/pgbackrest.conf")
    assert (file.user, file.group, file.mode) == ("root", "postgres", 0o640)
    assert "cipher-pass" not in host.check_output("cat /etc/zulip-ha/postgresql-backup.json")


def test_the_latest_moment_can_be_restored(host, listing):
    status, out, err = call(host, "choose --to latest")
    assert status == 0, err
    chosen = json.loads(out)
    assert chosen["set"] == listing["repositories"][0]["backups"][-1]["label"]
    assert chosen["segments"] >= 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("choose --to 2001-01-01T00:00:00Z", "is before the end of the first backup"),
        ("choose --to 2099-01-01T00:00:00Z", "is after the last change that was archived"),
        ("choose --to tomorrow", "is no moment"),
        ("choose --to latest --system-id 1", "belongs to another cluster"),
        ("choose --to latest --version 9", "holds PostgreSQL"),
        ("choose --to latest --repo 9", "there is no repository 9"),
        ("run full --repo 9", "there is no repository 9"),
    ],
)
def test_bad_input_is_refused_in_one_line(host, listing, words, says):
    status, out, err = call(host, words)
    assert status == 1
    assert says in err
    assert len(err.strip().splitlines()) == 1
    assert out == ""


def test_a_missing_segment_is_noticed(host, listing):
    where = listing["repositories"][0]
    if where["type"] != "posix":
        return
    chosen = json.loads(call(host, "choose --to latest --repo 1")[1])
    path = f"{where['place'].partition(':')[2]}/archive/{listing['stanza']}/{where['archive']}"
    backup = next(entry for entry in where["backups"] if entry["label"] == chosen["set"])
    first = host.check_output(f"ls {path}/{backup['wal_start'][:16]}/{backup['wal_start']}-*")
    host.check_output(f"mv {first} {first}.held")
    try:
        status, _, err = call(host, "choose --to latest --repo 1")
    finally:
        host.check_output(f"mv {first}.held {first}")
    assert status == 1
    assert backup["wal_start"] in err
    assert call(host, "choose --to latest --repo 1")[0] == 0


def test_an_incremental_backup_by_its_unit(host, listing):
    before = {entry["label"] for entry in listing["repositories"][0]["backups"]}
    host.check_output("systemctl start zulip-ha-postgresql-backup@incr.service")
    after = json.loads(host.check_output(f"{PROGRAM} list --json"))["repositories"][0]["backups"]
    (new,) = [entry for entry in after if entry["label"] not in before]
    assert new["type"] == "incr"
    runs = json.loads(host.check_output(f"cat {STATE}/runs.json"))["runs"]
    assert all(entry["ok"] for entry in runs), runs


def test_figures_for_monitoring(host, listing):
    host.check_output("systemctl start zulip-ha-postgresql-backup-metrics.service")
    state = json.loads(host.check_output(f"cat {STATE}/postgresql.json"))
    assert state["repositories"][0]["missing"] == []
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", state["at"])
    assert host.file(f"{STATE}/postgresql.json").mode == 0o644


def test_no_unit_is_exposed(host):
    for unit in ("zulip-ha-postgresql-backup@full.service", "zulip-ha-postgresql-backup-metrics.service"):
        host.check_output(f"systemd-analyze security --no-pager --threshold=25 {unit}")
