"""The lease agent's state machine, with a simulated clock, etcd and host."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import random
import socket
import struct
import sys
import threading
from pathlib import Path

import pytest

PATH = Path(__file__).resolve().parents[3] / "roles/lease/files/app_lease.py"
spec = importlib.util.spec_from_file_location("app_lease", PATH)
app_lease = importlib.util.module_from_spec(spec)
sys.modules["app_lease"] = app_lease
spec.loader.exec_module(app_lease)

TTL, MARGIN = 5.0, 1.0


class World:
    """One clock and one etcd for all agents of a test."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.down = False
        self.key: tuple[str, int] | None = None
        self.expiry: dict[int, float] = {}
        self.count = 0

    def purge(self) -> None:
        self.expiry = {lease: end for lease, end in self.expiry.items() if end > self.now}
        if self.key and self.key[1] not in self.expiry:
            self.key = None


class Store:
    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.cut = False
        self.during = lambda verb: None  # what happens while an answer is under way

    def _enter(self) -> None:
        if self.cut or self.world.down:
            raise app_lease.StoreError("unreachable")
        self.world.purge()

    def holder(self):
        self._enter()
        key = self.world.key
        return app_lease.Holder(*key) if key else None

    def acquire(self):
        self._enter()
        started = self.world.now
        if self.world.key:
            return None
        self.world.count += 1
        self.world.key = (self.name, self.world.count)
        self.world.expiry[self.world.count] = started + TTL
        self.during("acquire")
        return self.world.count, started

    def renew(self, lease, until):
        self._enter()
        started = self.world.now
        if not self.world.key or self.world.key[1] != lease:
            return None
        self.world.expiry[lease] = started + TTL
        self.during("renew")
        return started

    def revoke(self, lease):
        self._enter()
        self.world.expiry.pop(lease, None)
        self.world.purge()


