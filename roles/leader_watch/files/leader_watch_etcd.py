"""etcd for the leader watch: its JSON gateway (3.4 and later), and the few transactions that the watch is made of."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import http.client
import json
import os
import ssl
import time
import urllib.parse
from collections.abc import Callable, Iterable
from typing import Any

Call = Callable[[str, dict[str, Any]], dict[str, Any]]
Files = tuple[str, str, str]


class StoreError(Exception):
    """etcd did not answer, or not in time: nothing is known."""


def clock() -> float:
    """Seconds that nobody sets, and that go on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Trust:
    """TLS with the site's certificates, read anew when they were renewed."""

    def __init__(self, ca: str, certificate: str, private_key: str) -> None:
        self.ca, self.certificate, self.private_key = ca, certificate, private_key
        self._read: tuple[int, ...] = ()
        self._context: ssl.SSLContext | None = None

    def context(self) -> ssl.SSLContext:
        times = tuple(os.stat(path).st_mtime_ns for path in (self.ca, self.certificate, self.private_key))
        if self._context is None or times != self._read:
            context = ssl.create_default_context(cafile=self.ca)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.load_cert_chain(self.certificate, self.private_key)
            self._context, self._read = context, times
        return self._context


class Gateway:
    """One connection that is kept open; after a failure the next endpoint is asked."""

    def __init__(self, endpoints: Iterable[str], trust: Trust, timeout: float) -> None:
        self.endpoints, self.trust, self.timeout = tuple(endpoints), trust, timeout
        self._connection: http.client.HTTPConnection | None = None
        self._first = 0

    def call(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        errors = []
        for _ in self.endpoints:
            endpoint = self.endpoints[self._first % len(self.endpoints)]
            try:
                return self._request(endpoint, path, body)
            except (OSError, http.client.HTTPException, ValueError, LookupError, StoreError) as error:
                errors.append(f"{endpoint}: {error or type(error).__name__}")
                if self._connection:
                    self._connection.close()
                    self._connection = None
                self._first += 1
        raise StoreError("; ".join(errors))

    def _request(self, endpoint: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        connection = self._connection or self._connect(endpoint)
        self._connection = connection
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        text = response.read()
        if response.status != 200:
            raise StoreError(f"HTTP {response.status} {text[:200].decode(errors='replace').strip()}")
        # keepalive is a stream of one JSON object a line; one request, one line
        answer = json.loads(text.splitlines()[0])
        if "error" in answer:
            raise StoreError(str(answer["error"]))
        return answer

    def _connect(self, endpoint: str) -> http.client.HTTPConnection:
        url = urllib.parse.urlsplit(endpoint)
        host, port = url.hostname or "", url.port or 2379
        if url.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=self.timeout)
        return http.client.HTTPSConnection(host, port, timeout=self.timeout, context=self.trust.context())


@dataclasses.dataclass(frozen=True)
class Pair:
    """A key with its value; one that is not there has revisions of 0, as etcd itself compares it."""

    key: str
    value: str = ""
    created: int = 0
    modified: int = 0
    lease: int = 0

    def data(self) -> dict[str, Any]:
        with contextlib.suppress(ValueError):
            data = json.loads(self.value)
            if isinstance(data, dict):
                return data
        return {}


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """What was true in etcd in one moment."""

    revision: int
    leader: Pair
    sync: Pair
    config: Pair
    failover: Pair
    lock: Pair
    incident: Pair
    disarmed: Pair
    last: Pair
    observers: tuple[Pair, ...]


def encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def decode(text: str) -> str:
    return base64.b64decode(text).decode(errors="replace")


def get(key: str) -> dict[str, Any]:
    return {"requestRange": {"key": encode(key)}}


def put(key: str, value: str, lease: int = 0) -> dict[str, Any]:
    return {"requestPut": {"key": encode(key), "value": encode(value), "lease": str(lease)}}


def delete(key: str) -> dict[str, Any]:
    return {"requestDeleteRange": {"key": encode(key)}}


def created(pair: Pair) -> dict[str, Any]:
    """Whether it is still the key that was read, whatever its value is now."""
    return {"key": encode(pair.key), "target": "CREATE", "result": "EQUAL", "createRevision": str(pair.created)}


def unchanged(pair: Pair) -> dict[str, Any]:
    return {"key": encode(pair.key), "target": "MOD", "result": "EQUAL", "modRevision": str(pair.modified)}


def interval(prefix: str) -> dict[str, str]:
    """Keys that begin with the prefix, which ends with a slash."""
    return {"key": encode(prefix), "rangeEnd": encode(prefix[:-1] + "0")}


class Store:
    """The keys of the watch, and those of Patroni that it reads. etcd itself compares the guards of what is written."""

    def __init__(self, call: Call, cluster: str, prefix: str) -> None:
        self._call = call
        self.cluster, self.prefix = cluster.rstrip("/"), prefix.rstrip("/")
        self.observers = f"{self.prefix}/observers/"
        self._keys = [(name, f"{self.cluster}/{name}") for name in ("leader", "sync", "config", "failover")]
        self._keys += [(name, f"{self.prefix}/{name}") for name in ("lock", "incident", "disarmed", "last")]

    # leases

    def grant(self, ttl: int) -> int:
        return int(self._call("/v3/lease/grant", {"TTL": ttl})["ID"])

    def renew(self, lease: int) -> bool:
        answer = self._call("/v3/lease/keepalive", {"ID": str(lease)})
        return int(answer.get("result", {}).get("TTL", 0)) > 0

    def drop(self, lease: int) -> None:
        self._call("/v3/lease/revoke", {"ID": str(lease)})

    def unrenewed(self, lease: int) -> float:
        """For how long at least a lease has not been renewed. etcd counts whole seconds, and cuts them off."""
        answer = self._call("/v3/lease/timetolive", {"ID": str(lease)})
        return int(answer.get("grantedTTL", 0)) - int(answer.get("TTL", 0)) - 1.0

    # keys

    def read(self) -> Snapshot:
        wanted = [*(get(key) for _, key in self._keys), {"requestRange": interval(self.observers)}]
        answer = self._call("/v3/kv/txn", {"success": wanted})
        *singles, observers = (self._pairs(response) for response in answer["responses"])
        pairs = {name: found[0] if found else Pair(key) for (name, key), found in zip(self._keys, singles, strict=True)}
        return Snapshot(revision=int(answer["header"]["revision"]), observers=tuple(observers), **pairs)

    def publish(self, host: str, value: str, lease: int) -> None:
        self._do(put(self.observers + host, value, lease))

    def take_lock(self, value: str, lease: int) -> None:
        lock = f"{self.prefix}/lock"
        self._do(put(lock, value, lease), when=[created(Pair(lock))])

    def write_lock(self, lock: Pair, value: str) -> None:
        self._do(put(lock.key, value, lock.lease), when=[created(lock)])

    def leave_lock(self, lock: Pair) -> None:
        self._do(delete(lock.key), when=[created(lock)])

    def disarm(self, value: str) -> None:
        self._do(put(f"{self.prefix}/disarmed", value))

    def arm(self) -> None:
        self._do(delete(f"{self.prefix}/disarmed"))

    def revoke(self, seen: Snapshot, note: str, rest: int) -> bool:
        """Take the leader key away, if everything that spoke for it is as it was read; says whether it was done.

        The key, and not its lease: Patroni 3.0 whose lease is gone gets another, and writes the leader key with it
        without looking whose it is by then. With the key alone gone, it finds out who leads when it reads etcd next.
        Until then, its lease still running, it takes itself for the leader. What it could do harm with is to drop its
        standby from /sync, and acknowledge commits alone. It writes /sync only as it has read it, so the same value is
        written once more.
        """
        guards = [
            created(seen.lock),
            *map(unchanged, (seen.leader, seen.sync, seen.config, seen.failover, seen.incident, seen.disarmed)),
            *map(unchanged, seen.observers),
            # Nor has an observer come since, who might see the leader.
            {**interval(self.observers), "target": "MOD", "result": "LESS", "modRevision": str(seen.revision + 1)},
        ]
        lease = self.grant(rest)
        done, answer = self._transaction(
            guards,
            [
                delete(seen.leader.key),
                put(seen.sync.key, seen.sync.value),
                put(seen.incident.key, note, lease),
                put(seen.last.key, note),
            ],
            [get(seen.incident.key)],
        )
        if not done:
            # One whose answer was lost may have been done, and then failed against itself.
            done = any(pair.lease == lease for pair in self._pairs(answer["responses"][0]))
        if not done:
            with contextlib.suppress(StoreError):
                self.drop(lease)
        return done

    # the wire

    def _do(self, request: dict[str, Any], when: Iterable[dict[str, Any]] = ()) -> bool:
        return self._transaction(when, [request], [])[0]

    def _transaction(
        self, when: Iterable[dict[str, Any]], then: list[dict[str, Any]], otherwise: list[dict[str, Any]]
    ) -> tuple[bool, dict[str, Any]]:
        answer = self._call("/v3/kv/txn", {"compare": list(when), "success": then, "failure": otherwise})
        return bool(answer.get("succeeded")), answer

    @staticmethod
    def _pairs(response: dict[str, Any]) -> list[Pair]:
        return [
            Pair(
                decode(kv["key"]),
                decode(kv.get("value", "")),
                int(kv.get("create_revision", 0)),
                int(kv.get("mod_revision", 0)),
                int(kv.get("lease", 0)),
            )
            for kv in response.get("response_range", {}).get("kvs", [])
        ]
