"""The release on an app host is whole, is the site's, and belongs to nobody who could change it."""

from __future__ import annotations

import json

import pytest

testinfra_hosts = ["ansible://app"]

DEPLOYMENTS = "/home/zulip/deployments"
MARKER = ".zulip-ha.json"
SEEN: dict[str, str] = {}


@pytest.fixture
def release(host) -> dict:
    """Return what the current release says of itself."""
    return json.loads(host.check_output(f"cat {DEPLOYMENTS}/current/{MARKER}"))


def test_current_is_a_complete_release(host, release):
    assert host.check_output(f"readlink {DEPLOYMENTS}/current") == f"{DEPLOYMENTS}/{release['deployment']}"
    venv = json.loads(host.check_output(f"cat {release['venv']}/{MARKER}"))
    assert venv["id"] == release["id"]


def test_it_was_built_for_this_host(host, release):
    assert release["codename"] == host.system_info.codename
    assert host.check_output("python3 -c 'import sys; print(*sys.version_info[:2], sep=\".\")'") == release["python"]
    assert release["architecture"] == host.system_info.arch


def test_nothing_is_left_half_done(host):
    assert host.check_output(f"find {DEPLOYMENTS} /srv/zulip-venvs -maxdepth 1 -name '.unpack-*'") == ""
    assert not host.file(f"{DEPLOYMENTS}/next").exists


def test_all_app_hosts_run_the_same_release(release):
    # The first host that is asked decides what the others of its distribution must run.
    assert SEEN.setdefault(release["codename"], release["id"]) == release["id"]


def test_the_application_cannot_change_what_it_runs(host, release):
    for folder in (f"{DEPLOYMENTS}/{release['deployment']}", release["venv"]):
        foreign = host.check_output(f"find {folder} ! -user root -o -perm /022 ! -type l")
        assert foreign == "", f"{folder} holds what others than root may write"
    folder = host.file(DEPLOYMENTS)
    assert (folder.user, folder.group, folder.mode) == ("root", "zulip", 0o1775)


def test_compiled_files_are_valid(host, release):
    # A stale one would be compiled again at each start, since nobody may write it.
    program = "import zproject, importlib.util as u, pathlib; print(pathlib.Path(zproject.__cached__).stat().st_mtime)"
    run = host.run(f"cd {DEPLOYMENTS}/current && .venv/bin/python -B -v -c '{program}'")
    assert run.rc == 0, run.stderr
    assert "zproject/__init__.py" in run.stderr
    assert "matches" in run.stderr
