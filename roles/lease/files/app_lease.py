#!/usr/bin/python3
"""The app lease: decides which app host is active.

One agent runs on each app host. All contend for one key in etcd, bound to an etcd lease of a few seconds. The holder is
active: its cache is flushed, the singletons start, and keepalived may hold the virtual IP. Everybody else is inactive.

What keeps two hosts from being active at once:

* the holder stops at a deadline on its own clock that lies before the moment at which etcd can give the key to
  another: start of the last renewal that succeeded + ttl - margin;
* the deadline is looked at before anything else after each pause and after each answer, so that a process that was
  frozen stops first and asks later; the clock is CLOCK_BOOTTIME, which also runs while the machine sleeps;
* systemd's watchdog kills an agent that hangs, and `fence` (ExecStopPost) then undoes its activation;
* stopping goes in the reverse order of starting: virtual IP, /ha/active, singletons, and only then the key.

Commands: run, fence, status [--json], release [--seconds N], resume.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import dataclasses
import fcntl
import http.client
import json
import os
import select
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterable
from typing import Any, Protocol

CONFIG = "/etc/zulip-ha/lease.json"
RUN_DIR = "/run/zulip-ha"
ADOPTING_SECONDS = 60.0
"""How long units may wait for event queues; a file that is older was left behind."""
# SIGABRT is the watchdog's: an agent that can still act on it, as after a thaw, steps down sooner than `fence` starts.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGABRT)


class StoreError(Exception):
    """etcd did not answer, or not in time: nothing is known about the lease."""


class ActionError(Exception):
    """A step of the activation or deactivation failed."""


class Slow(ActionError):
    """It did not end in time, which says nothing about what it was asked about."""


class Late(Exception):
    """The deadline of the lease passed while activating."""


@dataclasses.dataclass(frozen=True)
class Config:
    host: str
    key: str
    endpoints: tuple[str, ...]
    ca: str
    certificate: str
    private_key: str
    ttl: float
    margin: float
    request_timeout: float
    release_grace: float
    units: tuple[str, ...]
    probes: dict[str, str]
    start_grace: float
    interval: float
    probe_timeout: float
    failures: int
    successes: int
    backoff: float
    backoff_max: float
    memcached: dict[str, Any] | None
    target: str = "zulip-active.target"
    run_dir: str = RUN_DIR
    tick: float = 0.25

    @classmethod
    def load(cls, path: str) -> Config:
        with open(path, encoding="utf-8") as file:
            values = json.load(file)
        for name in ("endpoints", "units"):
            values[name] = tuple(values[name])
        config = cls(**values)
        if not config.endpoints:
            raise ValueError("endpoints is empty")
        if not 0 < config.margin < config.ttl / 2:
            raise ValueError("margin must lie between 0 and half the ttl")
        return config


@dataclasses.dataclass
class Lease:
    id: int
    ttl: float
    deadline: float


@dataclasses.dataclass(frozen=True)
class Holder:
    name: str
    lease: int


class Store(Protocol):
    def holder(self) -> Holder | None: ...
    def acquire(self) -> tuple[int, float] | None: ...
    def renew(self, lease: int, until: float) -> float | None: ...
    def revoke(self, lease: int) -> None: ...


class Actions(Protocol):
    def flush_cache(self) -> None: ...
    def start_target(self) -> None: ...
    def set_active(self) -> None: ...
    def allow_vip(self) -> None: ...
    def deny_vip(self) -> None: ...
    def clear_active(self) -> None: ...
    def stop_target(self, grace: float) -> None: ...


def log(message: str, level: int = 6) -> None:
    print(f"<{level}>{message}", flush=True)


def clock() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


# --- the state machine: no input or output of its own ----------------------------------------------------------------


class HealthGate:
    """Turns single observations into a verdict: N failures in a row close it, M successes in a row open it."""

    def __init__(self, failures: int, successes: int) -> None:
        self.failures, self.successes = failures, successes
        self.open = False
        self.problems: list[str] = ["not checked yet"]
        self._run = 0

    def observe(self, problems: list[str]) -> None:
        self.problems = problems
        if bool(problems) != self.open:  # agrees with the verdict: whatever was counted against it is void
            self._run = 0
            return
        self._run += 1
        if self._run >= (self.failures if problems else self.successes):
            self.open, self._run = not problems, 0


class Agent:
    """Contends for the lease, holds it, and keeps the host's activity equal to holding it."""

    def __init__(
        self,
        config: Config,
        store: Store,
        actions: Actions,
        now: Callable[[], float] = clock,
        say: Callable[..., None] = log,
    ) -> None:
        self.config, self.store, self.actions, self.now, self.say = config, store, actions, now, say
        self.gate = HealthGate(config.failures, config.successes)
        self.lease: Lease | None = None
        self.active = False
        self.clean = False  # nothing is known of what an earlier life left
        self.since = now()
        self.holder = ""
        self.give_ups = 0
        self.wait_until = 0.0
        self.wait_reason = ""
        self.next_renewal = 0.0
        self.next_look = 0.0
        self._said: dict[str, str] = {}

    # what the outside may ask for

    def observe(self, problems: list[str], excused: bool = False) -> None:
        """Take one look at the host. What is `excused` does not close the gate, and does not open it."""
        if excused and self.gate.open:
            return
        was_open = self.gate.open
        self.gate.observe(problems)
        if was_open and not self.gate.open:
            self.say(f"unhealthy after {self.config.failures} failures in a row: {'; '.join(problems)}", 4)
        elif self.gate.open and not was_open:
            self.say("healthy")

    def step(self) -> float:
        """Do what is due; returns the seconds until something is due again."""
        self._stop_if_late()
        if self.lease:
            self._hold(self.lease)
        else:
            self._contend()
        due = self.now() + self.config.tick
        if self.lease:
            due = min(due, self.lease.deadline, self.next_renewal)
        return max(0.0, due - self.now())

    def release(self, seconds: float, reason: str) -> None:
        """Step down, and let others have the lease for a while."""
        self._leave(reason)
        self._wait(seconds, "released")

    def resume(self) -> None:
        self.wait_until = 0.0

    def stop(self) -> None:
        self._leave("the agent is stopping")

    def reconfigure(self, config: Config) -> None:
        self.config = config
        self.gate.failures, self.gate.successes = config.failures, config.successes

    def status(self) -> dict[str, Any]:
        now = self.now()
        return {
            "host": self.config.host,
            "active": self.active,
            "since_seconds": round(now - self.since, 1),
            "holder": self.holder,
            "healthy": self.gate.open,
            "problems": self.gate.problems,
            "deadline_in_seconds": round(self.lease.deadline - now, 2) if self.lease else None,
            "waiting_seconds": round(max(0.0, self.wait_until - now), 1),
            "waiting_reason": self.wait_reason if self.wait_until > now else "",
            "etcd": self._said.get("etcd", ""),
        }

    # holding

    def _stop_if_late(self) -> bool:
        if self.lease and self.now() >= self.lease.deadline:
            late = self.now() - self.lease.deadline
            self._deactivate(f"the lease was not renewed in time ({late:.1f} s past the deadline)")
            return True
        return False

    def _hold(self, lease: Lease) -> None:
        if not self.gate.open:
            self._give_up("; ".join(self.gate.problems))
        elif self.now() >= self.next_renewal:
            self._renew(lease)

    def _renew(self, lease: Lease) -> None:
        try:
            renewed = self.store.renew(lease.id, lease.deadline)
        except StoreError as error:
            self._say_once("etcd", f"etcd does not renew the lease: {error}")
            self.next_renewal = self.now() + self.config.tick
            self._stop_if_late()
            return
        # The answer may have been read after a freeze: what it says about then is worth nothing when the time is over.
        if self._stop_if_late():
            return
        self._say_once("etcd", "")
        if renewed is None:
            self._deactivate("the lease is gone from etcd")
            return
        lease.deadline = renewed + lease.ttl - self.config.margin
        self.next_renewal = renewed + lease.ttl / 4
        if self.active and self.now() - self.since > self.config.backoff_max:
            self.give_ups = 0

    def _give_up(self, reason: str) -> None:
        self._leave(f"giving up: {reason}")
        self.give_ups += 1
        self._wait(min(self.config.backoff * 2 ** (self.give_ups - 1), self.config.backoff_max), "gave up")

    def _leave(self, reason: str) -> None:
        if lease := self.lease:
            self._deactivate(reason)
            self._revoke(lease.id)

    def _revoke(self, lease: int) -> None:
        try:
            self.store.revoke(lease)
        except StoreError as error:
            self.say(f"the lease was not revoked and will run out by itself: {error}", 4)

    def _wait(self, seconds: float, reason: str) -> None:
        self.wait_until, self.wait_reason = self.now() + seconds, reason
        self.say(f"not contending for {seconds:.0f} s ({reason})")

    # contending

    def _contend(self) -> None:
        if not self.clean:
            self.clean = undo(self.actions, self.config.margin * 0.7, self.say)
            if not self.clean:
                return
        now = self.now()
        eligible = self.gate.open and now >= self.wait_until
        if not eligible and now < self.next_look:
            return
        self.next_look = now + 1.0  # only to know who holds it
        try:
            holder = self.store.holder()
            if holder and holder.name == self.config.host:
                # Left by an earlier life of this agent; nothing on this host is active on its strength.
                self.say("an earlier lease of this host is still there: revoking it")
                self.store.revoke(holder.lease)
                holder = None
            self._say_once("etcd", "")
            name = holder.name if holder else ""
            if name != self.holder:
                self.say(f"the lease is held by {name}" if name else "nobody holds the lease")
                self.holder = name
            if holder or not eligible:
                return
            got = self.store.acquire()
        except StoreError as error:
            self._say_once("etcd", f"etcd does not answer: {error}")
            return
        if got:
            lease, started = got
            self.lease = Lease(lease, self.config.ttl, started + self.config.ttl - self.config.margin)
            self.next_renewal = started + self.config.ttl / 4
            self.holder = self.config.host
            self._activate(self.lease)

    def _activate(self, lease: Lease) -> None:
        self.say(f"took the lease {lease.id:x}")
        actions = self.actions
        try:
            # The cache of a host that was a spare holds values that were changed elsewhere since.
            for action in (actions.flush_cache, actions.start_target, actions.set_active, actions.allow_vip):
                if self.now() >= lease.deadline:
                    raise Late
                self.active = self.active or action is not actions.flush_cache
                action()
        except Late:
            self._stop_if_late()
        except ActionError as error:
            self._give_up(f"activation failed: {error}")
        else:
            self.since = self.now()
            self.say("ACTIVE", 5)

    def _deactivate(self, reason: str) -> None:
        self.say(f"stepping down: {reason}", 4)
        lease, self.lease = self.lease, None
        left = lease.deadline - self.now() if lease else 0.0
        # Late or not, the singletons are dead before the lease can be somebody else's.
        grace = max(min(self.config.release_grace, left), self.config.margin * 0.7)
        self.clean = undo(self.actions, grace, self.say)
        self.since = self.now()
        if self.active:
            self.say("INACTIVE", 5)
        self.active, self.holder = False, ""

    def _say_once(self, topic: str, message: str) -> None:
        if bool(message) != bool(self._said.get(topic)):
            self.say(message or f"{topic} answers again", 4 if message else 6)
        self._said[topic] = message


