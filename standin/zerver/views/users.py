"""Users and what they are doing."""

import time
from typing import Any

from django.http import HttpRequest

from zerver.lib.actions import presence_event
from zerver.lib.events import send_event
from zerver.lib.exceptions import JsonableError, invalid_parameter
from zerver.lib.narrow import find_users
from zerver.lib.params import Params
from zerver.lib.states import max_message_id, user_dict
from zerver.models import UserProfile


def get_profile(request: HttpRequest, user: UserProfile, params: Params) -> dict[str, Any]:
    """The user who asks."""
    return {**user_dict(user), "max_message_id": max_message_id(user), "profile_data": {}}


def get_users(request: HttpRequest, user: UserProfile, params: Params) -> dict[str, Any]:
    """Everybody."""
    params.accept("client_gravatar", "include_custom_profile_fields")
    return {"members": [user_dict(other) for other in UserProfile.objects.filter(realm=user.realm).order_by("id")]}


def get_user(request: HttpRequest, user: UserProfile, params: Params, user_id: int) -> dict[str, Any]:
    """One user."""
    params.accept("client_gravatar", "include_custom_profile_fields")
    other = UserProfile.objects.filter(realm=user.realm, id=user_id).first()
    if other is None:
        raise JsonableError("No such user")
    return {"user": user_dict(other)}


def update_presence(request: HttpRequest, user: UserProfile, params: Params) -> dict[str, Any]:
    """Pass on that a user is here. Nothing is stored: who comes later does not learn of it."""
    status = params.text("status")
    if status not in {"active", "idle"}:
        raise invalid_parameter("status", "is not valid")
    params.accept("ping_only", "new_user_input", "slim_presence", "last_update_id", "history_limit_days")
    now = int(time.time())
    return {"presences": presence_event(user, status, now), "server_timestamp": now}


def send_typing(request: HttpRequest, user: UserProfile, params: Params) -> dict[str, Any]:
    """Pass on that a user is writing to others."""
    operation = params.text("op")
    if operation not in {"start", "stop"}:
        raise invalid_parameter("op", "is not valid")
    params.accept("type", "stream_id", "topic")
    people = find_users(user, params.json("to", list, []))
    recipients = [{"user_id": person.id, "email": person.email} for person in people]
    sender = {"user_id": user.id, "email": user.email}
    event = {"type": "typing", "op": operation, "message_type": "direct", "sender": sender, "recipients": recipients}
    send_event(event, [person.id for person in people])
    return {}
