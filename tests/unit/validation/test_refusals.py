"""Wrong input stops the real ansible-playbook in one line, and no host is contacted."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from typing import Any

import pytest

from .conftest import HOSTS, Project, project_release


def _children(change: Callable[[dict[str, Any]], object]) -> Callable[[Project], None]:
    """Return a fault that changes the inventory's groups."""

    def fault(project: Project) -> None:
        hosts = copy.deepcopy(HOSTS)
        change(hosts["all"]["children"])
        project.hosts(hosts)

    return fault


def _local(text: str) -> Callable[[Project], None]:
    """Return a fault that an operator writes into 90-local.yml."""
    return lambda project: project.local(text)


def _other_artifact(project: Project) -> None:
    (project.root / "artifacts/release.tar.gz").write_text("something else\n")


def _wrong_password(project: Project) -> None:
    (project.inventory.parent / "password").write_text("a guess")


def _no_password(project: Project) -> None:
    project.environment.clear()


def _lab_password(project: Project) -> None:
    project.environment["ANSIBLE_VAULT_PASSWORD_FILE"] = str(project.root / "lab/vault-password")


def _old_core(project: Project) -> None:
    shim = project.root / "shim"
    shim.mkdir()
    (shim / "sitecustomize.py").write_text("import ansible.release\nansible.release.__version__ = '2.18.7'\n")
    project.environment["PYTHONPATH"] = str(shim)


REFUSALS = {
    "no vault password": (
        _no_password,
        "80-secrets.yml is encrypted and no vault password was given; give it by --vault",
    ),
    "only the lab's vault password": (
        _lab_password,
        "no vault password but the lab's own was given; give its password",
    ),
    "wrong vault password": (_wrong_password, "80-secrets.yml does not open with the vault password from "),
    "group missing": (
        _children(lambda groups: groups.pop("backup")),
        "group `backup` is missing; add it with at least one",
    ),
    "group empty": (
        _children(lambda groups: groups.update(monitor={})),
        "group `monitor` is empty; put at least one host",
    ),
    "even quorum": (
        _children(lambda groups: groups["quorum"]["hosts"].pop("db2")),
        "group `quorum` has 2 hosts (db1, mon1); the number has to be odd",
    ),
    "same host twice": (
        _children(lambda groups: groups["app"]["hosts"].update(app3={"ansible_host": "192.0.2.11"})),
        "hosts `app1` and `app3` are the same machine (192.0.2.11)",
    ),
    "unknown variable": (
        _local("redis_prot: 1\n"),
        "90-local.yml:1: unknown variable `redis_prot`; do you mean `redis_port`?",
    ),
    "misspelt variable": (
        _local("# mine\nlocaledits: keep\n"),
        "90-local.yml:2: unknown variable `localedits`; do you mean `local_edits`?",
    ),
    "renamed variable": (
        _local("zulip_external_host: chat.example.com\n"),
        "90-local.yml:1: `zulip_external_host` is now named `site_hostname` (since 1.0.0); rename it",
    ),
    "virtual IP outside": (
        _local("site_virtual_ip: 198.51.100.1\n"),
        "90-local.yml:1: `site_virtual_ip` 198.51.100.1 is outside of `site_network` 192.0.2.0/24",
    ),
    "artefact differs": (_other_artifact, "not the one in artifacts/release.tar.gz.sha256; copy or build it again"),
    "boolean as a string": (
        _local('redis_enabled: "yes"\n'),
        '90-local.yml:1: `redis_enabled` has to be true or false, not "yes"; write true without quotes',
    ),
    "no host name": (
        _local("site_hostname: ''\n"),
        "`site_hostname` is not set; give the public name, like chat.example.com",
    ),
    "no administrator": (
        _local("site_administrator: ''\n"),
        "`site_administrator` is not set; give the administrator's e-mail address",
    ),
    "S3 without a bucket": (
        _local("uploads_backend: s3\n"),
        "`uploads_backend: s3` needs `uploads_s3_bucket`; name a bucket, or use `local`",
    ),
    "S3 without TLS": (
        _local("uploads_backend: s3\nuploads_s3_bucket: chat\nuploads_s3_endpoint: http://s3.example.com\n"),
        "`uploads_s3_endpoint` http://s3.example.com is not served: objects are fetched over TLS alone; write https://",
    ),
    "shards with a gap": (
        _local("app_tornado_shards: 2\napp_tornado_hosts: {chat.example.com: 9800, b.example.com: 9802}\n"),
        "b.example.com: Tornado shards are 9800 to 9801, not [9802]",
    ),
    "a setting that is no expression": (
        _local("zulip_settings: {A: {python_expression: 'x = 1'}}\n"),
        "A: 'x = 1' is no Python expression",
    ),
    "a setting that empties the host name": (
        _local("zulip_settings: {EXTERNAL_HOST: ''}\n"),
        "`zulip_settings.EXTERNAL_HOST` is empty; remove it",
    ),
    "unsupported ansible-core": (_old_core, "ansible-core 2.18.7 is not supported, only 2.19 or later, below 2.21"),
}


