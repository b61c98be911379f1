"""Answers to requests that no view answered: JSON to programs, a line of text to people."""

from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseBase

from zerver.lib.exceptions import JsonableError
from zerver.lib.rest import json_error


def _answer(request: HttpRequest, error: JsonableError) -> HttpResponseBase:
    if request.path.startswith(("/api/", "/json/")):
        return json_error(error)
    return HttpResponse(f"{error.msg}\n", status=error.status, content_type="text/plain")


def not_found(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    """No such address."""
    return _answer(request, JsonableError("Page not found", "BAD_REQUEST", 404))


def server_error(request: HttpRequest) -> HttpResponseBase:
    """A page broke; the endpoints of the API catch their own errors."""
    return _answer(request, JsonableError("Internal server error", "INTERNAL_SERVER_ERROR", 500))


def csrf_failure(request: HttpRequest, reason: str = "", **_: Any) -> HttpResponseBase:
    """Another site may have made the browser send this."""
    return _answer(request, JsonableError(f"CSRF error: {reason}", "CSRF_FAILED", 403))