class Host:
    """Records what was done, and keeps the state that the outside sees."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.done: list[str] = []
        self.fail: set[str] = set()
        self.active = self.vip = self.target = False
        self.grace: float | None = None
        self.during = lambda verb: None

    def _do(self, verb: str) -> None:
        self.done.append(verb)
        self.during(verb)
        if verb in self.fail:
            raise app_lease.ActionError(f"{verb} failed")

    def flush_cache(self):
        self._do("flush")

    def start_target(self):
        self._do("start")
        self.target = True

    def set_active(self):
        self._do("active")
        self.active = True

    def allow_vip(self):
        self._do("vip")
        self.vip = True

    def deny_vip(self):
        self._do("no vip")
        self.vip = False

    def clear_active(self):
        self._do("inactive")
        self.active = False

    def stop_target(self, grace):
        self.grace = grace
        self._do("stop")
        self.target = False


@dataclasses.dataclass
class Node:
    agent: app_lease.Agent
    store: Store
    host: Host
    log: list[str]

    @property
    def up(self) -> bool:
        return self.host.active or self.host.vip or self.host.target


CONFIG = app_lease.Config(
    host="app1",
    key="/key",
    endpoints=("https://192.0.2.1:2379",),
    ca="",
    certificate="",
    private_key="",
    ttl=TTL,
    margin=MARGIN,
    request_timeout=0.8,
    release_grace=1.0,
    units=(),
    probes={},
    start_grace=15,
    interval=1.0,
    probe_timeout=2.0,
    failures=3,
    successes=2,
    backoff=5,
    backoff_max=300,
    memcached=None,
)


def make(world: World, name: str = "app1") -> Node:
    store, host, log = Store(world, name), Host(world), []
    agent = app_lease.Agent(
        dataclasses.replace(CONFIG, host=name), store, host, lambda: world.now, lambda text, level=6: log.append(text)
    )
    for _ in range(2):
        agent.observe([])
    return Node(agent, store, host, log)


def run(world: World, seconds: float, *nodes: Node) -> None:
    end = world.now + seconds
    while world.now < end:
        for node in nodes:
            node.agent.step()
        world.now += 0.25


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def node(world: World) -> Node:
    node = make(world)
    run(world, 1, node)
    assert node.agent.active
    return node


def test_activation_follows_the_order_flush_singletons_active_vip(node):
    assert node.host.done == ["no vip", "inactive", "stop", "flush", "start", "active", "vip"]


def test_deactivation_follows_the_reverse_order_and_the_key_goes_last(world, node):
    held = []
    node.host.during = lambda verb: held.append(world.key is not None)
    node.host.done.clear()
    node.agent.stop()
    assert node.host.done == ["no vip", "inactive", "stop"]
    assert held == [True, True, True]
    assert world.key is None


def test_only_one_of_two_is_active(world, node):
    other = make(world, "app2")
    run(world, 20, node, other)
    assert node.up
    assert not other.up
    assert other.agent.holder == "app1"


def test_the_other_takes_over_at_once_after_a_release_and_the_first_stays_away(world, node):
    other = make(world, "app2")
    run(world, 2, node, other)
    node.agent.release(30, "asked")
    run(world, 0.5, node, other)
    assert other.agent.active
    other.agent.stop()
    run(world, 20, node)
    assert not node.agent.active
    run(world, 12, node)
    assert node.agent.active


def test_resume_ends_a_release(world, node):
    node.agent.release(30, "asked")
    node.agent.resume()
    run(world, 0.5, node)
    assert node.agent.active


def test_a_holder_that_vanishes_is_replaced_within_ttl_and_a_second(world, node):
    other = make(world, "app2")
    run(world, 3, node, other)
    gone = world.now
    run(world, 10, other)
    assert other.agent.active
    assert other.agent.since - gone <= TTL + 1


def test_etcd_down_makes_the_holder_inactive_before_its_lease_can_end(world, node):
    world.down = True
    lease_end = max(world.expiry.values())
    stopped = []
    node.host.during = lambda verb: stopped.append(world.now)
    run(world, 10, node)
    assert not node.up
    assert stopped[-1] <= lease_end - MARGIN + 0.25
    assert node.host.grace == pytest.approx(0.7 * MARGIN)
    world.down = False
    run(world, 1, node)
    assert node.agent.active


def test_a_short_silence_of_etcd_changes_nothing(world, node):
    node.host.done.clear()
    world.down = True
    run(world, 2.5, node)
    world.down = False
    run(world, 2, node)
    assert node.agent.active
    assert node.host.done == []


def test_a_thawed_holder_stops_before_it_does_anything_else(world, node):
    node.host.done.clear()
    calls = []
    node.store.during = calls.append
    world.now += 10
    node.host.during = lambda verb: calls.append(verb)
    node.agent.step()
    assert calls[:3] == ["no vip", "inactive", "stop"]
    assert "past the deadline" in " ".join(node.log)


def test_a_renewal_whose_answer_is_read_after_a_freeze_is_worth_nothing(world, node):
    def freeze(verb):
        world.now += 10

    node.store.during = freeze
    run(world, 1.5, node)
    assert not node.up


@pytest.mark.parametrize("during", ["flush", "start", "active"])
def test_a_freeze_while_activating_ends_in_an_inactive_host(world, during):
    node = make(world)

    def freeze(verb):
        if verb == during:
            world.now += 10

    node.host.during = freeze
    node.agent.step()
    assert "vip" not in node.host.done
    assert not node.up


def test_a_freeze_while_acquiring_activates_nothing(world):
    node = make(world)

    def freeze(verb):
        world.now += 10

    node.store.during = freeze
    node.agent.step()
    assert "flush" not in node.host.done
    assert not node.up


def test_a_flush_that_fails_refuses_the_activation_and_frees_the_lease(world):
    node = make(world)
    node.host.fail = {"flush"}
    run(world, 1, node)
    assert not node.up
    assert world.key is None
    assert "start" not in node.host.done
    node.host.fail = set()
    run(world, 6, node)
    assert node.agent.active


def test_it_gives_up_after_three_failures_in_a_row_and_not_before(world, node):
    for problems in (["x"], ["x"], [], ["x"], ["x"]):
        node.agent.observe(problems)
        run(world, 0.5, node)
    assert node.agent.active
    node.agent.observe(["nginx.service is failed"])
    run(world, 0.5, node)
    assert not node.up
    assert world.key is None
    assert any("nginx.service is failed" in line for line in node.log)


def test_a_host_that_flaps_stays_away_longer_each_time(world, node):
    waits = []
    for _ in range(8):
        for _ in range(3):
            node.agent.observe(["x"])
        node.agent.step()
        waits.append(node.agent.wait_until - world.now)
        for _ in range(2):
            node.agent.observe([])
        run(world, waits[-1] + 1, node)
        assert node.agent.active
    assert waits == [5, 10, 20, 40, 80, 160, 300, 300]


def test_a_long_good_life_forgives(world, node):
    node.agent.give_ups = 4
    run(world, CONFIG.backoff_max + 5, node)
    assert node.agent.give_ups == 0


def test_an_unhealthy_host_does_not_contend(world):
    node = make(world)
    for _ in range(3):
        node.agent.observe(["x"])
    run(world, 5, node)
    assert not node.agent.active
    assert world.key is None


def test_a_host_is_not_healthy_before_it_was_seen_healthy_twice():
    gate = app_lease.HealthGate(3, 2)
    gate.observe([])
    assert not gate.open
    gate.observe([])
    assert gate.open


def test_a_lease_left_by_an_earlier_life_is_revoked(world):
    world.key, world.expiry[77] = ("app1", 77), world.now + TTL
    node = make(world)
    run(world, 0.5, node)
    assert 77 not in world.expiry
    assert node.agent.active


def test_a_key_that_an_operator_deleted_stops_the_holder(world, node):
    world.key = None
    node.agent.config = dataclasses.replace(node.agent.config)
    run(world, 1.5, node)
    assert any("gone from etcd" in line for line in node.log)


def test_a_step_down_that_was_not_complete_is_repeated_before_the_host_contends_again(world, node):
    node.host.fail = {"stop"}
    node.agent.release(0, "asked")
    run(world, 2, node)
    assert not node.agent.active
    assert world.key is None
    node.host.fail = set()
    node.host.done.clear()
    run(world, 0.5, node)
    assert node.host.done[:3] == ["no vip", "inactive", "stop"]
    assert node.agent.active


def test_one_failed_step_does_not_keep_the_others_from_being_done(node):
    node.host.fail = {"no vip"}
    node.agent.stop()
    assert node.host.done[-3:] == ["no vip", "inactive", "stop"]
    assert not node.host.active
    assert not node.host.target


@pytest.mark.parametrize("seed", range(10))
def test_two_hosts_are_never_active_at_once_whatever_happens(seed):
    """Cuts, freezes, bad health at random. A frozen agent's host is fenced when systemd's watchdog would do it."""
    chance, world = random.Random(seed), World()
    nodes = [make(world, name) for name in ("app1", "app2", "app3")]
    frozen: dict[int, tuple[float, float]] = {}
    moves = 0
    for _ in range(6000):
        world.down = chance.random() < (0.97 if world.down else 0.002)
        for number, node in enumerate(nodes):
            if chance.random() < 0.003:
                node.store.cut = not node.store.cut
            if chance.random() < 0.05:
                node.agent.observe(["x"] if chance.random() < 0.2 else [])
            if number not in frozen and chance.random() < 0.002:
                lease = node.agent.lease
                silence = min(world.now + 0.4 * TTL, lease.deadline + 0.3 * MARGIN if lease else world.now + TTL)
                frozen[number] = (silence + 0.4, world.now + chance.uniform(0, 12))
            fence, thaw = frozen.get(number, (0, 0))
            if world.now < thaw:
                if world.now >= fence:
                    node.host.active = node.host.vip = node.host.target = False
                continue
            frozen.pop(number, None)
            was_active = node.agent.active
            node.agent.step()
            moves += node.agent.active and not was_active
        assert sum(node.host.active for node in nodes) <= 1
        assert all(node.host.active for node in nodes if node.host.vip)
        world.now += chance.uniform(0.02, 0.1)
    assert moves >= 5


def test_a_configuration_with_too_wide_a_margin_is_refused(tmp_path):
    values = dataclasses.asdict(CONFIG)
    path = tmp_path / "lease.json"
    path.write_text(json.dumps(values))
    assert app_lease.Config.load(str(path)) == CONFIG
    path.write_text(json.dumps(values | {"margin": 2.5}))
    with pytest.raises(ValueError, match="margin"):
        app_lease.Config.load(str(path))


def test_units_are_read_from_one_call(monkeypatch):
    text = "LoadState=loaded\nActiveState=active\n\nLoadState=not-found\nActiveState=inactive\n"
    monkeypatch.setattr(app_lease, "systemctl", lambda *arguments, timeout, beat: text)
    config = dataclasses.replace(CONFIG, units=("gone.service",))
    assert app_lease.check_host(config) == (["gone.service is not installed"], False)


def test_a_machine_too_slow_to_ask_systemd_is_not_taken_for_dead(monkeypatch):
    def slow(*arguments, timeout, beat):
        raise app_lease.Slow("systemctl show")

    monkeypatch.setattr(app_lease, "systemctl", slow)
    assert app_lease.check_host(dataclasses.replace(CONFIG, units=("nginx.service",))) == ([], False)


def test_stepping_down_takes_more_time_where_the_machine_is_slow(monkeypatch, tmp_path):
    """A host that never gets to know that it is inactive would never contend."""
    program = tmp_path / "systemctl"
    program.write_text(
        "#!/bin/sh\nsleep 0.8\n"
        'for word; do case "$word" in *.*) printf "LoadState=loaded\nConsistsOf=\n\n" ;; esac; done\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(app_lease, "PATIENCE", 0.3)
    beats = []
    host = app_lease.Host(CONFIG, lambda: beats.append(1))
    tries = 1
    while True:
        try:
            host.stop_target(0.1)
            break
        except app_lease.Slow:
            tries += 1
    assert 2 <= tries <= 6
    assert host.patience == 0.3
    # The watchdog has to hear of it while a call waits.
    assert beats


def test_fencing_is_tried_again_until_it_is_done(monkeypatch, tmp_path):
    path = tmp_path / "lease.json"
    path.write_text(json.dumps(dataclasses.asdict(CONFIG)))
    monkeypatch.setattr(sys, "argv", ["app_lease", "--config", str(path), "fence"])
    answers = [False, False, True]
    monkeypatch.setattr(app_lease, "undo", lambda host, grace: answers.pop(0))
    assert app_lease.main() == 0
    assert answers == []
    monkeypatch.setattr(app_lease, "undo", lambda host, grace: False)
    monkeypatch.setattr(app_lease, "FENCE_SECONDS", 0)
    assert app_lease.main() == 1


def test_probes_name_what_does_not_answer(tmp_path, monkeypatch):
    monkeypatch.setattr(app_lease, "show_units", lambda units, timeout: {})
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        good = dataclasses.replace(CONFIG, probes={f"tcp:127.0.0.1:{port}": ""})
        assert app_lease.check_host(good) == ([], False)
    bad = dataclasses.replace(CONFIG, probes={f"tcp:127.0.0.1:{port}": "", f"unix:{tmp_path}/none": ""})
    problems, excused = app_lease.check_host(bad)
    assert [problem.split(": ")[0] for problem in problems] == list(bad.probes)
    assert not excused


@pytest.mark.parametrize(
    ("properties", "excused"),
    [
        ({"Job": "412", "NRestarts": "0"}, True),
        ({"Job": "0", "NRestarts": "0", "InactiveExitTimestampMonotonic": "just now"}, True),
        ({"Job": "0", "NRestarts": "0", "InactiveExitTimestampMonotonic": "1"}, False),
        ({"Job": "0", "NRestarts": "1", "InactiveExitTimestampMonotonic": "just now"}, False),
        ({}, False),
    ],
)
def test_a_restart_explains_a_failure_and_a_crash_does_not(monkeypatch, tmp_path, properties, excused):
    if properties.get("InactiveExitTimestampMonotonic") == "just now":
        properties = {**properties, "InactiveExitTimestampMonotonic": str(int((app_lease.time.monotonic() - 2) * 1e6))}
    state = {"LoadState": "loaded", "ActiveState": "active", **properties}
    monkeypatch.setattr(app_lease, "show_units", lambda units, timeout: {"zulip-tornado@9800.service": state})
    config = dataclasses.replace(CONFIG, probes={f"unix:{tmp_path}/none": "zulip-tornado@9800.service"})
    problems, reason = app_lease.check_host(config)
    assert len(problems) == 1
    assert reason is excused


def test_what_is_explained_neither_closes_nor_opens_the_gate():
    agent = app_lease.Agent(CONFIG, None, None, lambda: 0.0, lambda *words: None)
    gate = agent.gate = app_lease.HealthGate(3, 2)
    for _ in range(5):
        agent.observe(["tornado"], excused=True)
    assert not gate.open, "a host that starts is not healthy"
    for _ in range(2):
        agent.observe([])
    for _ in range(5):
        agent.observe(["tornado"], excused=True)
    assert gate.open
    for _ in range(3):
        agent.observe(["tornado"])
    assert not gate.open


@pytest.fixture
def memcached():
    """A server that answers two binary requests with the given status codes and keeps what it was sent."""
    seen: list[bytes] = []
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(5)

    def start(*statuses: int) -> str:
        def serve() -> None:
            connection, _ = server.accept()
            with connection, connection.makefile("rb") as stream:
                for status in statuses:
                    head = stream.read(24)
                    seen.append(head[1:2] + stream.read(struct.unpack("!I", head[8:12])[0]))
                    connection.sendall(struct.pack("!BBHBBHIIQ", 0x81, head[1], 0, 0, 0, status, 0, 0, 0))

        threading.Thread(target=serve, daemon=True).start()
        return f"127.0.0.1:{server.getsockname()[1]}"

    start.seen = seen
    yield start
    server.close()


def test_memcached_is_flushed_after_authentication(memcached):
    app_lease.flush_memcached(memcached(0, 0), "zulip@localhost", "secret")
    assert memcached.seen == [b"\x21PLAIN\0zulip@localhost\0secret", b"\x08"]


def test_a_refused_password_is_an_error(memcached):
    with pytest.raises(ValueError, match="authentication"):
        app_lease.flush_memcached(memcached(0x20), "zulip@localhost", "wrong")
