"""Hosts that vote and app hosts: all observe the database's leader, and one of them holds the watch's lock."""

from __future__ import annotations

import json
import time

import pytest

testinfra_hosts = ["ansible://quorum", "ansible://app"]

UNIT = "zulip-ha-leader-watch.service"
PROGRAM = "/usr/local/lib/zulip-ha/leader_watch"


@pytest.fixture
def groups(host) -> dict:
    """The inventory's groups; tests end here on a site that has nobody to take over."""
    groups = host.ansible.get_variables()["groups"]
    if len(groups["database"]) == 1:
        assert not host.service(UNIT).is_running
        assert not host.file(PROGRAM).exists
        pytest.skip("this site has no second database host")
    return groups


@pytest.fixture
def status(host, groups) -> dict:
    """What every host says of the watch, once the observers that were restarted just now have looked."""
    observers = {*groups["quorum"], *groups["app"]}
    for _ in range(20):
        with host.sudo():
            said = json.loads(host.check_output(f"{PROGRAM} status --json"))
        if {entry["host"] for entry in said["observers"] if entry["sight"] == "seen"} == observers and said["holder"]:
            break
        time.sleep(1)
    return said


def test_the_observer_runs_and_starts_with_the_host(host, groups):
    service = host.service(UNIT)
    assert service.is_running
    assert service.is_enabled


def test_it_runs_as_nobody_in_particular(host, groups):
    with host.sudo():
        process = host.check_output(f"systemctl show --value --property=MainPID {UNIT}")
        user = host.check_output(f"stat --format=%u /proc/{process}")
    assert int(user) >= 61184  # a number that systemd gave it for this life alone


def test_the_configuration_can_be_used(host, groups):
    with host.sudo():
        host.check_output(f"{PROGRAM} check")


def test_every_observer_sees_the_leader(groups, status):
    seen = {entry["host"] for entry in status["observers"] if entry["sight"] == "seen"}
    assert seen == {*groups["quorum"], *groups["app"]}
    assert status["leader"] in groups["database"]
    assert status["verdict"].startswith(f"watch: {status['leader']} leads")


def test_somebody_holds_the_lock_who_is_not_lost_with_the_leader(groups, status):
    assert status["holder"] in {*groups["quorum"], *groups["app"]} - {status["leader"]}


def test_a_lost_leader_would_be_replaced(status):
    assert status["synchronous_standbys"]
    assert len(status["observers"]) > status["quorum"]
    assert not status["paused"]
    assert status["disarmed"] == ""


def test_the_observer_is_sandboxed(host, groups):
    with host.sudo():
        host.check_output(f"systemd-analyze security --no-pager --threshold=25 {UNIT}")
