"""Every host saves its files, can remove none of them, and the backup host looks after them."""

from __future__ import annotations

import json
import shlex

import pytest

testinfra_hosts = ["ansible://all"]

PROGRAMS = "/usr/local/lib/zulip-ha"
SETTINGS = "/etc/zulip-ha/restic.json"


@pytest.fixture
def settings(host) -> dict:
    """The client's settings."""
    with host.sudo():
        return json.loads(host.file(SETTINGS).content_string)


@pytest.fixture
def on_backup_host(host, settings) -> bool:
    """Whether this is the host with the schedules."""
    with host.sudo():
        return host.file("/etc/zulip-ha/restic-maintenance.json").exists


def ask(host, settings, method: str, name: str, body: str = "") -> str:
    """Return the status of the server's answer to this host's certificate."""
    base = settings["repository"].removeprefix("rest:")
    command = ["curl", "--silent", "--output", "/dev/null", "--write-out", "%{http_code}", "--request", method]
    command += ["--cacert", settings["ca"], "--cert", settings["certificate"], "--key", settings["private_key"]]
    command += ["--data-binary", body] if body else []
    with host.sudo():
        return host.run(shlex.join([*command, base + name])).stdout


def test_the_timer_is_on(host):
    timer = host.service("zulip-ha-restic.timer")
    assert timer.is_running
    assert timer.is_enabled


def test_secrets_are_roots_alone(host):
    with host.sudo():
        file = host.file(SETTINGS)
        assert (file.user, file.mode) == ("root", 0o600)
        password = json.loads(file.content_string)["password"]
        shown = host.check_output("systemctl cat 'zulip-ha-restic*'")
    assert password not in shown


def test_a_run_saves_the_configuration(host, settings):
    with host.sudo():
        host.run_expect([0], "systemctl start zulip-ha-restic-backup.service")
        state = json.loads(host.file("/var/lib/zulip-ha/backup/restic.json").content_string)
        assert state["runs"]["all"]["ok"], state
        assert state["parts"]["configuration"]["files"] > 100
        found = json.loads(
            host.check_output(f"{PROGRAMS}/restic_backup list --json --tag configuration --host {settings['host']}")
        )
    assert found[-1]["id"].startswith(state["parts"]["configuration"]["snapshot"])


def test_uploads_are_saved_by_the_active_host(host, settings):
    if settings["uploads"]["backend"] == "none" or not host.file("/run/zulip-ha/active").exists:
        return
    with host.sudo():
        host.run_expect([0], "systemctl start zulip-ha-restic-uploads.service")
        state = json.loads(host.file("/var/lib/zulip-ha/backup/restic.json").content_string)
    assert state["runs"]["uploads"]["ok"], state
    assert "uploads" in state["parts"]


def test_what_was_saved_comes_back(host, settings):
    target = "/var/lib/zulip-ha/try-restore"
    with host.sudo():
        try:
            host.run_expect(
                [0],
                f"{PROGRAMS}/restic_backup restore --tag configuration --host {settings['host']}"
                f" --target {target} --include /etc/zulip-ha",
            )
            assert host.run(f"cmp /etc/zulip-ha/restic.json {target}/etc/zulip-ha/restic.json").rc == 0
        finally:
            host.run(f"rm -rf {target}")


def test_a_host_can_remove_and_replace_nothing(host, settings):
    if not settings["repository"].startswith("rest:"):
        pytest.skip("this site keeps its backups in S3")
    with host.sudo():
        listed = json.loads(host.check_output(f"{PROGRAMS}/restic_backup list --json"))
    name = f"snapshots/{listed[-1]['id']}"
    assert ask(host, settings, "HEAD", name) == "200"
    for method, what in (("DELETE", name), ("DELETE", "config"), ("POST", name), ("POST", "config")):
        assert ask(host, settings, method, what, "x") == "403", (method, what)
    assert ask(host, settings, "HEAD", name) == "200"


def test_nobody_without_a_certificate_is_heard(host, settings):
    if not settings["repository"].startswith("rest:"):
        pytest.skip("this site keeps its backups in S3")
    base = settings["repository"].removeprefix("rest:")
    assert host.run(f"curl --silent --cacert {settings['ca']} {base}config").rc != 0


def test_the_backup_host_looks_after_the_repository(host, on_backup_host, settings):
    if not on_backup_host:
        assert not host.service("zulip-ha-restic-maintenance.timer").exists
        return
    for name in ("zulip-ha-restic-maintenance.timer", "zulip-ha-restic-check.timer"):
        assert host.service(name).is_enabled, name
    with host.sudo():
        assert host.check_output(f"{PROGRAMS}/restic_maintenance init") == "there"
        if settings["repository"].startswith("rest:"):
            assert host.service("zulip-ha-restic-server").is_running
            strangers = host.check_output("find /var/lib/restic ! -user zulip-backup")
            assert strangers == ""
