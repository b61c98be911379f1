"""Every fault by name: what it does to users, whether the design says that it is survived, and to whom it happens.

Whom it hits is said by role, and looked up at the moment at which it happens.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from tests.faults import actions
from tests.faults.actions import Absent, Action
from tests.faults.health import Cast
from tests.faults.nodes import NodeError, Nodes


@dataclass(frozen=True)
class Stage:
    """What a fault is made from: the nodes, who plays which role now, and what the site can be asked to do."""

    nodes: Nodes
    cast: Cast
    look: Callable[[], Cast]
    """Who plays which role at the moment of the call."""
    play: Callable[[str], None]
    """Runs a verb of the site to its end; raises when it failed."""
    whole: Callable[[], None]
    """Waits until the site is whole; raises when that takes too long."""


@dataclass(frozen=True)
class Fault:
    """One kind of fault."""

    name: str
    users: str
    """What users see of it, in words; how long is measured."""
    build: Callable[[Stage], Action]
    dwell: float = 0.0
    """Seconds between its beginning and the moment at which its cause is taken away."""
    survived: bool = True
    """Whether the design says that the site goes on while it lasts. It has to come back in any case."""
    planned: bool = False
    """No fault but a verb: it belongs to a run only when it is asked for."""
    recovery: float = 120.0
    """Seconds after the cause is gone within which everything is as before, without hands."""


def at(role: str, make: Callable[[Nodes, str], Action]) -> Callable[[Stage], Action]:
    """Build an action for whoever plays a role."""

    def build(stage: Stage) -> Action:
        node = getattr(stage.cast, role)
        if not node:
            raise Absent(f"nobody is {role} now")
        return make(stage.nodes, node)

    return build


def two(one: str, other: str, make: Callable[[Nodes, str, str], Action]) -> Callable[[Stage], Action]:
    """Build an action for two roles."""

    def build(stage: Stage) -> Action:
        first, second = getattr(stage.cast, one), getattr(stage.cast, other)
        if not first or not second or first == second:
            raise Absent(f"there are no two nodes that are {one} and {other}")
        return make(stage.nodes, first, second)

    return build


def kill(unit: str, whom: str = "all") -> Callable[[Nodes, str], Action]:
    """Make a kill -9 of a unit."""
    return lambda nodes, node: actions.Kill(nodes, node, unit, whom)


def gone(unit: str) -> Callable[[Nodes, str], Action]:
    """Make a unit that stays away."""
    return lambda nodes, node: actions.Gone(nodes, node, unit)


def clock(role: str, group: str, unit: str) -> Callable[[Stage], Action]:
    """Make a clock that is an hour ahead, on whoever plays the role when the library is where it has to be."""

    def build(stage: Stage) -> Action:
        members = stage.nodes.in_group(group)
        return actions.Clock(stage.nodes, unit, members, lambda: str(getattr(stage.look(), role)), stage.whole)

    return build


def leader_watch(stage: Stage) -> Action:
    """Make a kill -9 of the observer of the leader on the active app host, where there is one."""
    if not revokes_early(stage.nodes):
        raise Absent("no host runs the observer of the leader")
    return actions.Kill(stage.nodes, stage.cast.active, "*leader-watch*.service")


def revokes_early(nodes: Nodes) -> bool:
    """Whether observers of the leader run, which take a lost leader's key before it ends."""
    try:
        listed = "systemctl list-units --state=active --plain --no-legend '*leader-watch*.service'"
        return bool(nodes.sh(nodes.in_group("app")[0], listed))
    except NodeError:
        return False


def majority(stage: Stage) -> Action:
    """Make two of three members of etcd disappear: all but the one next to the leader of the database."""
    others = [node for node in stage.nodes.in_group("quorum") if node != stage.cast.leader]
    return actions.Together(*(actions.Gone(stage.nodes, node, "etcd.service") for node in others))


def move(verb: str, *roles: str) -> Callable[[Stage], Action]:
    """Make a planned move."""

    def build(stage: Stage) -> Action:
        hits = [getattr(stage.cast, role) for role in roles]
        return actions.Move(stage.nodes, lambda: stage.play(verb), *hits)

    return build


NOTHING = "nothing"
SHORT = "requests fail, or wait, until it runs again; nothing moves unless that takes long"
WRITES = "writes, and what reads from the database, wait or fail until another host leads"
MOVES = "requests fail until the other host is active; event queues are registered anew"
DATABASE_DISK = "writes fail until the other host leads, which has a disk of its own"

