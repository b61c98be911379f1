"""Backup host: a drill each day, its result, the plugins that read it. App hosts are asked two things and no more."""

from __future__ import annotations

import json

import pytest

testinfra_hosts = ["ansible://backup"]

CONFIG = "/etc/zulip-ha/restore-drill"
PLUGINS = "/usr/lib/nagios/plugins"


@pytest.fixture
def settings(host) -> dict:
    """The drill's settings; tests end here where there is no drill."""
    with host.sudo():
        file = host.file("/etc/zulip-ha/restore-drill.json")
        if not file.exists:
            pytest.skip("this site has no restore drill")
        return json.loads(file.content_string)


@pytest.fixture
def ask(host, settings):
    """Asks an app host as the drill does."""

    def ask(app: dict, request: str, stdin: str = ""):
        with host.sudo():
            return host.run(f"printf %s '{stdin}' | ssh -F {CONFIG}/ssh_config {app['address']} {request}")

    return ask


def test_it_comes_each_day(host, settings):
    timer = host.service("zulip-ha-restore-drill.timer")
    assert timer.is_running
    assert timer.is_enabled
    said = host.check_output("systemctl cat zulip-ha-restore-drill.timer")
    assert "Persistent=true" in said


def test_secrets_are_for_root_alone(host, settings):
    with host.sudo():
        for name in ("key", "passfile"):
            file = host.file(f"{CONFIG}/{name}")
            assert (file.user, file.group, file.mode) == ("root", "root", 0o600)
        text = host.file("/etc/zulip-ha/restore-drill.json").content_string
        password = host.file(f"{CONFIG}/passfile").content_string.strip().rsplit(":", 1)[1]
    assert password not in text


def test_the_scratch_directory_is_private(host, settings):
    with host.sudo():
        folder = host.file(settings["directory"])
        assert (folder.user, folder.group, folder.mode) == ("root", "postgres", 0o750)


def test_the_scratch_instance_has_the_least_priority(host, settings):
    with host.sudo():
        code = (
            "import pathlib, sys;"
            "sys.path.insert(0, '/usr/local/lib/zulip-ha');"
            "import postgresql_restore_server as server;"
            f"print(server.unit_name(pathlib.Path('{settings['directory']}/data')))"
        )
        unit = host.check_output(f'python3 -IB -c "{code}"')
        assert (
            "IOSchedulingClass=idle" in host.file(f"/etc/systemd/system/{unit}.d/50-restore-drill.conf").content_string
        )


def test_every_app_host_is_known_and_refuses_all_else(ask, settings):
    assert settings["app_hosts"]
    for app in settings["app_hosts"]:
        for request in ("id", "", "sha256", "rsync --server . /", "adopt-events"):
            answer = ask(app, f"'{request}'")
            assert answer.rc == 1, request
            assert answer.stderr.strip().startswith("not allowed"), answer.stderr
            assert answer.stdout == ""


def test_one_host_alone_is_no_spare(ask, settings):
    answers = [ask(app, "sha256 spare", "[]") for app in settings["app_hosts"]]
    active = [answer for answer in answers if answer.rc]
    assert len(active) == 1
    assert active[0].stderr.strip() == "this host is active"


def test_no_file_but_uploads_is_hashed(ask, settings):
    app = settings["app_hosts"][0]
    for name in ("/etc/passwd", "../../../etc/passwd", "files/../../.ssh/authorized_keys"):
        answer = ask(app, "sha256 any", json.dumps([name]))
        assert answer.rc == 1
        assert "not a name below the uploads" in answer.stderr
    assert json.loads(ask(app, "sha256 any", '["files/no/such"]').stdout) == {"files/no/such": None}


def test_the_application_does_not_read_the_live_database(ask, settings):
    # No drill runs: the scratch instance is not there, and nothing else answers in its place.
    answer = ask(settings["app_hosts"][0], "read-message any")
    assert answer.rc == 1
    assert len(answer.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("name", ["check_restore_drill", "check_postgresql_backup"])
def test_plugins_run_as_anybody_and_say_one_line(host, settings, name):
    with host.sudo("nobody"):
        answer = host.run(f"{PLUGINS}/{name}")
        assert answer.rc in (0, 1, 2), answer.stdout
        assert len(answer.stdout.splitlines()) == 1
        assert answer.stderr == ""
        wrong = host.run(f"{PLUGINS}/{name} -w soon")
        assert (wrong.rc, len(wrong.stdout.splitlines())) == (3, 1)


def test_the_dead_man_alarms(host, settings):
    """A drill that stopped running: the state is of the past."""
    state = '{"runs": [{"began": "2026-01-01T00:00:00Z", "ended": "2026-01-01T00:10:00Z", "ok": true, "error": ""}], '
    state += '"last_success": "2026-01-01T00:10:00Z"}'
    with host.sudo("nobody"):
        answer = host.run(f"printf %s '{state}' | {PLUGINS}/check_restore_drill --state /dev/stdin")
        assert answer.rc == 2, answer.stdout
        assert "the last good drill ended" in answer.stdout
        answer = host.run(f"{PLUGINS}/check_restore_drill --state /var/lib/zulip-ha/backup/never.json")
        assert (answer.rc, answer.stdout.strip()) == (2, "RESTORE_DRILL CRITICAL - no drill ever ran")


def test_nothing_is_left_of_a_drill(host, settings):
    with host.sudo():
        if host.service("zulip-ha-restore-drill.service").is_running:
            return
        assert host.file(settings["directory"]).listdir() == []
