"""PgBouncer pools in transaction mode, on 127.0.0.1 alone, and root can hold the traffic."""

from __future__ import annotations

import json
import time

import pytest

testinfra_hosts = ["ansible://app"]
HOLD = "/usr/local/lib/zulip-ha/database_hold"
HOLD_UNIT = "zulip-ha-database-hold.service"
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


def held(host) -> dict:
    """Return what the program that holds the traffic says."""
    return json.loads(host.check_output(f"{HOLD} status --json"))


def units(host) -> set[str]:
    """Return the units that run and are stopped for a hold."""
    listed = host.check_output("systemctl list-units --plain --no-legend --state=active 'zulip-singleton@*'")
    return {line.split()[0] for line in listed.splitlines()}


def run_again(host, before: set[str]) -> bool:
    """Tell whether these units run again; they are started, and not waited for."""
    for _ in range(20):
        if units(host) == before:
            return True
        time.sleep(0.5)
    return False


@pytest.fixture
def let_go(host):
    """Let the traffic go, whatever a test did."""
    yield
    host.check_output(f"{HOLD} release")


@pytest.mark.usefixtures("let_go")
def test_a_hold_ends_by_itself(host, query):
    """The controller is gone, and nobody releases: the query waits for the hold's end, and its units run again."""
    before = units(host)
    host.check_output(f"{HOLD} hold --seconds 2")
    assert held(host)["held"]
    assert query("SELECT 42").stdout.strip() == "42"
    assert not held(host)["held"]
    assert held(host)["figures"]["stall_seconds"] < 4
    assert run_again(host, before)


@pytest.mark.usefixtures("let_go")
def test_a_hold_whose_process_is_killed_is_over(host, query):
    before = units(host)
    host.check_output(f"{HOLD} hold --seconds 30")
    host.check_output(f"systemctl kill --signal=SIGKILL {HOLD_UNIT}")
    assert query("SET statement_timeout = '10s'; SELECT 42").stdout.split()[-1] == "42"
    assert not held(host)["held"]
    assert run_again(host, before)


@pytest.mark.usefixtures("let_go")
def test_a_release_ends_it_at_once_and_may_be_repeated(host, query):
    host.check_output(f"{HOLD} hold --seconds 30")
    for _ in range(2):
        assert json.loads(host.check_output(f"{HOLD} release"))["state"] == "released"
    assert query("SELECT 42").stdout.strip() == "42"


@pytest.fixture
def endless(host, query):
    """Keep a transaction of the application's open for longer than any hold waits."""
    password = host.ansible.get_variables()["vault_postgresql_zulip_password"]
    sql = "BEGIN; SELECT pg_sleep(120)"
    sessions = f"FROM pg_stat_activity WHERE query = '{sql}'"
    session = f"PGPASSWORD={password} setsid psql -XAtwc '{sql}' '{APPLICATION}' >/dev/null 2>&1 &"
    host.check_output("sh -c %s", session)
    for _ in range(40):
        if query(f"SELECT count(*) {sessions}").stdout.strip() == "1":
            break
        time.sleep(0.5)
    else:
        pytest.fail("the transaction has not begun")
    yield
    query(f"SELECT pg_terminate_backend(pid) {sessions}")


@pytest.mark.usefixtures("let_go", "endless")
def test_a_transaction_that_does_not_end_is_named_and_nothing_is_held(host, query):
    answer = host.run(f"{HOLD} hold --seconds 5")
    assert answer.rc == 3, answer.stderr
    assert "zulip on zulip, process" in answer.stderr
    assert "active for" in answer.stderr
    assert not held(host)["held"]
    assert query("SELECT 42").stdout.strip() == "42"


@pytest.mark.parametrize(
    ("path", "mode"), [("/etc/pgbouncer/userlist.txt", 0o640), ("/etc/zulip-ha/database-hold.json", 0o600)]
)
def test_secrets_are_not_for_everybody(host, path, mode):
    assert host.file(path).mode == mode
