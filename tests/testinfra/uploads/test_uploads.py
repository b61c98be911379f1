"""App hosts: uploads reach the spare, by a key that can do nothing else."""

from __future__ import annotations

import re

import pytest

testinfra_hosts = ["ansible://app"]

CONFIG = "/etc/zulip-ha/uploads"


@pytest.fixture
def peers(host) -> list[str]:
    """Addresses that this host copies to; tests end here where there is nothing to copy."""
    if host.ansible.get_variables().get("uploads_backend") == "s3":
        pytest.skip("this site keeps uploads in S3")
    with host.sudo():
        file = host.file(f"{CONFIG}/known_hosts")
        if not file.exists:
            pytest.skip("this site has no second app host")
        return [line.split()[0] for line in file.content_string.splitlines()]


def test_the_replication_runs_on_the_active_host_only(host, peers):
    assert host.service("zulip-uploads-sync").is_running == host.file("/run/zulip-ha/active").exists


def test_the_catch_up_comes_with_the_host(host, peers):
    timer = host.service("zulip-uploads-push.timer")
    assert timer.is_running
    assert timer.is_enabled


def test_the_catch_up_follows_the_replication_however_that_ended(host, peers):
    # By systemd itself: a command would have to end within the time to stop, which an overloaded host does not grant.
    follows = host.check_output("systemctl show --property=OnSuccess,OnFailure --value zulip-uploads-sync.service")
    assert follows.split() == ["zulip-uploads-push.service"] * 2


def test_the_key_is_for_the_copying_user_alone(host, peers):
    with host.sudo():
        key = host.file(f"{CONFIG}/key")
        assert (key.user, key.mode) == ("zulip", 0o600)


def test_the_key_can_only_copy_and_hand_event_queues_over(host, peers):
    with host.sudo():
        text = host.file("/home/zulip/.ssh/authorized_keys").content_string
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    # Whoever else may come in, may do one thing too.
    assert [
        line for line in lines if not re.match(r'restrict,from="[0-9a-f.:,]+",command="/[\w./-]+" ssh-', line)
    ] == []
    (line,) = [line for line in lines if 'command="/usr/local/lib/zulip-ha/peer"' in line]
    assert re.match(r'restrict,from="[0-9a-f.:,]+",command="/usr/local/lib/zulip-ha/peer" ssh-', line)
    assert line.split('"')[1].split(",") == peers
    program = host.file("/usr/local/lib/zulip-ha/peer")
    assert (program.user, program.mode) == ("root", 0o755)
    assert re.findall(r"^    (\S.*?)\) exec (\S+)", program.content_string, re.M) == [
        ("adopt-events", "/usr/bin/python3"),
        ("rsync\\ *", "/usr/bin/rrsync"),
    ]


def test_every_peer_answers_under_its_known_key_and_refuses_commands(host, peers):
    with host.sudo("zulip"):
        for peer in peers:
            answer = host.run(f"ssh -F {CONFIG}/ssh_config {peer} id")
            assert answer.stderr.strip().endswith("not allowed: id")
            assert "uid=" not in answer.stdout
