"""The role monitor, from where it may come in: over TLS, to read all and to change nothing."""

from __future__ import annotations

import json

import pytest

testinfra_hosts = ["ansible://backup"]

PASSFILE = "/run/zulip-ha-test.pgpass"


def value(host, expression):
    return host.ansible("ansible.builtin.debug", json.dumps({"msg": "{{ " + expression + " }}"}))["msg"]


@pytest.fixture
def leader(host):
    """A connection to the leader, its password in a file."""
    password = value(host, "vault_postgresql_monitor_password").replace("\\", "\\\\").replace(":", "\\:")
    wanted = {"content": f"*:*:*:monitor:{password}\n", "dest": PASSFILE, "mode": "0600"}
    host.ansible("ansible.builtin.copy", json.dumps(wanted), check=False)
    members = value(host, "postgresql_members | map(attribute='address') | join(',')")
    tls = "sslmode=verify-full sslrootcert=/etc/zulip-ha/pki/ca.pem"
    yield f"host={members} user=monitor passfile={PASSFILE} {tls} target_session_attrs=read-write"
    host.run(f"rm -f {PASSFILE}")


def ask(host, connection, database, query):
    return host.run(f"psql -XAtq '{connection} dbname={database}' -c \"{query}\"")


@pytest.mark.parametrize("database", ["zulip", "postgres"])
def test_it_reads_over_tls(host, leader, database):
    query = "SELECT current_user || ' ' || version FROM pg_stat_ssl WHERE ssl AND pid = pg_backend_pid()"
    answer = ask(host, leader, database, query)
    assert (answer.rc, answer.stdout.strip()) == (0, "monitor TLSv1.3"), answer.stderr


@pytest.mark.parametrize("statement", ["CREATE TABLE zulip.monitor_was_here (id int)", "CREATE DATABASE monitors"])
def test_it_changes_nothing(host, leader, statement):
    answer = ask(host, leader, "zulip", statement)
    assert answer.rc != 0
    assert "permission denied" in answer.stderr


def test_it_comes_in_over_tls_alone(host, leader):
    answer = ask(host, leader.replace("verify-full", "disable"), "zulip", "SELECT 1")
    assert answer.rc != 0
    assert "no encryption" in answer.stderr
