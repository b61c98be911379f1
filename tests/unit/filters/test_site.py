"""Addresses, groups and the port matrix."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError

from filter_plugins import site

HOSTVARS = {"a1": {"site_address": "10.0.0.1"}, "a2": {"site_address": "10.0.0.2"}, "d1": {"site_address": "fd00::9"}}
GROUPS = {"app": ["a1", "a2"], "database": ["d1"], "all": ["a1", "a2", "d1"]}


def rules(ports, group_names=("app",), address="10.0.0.1"):
    return site.site_firewall_rules(ports, GROUPS, HOSTVARS, group_names, address)


def test_addresses_keep_the_order_and_drop_repeats():
    assert site.site_addresses(["a2", "a1", "a2"], HOSTVARS) == ["10.0.0.2", "10.0.0.1"]


def test_members():
    assert site.site_members(["d1"], HOSTVARS) == [{"name": "d1", "address": "fd00::9"}]


def test_lists_by_group_are_a_sorted_union():
    assert site.by_groups({"all": ["z"], "app": ["b", "a"], "other": ["x"]}, ["app"]) == ["a", "b", "z"]


def test_a_port_opens_only_on_the_hosts_it_goes_to():
    port = {"name": "db", "to": "database", "port": 5432, "from": "app"}
    assert rules([port]) == []
    assert rules([port], ["database"], "fd00::9") == [
        {"name": "db", "protocol": "tcp", "port": 5432, "ipv4": ["10.0.0.1", "10.0.0.2"], "ipv6": []}
    ]


def test_the_own_address_is_no_source_and_a_rule_without_sources_is_dropped():
    assert rules([{"name": "vrrp", "to": "app", "protocol": "vrrp", "from": "app"}])[0]["ipv4"] == ["10.0.0.2"]
    assert rules([{"name": "x", "to": "app", "port": 1, "from": ["10.0.0.1"]}]) == []


def test_sources_may_be_mixed_and_of_both_families():
    rule = rules([{"name": "m", "to": ["app"], "port": "1-2", "from": ["database", "192.0.2.0/24"]}])[0]
    assert (rule["ipv4"], rule["ipv6"]) == (["192.0.2.0/24"], ["fd00::9"])


def test_any_is_both_families():
    rule = rules([{"name": "https", "to": "all", "port": 443, "from": "any"}])[0]
    assert (rule["ipv4"], rule["ipv6"]) == (["0.0.0.0/0"], ["::/0"])


def test_an_unknown_source_is_named():
    with pytest.raises(AnsibleFilterError, match="'dtabase' is neither"):
        rules([{"name": "x", "to": "app", "port": 1, "from": "dtabase"}])
