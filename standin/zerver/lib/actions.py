"""All that changes data and tells clients about it. Each function is one transaction; events follow its commit."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.db.models import F

from zerver.lib.events import queue_event, send_event
from zerver.lib.exceptions import JsonableError
from zerver.lib.markdown import URL, render
from zerver.lib.messages import message_dict, people_of
from zerver.lib.narrow import is_subscribed
from zerver.lib.states import stream_dict, subscription_dict, user_dict
from zerver.models import (
    Attachment,
    Message,
    Realm,
    Recipient,
    Role,
    Stream,
    Subscription,
    UserMessage,
    UserProfile,
)

MAX_MESSAGE_LENGTH = 10_000
MAX_TOPIC_LENGTH = 60
MAX_STREAM_NAME_LENGTH = 60
# People use these; what they send they have read.
INTERACTIVE_CLIENTS = {"website", "ZulipDesktop", "ZulipMobile", "ZulipTerminal"}
_UPLOAD = re.compile(r"/user_uploads/(\d+/[\w./-]+)")


@dataclass(frozen=True)
class Origin:
    """What a sender said about where a message comes from."""

    client: str = "Internal"
    queue_id: str | None = None
    local_id: str | None = None
    read_by_sender: bool | None = None


@transaction.atomic
def send_message(
    sender: UserProfile, recipient: Recipient, content: str, *, topic: str = "", origin: Origin | None = None
) -> Message:
    """Store a message for everybody who gets it, and tell their clients."""
    origin = origin or Origin()
    content = content.replace("\0", "").strip()
    if not content:
        raise JsonableError("Message must not be empty")
    if len(content) > MAX_MESSAGE_LENGTH:
        content = content[: MAX_MESSAGE_LENGTH - 20] + "\n[message truncated]"
    stream = recipient.stream
    if stream is not None:
        if stream.invite_only and not is_subscribed(sender, stream):
            raise JsonableError(f"Not authorized to send to channel '{stream.name}'")
        topic = topic.strip()[:MAX_TOPIC_LENGTH] or "(no topic)"
        receivers = set(
            Subscription.objects.filter(stream=stream, active=True, user__is_active=True).values_list(
                "user_id", flat=True
            )
        )
    else:
        topic, receivers = "", set(recipient.participants)
    message = Message.objects.create(
        realm=sender.realm,
        sender=sender,
        recipient=recipient,
        subject=topic,
        content=content,
        rendered_content=render(content),
        sending_client=origin.client,
    )
    read = origin.read_by_sender if origin.read_by_sender is not None else origin.client in INTERACTIVE_CLIENTS
    flags = {user_id: UserMessage.READ if user_id == sender.id and read else 0 for user_id in receivers}
    UserMessage.objects.bulk_create(
        UserMessage(user_id=user_id, message=message, flags=bits) for user_id, bits in flags.items()
    )
    _claim_attachments(message)
    people = people_of([message])
    event = {
        "type": "message",
        "message": message_dict(message, people),
        "sender_queue_id": origin.queue_id,
        "local_id": origin.local_id,
    }
    send_event(event, {user_id: {"flags": UserMessage.flag_names(bits)} for user_id, bits in flags.items()})
    if URL.search(content):
        queue_event("embed_links", {"message_id": message.id})
    for user in people.values():
        _notify_person(message, user)
    return message


def _notify_person(message: Message, user: UserProfile) -> None:
    """Direct messages reach people by mail as well, and webhook bots at their URL."""
    if user.id == message.sender_id:
        return
    if user.webhook_url:
        queue_event("outgoing_webhooks", {"user_id": user.id, "message_id": message.id})
    elif not user.is_bot:
        queue_event("missedmessage_emails", {"user_id": user.id, "message_id": message.id})


def _claim_attachments(message: Message) -> None:
    path_ids = {path_id.rstrip(".") for path_id in _UPLOAD.findall(message.content)}
    for attachment in Attachment.objects.filter(path_id__in=path_ids, owner=message.sender):
        attachment.messages.add(message)


def update_flags(user: UserProfile, message_ids: Iterable[int], operation: str, flag: str) -> list[int]:
    """Add a flag to, or remove it from, those of the messages that the user received."""
    if flag not in UserMessage.FLAGS:
        raise JsonableError(f"Invalid flag: '{flag}'")
    bit = UserMessage.FLAGS[flag]
    with transaction.atomic():
        # In order of ID, so that two such requests cannot wait for each other.
        mine = UserMessage.objects.filter(user=user, message_id__in=list(message_ids)).order_by("id")
        changed = list(mine.select_for_update().values_list("message_id", flat=True))
        rows = UserMessage.objects.filter(user=user, message_id__in=changed)
        rows.update(flags=F("flags").bitor(bit) if operation == "add" else F("flags").bitand(~bit & 0x7FFFFFFF))
        event = {"type": "update_message_flags", "op": operation, "flag": flag, "messages": changed, "all": False}
        send_event(event, [user.id])
    return changed


@transaction.atomic
def subscribe(
    streams: Iterable[Stream], users: Iterable[UserProfile]
) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
    """Add users to channels; the names of those they are new in, and were in, by user ID."""
    new: dict[int, list[str]] = {}
    already: dict[int, list[str]] = {}
    for user in users:
        added = []
        for stream in streams:
            row, created = Subscription.objects.get_or_create(user=user, stream=stream)
            if not created and row.active:
                already.setdefault(user.id, []).append(stream.name)
                continue
            Subscription.objects.filter(id=row.id).update(active=True)
            new.setdefault(user.id, []).append(stream.name)
            added.append(subscription_dict(row, [user.id]))
        if added:
            send_event({"type": "subscription", "op": "add", "subscriptions": added}, [user.id])
    return new, already


@transaction.atomic
def unsubscribe(streams: Iterable[Stream], user: UserProfile) -> list[str]:
    """Take a user out of channels. What they had not read there counts as read, which a worker sees to."""
    gone = [s for s in streams if Subscription.objects.filter(user=user, stream=s, active=True).update(active=False)]
    if gone:
        data = [{"stream_id": stream.id, "name": stream.name} for stream in gone]
        send_event({"type": "subscription", "op": "remove", "subscriptions": data}, [user.id])
        ids = [stream.id for stream in gone]
        queue_event("deferred_work", {"type": "mark_stream_messages_as_read", "user_id": user.id, "stream_ids": ids})
    return [stream.name for stream in gone]


@transaction.atomic
def get_or_create_stream(
    user: UserProfile, name: str, *, description: str = "", invite_only: bool = False
) -> tuple[Stream, bool]:
    """A channel by name; a new one is announced to all who may see it."""
    name = name.strip()
    if not name or len(name) > MAX_STREAM_NAME_LENGTH:
        raise JsonableError("Channel name must be 1 to 60 characters long.")
    if stream := Stream.objects.filter(realm=user.realm, name__iexact=name).first():
        if stream.invite_only and not is_subscribed(user, stream):
            raise JsonableError(f"Unable to access channel ({name}).")
        return stream, False
    stream = Stream.objects.create(
        realm=user.realm, name=name, description=description, invite_only=invite_only, creator=user
    )
    if not invite_only:
        send_event({"type": "stream", "op": "create", "streams": [stream_dict(stream)]}, active_user_ids(user.realm))
    return stream, True


def active_user_ids(realm: Realm) -> list[int]:
    """Everybody who may log in."""
    return list(UserProfile.objects.filter(realm=realm, is_active=True).values_list("id", flat=True))


@transaction.atomic
def create_user(
    realm: Realm, email: str, full_name: str, password: str | None, *, role: int = Role.MEMBER, is_bot: bool = False
) -> UserProfile:
    """A new account, announced to all."""
    user = UserProfile(realm=realm, email=email.strip().lower(), full_name=full_name.strip(), role=role, is_bot=is_bot)
    user.set_password(password)
    user.save()
    send_event({"type": "realm_user", "op": "add", "person": user_dict(user)}, active_user_ids(realm))
    return user


@transaction.atomic
def change_role(user: UserProfile, role: int) -> None:
    """Give a user another role, and tell all."""
    user.role = role
    user.save(update_fields=["role"])
    person = {"user_id": user.id, "role": role}
    send_event({"type": "realm_user", "op": "update", "person": person}, active_user_ids(user.realm))


def presence_event(user: UserProfile, status: str, now: int) -> dict[str, Any]:
    """Tell all that a user is here."""
    presence = {"website": {"client": "website", "status": status, "timestamp": now, "pushable": False}}
    event = {"type": "presence", "user_id": user.id, "email": user.email, "server_timestamp": now, "presence": presence}
    send_event(event, active_user_ids(user.realm))
    return {user.email: {**presence, "aggregated": presence["website"]}}
