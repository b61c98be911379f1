"""The weekly restart: with a site, an agent and an etcd that are made up."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from typing import Any

import pytest

from tests.unit.app.paths import ROOT, load_program

weekly = load_program("roles/app/files/weekly_restart", "weekly_restart")

SHOWN = """\
Id=zulip-worker@email_senders.service
ActiveState=active
SubState=running
MemoryCurrent=104857600

Id=zulip-tornado@9801.service
ActiveState=active
SubState=running
MemoryCurrent=314572800

Id=zulip-tornado@9800.service
ActiveState=active
SubState=running
MemoryCurrent=[not set]

Id=zulip-django.service
ActiveState=active
SubState=running
MemoryCurrent=524288000

Id=zulip-singleton@x.service
ActiveState=inactive
SubState=dead
MemoryCurrent=[not set]

Id=zulip-cron-y.timer
ActiveState=active
SubState=waiting
MemoryCurrent=
"""
ORDER = [
    "zulip-django.service",
    "zulip-tornado@9800.service",
    "zulip-tornado@9801.service",
    "zulip-worker@email_senders.service",
]


def names(units: Any) -> list[str]:
    return [unit.name for unit in units]


def test_django_then_tornado_shard_by_shard_then_the_rest():
    assert names(weekly.parse_units(SHOWN)) == ORDER


def test_only_those_above_the_limit():
    units = weekly.parse_units(SHOWN)
    assert names(weekly.due_units(units, 0)) == ORDER
    assert names(weekly.due_units(units, 300)) == ["zulip-django.service", "zulip-tornado@9800.service"]
    # Whose memory nobody knows is never below.
    assert names(weekly.due_units(units, 10000)) == ["zulip-tornado@9800.service"]


@dataclasses.dataclass(frozen=True)
class Holder:
    name: str
    lease: int = 1


@dataclasses.dataclass(frozen=True)
class Lease:
    host: str = "app1"
    key: str = "/zulip-ha/site/app-lease"
    endpoints: tuple[str, ...] = ("https://192.0.2.1:2379",)
    probes: Any = dataclasses.field(default_factory=lambda: {"tcp:127.0.0.1:9800": "zulip-tornado@9800.service"})
    request_timeout: float = 0.8
    ttl: float = 5


class StoreError(Exception):
    pass


class World:
    """Stands for the module app_lease, systemd, etcd and the other hosts."""

    StoreError = StoreError

    def __init__(self) -> None:
        self.active, self.healthy, self.holder = "app1", True, "app1"
        self.keys: dict[str, str] = {}
        self.commands: list[list[str]] = []
        self.probed: list[str] = []
        self.answers: dict[str, int] = {}
        self.peers = {"app1": "192.0.2.11", "app2": "192.0.2.12"}
        self.silent, self.moves = False, True
        self.shown = SHOWN

    # app_lease

    def ask(self, line: str) -> dict[str, Any]:
        if self.silent:
            raise OSError("no agent")
        return {
            "active": self.active == "app1",
            "holder": self.holder,
            "healthy": self.healthy,
            "problems": ["redis-server.service is inactive"],
        }

    def probe(self, spec: str, timeout: float) -> None:
        self.probed.append(spec)

    def Etcd(self, config: Any) -> Any:  # noqa: N802
        world = self

        class Store:
            def holder(self) -> Holder | None:
                return Holder(world.keys[config.key]) if config.key in world.keys else None

            def acquire(self) -> tuple[int, float] | None:
                if config.key in world.keys:
                    return None
                world.keys[config.key] = config.host
                return 7, 0.0

            def revoke(self, lease: int) -> None:
                assert lease == 7
                world.keys.pop(config.key)

        return Store()

    # the host

    def run(self, command: list[str], seconds: float = 60) -> str:
        if command[:3] == ["systemctl", "show", "--property=ConsistsOf"]:
            return f"ConsistsOf={' '.join(ORDER)}\n\nConsistsOf=zulip-singleton@x.service\n"
        if command[1] == "show":
            return self.shown
        self.commands.append(command)
        if command == weekly.MOVE and self.moves:
            self.active = self.holder = "app2"
            self.shown = self.shown.replace(
                "email_senders.service\nActiveState=active", "email_senders.service\nActiveState=inactive"
            )
        return ""

    @property
    def done(self) -> list[str]:
        return [f"{command[1]} {command[-1]}" for command in self.commands]


@pytest.fixture
def world(monkeypatch) -> World:
    world = World()
    monkeypatch.setattr(weekly, "run", world.run)
    monkeypatch.setattr(weekly.time, "sleep", lambda _: None)
    monkeypatch.setattr(
        weekly.Site, "__init__", lambda self, config, lease: self.__dict__.update(config=config, lease=lease)
    )
    monkeypatch.setattr(
        weekly.Site, "get", lambda self, url, connect="": (world.answers.get(connect or url, 200), '{"health":"true"}')
    )
    return world


def restart(world: World, **more: Any) -> Any:
    config = {
        "hostname": "chat.example.com",
        "apps": world.peers,
        "databases": {"db1": "192.0.2.21", "db2": "2001:db8::1"},
        "patroni_port": 8008,
        "memory_mb": 0,
        **more,
    }
    return weekly.Restart(config, world, Lease())


def test_the_active_host_hands_over_first(world):
    restart(world).run()
    # The worker that ended with the active role is not started on the spare.
    assert world.done == [
        "start zulip-ha-move.service",
        "restart zulip-django.service",
        "restart zulip-tornado@9800.service",
        "restart zulip-tornado@9801.service",
    ]
    assert world.probed == ["tcp:127.0.0.1:9800"]
    assert world.keys == {}


def test_a_spare_restarts_without_a_move(world):
    world.active = world.holder = "app2"
    restart(world).run()
    assert world.done == [f"restart {name}" for name in ORDER]


def test_without_a_spare_djangos_workers_are_replaced_one_by_one(world):
    world.peers = {"app1": "192.0.2.11"}
    restart(world).run()
    assert world.done == ["reload zulip-django.service", *(f"restart {name}" for name in ORDER[1:])]


def test_nothing_above_the_limit_moves_nobody(world):
    world.shown = SHOWN.replace("[not set]", "1048576")
    restart(world, memory_mb=1000).run()
    assert world.done == []
    assert world.keys == {}


def test_a_move_that_moved_nothing_restarts_nothing(world):
    world.moves = False
    with pytest.raises(weekly.RestartError, match="not handed over"):
        restart(world).run()
    assert world.done == ["start zulip-ha-move.service"]
    assert world.keys == {}


@pytest.mark.parametrize(
    ("address", "part"),
    [
        ("192.0.2.12", "app2: /health answers 503"),
        ("https://192.0.2.21:8008/health", "db1: PostgreSQL"),
        ("https://[2001:db8::1]:8008/health", "db2: PostgreSQL"),
        ("https://192.0.2.1:2379/health", "etcd at https://192.0.2.1:2379"),
    ],
)
def test_a_site_that_is_not_whole_is_left_alone(world, address, part):
    world.answers[address] = 503
    with pytest.raises(weekly.Skip, match="another host is not well") as reason:
        restart(world).run()
    assert part in str(reason.value)
    assert world.commands == []


def test_without_an_active_host_nothing_is_done(world):
    world.active = world.holder = ""
    with pytest.raises(weekly.Skip, match="no app host is active"):
        restart(world).run()


def test_without_an_agent_nothing_is_done(world):
    world.silent = True
    with pytest.raises(weekly.Skip, match="agent"):
        restart(world).run()


def test_while_a_playbook_runs_nothing_is_done(world):
    world.keys["/zulip-ha/site/run-lock"] = "somebody"
    with pytest.raises(weekly.Skip, match="playbook"):
        restart(world).run()
    assert world.commands == []


def test_two_hosts_never_restart_together(world, monkeypatch):
    world.keys["/zulip-ha/site/weekly-restart"] = "app2"
    ticks = iter(range(0, 100000, 500))
    monkeypatch.setattr(weekly.time, "monotonic", lambda: next(ticks))
    with pytest.raises(weekly.Skip, match="app2 has not ended"):
        restart(world).run()
    assert world.commands == []
    assert world.keys == {"/zulip-ha/site/weekly-restart": "app2"}


def test_the_turn_is_given_back_after_a_failure(world, monkeypatch):
    def fails(spec: str, timeout: float) -> None:
        raise OSError("connection refused")

    ticks = iter(range(0, 100000, 50))
    monkeypatch.setattr(weekly.time, "monotonic", lambda: next(ticks))
    monkeypatch.setattr(world, "probe", fails)
    with pytest.raises(weekly.RestartError, match="zulip-tornado@9800.service does not answer"):
        restart(world).run()
    # What comes after a process that did not come back goes on running.
    assert world.done[-1] == "restart zulip-tornado@9800.service"
    assert world.keys == {}


def test_a_host_that_stays_unhealthy_is_a_failure(world, monkeypatch):
    ticks = iter(range(0, 100000, 50))
    monkeypatch.setattr(weekly.time, "monotonic", lambda: next(ticks))
    world.healthy = False
    with pytest.raises(weekly.RestartError, match="redis-server.service is inactive"):
        restart(world).run()


def test_a_look_changes_nothing(world, capsys):
    restart(world).show()
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "would hand the active role over"
    assert said[1] == "would restart zulip-django.service (500 MB)"
    assert len(said) == 5
    assert world.commands == []


def test_a_program_that_fails_is_told_in_one_line():
    with pytest.raises(weekly.RestartError, match="no such"):
        weekly.run(["sh", "-c", "echo first; echo no such >&2; exit 3"])
    with pytest.raises(weekly.RestartError, match="timed out"):
        weekly.run(["sleep", "5"], 0.1)


def test_what_it_uses_of_the_agent_is_there():
    """The made-up module above has the same names as the real one."""
    spec = importlib.util.spec_from_file_location("app_lease_of_weekly", ROOT / "roles/lease/files/app_lease.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["app_lease_of_weekly"] = module
    spec.loader.exec_module(module)
    for name in ("Etcd", "Config", "StoreError", "ask", "probe"):
        assert hasattr(module, name), name
    fields = {field.name for field in dataclasses.fields(module.Config)}
    assert fields >= {field.name for field in dataclasses.fields(Lease)} | {"ca", "certificate", "private_key"}
    assert {"holder", "acquire", "revoke"} <= set(dir(module.Etcd))
