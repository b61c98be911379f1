"""When the database's leader may lose its key before its lease ends. No input or output here.

`Observer` turns single looks at the leader into what one host says of it, `decide` turns what all hosts say, and what
etcd knows, into a verdict. Whatever is not known for certain speaks against a revocation: without one, Patroni does
the same 20 seconds after the leader was lost.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

# What an observer says of a leader.
NEW = "new"  # it has not had an answer under this leader key yet, so it cannot have lost it
SEEN = "seen"
LOST = "lost"  # silent for the whole time that was asked for

# What came of one look.
ANSWERED = "answered"
SILENT = "silent"  # no packet came back
UNCLEAR = "unclear"  # the host refused, or this observer could not look: no sign of a loss

# What a verdict asks for.
WATCH = "watch"
HOLD = "hold"
WOULD = "would revoke"
REVOKE = "revoke"


@dataclasses.dataclass(frozen=True)
class Leadership:
    """Who leads, and on the strength of which key. Patroni writes it anew whenever somebody takes the lead."""

    name: str
    revision: int
    lease: int


@dataclasses.dataclass(frozen=True)
class Look:
    leadership: Leadership
    outcome: str
    started: float
    ended: float
    why: str = ""
    ready: frozenset[str] = frozenset()
    """Synchronous standbys that answered as running replicas. Asked only when the leader was silent."""


@dataclasses.dataclass(frozen=True)
class Observation:
    """What a host says: of whom, and of which leader key."""

    host: str
    leader: str = ""
    revision: int = 0
    sight: str = NEW
    why: str = ""

    def of(self, leadership: Leadership) -> str:
        """What it says of this leader; one that speaks of another has not caught up."""
        return self.sight if (self.leader, self.revision) == (leadership.name, leadership.revision) else NEW

    def alike(self, other: Observation) -> bool:
        return (self.leader, self.revision, self.sight) == (other.leader, other.revision, other.sight)


class Observer:
    """What this host says of the leader, by its own clock alone."""

    def __init__(self, host: str, lost_seconds: float, patience: float) -> None:
        self.host, self.lost_seconds, self.patience = host, lost_seconds, patience
        self.leadership: Leadership | None = None
        self._forget()

    def _forget(self) -> None:
        self._sight, self._why = NEW, ""
        self._silent_since: float | None = None
        self._last: Look | None = None

    def follow(self, leadership: Leadership | None) -> None:
        if leadership != self.leadership:
            self.leadership = leadership
            self._forget()

    def take(self, look: Look) -> None:
        if look.leadership != self.leadership:
            return
        paused = look.ended - look.started > self.patience or (
            self._last is not None and look.started - self._last.ended > self.patience
        )
        self._last, self._why = look, look.why
        if look.outcome == ANSWERED:
            self._sight, self._silent_since = SEEN, None
        elif look.outcome == UNCLEAR or paused:
            # A process that was frozen has missed answers, not waited for them: it counts anew.
            self._silent_since = None
            if self._sight == LOST:
                self._sight = SEEN
        elif self._silent_since is None:
            self._silent_since = look.started
        elif self._sight == SEEN and look.ended - self._silent_since >= self.lost_seconds:
            self._sight = LOST

    def ready(self, now: float) -> frozenset[str]:
        return self._last.ready if self._last and self._fresh(now) else frozenset()

    def observation(self, now: float) -> Observation:
        if not self.leadership:
            return Observation(self.host)
        sight = self._sight
        if sight == LOST and not self._fresh(now):
            sight = SEEN
        why = "" if sight == SEEN else self._why
        return Observation(self.host, self.leadership.name, self.leadership.revision, sight, why)

    def _fresh(self, now: float) -> bool:
        return self._last is not None and now - self._last.ended <= self.patience


@dataclasses.dataclass(frozen=True)
class Facts:
    """All that a decision is made of: one consistent read of etcd, and two questions beside it."""

    leader: Leadership | None
    observations: tuple[Observation, ...]  # of the living: those whose lease in etcd runs
    quorum: int
    lost_seconds: float
    synchronous: bool = False
    sync_leader: str = ""
    sync_standbys: tuple[str, ...] = ()
    paused: bool = False
    moving: bool = False
    incident: bool = False
    disarmed: str = ""
    unrenewed: float | None = None  # for at least so many seconds the leader has not renewed its lease; None: not asked
    ready: frozenset[str] = frozenset()


@dataclasses.dataclass(frozen=True)
class Verdict:
    action: str
    reason: str


def names(hosts: Iterable[str]) -> str:
    return ", ".join(sorted(hosts)) or "nobody"


def decide(facts: Facts) -> Verdict:
    """The decision table: the first row that applies."""
    leader = facts.leader
    if leader is None:
        return Verdict(WATCH, "nobody leads: there is nothing to take away")
    name = leader.name
    seen, lost, new = (
        {said.host for said in facts.observations if said.of(leader) == sight} for sight in (SEEN, LOST, NEW)
    )
    if not lost:
        waiting = f"; not yet by {names(new)}" if new else ""
        return Verdict(WATCH, f"{name} leads, and is seen by {names(seen)}{waiting}")
    said = f"{name} is lost by {names(lost)}"
    if seen:
        return Verdict(HOLD, f"{said}, and seen by {names(seen)}")
    if new:
        return Verdict(HOLD, f"{said}, and {names(new)} has never seen it lead")
    if len(lost) < facts.quorum:
        return Verdict(HOLD, f"{said}: fewer than {facts.quorum} observers")
    if facts.paused:
        return Verdict(HOLD, f"{said}, and Patroni is paused")
    if facts.moving:
        return Verdict(HOLD, f"{said}, and a planned move is under way")
    if not facts.synchronous:
        return Verdict(HOLD, f"{said}, and replication is not synchronous: commits could be lost")
    if facts.sync_leader != name or not facts.sync_standbys:
        return Verdict(HOLD, f"{said}, and it has no synchronous standby")
    if facts.incident:
        return Verdict(HOLD, f"{said}, and a leader was replaced just now: one revocation in an incident")
    if facts.unrenewed is None or facts.unrenewed < facts.lost_seconds:
        return Verdict(HOLD, f"{said}, and it renews its lease in etcd")
    ready = facts.ready.intersection(facts.sync_standbys)
    if not ready:
        return Verdict(HOLD, f"{said}, and no synchronous standby answers: {names(facts.sync_standbys)}")
    said += f", and {names(ready)} can replace it"
    if facts.disarmed:
        return Verdict(WOULD, f"{said}, but {facts.disarmed}")
    return Verdict(REVOKE, said)
