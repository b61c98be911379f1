"""PgBouncer pools in transaction mode, on 127.0.0.1 alone, and root can hold the traffic."""

from __future__ import annotations

import pytest

testinfra_hosts = ["ansible://app"]
CONSOLE = "/usr/local/lib/zulip-ha/pgbouncer-console"
APPLICATION = "host=127.0.0.1 port=6432 dbname=zulip user=zulip connect_timeout=10"


@pytest.fixture
def settings(host) -> dict[str, str]:
    """Return what PgBouncer runs with, by name."""
    lines = host.check_output(f"{CONSOLE} 'SHOW CONFIG'").splitlines()
    return {line.split("|")[0]: line.split("|")[1] for line in lines}


@pytest.fixture
def query(host):
    """Return a function that asks as the application does."""

    def run(sql: str, password: str | None = None):
        secret = password or host.ansible.get_variables()["vault_postgresql_zulip_password"]
        return host.run(f"PGPASSWORD={secret} timeout 60 psql -XAtwc %s %s", sql, APPLICATION)

    return run


def test_service_runs_and_is_enabled(host):
    service = host.service("pgbouncer")
    assert service.is_running
    assert service.is_enabled
    assert not host.service("pgbouncer.socket").is_running


def test_listens_on_loopback_only(host):
    sockets = host.run("ss -Hltn sport = :6432").stdout.splitlines()
    assert [line.split()[3] for line in sockets] == ["127.0.0.1:6432"]


def test_settings_are_in_effect(settings):
    assert settings["pool_mode"] == "transaction"
    assert settings["auth_type"] == "scram-sha-256"
    assert settings["server_tls_sslmode"] == "verify-full"
    assert float(settings["server_login_retry"]) == 0.2
    assert float(settings["server_check_delay"]) == 0


def test_the_way_to_the_database_is_encrypted(query):
    answer = query("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
    assert answer.stdout.strip() == "t", answer.stderr


def test_it_leads_to_a_writable_database(query):
    assert query("SELECT pg_is_in_recovery()").stdout.strip() == "f"


def test_wrong_password_is_refused(query):
    answer = query("SELECT 1", password="wrong")
    assert answer.failed
    assert "authentication failed" in answer.stderr


@pytest.mark.parametrize("address", ["127.0.0.1", "/run/postgresql"])
def test_console_is_for_root_only(host, address):
    """Neither over TCP nor over the socket may another user log in as pgbouncer."""
    command = f"psql -XAtwc 'SHOW POOLS' 'host={address} port=6432 user=pgbouncer dbname=pgbouncer'"
    assert host.run("su -s /bin/sh nobody -c %s", command).failed
    assert host.run(f"{CONSOLE} 'SHOW POOLS'").succeeded


def test_paused_traffic_waits_instead_of_failing(host):
    """PAUSE, a query meanwhile, RESUME: the query is answered, and after the pause only."""
    password = host.ansible.get_variables()["vault_postgresql_zulip_password"]
    script = f"""
        trap '{CONSOLE} RESUME' EXIT
        {CONSOLE} PAUSE
        PGPASSWORD={password} timeout 20 psql -XAtwc 'SELECT 42' '{APPLICATION}' >/tmp/pgbouncer-pause-test &
        sleep 1
        test ! -s /tmp/pgbouncer-pause-test || echo early
        {CONSOLE} RESUME
        trap - EXIT
        wait
        cat /tmp/pgbouncer-pause-test
        rm /tmp/pgbouncer-pause-test
    """
    assert host.check_output("sh -c %s", script).split() == ["42"]


def test_secrets_are_not_for_everybody(host):
    assert host.file("/etc/pgbouncer/userlist.txt").mode == 0o640
