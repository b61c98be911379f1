"""The planned move: what it counts, what it sends, and that it leaves nothing behind."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import sys
import tarfile
import threading
from pathlib import Path
from typing import Any

import pytest

PATH = Path(__file__).resolve().parents[3] / "roles/lease/files/app_move.py"
spec = importlib.util.spec_from_file_location("app_move", PATH)
assert spec
assert spec.loader
app_move = importlib.util.module_from_spec(spec)
sys.modules["app_move"] = app_move
spec.loader.exec_module(app_move)


class Broker:
    """Queues in memory."""

    def __init__(self, **queues: list[str]) -> None:
        self.queues = queues

    def depth(self, names: Any) -> int:
        return sum(len(self.queues.get(name, [])) for name in names)

    def take(self, names: Any) -> list[tuple[str, str]]:
        taken = [(name, body) for name in names for body in self.queues.get(name, [])]
        for name in names:
            self.queues[name] = []
        return taken

    def give(self, notices: Any) -> None:
        for name, body in notices:
            self.queues.setdefault(name, []).append(body)


class Peer:
    """Another app host."""

    def __init__(self, state: str = "inactive, holder: app1", takes: bool = True) -> None:
        self.name, self.state, self.takes, self.got, self.told = "app2", state, takes, [], []

    def announce(self) -> None:
        self.told.append("coming")

    def stopped(self, seconds: float) -> bool:
        self.told.append("stopped?")
        return True

    def send(self, data: bytes, seconds: float) -> bool:
        self.got.append(data)
        return self.takes


class World:
    """A host whose commands are written down, and an agent that answers."""

    def __init__(self, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.base, self.calls, self.holder, self.fails = base, [], "app1", ""
        self.told_to_close: list[bool] = []
        config = {
            "host": "app1", "virtual_ip": "192.0.2.10", "haproxy_socket": str(base / "none"), "event_servers": [],
            "event_units": ["zulip-tornado@9800.service"], "event_directory": str(base / "tornado"),
            "event_queues": ["notify_tornado"], "work_queues": ["email_senders"], "peers": [], "ssh": ["ssh"],
            "rabbitmq": {}, "settle_seconds": 0, "stop_seconds": 1, "drain_seconds": 0.1, "hold_seconds": 15,
            "finish_seconds": 0.2, "lease_program": "app_lease.py", "user": "zulip",
        }  # fmt: skip
        (base / "tornado").mkdir()
        (base / "active").write_text("1")
        self.peers = [Peer()]
        self.host = app_move.Host(config, str(base))
        self.host.broker = Broker(notify_tornado=["late"], email_senders=[])
        monkeypatch.setattr(app_move, "run", self.run)
        monkeypatch.setattr(app_move, "connections", lambda address: 0)
        monkeypatch.setattr(self.host, "connect", lambda seconds=5.0: self.peers)

    def run(self, *command: str, **options: Any) -> str:
        words = " ".join(command)
        self.calls.append(words)
        if self.fails and self.fails in words:
            raise app_move.MoveError(f"{words}: no")
        if "reload nginx" in words:
            self.told_to_close.append((self.base / "closing").exists())
        if "stop zulip-tornado" in words:
            (self.base / "tornado/event_queues.9800.json").write_text("[1]")
            (self.base / "tornado/event_queues.9800.last.json").write_text("[]")
        if " release " in words:
            self.holder = "app2"
        return json.dumps({"holder": self.holder}) if "app_lease.py" in words else ""

    def called(self, part: str) -> int:
        """Where in the order of calls a command came."""
        return next(number for number, call in enumerate(self.calls) if part in call)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def contents(data: bytes) -> dict[str, bytes]:
    return dict(app_move.unpacked(data))


def test_a_move_hands_queues_and_notices_over_and_keeps_none(world: World) -> None:
    result = world.host.move()
    assert (result["moved"], result["to"], result["event_files"], result["notices"]) == (True, "app2", 1, 1)
    sent = contents(world.peers[0].got[0])
    assert sent["event_queues.9800.json"] == b"[1]"
    assert "event_queues.9800.last.json" not in sent
    assert json.loads(sent[app_move.NOTICES]) == [["notify_tornado", "late"]]
    assert world.host.dumps() == []
    assert not (world.base / "moving").exists()
    assert not (world.base / "nginx.conf").exists()


def test_clients_are_held_back_after_the_singletons_stopped(world: World) -> None:
    world.host.move()
    order = [world.called(part) for part in ("stop zulip-singleton@*", "reload nginx", "nft -f", "nft delete")]
    assert order == sorted(order)
    assert world.called("nft -f") < world.called(" release ")


def test_clients_are_told_that_connections_end_before_any_is_closed(world: World) -> None:
    world.host.move()
    # The second reload is the way back.
    assert world.told_to_close == [True, False]
    assert not (world.base / "closing").exists()


def test_the_peers_stop_listening_before_the_lease_moves(world: World) -> None:
    peer = world.peers[0]
    world.host.move()
    assert peer.told == ["coming", "stopped?"]
    # Nothing was given up until then.
    told_at = world.called("stop zulip-singleton@*")
    assert told_at < world.called("nft -f") < world.called(" release ")


def test_what_workers_say_later_follows(world: World) -> None:
    world.host.move()
    world.host.broker.queues["notify_tornado"] = ["later"]
    assert world.host.finish() == 1
    assert json.loads(contents(world.peers[-1].got[-1])[app_move.NOTICES]) == [["notify_tornado", "later"]]


@pytest.mark.parametrize("state", [None, "inactive, holder: app1, unhealthy"])
def test_without_a_host_that_can_nothing_is_touched(world: World, state: str | None) -> None:
    world.peers[:] = [Peer(state)] if state else []
    with pytest.raises(app_move.MoveError, match="nothing was changed"):
        world.host.move()
    assert world.calls == []


def test_a_host_that_is_not_active_does_nothing(world: World) -> None:
    (world.base / "active").unlink()
    assert world.host.move()["moved"] is False
    assert world.calls == []


def test_nobody_took_the_lease(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_move, "wait_until", lambda condition, seconds, pause=0.0: bool(condition()))
    world.fails = " release "
    with pytest.raises(app_move.MoveError):
        world.host.move()
    assert world.host.dumps(), "its own queues are still there for its own Tornado"
    world.host.cleanup()
    assert "systemctl start zulip-tornado@9800.service zulip-active.target" in world.calls


def test_cleanup_of_nothing_reloads_nothing(world: World) -> None:
    world.host.cleanup()
    assert not [call for call in world.calls if "reload" in call]


def test_what_a_peer_sends_cannot_lead_elsewhere() -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name in ("../../etc/passwd", "/etc/passwd", ".hidden", "event_queues.json"):
            entry = tarfile.TarInfo(name)
            entry.size = 1
            tar.addfile(entry, io.BytesIO(b"x"))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    assert set(contents(stream.getvalue())) == {"event_queues.json"}


def test_only_connections_of_clients_are_counted() -> None:
    address = app_move.proc_address("172.29.77.10", 443)
    assert address == "0A4D1DAC:01BB"
    other = app_move.proc_address("172.29.77.11", 443)
    lines = [
        "  sl  local_address rem_address   st",
        f"   0: {address} 00000000:0000 0A",
        f"   1: {address} 014D1DAC:A1B2 01",
        f"   2: {address} 014D1DAC:A1B3 08",
        f"   3: {address} 014D1DAC:A1B4 06",
        f"   4: {other} 014D1DAC:A1B4 01",
    ]
    assert app_move.open_connections("172.29.77.10", lines) == 2
    assert len(app_move.proc_address("2001:db8::1", 443)) == 32 + 5


def test_old_processes_of_haproxy_are_asked_too() -> None:
    text = "#<PID> <type> <reloads>\n1 master 1\n# workers\n12 worker 0\n# old workers\n9 worker 1\n# programs\n"
    assert app_move.workers(text) == [12, 9]


@pytest.mark.parametrize(("address", "kind"), [("192.0.2.1", "ip daddr"), ("2001:db8::1", "ip6 daddr")])
def test_what_holds_clients_back_ends_by_itself(address: str, kind: str) -> None:
    rules = app_move.hold_rules(address, 15)
    assert kind in rules
    assert f"{address} timeout 15s" in rules


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are the tester's own."""
    for name in ("seteuid", "setegid"):
        monkeypatch.setattr(os, name, lambda number: None)
    monkeypatch.setattr(app_move.pwd, "getpwnam", lambda name: type("User", (), {"pw_uid": 1, "pw_gid": 1}))


