"""App hosts: the lease agent, and that being active is one state with one holder."""

from __future__ import annotations

import json

testinfra_hosts = ["ansible://app"]

AGENT = "/usr/local/lib/zulip-ha/app_lease.py"


def status(host) -> dict:
    """What the agent says of itself."""
    with host.sudo():
        return json.loads(host.check_output(f"{AGENT} status --json"))


def test_the_agent_runs_and_starts_with_the_host(host):
    agent = host.service("zulip-ha-lease")
    assert agent.is_running
    assert agent.is_enabled


def test_the_configuration_is_for_root_alone(host):
    with host.sudo():
        file = host.file("/etc/zulip-ha/lease.json")
        assert (file.user, file.mode) == ("root", 0o600)


def test_the_host_is_healthy(host):
    said = status(host)
    assert said["healthy"], said["problems"]
    assert said["etcd"] == ""


def test_somebody_holds_the_lease(host):
    assert status(host)["holder"]


def test_all_that_follows_the_lease_agrees_with_it(host):
    active = status(host)["active"]
    assert host.file("/run/zulip-ha/active").exists == active
    assert host.file("/run/zulip-ha/vrrp").content_string.strip() == ("0" if active else "1")
    assert host.service("zulip-active.target").is_running == active


def test_an_active_host_is_the_holder(host):
    said = status(host)
    assert said["active"] == (said["holder"] == said["host"])


def test_the_agent_is_sandboxed(host):
    with host.sudo():
        host.check_output("systemd-analyze security --no-pager --threshold=25 zulip-ha-lease.service")


def test_the_host_can_hand_over_and_take_over(host):
    """With another app host beside it, what a planned move needs is there."""
    if len(host.ansible.get_variables()["groups"]["app"]) == 1:
        return
    with host.sudo():
        file = host.file("/etc/zulip-ha/move.json")
        assert (file.user, file.group, file.mode) == ("root", "zulip", 0o640)
        settings = json.loads(file.content_string)
        assert settings["peers"]
        assert settings["event_units"]
        for peer in settings["peers"]:
            # Nothing is sent: an end of file is no hand-over.
            said = host.check_output(f"{' '.join(settings['ssh'])} {peer['address']} adopt-events </dev/null")
            assert said.startswith("READY")
    assert host.service("zulip-ha-adopt.path").is_running
    assert not host.service("zulip-ha-move").is_running
