"""One step of the leader watch after the other: publish what this host sees, read what is known, and act on it.

All is bound to one lease of etcd: an observer that dies, freezes or is cut off from etcd is no observer any more after
three seconds, and does not hold the watch's lock either.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterable
from typing import Any

from leader_watch_decision import (
    HOLD,
    LOST,
    NEW,
    REVOKE,
    WATCH,
    Facts,
    Leadership,
    Look,
    Observation,
    Observer,
    Verdict,
    decide,
)
from leader_watch_etcd import Pair, Snapshot, Store, StoreError

Say = Callable[[str, int], None]


@dataclasses.dataclass(frozen=True)
class Config:
    host: str
    endpoints: tuple[str, ...]
    ca: str
    certificate: str
    private_key: str
    members: dict[str, str]
    cluster: str
    prefix: str
    quorum: int
    interval: float
    look_timeout: float
    lost_seconds: float
    ttl: int
    request_timeout: float
    rest: int
    dry_run: bool

    @classmethod
    def load(cls, path: str) -> Config:
        with open(path, encoding="utf-8") as file:
            values = json.load(file)
        config = cls(**{**values, "endpoints": tuple(values["endpoints"])})
        if not config.endpoints:
            raise ValueError("endpoints is empty")
        if config.quorum < 2:
            raise ValueError("quorum: one observer alone cannot tell a lost leader from its own lost network")
        if config.lost_seconds < 2 * config.look_timeout:
            raise ValueError("lost_seconds must have room for two looks that time out")
        return config

    @property
    def patience(self) -> float:
        """How long a look with its pause lasts at most; what took longer was held up on this host."""
        return 2 * (self.look_timeout + self.interval)


def read_leader(pair: Pair) -> Leadership | None:
    return Leadership(pair.value, pair.modified, pair.lease) if pair.modified else None


def read_observation(pair: Pair) -> Observation:
    data = pair.data()
    host = pair.key.rsplit("/", 1)[-1]
    with contextlib.suppress(TypeError, ValueError):
        words = (str(data.get(name, "")) for name in ("sight", "why"))
        return Observation(host, str(data.get("leader", "")), int(data.get("revision", 0)), *words)
    return Observation(host)


def read_facts(seen: Snapshot, config: Config) -> Facts:
    """What etcd knows, in the words of the decision."""
    settings, sync, failover = seen.config.data(), seen.sync.data(), seen.failover.data()
    disarmed = "leader_watch_dry_run is set" if config.dry_run else ""
    if seen.disarmed.modified:
        disarmed = f"it was disarmed: {seen.disarmed.data().get('why') or 'no reason given'}"
    return Facts(
        leader=read_leader(seen.leader),
        observations=tuple(map(read_observation, seen.observers)),
        quorum=config.quorum,
        lost_seconds=config.lost_seconds,
        # on, or `quorum` of Patroni 4
        synchronous=bool(settings.get("synchronous_mode")),
        sync_leader=str(sync.get("leader") or ""),
        sync_standbys=tuple(name.strip() for name in str(sync.get("sync_standby") or "").split(",") if name.strip()),
        paused=bool(settings.get("pause")),
        # One for a later time is no move yet, and Patroni leaves an empty one behind when a move has ended.
        moving=seen.failover.value not in ("", "{}") and not failover.get("scheduled_at"),
        incident=bool(seen.incident.modified),
        disarmed=disarmed,
    )


class Watch:
    """What one host does. It is woken for each look, and otherwise once an interval."""

    def __init__(
        self,
        config: Config,
        store: Store,
        now: Callable[[], float],
        say: Say,
        today: Callable[[], str],
    ) -> None:
        self.config, self.store, self.now, self.say, self.today = config, store, now, say, today
        self.observer = Observer(config.host, config.lost_seconds, config.patience)
        self.leadership: Leadership | None = None
        self.standbys: tuple[str, ...] = ()
        self.lease = 0
        self._renew_at = 0.0
        self._published: Observation | None = None
        self._said: Observation | None = None
        self._verdict: Verdict | None = None
        self._called_off = False
        self._trouble = ""

    def step(self, looks: Iterable[Look] = ()) -> None:
        for look in looks:
            self.observer.take(look)
        try:
            self._hold_lease()
            self._publish()
            seen = self.store.read()
            self._follow(seen)
            self._judge(seen)
        except StoreError as error:
            self._say_trouble(f"nothing is decided without etcd: {error}")
        else:
            self._say_trouble("")

    def stop(self) -> None:
        """Leave at once instead of after the lease."""
        if self.lease:
            with contextlib.suppress(StoreError):
                self.store.drop(self.lease)

    # the lease, and what this host says under it

    def _hold_lease(self) -> None:
        started = self.now()
        if self.lease and started >= self._renew_at:
            if self.store.renew(self.lease):
                self._renew_at = started + self.config.ttl / 4
            else:
                self.lease = 0
        if not self.lease:
            self.lease = self.store.grant(self.config.ttl)
            self._renew_at = started + self.config.ttl / 4
            self._published = None

    def _publish(self) -> None:
        said = self.observer.observation(self.now())
        if self._published and said.sight != NEW:
            # Its words change from look to look, and each other revision of the key calls a revocation off.
            said = dataclasses.replace(said, why=self._published.why) if said.alike(self._published) else said
        if said == self._published:
            return
        words = {name: value for name, value in dataclasses.asdict(said).items() if name != "host"}
        self.store.publish(self.config.host, json.dumps(words), self.lease)
        self._published = said
        if said.sight != NEW and not (self._said and said.alike(self._said)):
            self.say(
                f"{said.leader} is {said.sight}" + (f": {said.why}" if said.why else ""), 4 if said.sight == LOST else 6
            )
            self._said = said

    def _follow(self, seen: Snapshot) -> None:
        self.leadership = read_leader(seen.leader)
        self.standbys = read_facts(seen, self.config).sync_standbys
        self.observer.follow(self.leadership)

    # the lock, and what its holder does

    def _judge(self, seen: Snapshot) -> None:
        held = seen.lock.modified and seen.lock.data().get("host") == self.config.host and seen.lock.lease == self.lease
        # The holder must outlive the leader: on the leader's own host it would be lost along with it.
        leads = self.leadership is not None and self.leadership.name == self.config.host
        if not held:
            self._verdict = None
            if not seen.lock.modified and not leads:
                self.store.take_lock(self._lock_value("it took the lock just now"), self.lease)
            return
        if leads:
            self.store.leave_lock(seen.lock)
            return
        verdict = decide(self._facts(seen))
        if self._verdict is None or verdict != self._verdict:
            self.say(f"{verdict.action}: {verdict.reason}", {WATCH: 6, HOLD: 4}.get(verdict.action, 5))
            self.store.write_lock(seen.lock, self._lock_value(f"{verdict.action}: {verdict.reason}"))
            self._verdict, self._called_off = verdict, False
        if verdict.action == REVOKE:
            self._revoke(seen, verdict)

    def _lock_value(self, verdict: str) -> str:
        return json.dumps({"host": self.config.host, "verdict": verdict})

    def _facts(self, seen: Snapshot) -> Facts:
        facts = read_facts(seen, self.config)
        own = self.observer.observation(self.now())
        # What this host saw a moment ago counts, not what it published before.
        others = (said for said in facts.observations if said.host != own.host)
        facts = dataclasses.replace(facts, observations=(*others, own), ready=self.observer.ready(self.now()))
        if facts.leader and own.sight == LOST:
            facts = dataclasses.replace(facts, unrenewed=self.store.unrenewed(facts.leader.lease))
        return facts

    def _revoke(self, seen: Snapshot, verdict: Verdict) -> None:
        note = {"leader": seen.leader.value, "by": self.config.host, "at": self.today(), "why": verdict.reason}
        if self.store.revoke(seen, json.dumps(note), self.config.rest):
            self.say(f"took the leader key from {seen.leader.value}: {verdict.reason}", 5)
        elif not self._called_off:
            self._called_off = True
            self.say("not revoked: something changed in that moment, it is looked at anew", 4)

    def _say_trouble(self, trouble: str) -> None:
        if bool(trouble) != bool(self._trouble):
            self.say(trouble or "etcd answers again", 4 if trouble else 6)
        self._trouble = trouble


def report(seen: Snapshot, config: Config) -> dict[str, Any]:
    """What `status` says, out of etcd alone, so that every host says the same."""
    facts = read_facts(seen, config)
    lock = seen.lock.data()
    return {
        "leader": facts.leader.name if facts.leader else "",
        "revision": facts.leader.revision if facts.leader else 0,
        "synchronous_standbys": list(facts.sync_standbys)
        if facts.leader and facts.sync_leader == facts.leader.name
        else [],
        "paused": facts.paused,
        "observers": [
            {"host": said.host, "sight": said.of(facts.leader), "why": said.why}
            if facts.leader
            else {"host": said.host, "sight": "", "why": ""}
            for said in facts.observations
        ],
        "quorum": config.quorum,
        "holder": lock.get("host", ""),
        "verdict": lock.get("verdict", ""),
        "disarmed": facts.disarmed,
        "last_revocation": seen.last.data() or None,
    }
