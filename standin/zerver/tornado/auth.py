"""Authentication in Tornado: in threads, since the database would block the event loop."""

import time
from concurrent.futures import ThreadPoolExecutor
from http.cookies import SimpleCookie
from io import BytesIO
from types import SimpleNamespace
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user
from django.contrib.sessions.backends.cached_db import SessionStore
from django.core.handlers.wsgi import WSGIRequest
from django.db import close_old_connections
from django.middleware.csrf import CsrfViewMiddleware
from tornado.httputil import HTTPServerRequest
from tornado.ioloop import IOLoop

from zerver.lib.auth import check_active, user_from_basic
from zerver.lib.exceptions import JsonableError, unauthorized

# Clients come back after each event; they need not be looked up each time, but a lost right must be noticed soon.
REMEMBER_SECONDS = 10
executor = ThreadPoolExecutor(max_workers=4, thread_name_prefix="auth")
_remembered: dict[str, tuple[float, int]] = {}


def _user_from_session(session_key: str) -> Any:
    user = get_user(SimpleNamespace(session=SessionStore(session_key)))  # type: ignore[arg-type]
    if not user.is_authenticated:
        raise unauthorized(scheme="Session")
    return check_active(user)


def _look_up(authorization: str | None, session_key: str | None) -> int:
    close_old_connections()
    user = user_from_basic(authorization) if authorization is not None else _user_from_session(session_key or "")
    return user.id


async def authenticate(request: HTTPServerRequest, *, by_session: bool) -> int:
    """The ID of the user who makes the request."""
    authorization = session_key = None
    if by_session:
        cookie = request.cookies.get(settings.SESSION_COOKIE_NAME)
        session_key = cookie.value if cookie else None
        if not session_key:
            raise unauthorized(scheme="Session")
    elif (authorization := request.headers.get("Authorization")) is None:
        raise unauthorized()
    now, token = time.monotonic(), authorization or f"session {session_key}"
    expires, user_id = _remembered.get(token, (0.0, 0))
    if expires <= now:
        user_id = await IOLoop.current().run_in_executor(executor, _look_up, authorization, session_key)
        if len(_remembered) > 10_000:
            _remembered.clear()
        _remembered[token] = (now + REMEMBER_SECONDS, user_id)
    return user_id


def check_csrf(request: HTTPServerRequest) -> None:
    """Let Django's own middleware judge a browser's request that changes something."""
    environ = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in request.headers.items()}
    environ |= {"REQUEST_METHOD": request.method or "", "PATH_INFO": request.path, "wsgi.input": BytesIO()}
    environ |= {"SERVER_NAME": "localhost", "SERVER_PORT": "443", "wsgi.url_scheme": "http"}
    django_request = WSGIRequest(environ)
    django_request.COOKIES = {
        key: morsel.value for key, morsel in SimpleCookie(request.headers.get("Cookie", "")).items()
    }
    middleware = CsrfViewMiddleware(lambda _: None)  # type: ignore[arg-type,return-value]
    middleware.process_request(django_request)
    if middleware.process_view(django_request, check_csrf, (), {}) is not None:
        raise JsonableError("CSRF error: the token is missing or wrong", "CSRF_FAILED", 403)
