"""python -m tests.load: asks the lab's server for what its users would, at a fixed rate, and notes each answer."""

from __future__ import annotations

import argparse
import contextlib
import secrets
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.load.clients import TIMEOUT, Caller, Planner, Query, Reader, Scheduled, Uploader, Visitor, Writer
from tests.load.history import History
from tests.load.server import Refused, Server

ROOT = Path(__file__).resolve().parents[2]
VISIT_SECONDS, PLAN_SECONDS = 1.0, 5.0


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.load", description=__doc__)
    parser.add_argument("--state", type=Path, default=ROOT / "lab/state.json", help="the lab's state file")
    parser.add_argument("--out", type=Path, required=True, help="the history, a new file")
    parser.add_argument("--seconds", type=float, default=0, help="how long; 0: until SIGTERM or SIGINT")
    parser.add_argument("--host", default="", help="ask the virtual IP under this name, as DNS would have it")
    parser.add_argument("--channel", default="load", help="where the messages go; made when missing")
    parser.add_argument("--rate", type=float, default=25, help="requests a second in all, long polls not counted")
    parser.add_argument("--write-rate", type=float, default=5, help="messages a second of these")
    parser.add_argument("--upload-rate", type=float, default=0.2, help="uploads a second, of two requests each")
    parser.add_argument("--writers", type=int, default=5)
    parser.add_argument("--readers", type=int, default=2, help="clients with an event queue")
    parser.add_argument("--queries", type=int, default=8, help="clients that read messages, profile and users")
    parser.add_argument("--uploaders", type=int, default=1)
    parser.add_argument("--visitors", type=int, default=0, help="clients that come anew each second, beyond the rate")
    parser.add_argument("--planners", type=int, default=0, help="clients that schedule a message every 5 s")
    parser.add_argument("--links", type=int, default=0, help="every N-th message carries a link: a job for a worker")
    parser.add_argument("--drain", type=float, default=30, help="how long readers may wait for the last message")
    parser.add_argument("--force", action="store_true", help="begin although the server's rate limit looks too low")
    return parser.parse_args(arguments)


def query_rate(options: argparse.Namespace) -> float:
    """Return what is left of the rate for the queries; refuse what does not add up."""
    uploads = 2 * options.upload_rate if options.uploaders else 0.0
    rest = options.rate - options.write_rate - uploads
    if options.writers < 1 or options.readers < 1 or options.write_rate <= 0:
        raise Refused("without a writer and a reader nothing is tested")
    if options.uploaders and options.upload_rate <= 0:
        raise Refused("--upload-rate must be above 0, or --uploaders 0")
    if options.queries < 1 and rest > 0.01:
        raise Refused(f"{rest:.1f} requests a second are left for --queries 0: lower --rate or raise --write-rate")
    if options.queries and rest <= 0:
        raise Refused(f"--rate {options.rate:g} leaves nothing for the queries: raise it or say --queries 0")
    return rest


def needs(user: int, users: int, options: argparse.Namespace) -> tuple[int, int]:
    """Return the requests and the polls a minute of the user with this number, as the clients are dealt out.

    The server counts them apart: Tornado has counters of its own.
    """

    def mine(clients: int) -> int:
        return len(range(user, clients, users))

    requests = options.write_rate * mine(options.writers) / options.writers
    if options.queries:
        requests += query_rate(options) * mine(options.queries) / options.queries
    if options.uploaders:
        requests += 2 * options.upload_rate * mine(options.uploaders) / options.uploaders
    return round(60 * requests), round(60 * options.write_rate * mine(options.readers))


def check_limit(user: dict[str, str], limit: str | None, needed: tuple[int, int]) -> None:
    """Refuse when the server's own limit, as its answers name it, would end the run."""
    if limit and limit.isdigit() and int(limit) < max(needed):
        raise Refused(
            f"{user['email']} would make {needed[0]} requests and {needed[1]} polls a minute, "
            f"the server allows {limit}: raise api_by_user in RATE_LIMITING_RULES there, or say --force"
        )


