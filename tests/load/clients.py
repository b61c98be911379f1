"""The clients: each a thread with a `zulip.Client` and so with connections of its own."""

from __future__ import annotations

import hashlib
import io
import random
import re
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from tests.load import answers
from tests.load.answers import Answer
from tests.load.history import History, wall
from tests.load.schedule import Schedule
from tests.load.server import in_channel, page_after

# What zulip.Client allows a request that is no long poll.
TIMEOUT = 15.0
# How long zulip.Client's own event loop rests after an error.
PAUSE = 1.0
# How far a reader that lost its queue reads back beyond what it has seen.
OVERLAP = 100
NONCE = re.compile(r"\bload[0-9a-f]{8}-[a-z]+[0-9]*-[0-9]+\b")


def nonce_in(content: str) -> str | None:
    """Return the nonce that a message carries."""
    found = NONCE.search(content)
    return found[0] if found else None


class Caller:
    """A `zulip.Client` whose every request becomes a line of the history."""

    def __init__(self, name: str, client: Any, history: History) -> None:
        self.name, self.client, self.history = name, client, history
        self.status: int | None = None
        # zulip.Client returns the body alone.
        client.session.hooks["response"].append(self._keep_status)

    def _keep_status(self, response: Any, *_: Any, **__: Any) -> None:
        self.status = response.status_code

    def call(
        self,
        kind: str,
        ask: Callable[[], Mapping[str, Any]],
        scheduled: float | None = None,
        found: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None,
        **about: Any,
    ) -> Answer:
        """Make one request and write it down; `found` picks what to keep of a success."""
        self.status = None
        began = time.monotonic()
        answer = answers.of_call(ask, lambda: self.status)
        ended = time.monotonic()
        kept: dict[str, Any] = {}
        if answer.ok and found:
            try:
                kept = found(answer.body)
            except (KeyError, TypeError, ValueError) as error:
                answer = Answer(answers.UNKNOWN, f"success without {error}", answer.status)
        if answer.error:
            kept["error"] = answer.error
        self.history.write(
            kind=kind,
            client=self.name,
            scheduled=round(began if scheduled is None else scheduled, 4),
            began=round(began, 4),
            ended=round(ended, 4),
            at=wall(began),
            outcome=answer.outcome,
            status=self.status,
            **about,
            **kept,
        )
        return answer


class Worker(threading.Thread):
    """A thread that writes down when a defect of this program ends it."""

    def __init__(self, caller: Caller, stop: threading.Event) -> None:
        super().__init__(name=caller.name, daemon=True)
        self.caller, self.stop = caller, stop
        self.died = False

    def run(self) -> None:
        """Work until told to stop."""
        try:
            self.work()
        except Exception as error:
            self.died = True
            traceback.print_exc()
            self.caller.history.mark("client died", client=self.name, error=f"{type(error).__name__}: {error}")

    def work(self) -> None:
        """Do what this client is for."""
        raise NotImplementedError


class Scheduled(Worker):
    """A client with a fixed schedule."""

    kind = ""

    def __init__(self, caller: Caller, stop: threading.Event, interval: float) -> None:
        super().__init__(caller, stop)
        self.interval = interval
        self.begin = 0.0

    def work(self) -> None:
        """Take each turn when it is due."""
        schedule = Schedule(self.begin, self.interval)
        while True:
            now = time.monotonic()
            slot = schedule.next(now)
            if slot.missed:
                self.caller.history.write(
                    kind="missed",
                    of=self.kind,
                    client=self.name,
                    began=round(slot.first_missed, 4),
                    ended=round(now, 4),
                    at=wall(slot.first_missed),
                    slots=slot.missed,
                    interval=self.interval,
                )
            if self.stop.wait(max(0.0, slot.due - time.monotonic())):
                return
            self.turn(slot.due)

    def turn(self, due: float) -> None:
        """Make the request of one turn."""
        raise NotImplementedError


class Writer(Scheduled):
    """Sends numbered messages to a topic of its own; never the same one twice."""

    kind = "send"

    def __init__(
        self, caller: Caller, stop: threading.Event, interval: float, channel: str, run: str, links: int = 0
    ) -> None:
        """Each `links`-th message carries a link, about which a queue worker adds something: a job that can be seen."""
        super().__init__(caller, stop, interval)
        self.channel, self.prefix, self.topic = channel, f"{run}-{self.name}", f"{run} {self.name}"
        self.links, self.number = links, 0

    def turn(self, due: float | None = None) -> None:
        """Send the next message."""
        self.send(due)

    def send(self, due: float | None = None) -> Answer:
        """Send the next message and return what became of it."""
        self.number += 1
        nonce = f"{self.prefix}-{self.number}"
        job = self.links > 0 and self.number % self.links == 0
        content = f"{nonce} says hello" + (f" at https://chat.example.com/{self.number}" if job else "")
        message = {"type": "stream", "to": self.channel, "topic": self.topic, "content": content}
        return self.caller.call(
            self.kind,
            lambda: self.post(message),
            due,
            lambda body: {"id": int(body["id"])},
            nonce=nonce,
            seq=self.number,
            topic=self.topic,
            **({"job": True} if job else {}),
        )

    def post(self, message: dict[str, Any]) -> Mapping[str, Any]:
        """Send it as a person's client does."""
        return dict(self.caller.client.send_message(message))


