"""HAProxy leads to the database leader, on 127.0.0.1 alone, and to nobody else."""

from __future__ import annotations

import csv
import io

import pytest

testinfra_hosts = ["ansible://app"]


@pytest.fixture
def servers(host) -> dict[str, str]:
    """Return the state of each database host as HAProxy sees it, by name."""
    script = (
        "import socket; s = socket.socket(socket.AF_UNIX); s.connect('/run/haproxy/admin.sock'); "
        "s.sendall(b'show stat\\n'); print(s.makefile().read())"
    )
    rows = csv.DictReader(io.StringIO(host.check_output("python3 -c %s", script).lstrip("# ")))
    return {
        row["svname"]: row["status"]
        for row in rows
        if row["pxname"] == "postgresql_leader" and row["svname"] not in ("FRONTEND", "BACKEND")
    }


def test_service_runs_and_is_enabled(host):
    service = host.service("haproxy")
    assert service.is_running
    assert service.is_enabled


def test_listens_on_loopback_only(host):
    listening = [line for line in host.run("ss -Hltnp").stdout.splitlines() if '"haproxy"' in line]
    addresses = {line.split()[3] for line in listening}
    assert "127.0.0.1:5000" in addresses
    assert all(address.startswith("127.") for address in addresses)


def test_exactly_one_member_leads(servers):
    up = [name for name, status in servers.items() if status.startswith("UP")]
    assert len(up) == 1, servers


def test_every_database_host_is_a_member(host, servers):
    variables = host.ansible.get_variables()
    assert set(servers) == set(variables["groups"]["database"])


def test_it_leads_to_a_writable_database(host):
    """Encrypted from end to end: PostgreSQL's certificate is checked through the proxy."""
    variables = host.ansible.get_variables()
    connection = (
        "host=127.0.0.1 port=5000 dbname=zulip user=zulip sslmode=verify-full sslrootcert=/etc/zulip-ha/pki/ca.pem"
    )
    password = variables["vault_postgresql_zulip_password"]
    answer = host.check_output(f"PGPASSWORD={password} psql -XAtc 'SELECT pg_is_in_recovery()' %s", connection)
    assert answer == "f"


def test_configuration_is_valid_with_the_local_directory(host):
    assert host.run("haproxy -c -f /etc/haproxy/haproxy.cfg -f /etc/haproxy/local.d").succeeded
    assert "-f /etc/haproxy/local.d" in host.check_output("systemctl show -P Environment haproxy")


def test_requests_for_events_go_through_it(host):
    """Tornado is beside it at another address, so that requests can wait here while it restarts."""
    with host.sudo():
        listening = {line.split()[3]: line for line in host.check_output("ss -Hltnp").splitlines()}
    ports = [address.rsplit(":", 1)[1] for address, line in listening.items() if address.startswith("127.0.0.2:98")]
    assert ports
    for port in ports:
        assert '"haproxy"' in listening[f"127.0.0.1:{port}"]
        assert '"haproxy"' not in listening[f"127.0.0.2:{port}"]
