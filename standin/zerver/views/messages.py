"""Messages: read, write, mark."""

import json
from datetime import UTC, datetime
from typing import Any

from django.http import HttpRequest
from django.utils.timezone import now

from zerver.lib.actions import Origin, send_message, update_flags
from zerver.lib.exceptions import JsonableError, invalid_parameter, no_such_stream
from zerver.lib.messages import accessible_message, fetch_window, messages_for
from zerver.lib.narrow import find_users, parse_narrow, recipient_for
from zerver.lib.params import Params
from zerver.lib.rest import client_name
from zerver.models import Recipient, ScheduledMessage, Stream, UserProfile


def get_messages(request: HttpRequest, user: UserProfile, params: Params) -> dict[str, Any]:
    """A window of messages around an anchor."""
    anchor = params.text("anchor", None)
    if params.boolean("use_first_unread_anchor", False):
        anchor = "first_unread"
    if anchor is None:
        raise JsonableError("Missing 'anchor' argument.", "REQUEST_VARIABLE_MISSING", var_name="anchor")
    before, after = params.integer("num_before", minimum=0), params.integer("num_after", minimum=0)
    terms = parse_narrow(params.json("narrow", list, []))
    include_anchor = params.boolean("include_anchor", True)
    apply_markdown = params.boolean("apply_markdown", True)
    params.accept("client_gravatar")
    found, edges = fetch_window(user, anchor, before, after, terms, include_anchor=include_anchor)
    return {"messages": messages_for(user, found, apply_markdown=apply_markdown), **edges}


def get_message(request: HttpRequest, user: UserProfile, params: Params, message_id: int) -> dict[str, Any]:
    """One message."""
    apply_markdown = params.boolean("apply_markdown", True)
    params.accept("allow_empty_topic_name")
    message = accessible_message(user, message_id)
    return {
        "message": messages_for(user, [message], apply_markdown=apply_markdown)[0],
        "raw_content": message.content,
    }


def _parse_to(raw: str) -> list[Any]:
    """`to` is a name, an ID, or a list of either as JSON."""
    try:
        value = json.loads(raw)
    except ValueError:
        return [raw]
    return value if isinstance(value, list) else [value if isinstance(value, int) else raw]


def _read_recipient(user: UserProfile, params: Params) -> tuple[Recipient, str]:
    """Where a new message is to go, and its topic."""
    kind = params.text("type")
    to = _parse_to(params.text("to"))
    if kind in {"private", "direct"}:
        params.accept("topic", "subject")
        if not to:
            raise JsonableError("Message must have recipients")
        try:
            people = find_users(user, to)
        except JsonableError:
            raise JsonableError("Invalid email or user ID among the recipients") from None
        return recipient_for(users=[user, *people]), ""
    if kind not in {"stream", "channel"}:
        raise invalid_parameter("type", "is not valid")
    topic = params.text("topic", "", aliases=("subject",))
    if len(to) != 1:
        raise JsonableError("Expected exactly one channel")
    which = {"id": to[0]} if isinstance(to[0], int) else {"name__iexact": str(to[0]).strip()}
    stream = Stream.objects.filter(realm=user.realm, **which).first()
    if stream is None:
        raise no_such_stream(**{"stream_id" if isinstance(to[0], int) else "stream": to[0]})
    return recipient_for(stream=stream), topic


def send(request: HttpRequest, user: UserProfile, params: Params) -> dict[str, Any]:
    """Send a message now."""
    recipient, topic = _read_recipient(user, params)
    origin = Origin(
        client=client_name(request),
        queue_id=params.text("queue_id", None),
        local_id=params.text("local_id", None),
        read_by_sender=params.boolean("read_by_sender", None),
    )
    return {"id": send_message(user, recipient, params.text("content"), topic=topic, origin=origin).id}


def schedule(request: HttpRequest, user: UserProfile, params: Params) -> dict[str, Any]:
    """Send a message later."""
    recipient, topic = _read_recipient(user, params)
    when = datetime.fromtimestamp(params.integer("scheduled_delivery_timestamp", minimum=0), UTC)
    if when <= now():
        raise JsonableError("Scheduled delivery time must be in the future.")
    params.accept("read_by_sender")
    content = params.text("content")
    row = ScheduledMessage.objects.create(
        sender=user, recipient=recipient, subject=topic, content=content, scheduled_timestamp=when
    )
    return {"scheduled_message_id": row.id}


def update_message_flags(request: HttpRequest, user: UserProfile, params: Params) -> dict[str, Any]:
    """Mark messages."""
    messages, operation, flag = params.ids("messages"), params.text("op"), params.text("flag")
    if operation not in {"add", "remove"}:
        raise invalid_parameter("op", "is not valid")
    changed = update_flags(user, messages, operation, flag)
    return {"messages": changed, "ignored_because_not_subscribed_channels": []}
