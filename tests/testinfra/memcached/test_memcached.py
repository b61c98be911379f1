"""memcached answers on 127.0.0.1 alone, and nothing before a SASL login."""

from __future__ import annotations

import json

import pytest

testinfra_hosts = ["ansible://app"]

# The binary protocol with the standard library. Its header: magic, opcode, key length, extras length, type, vbucket or
# status, body length, opaque, cas.
CLIENT = r"""
import json, socket, struct, sys

request, answer = json.load(sys.stdin), {}
connection = socket.create_connection(("127.0.0.1", 11211), 5)


def read(length):
    data = b""
    while len(data) < length:
        try:
            part = connection.recv(length - len(data))
        except ConnectionResetError:
            part = b""
        if not part:
            # memcached hangs up after a refusal, sometimes so fast that the refusal itself is lost.
            print(json.dumps(answer))
            sys.exit()
        data += part
    return data


def call(opcode, key=b"", value=b"", extras=b""):
    body = extras + key + value
    connection.sendall(struct.pack("!BBHBBHIIQ", 0x80, opcode, len(key), len(extras), 0, 0, len(body), 0, 0) + body)
    _, _, key_length, extras_length, _, status, length, _, _ = struct.unpack("!BBHBBHIIQ", read(24))
    return status, read(length)[key_length + extras_length :].decode()


if request.get("user"):
    answer["login"] = call(0x21, b"PLAIN", f"\0{request['user']}\0{request['password']}".encode())[0]
answer["set"] = call(0x01, b"zulip-ha-test", b"1", struct.pack("!II", 0, 10))[0]
answer["get"] = call(0x00, b"zulip-ha-test")[1]
print(json.dumps(answer))
"""
AUTHENTICATION_FAILED = 0x20


@pytest.fixture
def memcached(host):
    """Return a function that logs in as wanted, stores a value and reads it back."""

    def talk(**request: str) -> dict:
        return json.loads(host.check_output("echo %s | python3 -c %s", json.dumps(request), CLIENT))

    return talk


@pytest.fixture
def password(host) -> str:
    return host.ansible.get_variables()["vault_memcached_password"]


def test_service_runs_and_is_enabled(host):
    service = host.service("memcached")
    assert service.is_running
    assert service.is_enabled


def test_listens_on_loopback_only(host):
    sockets = host.run("ss -Hltnu sport = :11211").stdout.splitlines()
    assert [line.split()[4] for line in sockets] == ["127.0.0.1:11211"]


def test_without_login_nothing(memcached):
    assert set(memcached().values()) <= {AUTHENTICATION_FAILED}


def test_text_protocol_is_refused(host):
    command = r"""exec 3<>/dev/tcp/127.0.0.1/11211; printf 'version\r\n' >&3; timeout 2 cat <&3"""
    assert "VERSION" not in host.run("bash -c %s", command).stdout


def test_wrong_password_is_refused(memcached):
    assert set(memcached(user="zulip@localhost", password="wrong").values()) <= {AUTHENTICATION_FAILED}


def test_login_as_zulip_does(memcached, password):
    assert memcached(user="zulip@localhost", password=password) == {"login": 0, "set": 0, "get": "1"}


def test_password_files_are_not_for_everybody(host):
    assert host.file("/etc/memcached-password").mode == 0o600
    database = host.file("/run/memcached-sasl/sasldb2")
    assert (database.user, database.group, database.mode) == ("root", "memcache", 0o640)


def test_memory_is_sized_by_the_host(host):
    arguments = host.process.get(user="memcache", comm="memcached").args.split()
    assert int(arguments[arguments.index("-m") + 1]) >= 64
    assert "-S" in arguments
