"""RabbitMQ, its distribution and its port mapper are on 127.0.0.1 alone, and the only user is zulip."""

from __future__ import annotations

import json

import pytest

testinfra_hosts = ["ansible://app"]


@pytest.fixture
def rabbitmqctl(host):
    """Return a function that runs rabbitmqctl; it reads standard input, which would swallow the connection's."""

    def run(command: str):
        return host.run(f"rabbitmqctl --quiet {command} </dev/null")

    return run


@pytest.mark.parametrize("unit", ["rabbitmq-server.service", "epmd.socket"])
def test_unit_runs_and_is_enabled(host, unit):
    service = host.service(unit)
    assert service.is_running
    assert service.is_enabled


@pytest.mark.parametrize("port", [5672, 25672, 4369])
def test_listens_on_loopback_only(host, port):
    sockets = host.run(f"ss -Hltn sport = :{port}").stdout.splitlines()
    assert [line.split()[3] for line in sockets] == [f"127.0.0.1:{port}"]


def test_nothing_else_of_erlang_listens(host):
    listening = [line for line in host.run("ss -Hltnp").stdout.splitlines() if "beam" in line or "epmd" in line]
    assert {line.split()[3] for line in listening} == {"127.0.0.1:5672", "127.0.0.1:25672", "127.0.0.1:4369"}


def test_the_only_user_is_zulip(rabbitmqctl):
    users = json.loads(rabbitmqctl("list_users --formatter json").stdout)
    assert [(user["user"], user["tags"]) for user in users] == [("zulip", ["administrator"])]


def test_permissions(rabbitmqctl):
    permissions = json.loads(rabbitmqctl("list_permissions -p / --formatter json").stdout)
    assert permissions == [{"user": "zulip", "configure": ".*", "write": ".*", "read": ".*"}]


def test_password_is_the_sites(host, rabbitmqctl):
    password = host.ansible.get_variables()["vault_rabbitmq_password"]
    assert rabbitmqctl(f"authenticate_user zulip {password}").succeeded


@pytest.mark.parametrize(("user", "password"), [("guest", "guest"), ("zulip", "wrong")])
def test_anybody_else_is_refused(rabbitmqctl, user, password):
    result = rabbitmqctl(f"authenticate_user {user} {password}")
    assert result.failed
    assert "failed to authenticate" in result.stderr


def test_settings_are_in_effect(rabbitmqctl):
    environment = rabbitmqctl("environment").stdout
    assert "{vm_memory_high_watermark,{absolute," in environment
    assert "{consumer_timeout,10800000}" in environment


def test_node_is_named_after_no_host(host):
    assert host.file("/var/lib/rabbitmq/mnesia/zulip@localhost").is_directory


@pytest.mark.parametrize(
    ("path", "mode"), [("/var/lib/rabbitmq/.erlang.cookie", 0o400), ("/etc/rabbitmq/definitions.json", 0o640)]
)
def test_secrets_are_not_for_everybody(host, path, mode):
    assert host.file(path).mode == mode
