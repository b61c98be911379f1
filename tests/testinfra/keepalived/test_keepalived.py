"""App hosts: the virtual IP is where the lease is, and nowhere else."""

from __future__ import annotations

import re

import pytest

testinfra_hosts = ["ansible://app"]


@pytest.fixture
def virtual_ip(host) -> str:
    """The address from the host's own configuration."""
    if host.ansible.get_variables().get("edge_mode") == "external":
        pytest.skip("this site's edge is external")
    with host.sudo():
        text = host.file("/etc/keepalived/keepalived.conf").content_string
    return re.search(r"virtual_ipaddress \{\s+([0-9.]+)/", text)[1]


def test_keepalived_runs_and_starts_with_the_host(host, virtual_ip):
    keepalived = host.service("keepalived")
    assert keepalived.is_running
    assert keepalived.is_enabled


def test_the_configuration_is_valid(host, virtual_ip):
    with host.sudo():
        host.check_output("keepalived -t -f /etc/keepalived/keepalived.conf")


def test_the_virtual_ip_is_on_the_active_host_only(host, virtual_ip):
    active = host.file("/run/zulip-ha/active").exists
    held = re.search(rf"\b{re.escape(virtual_ip)}/", host.check_output("ip -4 -brief address")) is not None
    assert held == active


def test_it_never_preempts_and_follows_the_lease_agents_files(host, virtual_ip):
    with host.sudo():
        lines = host.file("/etc/keepalived/keepalived.conf").content_string.split("\n")
    words = {line.strip() for line in lines}
    assert {"state BACKUP", "nopreempt", "vrrp_version 3", "weight 0 reverse", "weight 0"} <= words
