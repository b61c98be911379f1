"""A site for the leader watch: one clock, one etcd, hosts that can be cut off, frozen and lost."""

from __future__ import annotations

import base64
import dataclasses
import json
import sys
from typing import Any

from tests.unit.app.paths import load_program

program = load_program("roles/leader_watch/files/leader_watch", "leader_watch")
decision = sys.modules["leader_watch_decision"]
agent = sys.modules["leader_watch_agent"]
etcd = sys.modules["leader_watch_etcd"]

CLUSTER, PREFIX = "/service/site", "/zulip-ha/site/leader-watch"
HOSTS = ("app1", "app2", "db1", "db2", "mon1")
CONFIG = agent.Config(
    host="",
    endpoints=("https://192.0.2.1:2379",),
    ca="",
    certificate="",
    private_key="",
    members={"db1": "https://192.0.2.21:8008", "db2": "https://192.0.2.22:8008"},
    cluster=CLUSTER,
    prefix=PREFIX,
    quorum=3,
    interval=0.5,
    look_timeout=1.0,
    lost_seconds=3.0,
    ttl=3,
    request_timeout=0.8,
    rest=30,
    dry_run=False,
)


class Etcd:
    """The gateway's answers, in its own words: keys, leases and transactions of etcd 3.4."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.revision = 1
        self.keys: dict[str, dict[str, Any]] = {}
        self.leases: dict[int, tuple[int, float]] = {}  # seconds that were granted, end
        self.quorum = True

    def call(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if not self.quorum:
            raise etcd.StoreError("etcdserver: request timed out")
        self.expire()
        number = int(body.get("ID", 0))
        if path == "/v3/lease/grant":
            number = 7000 + len(self.leases) + self.revision * 100
            self.leases[number] = (int(body["TTL"]), self.now + int(body["TTL"]))
            return {"ID": str(number)}
        if path == "/v3/lease/keepalive":
            if number not in self.leases:
                return {"result": {"ID": str(number)}}
            granted = self.leases[number][0]
            self.leases[number] = (granted, self.now + granted)
            return {"result": {"ID": str(number), "TTL": str(granted)}}
        if path == "/v3/lease/timetolive":
            if number not in self.leases:
                return {"ID": str(number), "TTL": "-1"}
            granted, end = self.leases[number]
            return {"ID": str(number), "TTL": str(int(end - self.now)), "grantedTTL": str(granted)}
        if path == "/v3/lease/revoke":
            if self.leases.pop(number, None) is None:
                raise etcd.StoreError("HTTP 404 requested lease not found")
            self.expire()
            return {}
        assert path == "/v3/kv/txn"
        return self.transaction(body)

    def expire(self) -> None:
        self.leases = {number: lease for number, lease in self.leases.items() if lease[1] > self.now}
        gone = [key for key, kv in self.keys.items() if kv["lease"] and kv["lease"] not in self.leases]
        for key in gone:
            del self.keys[key]
        self.revision += bool(gone)

    def transaction(self, body: dict[str, Any]) -> dict[str, Any]:
        done = all(map(self.holds, body.get("compare", [])))
        requests = body["success"] if done else body.get("failure", [])
        if any("requestRange" not in request for request in requests):
            self.revision += 1
        responses = [self.request(request) for request in requests]
        answer = {"header": {"revision": str(self.revision)}, "responses": responses}
        return {**answer, "succeeded": True} if done else answer

    def found(self, what: dict[str, Any]) -> list[str]:
        first = base64.b64decode(what["key"]).decode()
        if "rangeEnd" not in what:
            return [first] if first in self.keys else []
        end = base64.b64decode(what["rangeEnd"]).decode()
        return sorted(key for key in self.keys if first <= key < end)

    def holds(self, compare: dict[str, Any]) -> bool:
        field = {"MOD": ("mod_revision", "modRevision"), "CREATE": ("create_revision", "createRevision")}
        ours, theirs = field[compare["target"]]
        wanted = int(compare[theirs])
        values = [self.keys[key][ours] for key in self.found(compare)] or [0]
        if compare["result"] == "LESS":
            return all(value < wanted for value in values)
        assert compare["result"] == "EQUAL"
        return all(value == wanted for value in values)

    def request(self, request: dict[str, Any]) -> dict[str, Any]:
        ((verb, what),) = request.items()
        if verb == "requestRange":
            return {"response_range": {"kvs": [self.kv(key) for key in self.found(what)]}}
        if verb == "requestDeleteRange":
            for key in self.found(what):
                del self.keys[key]
            return {"response_delete_range": {}}
        assert verb == "requestPut"
        key, lease = base64.b64decode(what["key"]).decode(), int(what.get("lease", 0))
        if lease and lease not in self.leases:
            raise etcd.StoreError("HTTP 404 requested lease not found")
        created = self.keys[key]["create_revision"] if key in self.keys else self.revision
        self.keys[key] = {
            "value": base64.b64decode(what["value"]).decode(),
            "create_revision": created,
            "mod_revision": self.revision,
            "lease": lease,
        }
        return {"response_put": {}}

    def kv(self, key: str) -> dict[str, str]:
        """As JSON has it: numbers are text, and what is 0 or empty is left out."""
        texts = {"key": key, "value": self.keys[key]["value"]}
        coded = {name: base64.b64encode(text.encode()).decode() for name, text in texts.items()}
        numbers = {name: str(value) for name, value in self.keys[key].items() if name != "value" and value}
        return {**coded, **numbers}

    # what others write

    def put(self, key: str, value: Any, lease: int = 0) -> None:
        self.expire()
        self.revision += 1
        text = value if isinstance(value, str) else json.dumps(value)
        self.request(
            {
                "requestPut": {
                    "key": base64.b64encode(key.encode()).decode(),
                    "value": base64.b64encode(text.encode()).decode(),
                    "lease": str(lease),
                }
            }
        )

    def delete(self, key: str) -> None:
        self.expire()
        self.revision += 1
        self.keys.pop(key, None)

    def value(self, key: str) -> Any:
        self.expire()
        text = self.keys[key]["value"] if key in self.keys else ""
        return json.loads(text) if text.startswith("{") else text


class Host:
    """A host with an observer. It looks as the program does: one look after the other, an interval apart."""

    def __init__(self, site: Site, name: str) -> None:
        self.site, self.name = site, name
        self.config = dataclasses.replace(CONFIG, host=name)
        self.frozen = self.cut = False
        self.blind: set[str] = set()  # members whose Patroni it does not reach
        self.lines: list[str] = []
        self.during = lambda path, body: None  # what happens before a call of etcd is done
        self.start()

    def start(self) -> None:
        store = etcd.Store(self.call, CLUSTER, PREFIX)
        self.watch = agent.Watch(self.config, store, lambda: self.site.etcd.now, self.say, lambda: "today")
        self.look: Any = None
        self.next_look = self.next_step = self.site.etcd.now

    def say(self, message: str, level: int) -> None:
        self.lines.append(f"{self.site.etcd.now - 1000:.1f} {message}")

    def call(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if self.cut or self.name in self.site.lost:
            raise etcd.StoreError("unreachable")
        self.during(path, body)
        return self.site.etcd.call(path, body)

    def begin_look(self) -> None:
        leadership, now = self.watch.leadership, self.site.etcd.now
        if not leadership:
            self.next_look = now + self.config.interval
            return
        outcome = self.site.answer(self, leadership.name)
        took = self.config.look_timeout if outcome == decision.SILENT else 0.0
        ready = frozenset()
        if outcome == decision.SILENT:
            ready = frozenset(name for name in self.watch.standbys if self.site.answer(self, name) == decision.ANSWERED)
        self.look = decision.Look(leadership, outcome, now, now + took, "silent" if took else "", ready)
        self.next_look = max(now + self.config.interval, self.look.ended)

    def turn(self) -> None:
        """What the program does in a tenth of a second."""
        if self.frozen or self.name in self.site.lost:
            return
        now = self.site.etcd.now
        if self.look and now >= self.look.ended:
            # A look that ended while the process was frozen is read late.
            late = dataclasses.replace(self.look, ended=now if now - self.look.ended > 0.2 else self.look.ended)
            self.look = None
            self.step([late])
        elif now >= self.next_step:
            self.step([])
        if not self.look and now >= self.next_look:
            self.begin_look()

    def step(self, looks: list[Any]) -> None:
        self.watch.step(looks)
        self.next_step = self.site.etcd.now + self.config.interval


class Site:
    """Two database hosts of which db1 leads, and the five observers."""

    def __init__(self) -> None:
        self.etcd = Etcd()
        self.lost: set[str] = set()  # hosts that are off, or cut off from everybody
        self.refusing: set[str] = set()  # hosts whose Patroni does not run
        self.renewing = True  # whether the leader reaches etcd
        self.lead("db1", "db2")
        self.etcd.put(f"{CLUSTER}/config", {"ttl": 20, "synchronous_mode": True})
        self.hosts = {name: Host(self, name) for name in HOSTS}

    def lead(self, name: str, standby: str) -> None:
        self.lease = int(self.etcd.call("/v3/lease/grant", {"TTL": 20})["ID"])
        self.leader = name
        self.etcd.put(f"{CLUSTER}/leader", name, self.lease)
        self.etcd.put(f"{CLUSTER}/sync", {"leader": name, "sync_standby": standby})

    def answer(self, host: Host, member: str) -> str:
        if member in self.lost or member in host.blind:
            return decision.SILENT
        return decision.UNCLEAR if member in self.refusing else decision.ANSWERED

    def run(self, seconds: float, until: Any = lambda: False) -> float:
        """Let time pass; returns how much."""
        started = self.etcd.now
        while self.etcd.now < started + seconds - 0.01 and not until():
            self.etcd.now = round(self.etcd.now + 0.1, 3)
            if self.renewing and self.leader not in self.lost and self.etcd.quorum:
                self.etcd.call("/v3/lease/keepalive", {"ID": str(self.lease)})
            for host in self.hosts.values():
                host.turn()
        return self.etcd.now - started

    def lose(self, name: str) -> None:
        self.lost.add(name)

    @property
    def leads(self) -> str:
        return self.etcd.value(f"{CLUSTER}/leader")

    @property
    def holder(self) -> str:
        return (self.etcd.value(f"{PREFIX}/lock") or {}).get("host", "")

    @property
    def revocations(self) -> list[str]:
        return [line for host in self.hosts.values() for line in host.lines if "took the leader key" in line]

    def said(self, name: str) -> list[str]:
        return [line.split(" ", 1)[1] for line in self.hosts[name].lines]
