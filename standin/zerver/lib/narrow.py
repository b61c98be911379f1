"""Narrows: the filters of messages, on the database and on single events."""

from collections.abc import Callable
from typing import Any

from django.db import connection
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.db.models.expressions import RawSQL

from zerver.lib.exceptions import JsonableError
from zerver.models import Message, Recipient, Stream, Subscription, UserMessage, UserProfile

Term = tuple[str, Any, bool]

ALIASES = {"channel": "stream", "subject": "topic", "pm-with": "dm", "from": "sender"}
OPERATORS = {"stream", "topic", "sender", "dm", "search", "is", "id"}


def bad_narrow(problem: str) -> JsonableError:
    """A filter that makes no sense."""
    return JsonableError(f"Invalid narrow operator: {problem}", "BAD_NARROW", desc=problem)


def parse_narrow(raw: list[Any]) -> list[Term]:
    """Bring both forms, `[operator, operand]` and `{operator, operand, negated}`, to (operator, operand, negated)."""
    terms: list[Term] = []
    for item in raw:
        match item:
            case [str(operator), operand]:
                negated = False
            case {"operator": str(operator), "operand": operand}:
                negated = item.get("negated", False) is True
            case _:
                raise bad_narrow("elements must be [operator, operand] pairs or objects")
        if operator.startswith("-"):
            operator, negated = operator[1:], True
        operator = ALIASES.get(operator, operator)
        if operator not in OPERATORS:
            raise bad_narrow(f"unknown operator {operator}")
        if operator == "is" and operand == "dm":
            operand = "private"
        terms.append((operator, operand, negated))
    return terms


def find_stream(user: UserProfile, which: Any) -> Stream:
    """A channel that this user may read, by name or ID."""
    by_id = isinstance(which, int) or (isinstance(which, str) and which.isdigit())
    wanted = Q(id=int(which)) if by_id else Q(name__iexact=str(which))
    stream = Stream.objects.filter(wanted, realm=user.realm).first()
    if stream is not None and (not stream.invite_only or is_subscribed(user, stream)):
        return stream
    raise bad_narrow("unknown channel")


def is_subscribed(user: UserProfile, stream: Stream) -> bool:
    """Whether the user is in the channel now."""
    return Subscription.objects.filter(user=user, stream=stream, active=True).exists()


def find_users(user: UserProfile, operand: Any) -> list[UserProfile]:
    """Users given as `a@x,b@x`, an ID, or a list of either."""
    wanted = operand.split(",") if isinstance(operand, str) else operand if isinstance(operand, list) else [operand]
    ids = [item for item in wanted if isinstance(item, int)]
    emails = [item.strip().lower() for item in wanted if isinstance(item, str)]
    found = list(UserProfile.objects.filter(Q(id__in=ids) | Q(email__in=emails), realm=user.realm))
    if len(found) != len(set(ids)) + len(set(emails)):
        raise bad_narrow("unknown user")
    return found


def direct_key(users: list[UserProfile] | list[int]) -> str:
    """How the database names the conversation between these people."""
    ids = {item if isinstance(item, int) else item.id for item in users}
    return ",".join(str(user_id) for user_id in sorted(ids))


def _search(operand: str) -> Q | Exists:
    if connection.vendor == "postgresql":
        matches = RawSQL(
            "SELECT id FROM zerver_message WHERE search_tsvector @@ plainto_tsquery('english_us_search', %s)", [operand]
        )
        return Q(id__in=matches)
    return Q(content__icontains=operand) | Q(subject__icontains=operand)


def _condition(user: UserProfile, operator: str, operand: Any) -> Q | Exists:
    mine = UserMessage.objects.filter(user=user, message=OuterRef("pk"))
    match operator, operand:
        case "stream", _:
            return Q(recipient__stream=find_stream(user, operand))
        case "topic", str():
            return Q(subject__iexact=operand)
        case "sender", _:
            return Q(sender__in=find_users(user, operand))
        case "dm", _:
            return Q(recipient__user_ids=direct_key([user, *find_users(user, operand)]))
        case "search", str():
            return _search(operand)
        case "id", _ if str(operand).isdigit():
            return Q(id=int(operand))
        case "is", "private":
            return Q(recipient__stream__isnull=True)
        case "is", "unread":
            return Exists(mine.extra(where=["flags & %s = 0"], params=[UserMessage.READ]))
        case "is", "starred":
            return Exists(mine.extra(where=["flags & %s <> 0"], params=[UserMessage.STARRED]))
    raise bad_narrow(f"{operator}:{operand}")


def narrowed_messages(user: UserProfile, terms: list[Term]) -> QuerySet[Message]:
    """The messages of a narrow that the user may see: received ones, and all of a channel that is asked for by name."""
    messages = Message.objects.filter(realm=user.realm)
    if not any(operator == "stream" and not negated for operator, _, negated in terms):
        messages = messages.filter(Exists(UserMessage.objects.filter(user=user, message=OuterRef("pk"))))
    for operator, operand, negated in terms:
        condition = _condition(user, operator, operand)
        messages = messages.filter(~condition if negated else condition)
    return messages


def event_matcher(terms: list[Term]) -> Callable[[dict[str, Any]], bool]:
    """A test of message events against a narrow, for the operators that a message alone can answer."""
    tests: dict[str, Callable[[dict[str, Any], Any], bool]] = {
        "stream": lambda m, value: (
            m["type"] == "stream" and str(value).lower() in (m["display_recipient"].lower(), str(m["stream_id"]))
        ),
        "topic": lambda m, value: m["type"] == "stream" and m["subject"].lower() == str(value).lower(),
        "sender": lambda m, value: str(value).lower() in (m["sender_email"], str(m["sender_id"])),
        "is": lambda m, value: value == "private" and m["type"] == "private",
    }
    unsupported = [operator for operator, _, _ in terms if operator not in tests]
    if unsupported:
        raise bad_narrow(f"{unsupported[0]} cannot be used for events")
    return lambda message: all(tests[operator](message, operand) != negated for operator, operand, negated in terms)


def recipient_for(stream: Stream | None = None, users: list[UserProfile] | None = None) -> Recipient:
    """The recipient row of a channel or of a set of people, created on first use."""
    if stream is not None:
        return Recipient.objects.get_or_create(stream=stream)[0]
    return Recipient.objects.get_or_create(user_ids=direct_key(users or []))[0]
