"""Channels and subscriptions."""

from typing import Any

from django.http import HttpRequest

from zerver.lib import actions
from zerver.lib.exceptions import JsonableError, no_such_stream
from zerver.lib.messages import topics_of
from zerver.lib.narrow import find_users
from zerver.lib.params import Params
from zerver.lib.states import stream_dict, subscriptions_state
from zerver.models import Stream, UserProfile


def get_streams(request: HttpRequest, user: UserProfile, params: Params) -> dict[str, Any]:
    """The channels that the user can see."""
    params.accept("include_public", "include_subscribed", "include_all_active", "include_default")
    public = Stream.objects.filter(realm=user.realm, invite_only=False)
    own = Stream.objects.filter(realm=user.realm, subscription__user=user, subscription__active=True)
    return {"streams": [stream_dict(stream) for stream in (public | own).distinct().order_by("name")]}


def get_stream_id(request: HttpRequest, user: UserProfile, params: Params) -> dict[str, Any]:
    """A channel's ID by its name."""
    name = params.text("stream", aliases=("channel",))
    stream = Stream.objects.filter(realm=user.realm, invite_only=False, name__iexact=name).first()
    if stream is None:
        raise no_such_stream(stream=name)
    return {"stream_id": stream.id}


def get_topics(request: HttpRequest, user: UserProfile, params: Params, stream_id: int) -> dict[str, Any]:
    """A channel's topics."""
    return {"topics": topics_of(user, stream_id)}


def get_subscriptions(request: HttpRequest, user: UserProfile, params: Params) -> dict[str, Any]:
    """The user's channels."""
    params.accept("include_subscribers")
    return {"subscriptions": subscriptions_state(user)["subscriptions"]}


def add_subscriptions(request: HttpRequest, user: UserProfile, params: Params) -> dict[str, Any]:
    """Join channels, or make others join; a channel that is not there is created."""
    wanted = params.json("subscriptions", list)
    principals = params.json("principals", list, [])
    invite_only = params.boolean("invite_only", False)
    params.accept("announce", "authorization_errors_fatal", "history_public_to_subscribers")
    users = find_users(user, principals) if principals else [user]
    streams = []
    for item in wanted:
        if not isinstance(item, dict) or not isinstance(item.get("name"), str):
            raise JsonableError("subscriptions must be a list of objects with a name", "REQUEST_VARIABLE_INVALID")
        description = str(item.get("description", ""))
        streams.append(
            actions.get_or_create_stream(user, item["name"], description=description, invite_only=invite_only)[0]
        )
    new, already = actions.subscribe(streams, users)
    return {
        "subscribed": {str(user_id): names for user_id, names in new.items()},
        "already_subscribed": {str(user_id): names for user_id, names in already.items()},
    }


def remove_subscriptions(request: HttpRequest, user: UserProfile, params: Params) -> dict[str, Any]:
    """Leave channels."""
    names = params.json("subscriptions", list)
    streams = []
    for name in names:
        stream = Stream.objects.filter(realm=user.realm, name__iexact=str(name)).first()
        if stream is None:
            raise no_such_stream(stream=name)
        streams.append(stream)
    removed = actions.unsubscribe(streams, user)
    return {"removed": removed, "not_removed": [s.name for s in streams if s.name not in removed]}
