"""Event queues in memory. Nothing here knows of HTTP, of the database, or of which clock is used."""

import json
import logging
import os
import random
import time
import uuid
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zerver.lib.exceptions import JsonableError, bad_event_queue
from zerver.lib.narrow import event_matcher, parse_narrow

logger = logging.getLogger(__name__)

IDLE_TIMEOUT = 600
MAX_LIFESPAN = 7 * 86400
HEARTBEAT_RANGE = (45, 55)


class EventQueue:
    """The events for one client, numbered from 0, kept until the client acknowledges them."""

    def __init__(self, options: dict[str, Any], now: float, queue_id: str | None = None) -> None:
        self.id = queue_id or str(uuid.uuid4())
        self.options = options
        self.user_id: int = options["user_id"]
        self.event_types: list[str] | None = options.get("event_types")
        self.apply_markdown: bool = options.get("apply_markdown", True)
        self.lifespan = min(max(options.get("lifespan_secs") or 0, IDLE_TIMEOUT), MAX_LIFESPAN)
        self._narrow_matches = event_matcher(parse_narrow(options.get("narrow") or []))
        self.events: deque[dict[str, Any]] = deque()
        self.next_event_id = 0
        self.newest_pruned_id = -1
        self.last_seen = now
        self.heartbeat_due = 0.0
        self._waiter: Callable[[], None] | None = None

    @property
    def is_waited_for(self) -> bool:
        """Whether a long poll is held."""
        return self._waiter is not None

    def wants(self, event: dict[str, Any]) -> bool:
        """Whether the client asked for events like this one."""
        if event["type"] == "heartbeat":
            return True
        if self.event_types is not None and event["type"] not in self.event_types:
            return False
        return event["type"] != "message" or self._narrow_matches(event["message"])

    def push(self, event: dict[str, Any]) -> None:
        """Append an event and answer the long poll, if one is held."""
        self.events.append({**event, "id": self.next_event_id})
        self.next_event_id += 1
        self.release()

    def acknowledge(self, event_id: int) -> None:
        """Forget the events up to this one, which the client says that it has."""
        if event_id < self.newest_pruned_id:
            raise JsonableError(f"An event newer than {event_id} has already been pruned!")
        if event_id >= self.next_event_id:
            raise JsonableError(f"Event {event_id} was not in this queue")
        while self.events and self.events[0]["id"] <= event_id:
            self.newest_pruned_id = self.events.popleft()["id"]

    def hold(self, waiter: Callable[[], None], now: float) -> None:
        """Call `waiter` at the next event. A client has one poll: an older one is answered with what there is."""
        self.release()
        self._waiter = waiter
        self.last_seen = now
        self.heartbeat_due = now + random.uniform(*HEARTBEAT_RANGE)

    def release(self) -> None:
        """End the long poll, if one is held."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter()

    def abandon(self, waiter: Callable[[], None], now: float) -> None:
        """The client hung up."""
        if self._waiter is waiter:
            self._waiter = None
        self.last_seen = now

    def dump(self) -> dict[str, Any]:
        """What a restart must keep."""
        kept = {
            "events": list(self.events),
            "next_event_id": self.next_event_id,
            "newest_pruned_id": self.newest_pruned_id,
        }
        return {"id": self.id, "options": self.options, **kept}

    @classmethod
    def restore(cls, state: dict[str, Any], now: float) -> "EventQueue":
        """A queue from its dump, as if its client had been here just now."""
        queue = cls(state["options"], now, state["id"])
        queue.events.extend(state["events"])
        queue.next_event_id, queue.newest_pruned_id = state["next_event_id"], state["newest_pruned_id"]
        return queue


class Registry:
    """All event queues of one Tornado process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.queues: dict[str, EventQueue] = {}
        self._by_user: dict[int, dict[str, EventQueue]] = {}
        # The broker delivers again what it did not see acknowledged.
        self._seen: deque[str] = deque(maxlen=1000)

    def allocate(self, options: dict[str, Any]) -> EventQueue:
        """A new queue; `options` as registered, with user_id."""
        return self._add(EventQueue(options, self.clock()))

    def _add(self, queue: EventQueue) -> EventQueue:
        self.queues[queue.id] = queue
        self._by_user.setdefault(queue.user_id, {})[queue.id] = queue
        return queue

    def get(self, queue_id: str, user_id: int) -> EventQueue:
        """The user's queue of that name."""
        queue = self.queues.get(queue_id)
        if queue is None:
            raise bad_event_queue(queue_id)
        if queue.user_id != user_id:
            raise JsonableError("You are not authorized to access this queue")
        queue.last_seen = self.clock()
        return queue

    def remove(self, queue: EventQueue) -> None:
        """Forget a queue; its next poll is told so."""
        queue.release()
        self.queues.pop(queue.id, None)
        mine = self._by_user.get(queue.user_id, {})
        mine.pop(queue.id, None)
        if not mine:
            self._by_user.pop(queue.user_id, None)

    def deliver(self, notice: dict[str, Any]) -> None:
        """Give an event from Django to the queues of the users that it names."""
        if (notice_id := notice.get("notice_id")) is not None:
            if notice_id in self._seen:
                return
            self._seen.append(notice_id)
        event = notice["event"]
        for target in notice["users"]:
            for queue in list(self._by_user.get(target["id"], {}).values()):
                if queue.wants(event):
                    queue.push(self._copy_for(queue, event, target))

    @staticmethod
    def _copy_for(queue: EventQueue, event: dict[str, Any], target: dict[str, Any]) -> dict[str, Any]:
        if event["type"] != "message":
            return event
        message = {**event["message"], "flags": target.get("flags", [])}
        rendered = message.pop("rendered_content")
        if queue.apply_markdown:
            message |= {"content": rendered, "content_type": "text/html"}
        copy = {"type": "message", "message": message, "flags": message["flags"]}
        if event.get("sender_queue_id") == queue.id:
            copy["local_message_id"] = event.get("local_id")
        return copy

    def tick(self) -> None:
        """Send the heartbeats that are due, and drop queues whose client has not been here for long."""
        now = self.clock()
        for queue in list(self.queues.values()):
            if queue.is_waited_for:
                queue.last_seen = now
                if queue.heartbeat_due <= now:
                    queue.push({"type": "heartbeat"})
            elif now - queue.last_seen > queue.lifespan:
                self.remove(queue)

    def dump(self, path: Path) -> None:
        """Write all queues, completely or not at all."""
        temporary = path.with_suffix(".tmp")
        with temporary.open("w") as stream:
            os.chmod(temporary, 0o600)
            json.dump([queue.dump() for queue in self.queues.values()], stream)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)

    def load(self, path: Path) -> None:
        """Take over a dump once: after a crash it would be out of date, so that clients must register again."""
        if not path.exists():
            return
        taken = path.with_suffix(".json.last")
        path.replace(taken)
        try:
            for state in json.loads(taken.read_text()):
                self._add(EventQueue.restore(state, self.clock()))
        except (ValueError, KeyError, TypeError) as error:
            logger.error("%s cannot be read: %r", taken, error)
        logger.info("loaded %d event queues", len(self.queues))
