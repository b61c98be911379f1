"""Redis answers on 127.0.0.1 alone, to who knows the password, and keeps nothing on disk."""

from __future__ import annotations

import pytest

testinfra_hosts = ["ansible://app"]


@pytest.fixture
def redis(host):
    """Return a function that runs one command of redis-cli, authenticated by default."""
    password = host.ansible.get_variables()["vault_redis_password"]

    def run(command: str, authenticated: bool = True) -> str:
        # By the environment, so that the password is in no list of processes.
        prefix = f"REDISCLI_AUTH={password} " if authenticated else ""
        return host.run(f"{prefix}redis-cli -h 127.0.0.1 {command}").stdout.strip()

    return run


def test_service_runs_and_is_enabled(host):
    service = host.service("redis-server")
    assert service.is_running
    assert service.is_enabled


def test_listens_on_loopback_only(host):
    sockets = host.run("ss -Hltn sport = :6379").stdout.splitlines()
    assert [line.split()[3] for line in sockets] == ["127.0.0.1:6379"]


def test_without_password_nothing(redis):
    assert "NOAUTH" in redis("PING", authenticated=False)


def test_with_password_it_answers(redis):
    assert redis("PING") == "PONG"


def test_nothing_is_written_to_disk(redis):
    assert redis("CONFIG GET save").splitlines() == ["save"]
    assert redis("CONFIG GET appendonly").splitlines() == ["appendonly", "no"]


def test_memory_is_bounded(redis):
    limit = int(redis("CONFIG GET maxmemory").splitlines()[1])
    assert limit >= 128 * 2**20
    assert redis("CONFIG GET maxmemory-policy").splitlines()[1] != "noeviction"


def test_local_directory_is_read(host):
    configuration = host.file("/etc/redis/redis.conf").content_string
    assert configuration.splitlines()[-1] == "include /etc/redis/local.d/*.conf"
    assert host.file("/etc/redis/local.d").is_directory


def test_password_is_not_for_everybody(host):
    assert host.file("/etc/redis/password.conf").mode == 0o640
