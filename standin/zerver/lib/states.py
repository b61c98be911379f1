"""The state that a client gets when it registers."""

from collections import defaultdict
from typing import Any

from django.conf import settings
from django.db.models import Max

from zerver.models import Message, Realm, Stream, Subscription, UserMessage, UserProfile

# What clients read at start and this server has none of, or only one of.
CONSTANTS: dict[str, dict[str, Any]] = {
    "muted_topics": {"muted_topics": []},
    "muted_users": {"muted_users": []},
    "user_topic": {"user_topics": []},
    "realm_user_groups": {"realm_user_groups": []},
    "realm_emoji": {"realm_emoji": {}},
    "starred_messages": {"starred_messages": []},
    "presence": {"presences": {}, "server_timestamp": 0},
    "update_display_settings": {"twenty_four_hour_time": True},
    "update_global_notifications": {"pm_content_in_desktop_notifications": True},
    "user_settings": {"user_settings": {"twenty_four_hour_time": True, "send_private_typing_notifications": True}},
    "realm": {
        "realm_allow_message_editing": False,
        "realm_message_content_edit_limit_seconds": 0,
        "realm_allow_edit_history": False,
        "realm_message_retention_days": -1,
        "max_message_length": 10_000,
        "max_topic_length": 60,
        "max_stream_name_length": 60,
    },
}


def user_dict(user: UserProfile) -> dict[str, Any]:
    """A user as others see one."""
    return {
        "user_id": user.id,
        "email": user.email,
        "delivery_email": user.email,
        "full_name": user.full_name,
        "role": user.role,
        "is_owner": user.role == 100,
        "is_admin": user.is_admin,
        "is_guest": user.role == 600,
        "is_bot": user.is_bot,
        "is_active": user.is_active,
        "date_joined": user.date_joined.isoformat(timespec="seconds"),
        "timezone": "",
        "avatar_url": None,
        "avatar_version": 1,
    }


def stream_dict(stream: Stream) -> dict[str, Any]:
    """A channel."""
    return {
        "stream_id": stream.id,
        "name": stream.name,
        "description": stream.description,
        "rendered_description": stream.description,
        "invite_only": stream.invite_only,
        "is_web_public": False,
        "history_public_to_subscribers": True,
        "stream_post_policy": 1,
        "stream_weekly_traffic": None,
        "message_retention_days": None,
        "date_created": int(stream.date_created.timestamp()),
        "creator_id": stream.creator_id,
    }


def subscription_dict(subscription: Subscription, subscribers: list[int]) -> dict[str, Any]:
    """A channel with the user's own settings of it."""
    own = {"color": subscription.color, "pin_to_top": False, "in_home_view": True, "is_muted": False}
    mail = f"{subscription.stream_id}@{settings.EXTERNAL_HOST}"
    notifications = {"desktop_notifications": None, "email_address": mail, "subscribers": subscribers}
    return {**stream_dict(subscription.stream), **own, **notifications}


def max_message_id(user: UserProfile) -> int:
    """The newest message that the user received, -1 without any."""
    newest = UserMessage.objects.filter(user=user).aggregate(newest=Max("message_id"))["newest"]
    return -1 if newest is None else newest


def subscriptions_state(user: UserProfile) -> dict[str, Any]:
    """All channels of the user with their members."""
    rows = list(Subscription.objects.filter(user=user, active=True).select_related("stream").order_by("stream__name"))
    members: dict[int, list[int]] = defaultdict(list)
    streams = [row.stream_id for row in rows]
    pairs = Subscription.objects.filter(stream__in=streams, active=True, user__is_active=True)
    for stream_id, user_id in pairs.values_list("stream_id", "user_id"):
        members[stream_id].append(user_id)
    return {
        "subscriptions": [subscription_dict(row, members[row.stream_id]) for row in rows],
        "unsubscribed": [],
        "never_subscribed": [],
    }


def unread_state(user: UserProfile) -> dict[str, Any]:
    """Unread messages, grouped by conversation."""
    unread = Message.objects.filter(usermessage__user=user, usermessage__flags__in=[0, UserMessage.STARRED])
    by_topic: dict[tuple[int, str], list[int]] = defaultdict(list)
    by_people: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for message in unread.select_related("recipient").order_by("-id")[:10_000]:
        if message.recipient.stream_id:
            by_topic[message.recipient.stream_id, message.subject].append(message.id)
        else:
            by_people[tuple(message.recipient.participants)].append(message.id)
    pms, huddles = [], []
    for people, ids in by_people.items():
        others = [user_id for user_id in people if user_id != user.id]
        if len(others) <= 1:
            other = others[0] if others else user.id
            pms.append({"sender_id": other, "other_user_id": other, "unread_message_ids": sorted(ids)})
        else:
            names = ",".join(map(str, people))
            huddles.append({"user_ids_string": names, "unread_message_ids": sorted(ids)})
    streams = [{"stream_id": s, "topic": t, "unread_message_ids": sorted(ids)} for (s, t), ids in by_topic.items()]
    count = sum(map(len, by_topic.values())) + sum(map(len, by_people.values()))
    return {"unread_msgs": {"count": count, "pms": pms, "streams": streams, "huddles": huddles, "mentions": []}}


def _users_state(user: UserProfile) -> dict[str, Any]:
    users = UserProfile.objects.filter(realm=user.realm).order_by("id")
    return {
        "realm_users": [user_dict(other) for other in users if other.is_active],
        "realm_non_active_users": [user_dict(other) for other in users if not other.is_active],
        "cross_realm_bots": [],
        **{key: value for key, value in user_dict(user).items() if key not in {"role", "is_active", "is_bot"}},
    }


def _realm_state(realm: Realm) -> dict[str, Any]:
    url = f"https://{settings.EXTERNAL_HOST}"
    return {"realm_name": realm.name, "realm_url": url, "realm_uri": url, "realm_description": realm.description}


def initial_state(user: UserProfile, wanted: list[str] | None) -> dict[str, Any]:
    """The parts of the state that the client asked for; None is all."""
    state: dict[str, Any] = {
        "zulip_version": settings.ZULIP_VERSION,
        "zulip_feature_level": settings.ZULIP_FEATURE_LEVEL,
        "zulip_merge_base": settings.ZULIP_VERSION,
        "max_message_id": max_message_id(user),
    }
    parts = {
        "realm_user": lambda: _users_state(user),
        "subscription": lambda: subscriptions_state(user),
        "stream": lambda: {
            "streams": [stream_dict(s) for s in Stream.objects.filter(realm=user.realm, invite_only=False)]
        },
        "update_message_flags": lambda: unread_state(user),
        "realm": lambda: {**_realm_state(user.realm), **CONSTANTS["realm"]},
    }
    for name, constant in CONSTANTS.items():
        parts.setdefault(name, lambda constant=constant: constant)
    for name, make in parts.items():
        if wanted is None or name in wanted:
            state.update(make())
    return state