@pytest.mark.usefixtures("plain")
def test_tornado_waits_for_what_was_announced(world: World) -> None:
    folder = world.base / "tornado/adopt"
    folder.mkdir()
    (folder / "1.coming").touch()
    thread = threading.Thread(target=world.host.adopt)
    thread.start()
    assert app_move.wait_until(lambda: world.calls[-1:] == ["systemctl start zulip-tornado@9800.service"], 10)
    assert (world.base / "adopting").read_text().split() == ["zulip-tornado@9800.service"]
    assert world.host.events_stopped()
    (folder / "2.ready").mkdir()
    (folder / "2.ready/event_queues.9800.json").write_text("[2]")
    (folder / "1.coming").unlink()
    thread.join(10)
    assert (world.base / "tornado/event_queues.9800.json").read_text() == "[2]"
    assert not (world.base / "adopting").exists()
    assert [call.split()[1] for call in world.calls] == ["stop", "start"]


@pytest.mark.usefixtures("plain")
def test_what_was_announced_long_ago_is_forgotten(world: World) -> None:
    folder = world.base / "tornado/adopt"
    folder.mkdir()
    (folder / "1.coming").touch()
    os.utime(folder / "1.coming", (0, 0))
    world.host.adopt()
    assert not list(folder.iterdir())
    assert world.calls == []


