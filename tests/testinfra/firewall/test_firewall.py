"""Open is what the port matrix says, and nothing else: tried from a host that may and from one that may not."""

from __future__ import annotations

import functools
import json

import pytest

testinfra_hosts = ["ansible://all"]

# Connects to each "address port" of the arguments and prints those that answered.
PROBE = """
import concurrent.futures, socket, sys

def probe(target):
    address, port = target.rsplit("/", 1)
    try:
        socket.create_connection((address, int(port)), timeout=1).close()
        print(target)
    except OSError:
        pass

with concurrent.futures.ThreadPoolExecutor(32) as pool:
    list(pool.map(probe, sys.argv[1:]))
"""
LISTENING = "ss -Hltn | awk '{print $4}'"


@functools.cache
def inventory_groups(host) -> dict[str, list[str]]:
    runner = host.backend.ansible_runner
    return {group: runner.get_hosts(group) for group in ("all", "app", "database", "quorum", "backup", "monitor")}


def groups_of(host) -> set[str]:
    return {group for group, names in inventory_groups(host).items() if host.backend.get_hostname() in names}


def addresses(host, group: str) -> list[str]:
    runner = host.backend.ansible_runner
    return [runner.get_variables(name)["ansible_host"] for name in runner.get_hosts(group)]


def reached(host, targets: list[str]) -> set[str]:
    return set(host.check_output("python3 -c %s " + " ".join(["%s"] * len(targets)), PROBE, *targets).split())


def test_the_table_drops_by_default(host):
    table = json.loads(host.check_output("nft --json list table inet zulip_ha"))["nftables"]
    policies = {entry["chain"]["name"]: entry["chain"].get("policy") for entry in table if "chain" in entry}
    assert policies["input"] == "drop"
    assert policies["forward"] in ("drop", "accept")


def test_what_listens_for_others_is_in_the_matrix(host):
    allowed = {22} | {
        port
        for group, ports in {
            "app": {80, 443},
            "quorum": {2379, 2380},
            "database": {5432, 8008, 8432},
            "backup": {5433, 5434, 8432, 8433},
        }.items()
        if group in groups_of(host)
        for port in ports
    }
    sockets = [line.rsplit(":", 1) for line in host.check_output(LISTENING).split()]
    outside = {int(port) for address, port in sockets if not address.strip("[]").startswith(("127.", "::1"))}
    assert outside <= allowed, f"listens beyond 127.0.0.1 without a line in the matrix: {sorted(outside - allowed)}"


def test_only_those_who_may_reach_the_database_the_voters_and_the_backups(host):
    if len(inventory_groups(host)["all"]) == 1:
        pytest.skip("this site has no second host")
    mine = groups_of(host)
    postgresql = [f"{address}/5432" for address in addresses(host, "database")]
    rest = [f"{address}/8008" for address in addresses(host, "database")]
    etcd = [f"{address}/2379" for address in addresses(host, "quorum")]
    peers = [f"{address}/2380" for address in addresses(host, "quorum")]
    # Each of them also asks itself.
    own = f"{host.backend.ansible_runner.get_variables(host.backend.get_hostname())['ansible_host']}/8432"
    asked = [f"{address}/8432" for address in addresses(host, "database")]
    repository = [f"{address}/8432" for address in addresses(host, "backup")[:1]]
    files = [f"{address}/8433" for address in addresses(host, "backup")[:1]]
    expected = {
        *(postgresql if mine & {"app", "database", "backup", "monitor"} else []),
        *(rest if mine & {"app", "database", "quorum", "backup", "monitor"} else []),
        *(etcd if mine & {"app", "database", "quorum"} else []),
        *(peers if "quorum" in mine else []),
        *(asked if "backup" in mine else {own} & {*asked}),
        *(repository if mine & {"database", "backup"} else []),
        *files,
    }
    assert reached(host, postgresql + rest + etcd + peers + asked + repository + files) == expected


def test_the_brokers_answer_to_nobody_else(host):
    targets = [
        f"{address}/{port}"
        for address in addresses(host, "app")
        for port in (4369, 5672, 6379, 11211, 6432, 5000, 9800)
    ]
    assert reached(host, targets) == set()
