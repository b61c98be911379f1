"""Configuration of the brokers, the caches and the database proxies."""

from __future__ import annotations

import base64
import hashlib

import pytest
from ansible.errors import AnsibleFilterError

from filter_plugins import brokers


def test_password_hash_is_what_rabbitmq_checks():
    raw = base64.b64decode(brokers.rabbitmq_password_hash("secret", "zulip@app1"))
    salt, digest = raw[:4], raw[4:]
    assert digest == hashlib.sha256(salt + b"secret").digest()


def test_password_hash_is_the_same_on_every_run_and_differs_by_salt_and_password():
    first = brokers.rabbitmq_password_hash("secret", "zulip@app1")
    assert first == brokers.rabbitmq_password_hash("secret", "zulip@app1")
    assert first != brokers.rabbitmq_password_hash("secret", "zulip@app2")
    assert first != brokers.rabbitmq_password_hash("other", "zulip@app1")


def test_password_hash_refuses_an_empty_password():
    with pytest.raises(AnsibleFilterError, match="empty"):
        brokers.rabbitmq_password_hash("", "zulip@app1")


@pytest.mark.parametrize(
    ("settings", "lines"),
    [
        ({"port": 6379}, ["port 6379"]),
        ({"appendonly": False, "lazyfree-lazy-expire": True}, ["appendonly no", "lazyfree-lazy-expire yes"]),
        ({"save": ""}, ['save ""']),
        ({"requirepass": 'a"b\\c #'}, ['requirepass "a\\"b\\\\c #"']),
        ({"loadmodule": ["/a.so", "/b.so"]}, ["loadmodule /a.so", "loadmodule /b.so"]),
        (
            {"client-output-buffer-limit": [["normal", 0, 0, 0], ["pubsub", "32mb", "8mb", 60]]},
            ["client-output-buffer-limit normal 0 0 0", "client-output-buffer-limit pubsub 32mb 8mb 60"],
        ),
    ],
)
def test_redis_directives(settings, lines):
    assert brokers.redis_directives(settings) == lines


def test_pgbouncer_lines():
    settings = {"listen_port": 6432, "log_stats": False, "logfile": "", "max_prepared_statements": None}
    assert brokers.pgbouncer_lines(settings) == ["listen_port = 6432", "log_stats = 0", "logfile ="]


def test_pgbouncer_lines_are_divided_without_remainder():
    settings = {"listen_port": 6432, "pool_mode": "transaction", "user": None}
    start = ["listen_port", "user"]
    assert brokers.pgbouncer_lines(settings, only=start) == ["listen_port = 6432"]
    assert brokers.pgbouncer_lines(settings, without=start) == ["pool_mode = transaction"]


def test_pgbouncer_userlist_doubles_quotes():
    assert brokers.pgbouncer_userlist({"zulip": 'a"b'}) == ['"zulip" "a""b"']


@pytest.mark.parametrize(
    "write",
    [
        lambda text: brokers.redis_directives({"requirepass": text}),
        lambda text: brokers.pgbouncer_lines({"job_name": text}),
        lambda text: brokers.pgbouncer_userlist({"zulip": text}),
    ],
)
def test_a_line_break_cannot_smuggle_in_a_setting(write):
    with pytest.raises(AnsibleFilterError, match="single line"):
        write("x\nadmin_users = zulip")