class Load:
    """The clients of one run."""

    def __init__(self, server: Server, options: argparse.Namespace) -> None:
        self.server, self.options = server, options
        self.run = f"load{secrets.token_hex(4)}"
        self.stop, self.abandon = threading.Event(), threading.Event()
        self.readers: list[Reader] = []
        self.scheduled: list[Scheduled] = []

    def prepare(self) -> None:
        """Make channel, clients and history; whatever is wrong is found here."""
        options, users = self.options, self.server.users
        rest = query_rate(options)
        if options.out.exists():
            raise Refused(f"{options.out} exists: a history is never written over")
        clients = [self.server.client(user) for user in users]
        for number, (user, client) in enumerate(zip(users, clients, strict=True)):
            limits: list[str | None] = []
            client.session.hooks["response"].append(
                lambda r, limits=limits, **_: limits.append(r.headers.get("X-RateLimit-Limit"))
            )
            answer = client.add_subscriptions([{"name": options.channel}])
            if answer.get("result") != "success":
                raise Refused(f"{user['email']} cannot enter the channel {options.channel}: {answer.get('msg')}")
            if not options.force:
                check_limit(user, limits[-1], needs(number, len(users), options))
        newest = clients[0].get_messages({"anchor": "newest", "num_before": 1, "num_after": 0, "narrow": []})
        if newest.get("result") != "success":
            raise Refused(f"messages cannot be read: {newest.get('msg')}")
        self.anchor = max((message["id"] for message in newest["messages"]), default=0)

        history = self.history = History(options.out, new=True)

        def callers(kind: str, number: int) -> list[Caller]:
            return [Caller(f"{kind}{n + 1}", self.server.client(users[n % len(users)]), history) for n in range(number)]

        def interval(number: int, rate: float) -> float:
            return number / rate

        self.last = Caller("end", clients[0], history)
        self.readers = [
            Reader(caller, self.abandon, options.channel, self.anchor, f"{self.run}-end-")
            for caller in callers("reader", options.readers)
        ]
        writers = [
            Writer(
                caller,
                self.stop,
                interval(options.writers, options.write_rate),
                options.channel,
                self.run,
                options.links,
            )
            for caller in callers("writer", options.writers)
        ]
        topics = [writer.topic for writer in writers]
        queries = [
            Query(caller, self.stop, interval(options.queries, rest), options.channel, topics)
            for caller in callers("query", options.queries)
        ]
        uploaders = [
            Uploader(caller, self.stop, interval(options.uploaders, options.upload_rate), self.run)
            for caller in callers("uploader", options.uploaders)
        ]
        visitors = [
            Visitor(caller, self.stop, VISIT_SECONDS * options.visitors, options.channel, self.run)
            for caller in callers("visitor", options.visitors)
        ]
        planners = [
            Planner(caller, self.stop, PLAN_SECONDS, options.channel, self.run)
            for caller in callers("planner", options.planners)
        ]
        self.groups: list[list[Scheduled]] = [
            list(group) for group in (writers, queries, uploaders, visitors, planners)
        ]
        self.scheduled = [client for group in self.groups for client in group]

    def begin(self) -> None:
        """Start the readers, and when they listen, everybody else."""
        for reader in self.readers:
            reader.start()
        deadline = time.monotonic() + 30
        for reader in self.readers:
            if not reader.registered.wait(max(0.0, deadline - time.monotonic())):
                raise Refused(f"{reader.name} got no event queue within 30 s: see {self.options.out}")
        begin = time.monotonic() + 0.1
        for group in self.groups:
            for number, client in enumerate(group):
                # Spread over the interval, so that the server sees a stream and no bursts.
                client.begin = begin + client.interval * number / len(group)
        self.history.mark(
            "load begins", run=self.run, channel=self.options.channel, anchor=self.anchor, rate=self.options.rate
        )
        for client in self.scheduled:
            client.start()

    def end(self) -> None:
        """Stop the schedule, send the readers the last message, wait until they have it."""
        self.history.mark("load ends")
        self.stop.set()
        deadline = time.monotonic() + 3 * TIMEOUT
        for client in self.scheduled:
            client.join(max(0.0, deadline - time.monotonic()))
        stuck = [client.name for client in self.scheduled if client.is_alive()]
        farewell = Writer(self.last, self.abandon, 1, self.options.channel, self.run)
        farewell.kind = "last"
        answered = False
        deadline = time.monotonic() + self.options.drain
        while (waiting := [reader for reader in self.readers if reader.is_alive()]) and time.monotonic() < deadline:
            # Again only when nobody knows what became of it.
            if not answered:
                answered = farewell.send().ok
            waiting[0].join(0.5)
        self.abandon.set()
        for reader in self.readers:
            self.history.mark("reader ends", client=reader.name, complete=reader.complete)
        self.history.mark("history ends", stuck=stuck)


def summary(path: Path) -> str:
    """Return one line about a history."""
    from tests.load.history import read

    counts = Counter(line["outcome"] for line in read(path) if "outcome" in line)
    return ", ".join(f"{number} {outcome}" for outcome, number in counts.most_common())


def main(arguments: list[str]) -> int:
    """Run the load."""
    options = parse(arguments)
    asked_to_stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: asked_to_stop.set())
    try:
        load = Load(Server(options.state, options.host), options)
        load.prepare()
        load.begin()
    except Refused as error:
        print(f"load: {error}", file=sys.stderr)
        return 2
    print(
        f"load: {load.run} at {options.rate:g} requests/s, {len(load.readers)} readers, into {options.out}", flush=True
    )
    ends = time.monotonic() + options.seconds
    while not asked_to_stop.is_set() and (not options.seconds or time.monotonic() < ends):
        asked_to_stop.wait(min(1.0, max(0.01, ends - time.monotonic())) if options.seconds else 1.0)
    load.end()
    with contextlib.suppress(ValueError):
        print(f"load: ended, {summary(options.out)}", flush=True)
    return 1 if any(client.died for client in [*load.readers, *load.scheduled]) else 0


def _run() -> Any:
    return sys.exit(main(sys.argv[1:]))


if __name__ == "__main__":
    _run()