def undo(actions: Actions, grace: float, say: Callable[..., None] = log) -> bool:
    """Make the host inactive; says whether all was done. A step that fails does not keep the others from being done."""
    done = True
    for action in (actions.deny_vip, actions.clear_active, lambda: actions.stop_target(grace)):
        try:
            action()
        except (ActionError, OSError) as error:
            say(f"stepping down: {error}", 3)
            done = False
    return done


# --- etcd ------------------------------------------------------------------------------------------------------------


class Etcd:
    """The five calls of etcd's JSON gateway (3.4 and later) that a lease needs, on one connection that is kept open."""

    def __init__(self, config: Config, beat: Callable[[], None] = lambda: None) -> None:
        self.config, self.beat = config, beat
        self._connection: http.client.HTTPConnection | None = None
        self._first = 0
        self._key = base64.b64encode(config.key.encode()).decode()

    def holder(self) -> Holder | None:
        answer, _ = self._call("/v3/kv/range", {"key": self._key})
        return self._read_holder(answer)

    def acquire(self) -> tuple[int, float] | None:
        """Lease and the time before which etcd cannot have started to count it, or None when somebody was faster."""
        granted, started = self._call("/v3/lease/grant", {"TTL": int(self.config.ttl)})
        lease = int(granted["ID"])
        value = base64.b64encode(self.config.host.encode()).decode()
        put = {"requestPut": {"key": self._key, "value": value, "lease": str(lease)}}
        free = {"key": self._key, "target": "CREATE", "result": "EQUAL", "createRevision": "0"}
        get = {"requestRange": {"key": self._key}}
        answer, _ = self._call("/v3/kv/txn", {"compare": [free], "success": [put], "failure": [get]})
        if answer.get("succeeded"):
            return lease, started
        # A transaction whose answer was lost may have been done, and then failed against itself.
        holder = self._read_holder(answer["responses"][0]["response_range"])
        if holder and holder.lease == lease:
            return lease, started
        self.revoke(lease)
        return None

    def renew(self, lease: int, until: float) -> float | None:
        """Start of the request that renewed it, or None when the lease or the key is gone."""
        answer, started = self._call("/v3/lease/keepalive", {"ID": str(lease)}, until)
        if int(answer.get("result", {}).get("TTL", 0)) <= 0:
            return None
        # A leader that has been cut off renews leases until it notices. A linearizable read needs the quorum, and it
        # also sees a key that an operator has deleted.
        answer, _ = self._call("/v3/kv/range", {"key": self._key}, until)
        holder = self._read_holder(answer)
        return started if holder and holder.lease == lease else None

    def revoke(self, lease: int) -> None:
        self._call("/v3/lease/revoke", {"ID": str(lease)})

    def close(self) -> None:
        if self._connection:
            self._connection.close()
            self._connection = None

    @staticmethod
    def _read_holder(answer: dict[str, Any]) -> Holder | None:
        for kv in answer.get("kvs", []):
            return Holder(base64.b64decode(kv.get("value", "")).decode(), int(kv.get("lease", 0)))
        return None

    def _call(self, path: str, body: dict[str, Any], until: float = float("inf")) -> tuple[dict[str, Any], float]:
        """Ask one endpoint after the other, the one that answered last first."""
        errors = []
        for _ in self.config.endpoints:
            endpoint = self.config.endpoints[self._first % len(self.config.endpoints)]
            started = clock()
            timeout = min(self.config.request_timeout, until - started)
            if timeout <= 0:
                break
            self.beat()
            try:
                return self._request(endpoint, path, body, timeout), started
            except (OSError, http.client.HTTPException, ValueError, LookupError, StoreError) as error:
                errors.append(f"{endpoint}: {error or type(error).__name__}")
                self.close()
                self._first += 1
        raise StoreError("; ".join(errors) or "no time left to ask")

    def _request(self, endpoint: str, path: str, body: dict[str, Any], timeout: float) -> dict[str, Any]:
        connection = self._connection or self._connect(endpoint)
        connection.timeout = timeout
        if connection.sock:
            connection.sock.settimeout(timeout)
        self._connection = connection
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        text = response.read()
        if response.status == 404 and path == "/v3/lease/revoke":
            return {}
        if response.status != 200:
            raise StoreError(f"HTTP {response.status} {text[:200].decode(errors='replace').strip()}")
        # keepalive is a stream of one JSON object a line; one request, one line
        answer = json.loads(text.splitlines()[0])
        if "error" in answer:
            raise StoreError(str(answer["error"]))
        return answer

    def _connect(self, endpoint: str) -> http.client.HTTPConnection:
        url = urllib.parse.urlsplit(endpoint)
        if url.scheme == "http":
            return http.client.HTTPConnection(url.hostname or "", url.port or 2379)
        # Read anew for each connection, so that a renewed certificate needs no restart.
        context = ssl.create_default_context(cafile=self.config.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.config.certificate, self.config.private_key)
        return http.client.HTTPSConnection(url.hostname or "", url.port or 2379, context=context)