FAULTS: dict[str, Fault] = {
    fault.name: fault
    for fault in (
        # kill -9 of each service
        Fault("kill-postgres", WRITES, at("leader", actions.KillPostmaster)),
        Fault("kill-patroni", NOTHING, at("leader", kill("patroni.service", "main"))),
        Fault("kill-postgres-and-patroni", WRITES, at("leader", kill("patroni.service"))),
        Fault("kill-postgres-replica", "commits wait for a moment", at("replica", actions.KillPostmaster)),
        Fault("kill-etcd-leader", NOTHING, at("etcd_leader", kill("etcd.service"))),
        Fault("kill-etcd-follower", NOTHING, at("etcd_follower", kill("etcd.service"))),
        Fault("kill-haproxy", SHORT, at("active", kill("haproxy.service"))),
        Fault("kill-pgbouncer", SHORT, at("active", kill("pgbouncer.service"))),
        Fault("kill-rabbitmq", SHORT, at("active", kill("rabbitmq-server.service"))),
        Fault("kill-redis", SHORT, at("active", kill("redis-server.service"))),
        Fault("kill-memcached", "requests are slower", at("active", kill("memcached.service"))),
        Fault("kill-nginx", SHORT, at("active", kill("nginx.service"))),
        Fault("kill-django", SHORT, at("active", kill("zulip-django.service"))),
        Fault("kill-tornado", "event queues are registered anew", at("active", kill("zulip-tornado@*.service"))),
        Fault("kill-worker", "jobs are done later", at("active", kill("zulip-worker*.service"))),
        Fault("kill-lease", MOVES, at("active", kill("zulip-ha-lease.service"))),
        Fault("kill-lease-spare", NOTHING, at("spare", kill("zulip-ha-lease.service"))),
        Fault(
            "kill-keepalived", "the address may be on both hosts for a moment", at("active", kill("keepalived.service"))
        ),
        Fault("kill-leader-watch", NOTHING, leader_watch),
        # nodes
        Fault("kill-node-leader", WRITES, at("leader", actions.KillNode), 30),
        Fault("kill-node-replica", "commits wait until the standby is given up", at("replica", actions.KillNode), 15),
        Fault("kill-node-active", MOVES, at("active", actions.KillNode), 15, recovery=180),
        Fault("kill-node-spare", NOTHING, at("spare", actions.KillNode), 10, recovery=180),
        Fault("kill-node-witness", NOTHING, at("witness", actions.KillNode), 10),
        Fault("power-off-leader", WRITES, at("leader", actions.PowerOff), 35),
        Fault("power-off-active", MOVES, at("active", actions.PowerOff), 20, recovery=180),
        Fault("freeze-leader", WRITES, at("leader", actions.Freeze), 35),
        Fault("freeze-replica", "commits wait until the standby is given up", at("replica", actions.Freeze), 15),
        Fault("freeze-active", MOVES, at("active", actions.Freeze), 15),
        Fault("freeze-witness", NOTHING, at("witness", actions.Freeze), 15),
        # the network of a node
        Fault("unplug-leader", WRITES, at("leader", actions.Unplug), 28),
        Fault("unplug-replica", "commits wait until the standby is given up", at("replica", actions.Unplug), 15),
        Fault("unplug-active", MOVES, at("active", actions.Unplug), 20),
        Fault("isolate-leader", WRITES, at("leader", actions.isolate), 28),
        Fault("isolate-replica", "commits wait until the standby is given up", at("replica", actions.isolate), 15),
        Fault("isolate-active", MOVES, at("active", actions.isolate), 20),
        Fault("isolate-witness", NOTHING, at("witness", actions.isolate), 15),
        # cuts between nodes
        Fault("cut-active-spare", NOTHING, two("active", "spare", actions.between), 15),
        Fault("cut-active-to-spare", NOTHING, two("active", "spare", actions.one_way), 15),
        Fault("cut-spare-to-active", NOTHING, two("spare", "active", actions.one_way), 15),
        Fault(
            "cut-leader-replica",
            "commits wait until the standby is given up",
            two("leader", "replica", actions.between),
            20,
        ),
        Fault("cut-leader-to-replica", "the same", two("leader", "replica", actions.one_way), 20),
        Fault("cut-replica-to-leader", "the same", two("replica", "leader", actions.one_way), 20),
        Fault(
            "cut-active-leader",
            "requests fail or wait: the app host has no database",
            two("active", "leader", actions.between),
            15,
            False,
        ),
        Fault("cut-leader-etcd", WRITES, at("leader", actions.from_etcd), 30),
        Fault("cut-active-etcd", MOVES, at("active", actions.from_etcd), 15),
        # etcd
        Fault("etcd-minority", NOTHING, at("etcd_follower", gone("etcd.service")), 20),
        Fault("etcd-leader-gone", NOTHING, at("etcd_leader", gone("etcd.service")), 20),
        Fault(
            "etcd-majority",
            "no host is active, and the database may stop taking writes, until it is back",
            majority,
            30,
            False,
            recovery=180,
        ),
        # disks
        Fault("disk-full-leader", DATABASE_DISK, at("leader", actions.FullDatabaseDisk), 30, recovery=180),
        Fault(
            "disk-full-replica",
            "commits wait until the standby is given up",
            at("replica", actions.FullDatabaseDisk),
            20,
            recovery=180,
        ),
        Fault("log-full-active", NOTHING, at("active", actions.FullLog), 20),
        Fault("log-full-leader", NOTHING, at("leader", actions.FullLog), 20),
        # clocks
        Fault("clock-lease", NOTHING, clock("active", "app", "zulip-ha-lease.service"), 20),
        Fault("clock-patroni", NOTHING, clock("leader", "database", "patroni.service"), 20),
        # brokers and caches
        Fault("rabbitmq-gone", MOVES, at("active", gone("rabbitmq-server.service")), 30),
        Fault("redis-gone", MOVES, at("active", gone("redis-server.service")), 30),
        Fault("memcached-gone", MOVES, at("active", gone("memcached.service")), 30),
        # configuration
        Fault("wrong-secret-spare", NOTHING, at("spare", actions.WrongSecret), 15),
        # verbs
        Fault("switchover-app", "requests wait for a moment", move("switchover_app", "active"), planned=True),
        Fault("switchover-db", "requests wait for about two seconds", move("switchover_db", "leader"), planned=True),
    )
}
PAIR = " + "


