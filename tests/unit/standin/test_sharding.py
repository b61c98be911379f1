"""Which Tornado process is whose."""

import pytest
from django.test import override_settings
from zerver.tornado.sharding import notify_queue, realm_ports, tornado_ports, user_port

HOST = "chat.example.com"


@pytest.mark.parametrize(
    ("sharding", "ports", "mine"),
    [
        ({}, [9800], [9800]),
        ({HOST: 9801}, [9801], [9801]),
        ({HOST: [9800, 9801]}, [9800, 9801], [9800, 9801]),
        ({"shard_map": {HOST: [9802, 9800]}, "shard_regexes": []}, [9800, 9802], [9802, 9800]),
        ({"shard_map": {"other.example.com": 9801, "x.example.com": 9800}}, [9800, 9801], [9800]),
        ({"shard_map": {}, "shard_regexes": [["CHAT\\.", 9803], [".*", 9804]]}, [9803, 9804], [9803]),
    ],
)
def test_ports(sharding, ports, mine):
    assert tornado_ports(sharding) == ports
    assert realm_ports(sharding, HOST) == mine


@override_settings(SHARDING={}, EXTERNAL_HOST=HOST)
def test_one_shard_has_the_plain_queue():
    assert {user_port(user_id) for user_id in range(10)} == {9800}
    assert notify_queue(9800) == "notify_tornado"


@override_settings(SHARDING={HOST: [9800, 9801]}, EXTERNAL_HOST=HOST)
def test_users_are_spread_over_shards():
    assert [user_port(user_id) for user_id in (1, 2, 3)] == [9801, 9800, 9801]
    assert notify_queue(9801) == "notify_tornado_port_9801"