class Visitor(Writer):
    """Comes anew each time: a new connection, an event queue, a message, and the wait for it.

    Whoever asked a host that is lost without a word waits for its own timeout. This one shows when the server is back,
    so it waits for nobody for long, and leaves again.
    """

    patience = 3.0

    def turn(self, due: float | None = None) -> None:
        """Visit once."""
        self.caller.client.session.close()
        self.caller.call("visit", self._visit, due)

    def _visit(self) -> Mapping[str, Any]:
        client = self.caller.client
        queue = self._ask("register", "POST", {"event_types": ["message"]})
        if queue.get("result") != "success":
            return queue
        try:
            if not (sent := self.send()).ok:
                return {"result": "error", "code": "NOT_SENT", "msg": sent.error, "status_code": sent.status}
            return self._await(queue["queue_id"], int(queue["last_event_id"]))
        finally:
            # What becomes of the queue matters to nobody.
            answers.of_call(lambda: client.deregister(queue["queue_id"], timeout=self.patience), lambda: None)

    def post(self, message: dict[str, Any]) -> Mapping[str, Any]:
        """Send it, and give up early."""
        return self._ask("messages", "POST", message)

    def _ask(self, where: str, method: str, request: dict[str, Any]) -> Mapping[str, Any]:
        return dict(self.caller.client.call_endpoint(where, method, request=request, timeout=self.patience))

    def _await(self, queue: str, last: int) -> Mapping[str, Any]:
        nonce, ends = f"{self.prefix}-{self.number}", time.monotonic() + self.patience
        while time.monotonic() < ends:
            answer = self._ask("events", "GET", {"queue_id": queue, "last_event_id": last})
            if answer.get("result") != "success":
                return answer
            for event in answer["events"]:
                last = max(last, int(event["id"]))
                if event["type"] == "message" and nonce_in(event["message"]["content"]) == nonce:
                    return answer
        return {"result": "http-error", "status_code": 504, "msg": f"{nonce} did not come"}


class Planner(Scheduled):
    """Schedules messages that the server is to send by itself later: the work of a singleton, each once."""

    kind = "schedule"
    # Soon, and far enough away for a planned move in between.
    ahead = 5

    def __init__(self, caller: Caller, stop: threading.Event, interval: float, channel: str, run: str) -> None:
        super().__init__(caller, stop, interval)
        self.channel, self.prefix, self.topic = channel, f"{run}-{self.name}", f"{run} {self.name}"
        self.number = 0
        # Zulip wants the number here; a server that does not tell it takes the name.
        self.to = caller.client.get_stream_id(channel).get("stream_id", channel)

    def turn(self, due: float) -> None:
        """Schedule the next message."""
        self.number += 1
        nonce = f"{self.prefix}-{self.number}"
        request = {
            "type": "stream",
            "to": self.to,
            "topic": self.topic,
            "content": f"{nonce} was planned",
            "scheduled_delivery_timestamp": int(time.time()) + self.ahead,
        }
        self.caller.call(
            self.kind,
            lambda: self.caller.client.call_endpoint("scheduled_messages", "POST", request=request),
            due,
            nonce=nonce,
        )


