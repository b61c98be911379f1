"""Registration of event queues."""

from typing import Any

from django.http import HttpRequest

from zerver.lib.events import allocate_event_queue
from zerver.lib.params import Params
from zerver.lib.states import initial_state
from zerver.models import UserProfile
from zerver.tornado.event_queue import event_matcher, parse_narrow


def register(request: HttpRequest, user: UserProfile, params: Params) -> dict[str, Any]:
    """A new event queue and the state. The queue comes first: an event in between is told twice, never lost."""
    event_types = params.json("event_types", list, None)
    fetch_event_types = params.json("fetch_event_types", list, None)
    narrow = params.json("narrow", list, [])
    options = {
        "event_types": event_types,
        "narrow": narrow,
        "apply_markdown": params.boolean("apply_markdown", False),
        "lifespan_secs": params.integer("queue_lifespan_secs", 0, minimum=0),
    }
    params.accept(
        "client_gravatar", "include_subscribers", "slim_presence", "client_capabilities", "user_settings_object"
    )
    event_matcher(parse_narrow(narrow))
    queue_id = allocate_event_queue(user, options)
    wanted = fetch_event_types if fetch_event_types is not None else event_types
    return {
        "queue_id": queue_id,
        "last_event_id": -1,
        "event_queue_longpoll_timeout_seconds": 90,
        **initial_state(user, wanted),
    }
