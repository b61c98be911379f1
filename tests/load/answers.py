"""What became of a request, from what `zulip.Client` returned or raised.

ok        the server did it and said so
refused   the server did not do it: it said no, or nothing ever reached it
unknown   nobody can tell: no answer, half an answer, or an error inside of the server
limited   the server counts our requests and had enough: the load is set up wrongly
requeued  a poll named a queue that the server no longer has
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import requests
import urllib3

OK, REFUSED, UNKNOWN, LIMITED, REQUEUED = "ok", "refused", "unknown", "limited", "requeued"


@dataclass(frozen=True)
class Answer:
    """One request's outcome, and what the server said."""

    outcome: str
    error: str = ""
    status: int | None = None
    body: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether the server did it and said so."""
        return self.outcome == OK


def of_body(body: Mapping[str, Any], status: int | None) -> Answer:
    """Return the outcome of what `zulip.Client` returned; `status` is the response's, which a body does not name."""
    status = body.get("status_code", status)
    result, code, text = body.get("result"), str(body.get("code", "")), str(body.get("msg", ""))
    if status == 429 or code == "RATE_LIMIT_HIT":
        return Answer(LIMITED, f"{status} {code}: {text}", status, body)
    if code == "BAD_EVENT_QUEUE_ID":
        return Answer(REQUEUED, code, status, body)
    if result == "success":
        return Answer(OK, "", status, body)
    what = f"{status} {code}: {text}" if result == "error" else f"{status} without JSON"
    # 5xx: nginx lost the process while it worked, or that failed, perhaps after its transaction was committed.
    return Answer(REFUSED if status is not None and 400 <= status < 500 else UNKNOWN, what, status, body)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and what it wraps: requests hides the cause in arguments, urllib3 in `reason`."""
    seen: set[int] = set()
    waiting: list[Any] = [error]
    while waiting:
        one = waiting.pop()
        if not isinstance(one, BaseException) or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        waiting += [one.__context__, one.__cause__, getattr(one, "reason", None), *one.args]


def of_exception(error: Exception) -> Answer:
    """Return the outcome of what `zulip.Client` raised."""
    chain = list(_chain(error))
    # A handshake that broke is neither of these, and stays unknown.
    never_sent = (
        urllib3.exceptions.NewConnectionError,
        urllib3.exceptions.ConnectTimeoutError,
        requests.ConnectTimeout,
    )
    sent = not any(isinstance(one, never_sent) for one in chain)
    # The innermost one says what happened; the outer ones name objects and addresses that differ each time.
    inner = next((one for one in reversed(chain) if str(one) and isinstance(one, OSError)), chain[-1])
    text = f"{type(error).__name__}: {type(inner).__name__}: {inner}"
    text = re.sub(r" ?(object )?at 0x[0-9a-f]+|url: \S+", "", text)
    return Answer(UNKNOWN if sent else REFUSED, text[:240])


def of_call(ask: Callable[[], Mapping[str, Any]], status: Callable[[], int | None]) -> Answer:
    """Make a request and return its outcome, whatever happens."""
    try:
        body = ask()
    # Anything that the client raises is something that a user of it would see.
    except Exception as error:
        return of_exception(error)
    return of_body(body, status())