class Query(Scheduled):
    """Reads what a person's client reads besides events."""

    kind = "read"

    def __init__(self, caller: Caller, stop: threading.Event, interval: float, channel: str, topics: list[str]) -> None:
        super().__init__(caller, stop, interval)
        self.channel, self.topics = channel, topics
        self.number = 0

    def turn(self, due: float) -> None:
        """Ask for messages every other time, else for the profile or the users."""
        client = self.caller.client
        self.number += 1
        if self.number % 2:
            narrow = in_channel(self.channel, self.topics[self.number // 2 % len(self.topics)] if self.topics else "")
            window = {"anchor": "newest", "num_before": 10, "num_after": 0, "narrow": narrow}
            self.caller.call(
                "read",
                lambda: client.get_messages(window),
                due,
                lambda body: {"n": len(body["messages"])},
                what="messages",
            )
        elif self.number % 4:
            # What a cache may have kept too long.
            self.caller.call(
                "read",
                client.get_profile,
                due,
                lambda body: {"email": body.get("email"), "role": body.get("role")},
                what="profile",
            )
        else:
            self.caller.call("read", client.get_users, due, what="users")


class Uploader(Scheduled):
    """Uploads a file and reads it back."""

    kind = "upload"
    size = 20_000

    def __init__(self, caller: Caller, stop: threading.Event, interval: float, run: str) -> None:
        super().__init__(caller, stop, interval)
        self.run_id = run
        self.number = 0

    def turn(self, due: float) -> None:
        """Upload the next file, download it, compare."""
        self.number += 1
        content = random.randbytes(self.size)
        digest = hashlib.sha256(content).hexdigest()
        file = io.BytesIO(content)
        file.name = f"{self.run_id}-{self.name}-{self.number}.bin"
        address = ""

        def found(body: Mapping[str, Any]) -> dict[str, Any]:
            nonlocal address
            # Releases before 9.0 call it by its old name alone.
            address = str(body.get("url") or body["uri"])
            return {"url": address}

        if self.caller.call("upload", lambda: self.caller.client.upload_file(file), due, found, sha256=digest).ok:
            self.caller.call("download", lambda: download(self.caller.client, address, digest), url=address)


def download(client: Any, address: str, digest: str) -> dict[str, Any]:
    """Fetch an upload with the client's own session; answer as the API does."""
    response = client.session.get(client.base_url.removesuffix("/api/") + address, timeout=TIMEOUT)
    if response.status_code != 200:
        return {"result": "http-error", "status_code": response.status_code}
    if hashlib.sha256(response.content).hexdigest() != digest:
        return {"result": "error", "code": "CORRUPT", "msg": "the file is not the one that was uploaded"}
    return {"result": "success"}


class Reader(Worker):
    """Follows the events of its user, as `zulip.Client.call_on_each_event` does, and notes what came when."""

    def __init__(self, caller: Caller, stop: threading.Event, channel: str, anchor: int, last_words: str) -> None:
        """`stop` ends it at once; else it ends with the message that begins with `last_words`."""
        super().__init__(caller, stop)
        self.channel, self.newest, self.last_words = channel, anchor, last_words
        self.first, self.seen = anchor, set[int]()
        self.registered = threading.Event()
        self.complete = False

    def work(self) -> None:
        """Poll until the last message of the run came."""
        queue: tuple[str, int] | None = None
        while not self.stop.is_set() and not self.complete:
            if queue is None:
                queue = self._register()
            elif (last := self._poll(*queue)) is None:
                queue = None
            else:
                queue = queue[0], last
        if queue:
            # Nobody reads this answer: the run is over.
            answers.of_call(lambda: self.caller.client.deregister(queue[0], timeout=5), lambda: None)

    def _register(self) -> tuple[str, int] | None:
        client = self.caller.client
        answer = self.caller.call("register", lambda: client.register(event_types=["message"]))
        if not answer.ok:
            self.stop.wait(PAUSE)
            return None
        # After the first time something may have been sent while there was no queue.
        if self.registered.is_set():
            self._catch_up()
        self.registered.set()
        return answer.body["queue_id"], answer.body["last_event_id"]

    def _catch_up(self) -> None:
        # A message with a lower number may have been committed after one that was seen.
        anchor = max(self.first, self.newest - OVERLAP)
        while not self.stop.is_set():
            answer = self.caller.call(
                "catchup",
                lambda anchor=anchor: page_after(self.caller.client, self.channel, anchor),  # type: ignore[misc]
                found=lambda body: {"delivered": self._take(m for m in body["messages"] if m["id"] not in self.seen)},
            )
            if not answer.ok:
                self.stop.wait(PAUSE)
                continue
            before, anchor = anchor, max([anchor, *(message["id"] for message in answer.body["messages"])])
            if answer.body.get("found_newest") or anchor == before:
                return

    def _poll(self, queue: str, last: int) -> int | None:
        """Return the last event that was seen, or None when the queue is gone."""
        client = self.caller.client
        answer = self.caller.call(
            "poll",
            lambda: client.get_events(queue_id=queue, last_event_id=last),
            found=lambda body: {
                "delivered": self._take(e["message"] for e in body["events"] if e["type"] == "message"),
            },
        )
        if answer.ok:
            return max([last, *(int(event["id"]) for event in answer.body["events"])])
        self.stop.wait(PAUSE)
        return None if answer.outcome == answers.REQUEUED else last

    def _take(self, messages: Any) -> list[list[Any]]:
        """Return nonce and ID of the messages that are ours."""
        delivered = []
        for message in list(messages):
            self.newest = max(self.newest, message["id"])
            self.seen.add(message["id"])
            nonce = nonce_in(message["content"])
            if nonce:
                delivered.append([nonce, message["id"]])
                self.complete = self.complete or nonce.startswith(self.last_words)
        return delivered
