"""From Django to Tornado (events through RabbitMQ, new queues over HTTP) and to the queue workers."""

import json
import logging
import time
import urllib.error
import urllib.request
import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from django.conf import settings
from django.db import transaction

from zerver.lib.exceptions import JsonableError
from zerver.lib.queue import BROKER_ERRORS, publisher
from zerver.models import UserProfile
from zerver.tornado.sharding import notify_queue, user_port

logger = logging.getLogger(__name__)

# A local address: no proxy from the environment may come between.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_ALLOCATE_DELAYS = (0.2, 0.5, 1.0, 1.5, None)


def send_event(event: dict[str, Any], users: Iterable[int] | Mapping[int, dict[str, Any]]) -> None:
    """After the commit, deliver the event to the queues of these users; a mapping adds keys to each user's copy."""
    extras: Mapping[int, dict[str, Any]] = users if isinstance(users, Mapping) else {user: {} for user in users}
    by_port: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for user_id, extra in extras.items():
        by_port[user_port(user_id)].append({"id": user_id, **extra})
    for port, targets in by_port.items():
        notice = {"notice_id": str(uuid.uuid4()), "event": event, "users": targets}
        queue_event(notify_queue(port), notice)


def queue_event(queue: str, event: dict[str, Any]) -> None:
    """Put an event into a queue once the transaction that caused it is committed."""
    transaction.on_commit(lambda: publisher.publish(queue, event))


def record_activity(user: UserProfile, client: str, query: str) -> None:
    """Count a request. Statistics are not worth a failed request."""
    event = {"user_id": user.id, "client": client, "query": query, "time": int(time.time())}
    try:
        publisher.publish("user_activity", event)
    except BROKER_ERRORS as error:
        logger.warning("user_activity: not recorded (%r)", error)


def _post(url: str, fields: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(url, json.dumps(fields).encode(), {"Content-Type": "application/json"})
    with _opener.open(request, timeout=10) as response:
        return json.load(response)


def allocate_event_queue(user: UserProfile, options: dict[str, Any]) -> str:
    """Create an event queue in the user's Tornado process, waiting a little while that is being restarted."""
    url = f"http://127.0.0.1:{user_port(user.id)}/api/internal/events"
    fields = {"secret": settings.SHARED_SECRET, "user_id": user.id, **options}
    for delay in _ALLOCATE_DELAYS:
        try:
            return _post(url, fields)["queue_id"]
        except urllib.error.HTTPError as error:
            logger.error("Tornado refused to allocate a queue: %s", error)
            break
        except OSError as error:
            if delay is None:
                logger.error("Tornado cannot be reached at %s: %s", url, error)
                break
            time.sleep(delay)
    raise JsonableError("Could not allocate event queue", "INTERNAL_SERVER_ERROR", 500)
