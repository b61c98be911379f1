"""etcd: one healthy cluster of all voters, closed to whoever has no certificate, led from the right place."""

from __future__ import annotations

import json
import time

import pytest

testinfra_hosts = ["ansible://quorum"]

ETCDCTL = "/usr/local/sbin/zulip-ha-etcdctl"


def statuses(host):
    """Return the status of each member by its endpoint."""
    found = json.loads(host.check_output(f"{ETCDCTL} endpoint status --cluster --write-out=json"))
    return {item["Endpoint"]: item["Status"] for item in found}


def test_it_runs_and_starts_at_boot(host):
    unit = host.service("etcd")
    assert unit.is_running
    assert unit.is_enabled


def test_every_voter_is_a_healthy_member(host, variables):
    host.check_output(f"{ETCDCTL} endpoint health --cluster")
    members = json.loads(host.check_output(f"{ETCDCTL} member list --write-out=json"))["members"]
    assert sorted(member["name"] for member in members) == sorted(variables["groups"]["quorum"])
    assert len(members) % 2 == 1


def test_there_is_one_leader_and_one_cluster(host):
    found = statuses(host).values()
    assert len({status["leader"] for status in found}) == 1
    assert len({status["header"]["cluster_id"] for status in found}) == 1


def test_no_database_host_leads_while_another_can(host, variables):
    groups = variables["groups"]
    preferred = [name for name in groups["quorum"] if name not in groups["database"]]
    if not preferred:
        pytest.skip("this site has no second kind of voter: all are database hosts")
    members = json.loads(host.check_output(f"{ETCDCTL} member list --write-out=json"))["members"]
    names = {member["ID"]: member["name"] for member in members}
    # The timer of a leader that should not be one comes by every 30 s.
    for _ in range(45):
        leader = names[next(iter(statuses(host).values()))["leader"]]
        if leader in preferred:
            return
        time.sleep(1)
    raise AssertionError(f"{leader} leads, though {preferred} could")


@pytest.mark.parametrize("local", [True, False])
def test_clients_without_a_certificate_are_refused(host, address, local):
    url = f"https://{'127.0.0.1' if local else address}:2379/health"
    pki = "/etc/zulip-ha/pki"
    assert host.run(f"curl --silent --max-time 5 --cacert {pki}/ca.pem {url}").rc != 0
    answer = host.run(
        f"curl --silent --max-time 5 --cacert {pki}/ca.pem --cert {pki}/node.pem --key {pki}/node.key {url}"
    )
    assert json.loads(answer.stdout)["health"] == "true"


@pytest.mark.parametrize("port", [2379, 2380])
def test_plain_connections_are_refused(host, port, address):
    assert host.run(f"curl --silent --fail --max-time 5 http://{address}:{port}/version").rc != 0


def test_peers_without_a_certificate_are_refused(host, address):
    peer = f"https://{address}:2380/members"
    assert host.run(f"curl --silent --max-time 5 --cacert /etc/zulip-ha/pki/ca.pem {peer}").rc != 0


def test_secrets_and_data_are_closed(host):
    assert host.file("/etc/zulip-ha/etcdctl.env").mode == 0o600
    assert host.file("/var/lib/etcd").mode == 0o700
