"""The database hosts: WAL goes to the repositories, the canary is alive, and nobody but the backup host may ask."""

from __future__ import annotations

import json
import re
import time

import pytest

testinfra_hosts = ["ansible://database"]

STATE = "/var/lib/zulip-ha/backup/archive.json"


@pytest.fixture(autouse=True)
def _root(host):
    with host.sudo():
        yield


def sql(host, query: str) -> str:
    return host.check_output(f'psql -XAtq -v ON_ERROR_STOP=1 -U postgres -d postgres -c "{query}"')


def leads(host) -> bool:
    return sql(host, "SELECT NOT pg_is_in_recovery()") == "t"


def test_archiving_is_on(host):
    assert sql(host, "SHOW archive_mode") == "on"
    assert sql(host, "SHOW archive_timeout") == "50s"
    assert sql(host, "SHOW archive_command").startswith("/usr/local/lib/zulip-ha/pgbackrest_push ")


def test_a_segment_of_the_leader_is_archived_within_seconds(host):
    if not leads(host):
        assert json.loads(host.check_output(f"cat {STATE}"))["problems"] == []
        return
    host.check_output("systemctl start zulip-ha-canary.service")
    before = sql(host, "SELECT archived_count FROM pg_stat_archiver")
    sql(host, "SELECT pg_switch_wal()")
    deadline = time.monotonic() + 60
    while sql(host, "SELECT archived_count FROM pg_stat_archiver") == before:
        assert time.monotonic() < deadline, sql(host, "SELECT row_to_json(pg_stat_archiver) FROM pg_stat_archiver")
        time.sleep(0.5)


def test_the_canary_is_younger_than_a_minute(host):
    age = sql(host, "SELECT extract(epoch FROM now() - at)::int FROM zulip_ha.canary WHERE id = 1")
    assert int(age) < 60


def test_the_watch_over_the_archive_reports(host):
    host.check_output("systemctl start zulip-ha-archive.service")
    state = json.loads(host.check_output(f"cat {STATE}"))
    assert state["leads"] == leads(host)
    assert state["problems"] == []
    assert state["limit_bytes"] >= 1 << 28


def test_the_queue_is_bounded(host):
    assert "archive-push-queue-max=" in host.check_output("cat /etc/pgbackrest/pgbackrest.conf")


STRANGER = r"""
set -eu
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
chmod 755 "$directory" && cd "$directory"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj "/CN=NAME" \
    -keyout key -out cert 2>/dev/null
chown postgres key && chmod 600 key
timeout 60 runuser -u postgres -- pgbackrest --config=/dev/null --stanza=STANZA \
    --repo1-host=REPOSITORY --repo1-host-type=tls --repo1-host-ca-file=/etc/zulip-ha/pki/ca.pem \
    --repo1-host-cert-file=cert --repo1-host-key-file=key \
    --log-level-file=off --io-timeout=5 --protocol-timeout=8 info 2>&1
"""
"""Asks the repository with a certificate in this host's name that another authority has signed."""


def test_a_certificate_of_another_authority_is_refused(host, variables):
    with host.sudo():
        text = host.file("/etc/pgbackrest/pgbackrest.conf").content_string
    settings = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    if "repo1-host" not in settings:
        pytest.skip("this site has no second host that asks for WAL")
    (stanza,) = set(re.findall(r"^\[([^:\]]+)\]$", text, re.M)) - {"global"}
    script = STRANGER.replace("NAME", variables["inventory_hostname"]).replace("STANZA", stanza)
    done = host.run("/bin/sh -c %s", script.replace("REPOSITORY", settings["repo1-host"]))
    assert "unknown ca" in done.stdout, done.stdout + done.stderr


def test_timers_are_on(host):
    for name in ("canary", "archive"):
        timer = host.service(f"zulip-ha-{name}.timer")
        assert timer.is_running
        assert timer.is_enabled
