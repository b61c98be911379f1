"""Groups, addresses and the site's identity."""

from __future__ import annotations

from typing import Any

import pytest

from plugin_utils.validation.topology import Host, Site, address_problems, group_problems, identity_problems

GROUPS = {
    "app": ["a1", "a2"],
    "database": ["d1", "d2"],
    "quorum": ["d1", "d2", "m1"],
    "backup": ["m1"],
    "monitor": ["m1"],
}
VALUES: dict[str, Any] = {
    "site_hostname": "chat.example.com",
    "site_administrator": "admin@example.com",
    "site_network": "192.0.2.0/24",
    "site_virtual_ip": "192.0.2.100",
    "edge_mode": "vrrp",
}


def _site(groups: dict[str, list[str] | None] | None = None, hosts: list[Host] | None = None, **values: Any) -> Site:
    merged = {name: list(members) for name, members in {**GROUPS, **(groups or {})}.items() if members is not None}
    return Site("inv", merged, hosts or [Host("a1", "192.0.2.1", "192.0.2.1")], {**VALUES, **values})


def test_right_site_has_no_problem() -> None:
    site = _site()
    assert [*group_problems(site), *address_problems(site), *identity_problems(site)] == []


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ({"backup": None}, "inv: group `backup` is missing; add it with at least one host"),
        ({"monitor": []}, "inv: group `monitor` is empty; put at least one host"),
        ({"database": None, "databases": ["d1"]}, "do you mean it by `databases`? Rename that group"),
        ({"builders": ["a2"]}, "group `builder` is missing; do you mean it by `builders`?"),
        ({"quorum": ["d1", "d2"]}, "group `quorum` has 2 hosts (d1, d2); the number has to be odd"),
        (dict.fromkeys(GROUPS), "inv: no hosts; list your hosts in the groups app, database"),
    ],
)
def test_groups(groups: dict[str, list[str] | None], expected: str) -> None:
    problems = list(group_problems(_site(groups)))
    assert len(problems) == 1
    assert expected in problems[0]


def test_a_site_without_backups_says_so_by_an_empty_group() -> None:
    assert list(group_problems(_site({"backup": []}))) == []


def test_group_of_the_operator_is_left_alone() -> None:
    assert list(group_problems(_site({"apps": ["a1"], "rack7": ["a1"], "builder": ["a2"]}))) == []


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"site_network": None}, "`site_network` is not set"),
        ({"site_network": "192.0.2.7/24"}, "`site_network` 192.0.2.7/24 is no network; write 192.0.2.0/24"),
        ({"site_network": "lan"}, "`site_network` lan is no network; write one like"),
        ({"site_virtual_ip": ""}, "`site_virtual_ip` is not set"),
        ({"site_virtual_ip": "2001:db8::1"}, "2001:db8::1 is no IPv4 address"),
        ({"site_virtual_ip": "chat"}, "chat is no IPv4 address"),
        ({"site_virtual_ip": "192.0.2.1"}, "192.0.2.1 is the address of host `a1`; choose a free one"),
        ({"site_virtual_ip": "192.0.3.1"}, "192.0.3.1 is outside of `site_network` 192.0.2.0/24"),
        ({"site_virtual_ip": "192.0.2.0"}, "is the network's own or its broadcast address"),
        ({"site_virtual_ip": "192.0.2.255"}, "is the network's own or its broadcast address"),
    ],
)
def test_addresses_of_the_site(values: dict[str, Any], expected: str) -> None:
    problems = list(address_problems(_site(**values)))
    assert len(problems) == 1
    assert expected in problems[0]


def test_external_edge_needs_no_virtual_ip() -> None:
    assert list(address_problems(_site(edge_mode="external", site_virtual_ip=None))) == []


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        (Host("a2", "192.0.2.1", "node2"), "hosts `a1` and `a2` are the same machine (192.0.2.1)"),
        (Host("a2", "192.0.2.2", "192.0.2.1"), "are the same machine (192.0.2.1 port 22)"),
        (Host("a2", "node2", "node2"), "host `a2` needs an IP address and `node2` is none; set `site_address`"),
        (Host("a2"), "host `a2` needs an IP address and it has none"),
        (
            Host("a2", "198.51.100.2", "198.51.100.2"),
            "host `a2` has the address 198.51.100.2, outside of `site_network`",
        ),
    ],
)
def test_addresses_of_hosts(second: Host, expected: str) -> None:
    problems = list(address_problems(_site(hosts=[Host("a1", "192.0.2.1", "192.0.2.1"), second])))
    assert len(problems) == 1
    assert expected in problems[0]


def test_forwarded_ports_are_different_machines() -> None:
    hosts = [Host("a1", "192.0.2.1", "gate", 2201), Host("a2", "192.0.2.2", "gate", 2202)]
    assert list(address_problems(_site(hosts=hosts))) == []
    hosts = [Host("a1", "192.0.2.1", "gate", remote=False), Host("a2", "192.0.2.2", "gate", remote=False)]
    assert list(address_problems(_site(hosts=hosts))) == []


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"site_hostname": None}, "`site_hostname` is not set"),
        ({"site_hostname": "https://chat.example.com"}, "is no host name"),
        ({"site_hostname": "chat_server.example.com"}, "is no host name"),
        ({"site_administrator": ""}, "`site_administrator` is not set"),
        ({"site_administrator": "admin"}, "admin is no e-mail address"),
    ],
)
def test_identity(values: dict[str, Any], expected: str) -> None:
    problems = list(identity_problems(_site(**values)))
    assert len(problems) == 1
    assert expected in problems[0]


@pytest.mark.parametrize("name", ["192.0.2.9", "2001:db8::9", "localhost", "chat.example.com."])
def test_names_that_are_right(name: str) -> None:
    assert list(identity_problems(_site(site_hostname=name))) == []