@pytest.mark.parametrize(("fault", "expected"), REFUSALS.values(), ids=REFUSALS.keys())
def test_wrong_input_is_one_line(project: Project, fault: Callable[[Project], None], expected: str) -> None:
    fault(project)
    outcome = project.run()
    assert outcome.code != 0, outcome.text
    assert len(outcome.problems) == 1, outcome.text
    assert expected in outcome.problems[0]
    assert "Traceback" not in outcome.text
    assert not outcome.contacted


def _release(**changes: Any) -> Callable[[Project], None]:
    """Return a fault of the artefact."""
    return lambda project: project_release(project.root, **changes)


RELEASES = {
    "too old": (_release(version="8.4"), "app1: the release 8.4 is older than 9.0, the oldest that is supported"),
    "another distribution": (
        _release(codename="bookworm"),
        "app1: the artefact was built for the distribution bookworm, and the host has trixie: build one there",
    ),
    "a database that is too new": (
        _release(version="9.4"),
        "db1: the release 9.4 supports PostgreSQL 12 to 16, and postgresql_version is 17",
    ),
    "an unknown queue": (
        _local("app_queues: [{name: emails}]\n"),
        "app1: app_queues: this release has no queue 'emails'",
    ),
    "an unknown option": (_local("app_options: [chess]\n"), "app1: app_options: this release has no chess"),
}


@pytest.mark.parametrize(("fault", "expected"), RELEASES.values(), ids=RELEASES.keys())
def test_a_release_that_cannot_run_is_one_line(
    project: Project, fault: Callable[[Project], None], expected: str
) -> None:
    """Facts are read, and nothing is changed."""
    fault(project)
    outcome = project.run()
    assert outcome.code != 0, outcome.text
    assert expected in " ".join(outcome.text.split()), outcome.text
    assert "Change something" not in outcome.text
    assert "Traceback" not in outcome.text


def test_right_input_reaches_the_hosts(project: Project) -> None:
    """The guard of all tests above: with nothing wrong, the same run does contact hosts, and the log sees it."""
    outcome = project.run("site.yml", "--limit", "db1")
    assert outcome.code == 0, outcome.text
    assert outcome.contacted


def test_limit_does_not_skip_the_checks(project: Project) -> None:
    project.local("redis_prot: 1\nsite_virtual_ip: 192.0.2.11\n")
    outcome = project.run("site.yml", "--limit", "db1", "-e", "redis_enabled=no")
    assert outcome.code != 0
    assert [line.split(": ", 1)[1][:35] for line in outcome.problems] == [
        "unknown variable `redis_prot`; do y",
        "`redis_enabled` has to be true or f",
        "`site_virtual_ip` 192.0.2.11 is the",
    ], outcome.text
    assert not outcome.contacted


def test_unsupported_distribution_changes_nothing(project: Project) -> None:
    outcome = project.run("site.yml", "--limit", "db1", FACTS_DISTRIBUTION="Ubuntu 24.04")
    assert outcome.code != 0
    assert "db1 runs Ubuntu 24.04; only Debian 12 (bookworm) and 13 (trixie) are supported" in outcome.text
    assert "Change something" not in outcome.text


def test_python_version_is_the_running_one() -> None:
    from plugin_utils.validation.controller import version_problems

    assert list(version_problems("2.19.4", sys.version_info[:3])) == []
    assert "too old" in next(iter(version_problems("2.20.0", (3, 10, 2))))
    for core in ("2.18.9", "2.21.0", "3.0.0", "2.21.0b1"):
        assert len(list(version_problems(core, (3, 13, 0)))) == 1