def find(name: str) -> list[Fault]:
    """Return the fault of this name, or the two of a pair."""
    try:
        return [FAULTS[one] for one in name.split(PAIR)]
    except KeyError as error:
        raise LookupError(f"there is no fault {error}; there are {', '.join(FAULTS)}") from None


# Two at once are made of these; not two that happen to the same node, the second of which would find nothing to hit.
PARTS = {
    "kill-postgres": "leader",
    "isolate-leader": "leader",
    "kill-node-replica": "replica",
    "kill-node-active": "active",
    "freeze-active": "active",
    "kill-tornado": "active",
    "kill-node-spare": "spare",
    "kill-lease-spare": "spare",
    "etcd-minority": "etcd",
    "kill-node-witness": "witness",
    "cut-active-spare": "both",
}
PAIRS = tuple(PAIR.join(pair) for pair in combinations(PARTS, 2) if PARTS[pair[0]] != PARTS[pair[1]])


def build(name: str, stage: Stage) -> Action:
    """Make the action of a fault or of a pair for the cast of now."""
    made = [fault.build(stage) for fault in find(name)]
    return made[0] if len(made) == 1 else actions.Together(*made)


def survivable(name: str, action: Action, groups: Mapping[str, Collection[str]]) -> bool:
    """Whether the design says that the site goes on: of each group enough is left.

    What two faults take away together is counted: one app host, one database host, and more than half of the voters.
    """
    if not all(fault.survived for fault in find(name)):
        return False

    def members(group: str) -> set[str]:
        return {node for node, mine in groups.items() if group in mine}

    voters = members("quorum")
    if 2 * len(voters & action.voters) >= len(voters):
        return False
    # A host whose service was killed is back in a moment, but a moment is too long when the other one is away.
    hit = action.down | (action.hits if PAIR in name else frozenset())
    return all(members(group) - hit for group in ("app", "database"))


def describe(name: str) -> dict[str, Any]:
    """Return what the documentation says of a fault."""
    found = find(name)
    return {
        "users": "; ".join(dict.fromkeys(fault.users for fault in found)),
        "survived": all(fault.survived for fault in found),
        "dwell": max(fault.dwell for fault in found),
        "recovery": max(fault.recovery for fault in found) + (60 if len(found) > 1 else 0),
    }
