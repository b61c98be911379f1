"""The program's eyes over real TLS, its words with etcd's gateway, its configuration and its commands."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import errno
import http.server
import ipaddress
import json
import os
import signal
import socket
import ssl
import threading
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.unit.leader_watch.world import CLUSTER, CONFIG, PREFIX, Site, agent, decision, etcd, program

LEADER = decision.Leadership("db1", 40, 7)


def make_trust(folder: Path, address: str = "127.0.0.1"):
    """A CA, and a certificate of it for an address."""
    folder.mkdir(exist_ok=True)
    now = datetime.datetime.now(datetime.UTC)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "CA")])

    def builder(subject: x509.Name, public_key):
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
        )

    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    ca = (
        builder(issuer, ca_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
    node = (
        builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "node")]), key.public_key())
        .add_extension(names, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "ca.pem").write_bytes(ca.public_bytes(pem))
    (folder / "node.pem").write_bytes(node.public_bytes(pem))
    form, none = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "node.key").write_bytes(key.private_bytes(pem, form, none))
    return etcd.Trust(*(str(folder / name) for name in ("ca.pem", "node.pem", "node.key")))


@pytest.fixture
def trust(tmp_path):
    return make_trust(tmp_path / "pki")


class Patroni(http.server.BaseHTTPRequestHandler):
    """Answers as the test wants it to; only clients with a certificate of the site get that far."""

    status, said, path_asked = 200, {}, ""

    def do_GET(self) -> None:
        type(self).path_asked = self.path
        self.send_response(type(self).status)
        self.end_headers()
        self.wfile.write(json.dumps(type(self).said).encode())

    do_POST = do_GET

    def log_message(self, *_) -> None:
        pass


@contextlib.contextmanager
def serving(trust, handler=Patroni, port: int = 0):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # a client that hangs up is what some tests are about
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(trust.certificate, trust.private_key)
    context.load_verify_locations(trust.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"https://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def listening():
    """A host whose kernel takes connections for a process that is frozen."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"https://127.0.0.1:{server.getsockname()[1]}"


# --- looking ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 503, 500])
def test_whatever_patroni_answers_it_is_seen(trust, status):
    Patroni.status = status
    with serving(trust) as url:
        assert program.outcome(f"{url}/liveness", trust, 2.0) == (decision.ANSWERED, "")
    assert Patroni.path_asked == "/liveness"


def test_a_frozen_patroni_is_silent_and_the_look_ends_in_time(trust):
    with listening() as url:
        started = time.monotonic()
        result, why = program.outcome(f"{url}/liveness", trust, 0.3)
        assert time.monotonic() - started < 5
    assert result == decision.SILENT
    assert why


def test_a_trickle_is_no_answer_in_time(trust):
    """One deadline for the whole look, not one for each packet."""

    class Slow(Patroni):
        def do_GET(self) -> None:
            with contextlib.suppress(OSError):
                for _ in range(600):
                    self.wfile.write(b"H")
                    time.sleep(0.05)

    with serving(trust, Slow) as url:
        started = time.monotonic()
        assert program.outcome(url, trust, 0.5)[0] == decision.SILENT
        assert time.monotonic() - started < 10


def test_a_deadline_that_has_passed_is_silence_and_no_error(trust):
    with serving(trust) as url:
        assert program.outcome(f"{url}/liveness", trust, 0.0)[0] == decision.SILENT


def test_a_host_that_refuses_is_not_silent(trust):
    with listening() as url:
        pass
    result, why = program.outcome(f"{url}/liveness", trust, 1.0)
    assert result == decision.UNCLEAR
    assert "refused" in why


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (OSError(errno.EHOSTUNREACH, "No route to host"), "silent"),
        (OSError(errno.ENETUNREACH, "Network is unreachable"), "silent"),
        (TimeoutError(errno.ETIMEDOUT, "Connection timed out"), "silent"),
        (ConnectionResetError(errno.ECONNRESET, "reset"), "unclear"),
        (OSError(errno.EMFILE, "Too many open files"), "unclear"),
        (FileNotFoundError(errno.ENOENT, "no certificate"), "unclear"),
        (PermissionError(errno.EACCES, "no key"), "unclear"),
    ],
)
def test_only_silence_speaks_for_a_loss(trust, monkeypatch, error, result):
    """Of a host that cannot look, nothing follows for the leader."""

    def fail(*_):
        raise error

    monkeypatch.setattr(program.socket, "create_connection", fail)
    assert program.outcome("https://192.0.2.1:8008/liveness", trust, 1.0)[0] == result


def test_somebody_elses_server_is_not_the_leader(trust, tmp_path):
    stranger = make_trust(tmp_path / "stranger")
    with serving(stranger) as url:
        result, why = program.outcome(url, trust, 2.0)
    assert result == decision.UNCLEAR
    assert "CERTIFICATE_VERIFY_FAILED" in why


def test_a_certificate_for_another_address_is_refused(tmp_path):
    elsewhere = make_trust(tmp_path / "elsewhere", "192.0.2.9")
    with serving(elsewhere) as url:
        assert program.outcome(url, elsewhere, 2.0)[0] == decision.UNCLEAR


