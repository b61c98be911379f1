"""Errors that become JSON answers with Zulip's codes and status."""

from typing import Any


class JsonableError(Exception):
    """An error that the client is told about: `msg` for people, `code` and `data` for programs."""

    def __init__(
        self, msg: str, code: str = "BAD_REQUEST", status: int = 400, headers: dict[str, str] | None = None, **data: Any
    ) -> None:
        super().__init__(msg)
        self.msg, self.code, self.status, self.data = msg, code, status, data
        self.headers = headers or {}

    def body(self) -> dict[str, Any]:
        """The answer's JSON."""
        return {"result": "error", "msg": self.msg, "code": self.code, **self.data}


def missing_parameter(name: str) -> JsonableError:
    """A required parameter is absent."""
    return JsonableError(f"Missing '{name}' argument", "REQUEST_VARIABLE_MISSING", var_name=name)


def invalid_parameter(name: str, problem: str) -> JsonableError:
    """A parameter cannot be used as it is."""
    return JsonableError(f"{name} {problem}", "REQUEST_VARIABLE_INVALID", var_name=name)


def bad_event_queue(queue_id: str) -> JsonableError:
    """The queue does not exist here. Clients know this by its code, old ones by the text, and register again."""
    return JsonableError(f"Bad event queue id: {queue_id}", "BAD_EVENT_QUEUE_ID", queue_id=queue_id)


def unauthorized(
    msg: str = "Not logged in: API authentication or user session required", scheme: str = "Basic"
) -> JsonableError:
    """No usable credentials came with the request."""
    headers = {"WWW-Authenticate": f'{scheme} realm="zulip"'}
    return JsonableError(msg, "UNAUTHORIZED", 401, headers)


def rate_limited(seconds: float) -> JsonableError:
    """The client has to wait."""
    error = JsonableError("API usage exceeded rate limit", "RATE_LIMIT_HIT", 429, {"Retry-After": f"{seconds:.3f}"})
    error.data["retry-after"] = seconds
    return error


def no_such_stream(**which: Any) -> JsonableError:
    """`which` is stream=NAME or stream_id=ID."""
    value = next(iter(which.values()))
    return JsonableError(f"Channel '{value}' does not exist", "STREAM_DOES_NOT_EXIST", **which)