@pytest.mark.parametrize("stopped", [True, False])
def test_a_peer_announces_and_then_sends(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], stopped: bool
) -> None:
    queues = world.base / "event_queues.9800.json"
    queues.write_text("[3]")
    data = app_move.COMING + app_move.archive([str(queues)], [])
    monkeypatch.setattr(sys, "stdin", type("Input", (), {"buffer": io.BytesIO(data)}))
    monkeypatch.setattr(app_move, "wait_until", lambda condition, seconds: condition())
    if stopped:
        (world.base / "adopting.stopped").touch()
    world.host.receive()
    said = capsys.readouterr().out.split()
    assert said[-2:] == ["STOPPED" if stopped else "RUNNING", "OK"]
    (ready,) = (world.base / "tornado/adopt").iterdir()
    assert ready.suffix == ".ready"
    assert (ready / "event_queues.9800.json").read_text() == "[3]"


@pytest.mark.usefixtures("plain")
def test_adopting_needs_no_root_for_files_and_restarts_once(world: World) -> None:
    folder = world.base / "tornado/adopt/1.ready"
    folder.mkdir(parents=True)
    (folder / "event_queues.9800.json").write_text("[2]")
    (folder / app_move.NOTICES).write_text(json.dumps([["notify_tornado", "one"], ["other", "two"]]))
    world.host.broker.queues["notify_tornado"] = []
    world.host.adopt()
    assert (world.base / "tornado/event_queues.9800.json").exists()
    assert not folder.exists()
    assert world.host.broker.queues == {"notify_tornado": ["one"], "email_senders": []}
    assert [call.split()[1] for call in world.calls] == ["stop", "start"]