# --- the host: files, units, cache, health ---------------------------------------------------------------------------


# Seconds for one call of systemctl, and for one of a host that steps down after earlier ones took too long.
PATIENCE, PATIENCE_MAX = 1.5, 6.0
# How long `fence` tries again; systemd ends it after TimeoutStopSec.
FENCE_SECONDS = 8.0


def systemctl(*arguments: str, timeout: float = PATIENCE, beat: Callable[[], None] = lambda: None) -> str:
    end = clock() + timeout
    try:
        with subprocess.Popen(
            ["systemctl", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            while True:
                try:
                    output, errors = process.communicate(timeout=max(0.0, min(0.5, end - clock())))
                    break
                except subprocess.TimeoutExpired as error:
                    if clock() >= end:
                        process.kill()
                        raise Slow(f"systemctl {arguments[0]} did not end within {timeout:g} s") from error
                    beat()
    except OSError as error:
        raise ActionError(f"systemctl {arguments[0]}: {error}") from error
    if process.returncode:
        raise ActionError(f"systemctl {' '.join(arguments)}: {errors.strip() or process.returncode}")
    return output


PROPERTIES = "LoadState,ActiveState,ConsistsOf,Job,NRestarts,InactiveExitTimestampMonotonic"


def show_units(
    units: Iterable[str], timeout: float = PATIENCE, beat: Callable[[], None] = lambda: None
) -> dict[str, dict[str, str]]:
    """Properties of many units in one call, by the name that was asked for."""
    names = list(units)
    if not names:
        return {}
    text = systemctl("show", f"--property={PROPERTIES}", *names, timeout=timeout, beat=beat)
    blocks = text.strip().split("\n\n")
    return {
        name: dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        for name, block in zip(names, blocks, strict=True)
    }


class Host:
    def __init__(self, config: Config, beat: Callable[[], None] = lambda: None) -> None:
        self.config, self.beat = config, beat
        self.patience = PATIENCE

    def flush_cache(self) -> None:
        if self.config.memcached:
            try:
                flush_memcached(**self.config.memcached)
            except (OSError, ValueError) as error:
                raise ActionError(f"memcached was not flushed: {error}") from error

    def start_target(self) -> None:
        systemctl("start", "--no-block", self.config.target)

    def set_active(self) -> None:
        self._write("active", b"1\n")

    def allow_vip(self) -> None:
        self._write("vrrp", b"0\n")

    def deny_vip(self) -> None:
        self._write("vrrp", b"1\n")

    def clear_active(self) -> None:
        try:
            os.unlink(os.path.join(self.config.run_dir, "active"))
        except FileNotFoundError:
            pass
        except OSError as error:
            raise ActionError(f"active: {error}") from error

    def stop_target(self, grace: float) -> None:
        """Stop the target and what belongs to it; kill what is still there after the time of grace."""
        try:
            self._stop_target(grace)
        except Slow:
            # The same again in the same time may fail for ever where CPU is short, and nobody would contend.
            self.patience = min(2 * self.patience, PATIENCE_MAX)
            raise
        self.patience = PATIENCE

    def _stop_target(self, grace: float) -> None:
        end = clock() + grace
        target = self._show([self.config.target])[self.config.target]
        members = target.get("ConsistsOf", "").split()
        if target["LoadState"] == "loaded":
            self._ask("stop", "--no-block", self.config.target, *members)
        while True:
            self.beat()
            states = self._show(members)
            left = [name for name in members if states[name]["ActiveState"] not in ("inactive", "failed")]
            if not left:
                return
            if clock() >= end:
                log(f"killing what did not stop within {grace:.1f} s: {' '.join(left)}", 4)
                self._ask("kill", "--signal=SIGKILL", *left)
                return
            time.sleep(0.1)

    def _ask(self, *arguments: str) -> None:
        systemctl(*arguments, timeout=self.patience, beat=self.beat)

    def _show(self, units: list[str]) -> dict[str, dict[str, str]]:
        return show_units(units, timeout=self.patience, beat=self.beat)

    def _write(self, name: str, value: bytes) -> None:
        """In place, so that a full /run cannot keep a host from stepping down."""
        try:
            fd = os.open(os.path.join(self.config.run_dir, name), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                os.pwrite(fd, value, 0)
            finally:
                os.close(fd)
        except OSError as error:
            raise ActionError(f"{name}: {error}") from error


def flush_memcached(address: str, username: str, password: str, timeout: float = 1.0) -> None:
    """SASL PLAIN and flush in memcached's binary protocol, the only one that it speaks when SASL is on."""
    host, _, port = address.rpartition(":")
    header = struct.Struct("!BBHBBHIIQ")

    with socket.create_connection((host, int(port)), timeout) as connection, connection.makefile("rb") as stream:

        def ask(opcode: int, key: bytes, value: bytes, what: str) -> None:
            length = len(key) + len(value)
            connection.sendall(header.pack(0x80, opcode, len(key), 0, 0, 0, length, 0, 0) + key + value)
            head = stream.read(header.size)
            if len(head) < header.size:
                raise ValueError(f"{what}: the connection was closed")
            magic, _, _, _, _, status, size, _, _ = header.unpack(head)
            text = stream.read(size)
            if magic != 0x81 or status:
                raise ValueError(f"{what}: {text.decode(errors='replace') or status}")

        if username:
            ask(0x21, b"PLAIN", b"\0" + username.encode() + b"\0" + password.encode(), "authentication")
        ask(0x08, b"", b"", "flush")


def probe(spec: str, timeout: float) -> None:
    """Raises unless it answers: tcp:HOST:PORT, unix:PATH (connect only), http://HOST:PORT/PATH (status below 500)."""
    scheme, _, rest = spec.partition(":")
    if scheme == "unix":
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout)
            # A full queue is no fault: it listens, and is busy, as it is when the database is away.
            with contextlib.suppress(BlockingIOError):
                connection.connect(rest)
    elif scheme == "tcp":
        host, _, port = rest.rpartition(":")
        socket.create_connection((host, int(port)), timeout).close()
    else:
        url = urllib.parse.urlsplit(spec)
        web = http.client.HTTPConnection(url.hostname or "", url.port or 80, timeout=timeout)
        try:
            web.request("GET", url.path or "/")
            status = web.getresponse().status
            if status >= 500:
                raise OSError(f"HTTP {status}")
        finally:
            web.close()


def being_restarted(state: dict[str, str], grace: float) -> bool:
    """Whether somebody restarts the unit, or started it just now. One that systemd restarts after a crash is none."""
    if state.get("Job", "0") not in ("", "0"):
        return True
    started = int(state.get("InactiveExitTimestampMonotonic", "0")) / 1e6
    return state.get("NRestarts") == "0" and started > 0 and time.monotonic() - started < grace


def adopting(run_dir: str) -> set[str]:
    """The units that wait for event queues in a planned move, which app_move.py tells."""
    path = os.path.join(run_dir, "adopting")
    try:
        if 0 <= time.time() - os.stat(path).st_mtime < ADOPTING_SECONDS:
            with open(path, encoding="ascii") as file:
                return set(file.read().split())
    except OSError:
        pass
    return set()


def check_host(config: Config) -> tuple[list[str], bool]:
    """What is wrong with this host's own services, in words, and whether restarts under way explain all of it."""
    problems: list[tuple[str, str]] = []
    try:
        states = show_units([config.target, *config.units], timeout=3.0)
    except Slow:
        # A machine that is short of CPU, not a service that is down: the probes alone decide this round.
        states = {}
    except ActionError as error:
        return [str(error)], False
    for unit, state in states.items():
        if state.get("LoadState") == "not-found":
            problems.append((f"{unit} is not installed", ""))
        elif unit != config.target and state.get("ActiveState") not in ("active", "reloading"):
            problems.append((f"{unit} is {state.get('ActiveState', 'unknown')}", unit))
    end = clock() + config.probe_timeout
    for spec, unit in config.probes.items():
        try:
            probe(spec, max(0.05, end - clock()))
        except (OSError, http.client.HTTPException, ValueError) as error:
            problems.append((f"{spec}: {error or type(error).__name__}", unit))
    waiting = adopting(config.run_dir) if problems else set()
    excused = all(unit in waiting or being_restarted(states.get(unit, {}), config.start_grace) for _, unit in problems)
    return [text for text, _ in problems], bool(problems) and excused


class Checker(threading.Thread):
    """Looks at the host once an interval, beside the loop that renews the lease, which a hang must not stop."""

    def __init__(self, config: Config, wake: Callable[[], None]) -> None:
        super().__init__(daemon=True)
        self.config, self.wake = config, wake
        self._reports: list[tuple[list[str], bool]] = []
        self._last = clock()

    def run(self) -> None:
        while True:
            started = clock()
            self._reports.append(check_host(self.config))
            self._last = clock()
            self.wake()
            time.sleep(max(0.0, started + self.config.interval - clock()))

    def reports(self) -> list[tuple[list[str], bool]]:
        taken, self._reports = self._reports, []
        patience = self.config.failures * (self.config.interval + self.config.probe_timeout) + 10
        if not taken and clock() - self._last > patience:
            self._last = clock()
            return [([f"the health check has not ended for {patience:.0f} s"], False)] * self.config.failures
        return taken


# --- the process -----------------------------------------------------------------------------------------------------


def sd_notify(message: str) -> None:
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as connection:
        try:
            connection.sendto(message.encode(), "\0" + address[1:] if address.startswith("@") else address)
        except OSError as error:
            log(f"systemd was not notified: {error}", 4)


class Service:
    """Wires the agent to signals, the control socket, systemd and the clock."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.config = Config.load(path)
        self.host = Host(self.config, self.beat)
        self.etcd = Etcd(self.config, self.beat)
        self.agent = Agent(self.config, self.etcd, self.host)
        self.patience = int(os.environ.get("WATCHDOG_USEC", "0")) / 1e6
        self.signals: set[int] = set()
        self.wake_in, self.wake_out = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.checker = Checker(self.config, self.wake)

    def beat(self) -> None:
        """Tell systemd that the agent lives, and when to end it if this was its last sign: soon after the deadline."""
        patience = self.patience
        if self.agent.lease:
            patience = min(patience, self.agent.lease.deadline + 0.3 * self.config.margin - clock())
        if self.patience:
            sd_notify(f"WATCHDOG_USEC={max(100_000, int(patience * 1e6))}\nWATCHDOG=1")

    def wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self.wake_out, b".")

    def run(self) -> int:
        lock = os.open(os.path.join(self.config.run_dir, "lease.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log("another agent runs on this host", 3)
            return 1
        for number in (signal.SIGHUP, *STOP_SIGNALS):
            signal.signal(number, lambda received, frame: self.signals.add(received))
        signal.set_wakeup_fd(self.wake_out, warn_on_full_buffer=False)
        control = self._listen()
        self.checker.start()
        log(f"contending for {self.config.key} as {self.config.host}, ttl {self.config.ttl:g} s")
        self.agent.step()  # makes the host inactive; ready means that
        sd_notify("READY=1\nSTATUS=inactive, unhealthy")
        status = ""
        while not self.signals.intersection(STOP_SIGNALS):
            pause = self.agent.step()
            for problems, excused in self.checker.reports():
                self.agent.observe(problems, excused)
            if signal.SIGHUP in self.signals:
                self.signals.discard(signal.SIGHUP)
                self.reload()
            if status != (status := summary(self.agent)):
                sd_notify(f"STATUS={status}")
            self.beat()
            sources: list[Any] = [control, self.wake_in]
            ready, _, _ = select.select(sources, [], [], pause)
            # Whatever the pause was ended by, the deadline comes first.
            if control in ready:
                self.agent.step()
                self._answer(control)
            if self.wake_in in ready:
                os.read(self.wake_in, 4096)
        sd_notify("STOPPING=1")
        self.agent.stop()
        return 0

    def reload(self) -> None:
        """New health rules, endpoints or certificates without giving the lease up."""
        try:
            config = Config.load(self.path)
        except (OSError, ValueError, TypeError) as error:
            log(f"the new configuration is not used: {error}", 3)
            return
        fixed = ("host", "key", "ttl", "margin", "run_dir", "target")
        if any(getattr(config, name) != getattr(self.config, name) for name in fixed):
            log(f"{', '.join(fixed)} take effect with the next restart", 4)
            config = dataclasses.replace(config, **{name: getattr(self.config, name) for name in fixed})
        self.config = self.host.config = self.etcd.config = self.checker.config = config
        self.etcd.close()
        self.agent.reconfigure(config)
        log("read the configuration anew")

    def _listen(self) -> socket.socket:
        path = os.path.join(self.config.run_dir, "lease.sock")
        if os.path.exists(path):
            os.unlink(path)
        control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        mask = os.umask(0o177)
        try:
            control.bind(path)
        finally:
            os.umask(mask)
        control.listen(4)
        return control

    def _answer(self, control: socket.socket) -> None:
        """One line in, one JSON object out: status, release SECONDS, resume."""
        try:
            connection, _ = control.accept()
            with connection:
                connection.settimeout(0.2)
                verb, *words = connection.recv(256).decode().split() or [""]
                if verb == "release":
                    self.agent.release(float(words[0]), "released by an operator")
                elif verb == "resume":
                    self.agent.resume()
                connection.sendall(json.dumps(self.agent.status()).encode())
        except (OSError, ValueError, IndexError) as error:
            log(f"control socket: {error}", 4)


def ask(line: str) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(15)
        connection.connect(os.path.join(RUN_DIR, "lease.sock"))
        connection.sendall(line.encode())
        with connection.makefile("rb") as stream:
            return json.loads(stream.read())


def summary(agent: Agent) -> str:
    """What `systemctl status` shows; another app host reads it before it hands over to this one."""
    text = "active" if agent.active else f"inactive, holder: {agent.holder or '?'}"
    return text if agent.gate.open else f"{text}, unhealthy"


def describe(status: dict[str, Any]) -> str:
    words = ["active" if status["active"] else f"inactive, the lease is held by {status['holder'] or 'nobody'}"]
    words.append(f"for {status['since_seconds']:.0f} s")
    if not status["healthy"]:
        words.append(f"unhealthy: {'; '.join(status['problems'])}")
    if status["waiting_reason"]:
        words.append(f"not contending for {status['waiting_seconds']:.0f} s ({status['waiting_reason']})")
    if status["etcd"]:
        words.append(status["etcd"])
    return f"{status['host']}: {', '.join(words)}"


def main() -> int:
    parser = argparse.ArgumentParser(description="The agent that decides which app host is active.")
    parser.add_argument("--config", default=CONFIG, help="default: %(default)s")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("run", help="contend for the lease (the service)")
    verbs.add_parser("check", help="say whether the configuration file can be used")
    verbs.add_parser("fence", help="make this host inactive at once; for an agent that has died")
    for verb, text in (
        ("status", "who holds the lease, and how this host is"),
        ("release", "step down and leave the lease to others for a while"),
        ("resume", "end the time of a release or of a back-off"),
    ):
        sub = verbs.add_parser(verb, help=text)
        sub.add_argument("--json", action="store_true", help="machine-readable answer")
        if verb == "release":
            sub.add_argument("--seconds", type=float, default=30, help="default: %(default)s")
    arguments = parser.parse_args()
    try:
        if arguments.verb == "run":
            return Service(arguments.config).run()
        if arguments.verb == "check":
            Config.load(arguments.config)
            return 0
        if arguments.verb == "fence":
            config = Config.load(arguments.config)
            host = Host(config)
            end = clock() + FENCE_SECONDS
            while not undo(host, config.margin * 0.7):
                if clock() >= end:
                    return 1
            return 0
        line = f"release {arguments.seconds}" if arguments.verb == "release" else arguments.verb
        status = ask(line)
    except (OSError, ValueError, TypeError) as error:
        print(f"app_lease: {arguments.verb}: {error}", file=sys.stderr)
        return 1
    print(json.dumps(status) if arguments.json else describe(status))
    return 0


if __name__ == "__main__":
    sys.exit(main())