def test_what_is_not_http_is_no_patroni(trust):
    class Other(Patroni):
        def do_GET(self) -> None:
            self.wfile.write(b"220 mail")

    with serving(trust, Other) as url:
        assert program.outcome(url, trust, 2.0) == (decision.UNCLEAR, "it answers, and not as Patroni")


@pytest.mark.parametrize(
    ("said", "ready"),
    [
        ({"role": "replica", "state": "running"}, True),
        ({"role": "replica", "state": "streaming"}, True),
        ({"role": "replica", "state": "starting"}, False),
        ({"role": "primary", "state": "running"}, False),
        ({"role": "replica", "state": "running", "tags": {"nofailover": True}}, False),
        ({"role": "replica", "state": "running", "tags": {"clonefrom": True}}, True),
        ([], False),
        ({}, False),
    ],
)
def test_a_standby_is_ready_when_it_runs_and_may_lead(trust, said, ready):
    Patroni.status, Patroni.said = 200, said
    with serving(trust) as url:
        assert program.runs_as_replica(f"{url}/patroni", trust, 2.0) is ready


def test_a_silent_standby_is_not_ready(trust):
    with listening() as url:
        assert not program.runs_as_replica(f"{url}/patroni", trust, 0.3)


def test_a_look_asks_the_standbys_only_when_the_leader_is_silent(trust):
    Patroni.status, Patroni.said = 200, {"role": "replica", "state": "running"}
    files = {"ca": trust.ca, "certificate": trust.certificate, "private_key": trust.private_key}
    with listening() as silent, serving(trust) as answering:
        members = {"db1": silent, "db2": answering}
        config = dataclasses.replace(CONFIG, members=members, look_timeout=2.0, **files)
        looker = program.Looker(config, threading.Event())
        look = looker.look(LEADER, ("db2", "db9"), etcd.clock())
        assert (look.outcome, look.ready) == (decision.SILENT, frozenset({"db2"}))
        looker = program.Looker(dataclasses.replace(config, members={**members, "db1": answering}), threading.Event())
        look = looker.look(LEADER, ("db2",), etcd.clock())
        assert (look.outcome, look.ready) == (decision.ANSWERED, frozenset())
        look = looker.look(decision.Leadership("db7", 1, 1), ("db2",), etcd.clock())
        assert (look.outcome, look.why) == (decision.UNCLEAR, "it is none of leader_watch_members")


def test_the_looker_looks_beside_and_wakes_who_waits(trust):
    files = {"ca": trust.ca, "certificate": trust.certificate, "private_key": trust.private_key}
    Patroni.status = 200
    with serving(trust) as url:
        wake = threading.Event()
        looker = program.Looker(dataclasses.replace(CONFIG, members={"db1": url}, interval=0.05, **files), wake)
        looker.target = (LEADER, ())
        looker.start()
        assert wake.wait(5)
        time.sleep(0.3)
        looks = looker.looks()
    assert len(looks) > 1
    assert {look.outcome for look in looks[:-1]} == {decision.ANSWERED}
    assert all(first.started < second.started for first, second in zip(looks, looks[1:], strict=False))


def test_a_renewed_certificate_needs_no_restart(trust, tmp_path):
    first = trust.context()
    assert trust.context() is first
    make_trust(tmp_path / "pki")
    os.utime(trust.certificate, ns=(1, 1))
    assert trust.context() is not first


# --- etcd's gateway ---------------------------------------------------------------------------------------------------


class Etcd(Patroni):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()


def test_the_gateway_speaks_over_mutual_tls_and_goes_on_to_the_next_endpoint(trust):
    Etcd.status, Etcd.said = 200, {"ID": "12"}
    with listening() as dead, serving(trust, Etcd) as url:
        gateway = etcd.Gateway([dead, url], trust, 0.5)
        connect, asked = gateway._connect, []
        gateway._connect = lambda endpoint: asked.append(endpoint) or connect(endpoint)
        assert etcd.Store(gateway.call, CLUSTER, PREFIX).grant(3) == 12
        assert asked == [dead, url]
        gateway._connection.close()
        gateway._connection = None
        gateway.call("/v3/lease/grant", {})
        assert asked == [dead, url, url]  # the one that answered is asked first


@pytest.mark.parametrize(
    ("status", "said"), [(200, {"error": "lost"}), (404, {"error": "requested lease not found"}), (503, {})]
)
def test_an_error_is_no_answer(trust, status, said):
    Etcd.status, Etcd.said = status, said
    with serving(trust, Etcd) as url, pytest.raises(etcd.StoreError):
        etcd.Gateway([url], trust, 1.0).call("/v3/kv/txn", {})


