"""Messages in the API's form, and windows of them."""

from collections.abc import Iterable, Sequence
from typing import Any

from zerver.lib.exceptions import JsonableError, invalid_parameter
from zerver.lib.narrow import Term, find_stream, is_subscribed, narrowed_messages
from zerver.models import Message, UserMessage, UserProfile

MAX_MESSAGES_PER_FETCH = 5000
# Beyond any ID, as Zulip's clients know it.
LARGER_THAN_MAX_MESSAGE_ID = 10_000_000_000_000_000


def message_dict(message: Message, people: dict[int, UserProfile]) -> dict[str, Any]:
    """One message without what differs between its readers; `content` is the source text."""
    stream = message.recipient.stream
    data: dict[str, Any] = {
        "id": message.id,
        "type": "stream" if stream else "private",
        "sender_id": message.sender_id,
        "sender_full_name": message.sender.full_name,
        "sender_email": message.sender.email,
        "sender_realm_str": message.sender.realm.string_id,
        "avatar_url": None,
        "client": message.sending_client,
        "timestamp": int(message.date_sent.timestamp()),
        "recipient_id": message.recipient_id,
        "subject": message.subject,
        "content": message.content,
        "content_type": "text/x-markdown",
        "rendered_content": message.rendered_content,
        "is_me_message": message.content.startswith("/me "),
        "reactions": [],
        "submessages": [],
        "topic_links": [],
    }
    if stream:
        return {**data, "stream_id": stream.id, "display_recipient": stream.name}
    known = [people[user_id] for user_id in message.recipient.participants if user_id in people]
    to = [{"id": user.id, "email": user.email, "full_name": user.full_name, "is_mirror_dummy": False} for user in known]
    return {**data, "display_recipient": to}


def people_of(messages: Iterable[Message]) -> dict[int, UserProfile]:
    """Everybody who takes part in the direct messages among these, by ID."""
    ids = {user_id for message in messages for user_id in message.recipient.participants}
    return UserProfile.objects.in_bulk(list(ids)) if ids else {}


def messages_for(user: UserProfile, messages: Sequence[Message], *, apply_markdown: bool) -> list[dict[str, Any]]:
    """These messages as this user sees them."""
    people = people_of(messages)
    flags = dict(UserMessage.objects.filter(user=user, message__in=messages).values_list("message_id", "flags"))
    result = []
    for message in messages:
        data = message_dict(message, people)
        rendered = data.pop("rendered_content")
        if apply_markdown:
            data |= {"content": rendered, "content_type": "text/html"}
        received = message.id in flags
        data["flags"] = UserMessage.flag_names(flags[message.id]) if received else ["read", "historical"]
        result.append(data)
    return result


def accessible_message(user: UserProfile, message_id: int) -> Message:
    """A message that the user received, or could read in a public channel."""
    message = Message.objects.select_related("sender__realm", "recipient__stream").filter(
        id=message_id, realm=user.realm
    )
    if found := message.first():
        stream = found.recipient.stream
        if UserMessage.objects.filter(user=user, message=found).exists():
            return found
        if stream is not None and (not stream.invite_only or is_subscribed(user, stream)):
            return found
    raise JsonableError("Invalid message(s)")


def _resolve_anchor(user: UserProfile, anchor: str, terms: list[Term]) -> int:
    if anchor == "newest":
        return LARGER_THAN_MAX_MESSAGE_ID
    if anchor == "oldest":
        return 0
    if anchor == "first_unread":
        unread = narrowed_messages(user, [*terms, ("is", "unread", False)])
        first = unread.order_by("id").values_list("id", flat=True).first()
        return LARGER_THAN_MAX_MESSAGE_ID if first is None else first
    try:
        return min(max(int(anchor), 0), LARGER_THAN_MAX_MESSAGE_ID)
    except ValueError:
        raise invalid_parameter("anchor", "is not a valid anchor") from None


def fetch_window(
    user: UserProfile, anchor_text: str, before: int, after: int, terms: list[Term], *, include_anchor: bool
) -> tuple[list[Message], dict[str, Any]]:
    """Messages around the anchor, oldest first, and what the window says about its edges."""
    if before + after > MAX_MESSAGES_PER_FETCH:
        raise JsonableError(f"Too many messages requested (maximum {MAX_MESSAGES_PER_FETCH}).")
    anchor = _resolve_anchor(user, anchor_text, terms)
    base = narrowed_messages(user, terms).select_related("sender__realm", "recipient__stream")
    older = list(base.filter(id__lt=anchor).order_by("-id")[:before])[::-1]
    exact = list(base.filter(id=anchor)) if include_anchor else []
    newer = list(base.filter(id__gt=anchor).order_by("id")[:after])
    edges = {
        "anchor": anchor,
        "found_anchor": bool(exact),
        "found_oldest": len(older) < before or (before > 0 and anchor == 0),
        "found_newest": len(newer) < after or anchor == LARGER_THAN_MAX_MESSAGE_ID,
        "history_limited": False,
    }
    return older + exact + newer, edges


def topics_of(user: UserProfile, stream_id: int) -> list[dict[str, Any]]:
    """A channel's topics, the one with the newest message first."""
    stream = find_stream(user, stream_id)
    newest: dict[str, int] = {}
    rows = Message.objects.filter(recipient__stream=stream).order_by("-id").values_list("subject", "id")
    for subject, message_id in rows[:10_000]:
        newest.setdefault(subject, message_id)
    return [{"name": name, "max_id": max_id} for name, max_id in newest.items()]