def test_etcd_counts_whole_seconds_and_the_watch_waits_for_the_rest():
    """A lease of 20 s that was renewed 3.1 s ago has 16.9 s left, which etcd tells as 16."""

    def left(ttl: int) -> float:
        return etcd.Store(lambda path, body: {"TTL": str(ttl), "grantedTTL": "20"}, CLUSTER, PREFIX).unrenewed(7)

    assert left(16) == 3.0
    assert left(17) == 2.0
    assert left(19) == 0.0
    # One that etcd does not know says nothing.
    assert etcd.Store(lambda path, body: {"TTL": "-1"}, CLUSTER, PREFIX).unrenewed(7) == 0.0


# --- configuration and commands ---------------------------------------------------------------------------------------


@pytest.fixture
def config_file(tmp_path):
    def write(**changes) -> str:
        path = tmp_path / "leader-watch.json"
        path.write_text(json.dumps({**dataclasses.asdict(dataclasses.replace(CONFIG, host="mon1")), **changes}))
        return str(path)

    return write


def test_the_configuration_is_read(config_file):
    assert agent.Config.load(config_file()) == dataclasses.replace(CONFIG, host="mon1")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"endpoints": []}, "endpoints is empty"),
        ({"quorum": 1}, "one observer alone"),
        ({"lost_seconds": 1.5}, "two looks"),
        ({"surplus": 1}, "surplus"),
    ],
)
def test_what_cannot_work_is_refused(config_file, monkeypatch, capsys, changes, says):
    monkeypatch.setattr("sys.argv", ["leader_watch", "--config", config_file(**changes), "check"])
    assert program.main() == 1
    assert says in capsys.readouterr().err


def test_commands(config_file, monkeypatch, capsys):
    site = Site()
    site.run(3)
    monkeypatch.setattr(program, "open_store", lambda config: etcd.Store(site.etcd.call, CLUSTER, PREFIX))
    monkeypatch.setenv("SUDO_USER", "iago")

    def command(*words: str) -> str:
        monkeypatch.setattr("sys.argv", ["leader_watch", "--config", config_file(), *words])
        assert program.main() == 0
        return capsys.readouterr().out

    said = command("status")
    assert "leader     db1\n" in said
    assert "standby    db2\n" in said
    assert "observer   mon1: seen\n" in said
    assert "decision   watch: db1 leads" in said
    assert "armed      yes" in said
    assert json.loads(command("status", "--json"))["leader"] == "db1"
    assert "armed      no: it was disarmed: by iago on mon1" in command("disarm")
    assert "armed      no: it was disarmed: a drill" in command("disarm", "--why", "a drill")
    assert "armed      yes" in command("arm")
    site.lose("db1")
    site.run(10)
    said = command("status")
    assert "leader     none\n" in said
    assert "observer   mon1: no leader\n" in said
    assert "decision   watch: nobody leads" in said
    assert f"revoked    today by {site.holder}: db1 is lost by" in said


def test_without_etcd_a_command_fails_in_one_line(config_file, monkeypatch, capsys):
    def refuse(path, body):
        raise etcd.StoreError("nobody answers")

    monkeypatch.setattr(program, "open_store", lambda config: etcd.Store(refuse, CLUSTER, PREFIX))
    monkeypatch.setattr("sys.argv", ["leader_watch", "--config", config_file(), "status"])
    assert program.main() == 1
    assert capsys.readouterr().err == "leader_watch: status: nobody answers\n"


# --- the service ------------------------------------------------------------------------------------------------------


@pytest.fixture
def service(tmp_path, monkeypatch):
    """Runs the service for a while against an etcd, and returns what systemd was told."""

    def run(site: Site, seconds: float) -> list[tuple[float, str]]:
        address = str(tmp_path / "notify")
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        monkeypatch.setattr(program, "open_store", lambda config: etcd.Store(site.etcd.call, CLUSTER, PREFIX))
        config = dataclasses.replace(CONFIG, host="mon1", members={}, interval=0.02, look_timeout=0.02)
        before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
            systemd.bind(address)
            systemd.settimeout(seconds + 5)
            timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGTERM))
            timer.start()
            said: list[tuple[float, str]] = []
            started = time.monotonic()

            def hear() -> None:
                while not said or said[-1][1] != "STOPPING=1":
                    words = systemd.recv(256).decode()
                    said.append((time.monotonic() - started, words))

            listener = threading.Thread(target=hear)
            listener.start()
            try:
                assert program.run(config) == 0
            finally:
                timer.cancel()
                signal.signal(signal.SIGTERM, before[0])
                signal.signal(signal.SIGINT, before[1])
                listener.join()
        return said

    return run


def test_the_service_observes_until_it_is_stopped(service):
    site = Site()
    said = [words for _, words in service(site, 0.5)]
    assert said[0] == "READY=1"
    assert said.count("WATCHDOG=1") > 1
    assert said[-1] == "STOPPING=1"
    # It left at once: no observer, no lock.
    assert [key for key in site.etcd.keys if key.startswith(PREFIX)] == []


def test_eyes_that_died_are_told_to_nobody_and_systemd_finds_out(service, monkeypatch):
    monkeypatch.setattr(program.Looker, "run", lambda self: None)
    said = service(Site(), 2.5)
    alive = [when for when, words in said if words == "WATCHDOG=1"]
    assert alive
    assert max(alive) < 2.0
