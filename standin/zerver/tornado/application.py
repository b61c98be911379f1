"""Tornado's HTTP side: long polls of clients, and Django's requests for new queues."""

import asyncio
import hmac
import json
import logging
import urllib.parse
from typing import Any

from django.conf import settings
from tornado.web import Application, RequestHandler

from zerver.lib.exceptions import JsonableError, invalid_parameter
from zerver.lib.params import Params
from zerver.lib.rate_limit import MemoryStore, check_limit
from zerver.tornado.auth import authenticate, check_csrf
from zerver.tornado.event_queue import EventQueue, Registry
from zerver.tornado.sharding import user_port

logger = logging.getLogger(__name__)


class ApiHandler(RequestHandler):
    """Answers in the API's form."""

    registry: Registry
    port: int
    limits: MemoryStore

    def initialize(self, registry: Registry, port: int, limits: MemoryStore) -> None:
        self.registry, self.port, self.limits = registry, port, limits

    def set_default_headers(self) -> None:
        self.clear_header("Server")
        self.set_header("Cache-Control", "private, no-store")

    def succeed(self, params: Params | None = None, **data: Any) -> None:
        """Answer with data."""
        answer = {"result": "success", "msg": "", **data}
        if params and params.unsupported:
            answer["ignored_parameters_unsupported"] = params.unsupported
        self.finish(answer)

    def fail(self, error: JsonableError) -> None:
        """Answer with an error."""
        self.set_status(error.status)
        for name, value in error.headers.items():
            self.set_header(name, value)
        self.finish(error.body())

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = kwargs["exc_info"][1] if "exc_info" in kwargs else None
        if isinstance(error, JsonableError):
            self.fail(error)
        elif status_code == 405:
            self.fail(JsonableError("Method Not Allowed", "METHOD_NOT_ALLOWED", 405))
        else:
            self.fail(JsonableError("Internal server error", "INTERNAL_SERVER_ERROR", status_code))

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        if not isinstance(value, JsonableError):
            super().log_exception(typ, value, tb)

    def params(self) -> Params:
        """Query and form fields."""
        return Params({name: self.get_argument(name, strip=False) for name in self.request.arguments})


class EventsHandler(ApiHandler):
    """GET waits for events, DELETE ends a queue. The first part of the address says how the client authenticates."""

    _queue: EventQueue | None = None
    _waiter: Any = None
    _hung_up = False

    async def _begin(self) -> tuple[int, Params] | None:
        """Authenticate and count; None when the request was handed to the shard that holds the user's queues."""
        by_session = self.request.path.startswith("/json/")
        user_id = await authenticate(self.request, by_session=by_session)
        if by_session and self.request.method == "DELETE":
            check_csrf(self.request)
        params = self.params()
        if (port := user_port(user_id)) != self.port:
            self._redirect_to_shard(port)
            return None
        if usage := check_limit(self.limits, "api_by_user", str(user_id)):
            for name, value in usage.headers().items():
                self.set_header(name, value)
        return user_id, params

    def _redirect_to_shard(self, port: int) -> None:
        # nginx makes every such redirection a GET without a body, hence an address of its own for DELETE.
        fields = {name: self.get_argument(name, strip=False) for name in self.request.arguments}
        path = self.request.path.removesuffix("/delete") + ("/delete" if self.request.method == "DELETE" else "")
        self.set_header("X-Accel-Redirect", f"/internal/tornado/{port}{path}?{urllib.parse.urlencode(fields)}")
        self.finish()

    async def get(self) -> None:
        begun = await self._begin()
        if begun is None:
            return
        user_id, params = begun
        queue = self.registry.get(params.text("queue_id"), user_id)
        if (last_event_id := params.integer("last_event_id", None)) is not None:
            if last_event_id < -1:
                raise invalid_parameter("last_event_id", "is too small")
            queue.acknowledge(last_event_id)
        dont_block = params.boolean("dont_block", False)
        params.accept("client_gravatar", "apply_markdown", "slim_presence", "user_client")
        if not queue.events and not dont_block:
            await self._wait(queue)
        if self._hung_up:
            return
        self.succeed(params, events=list(queue.events), queue_id=queue.id)

    async def _wait(self, queue: EventQueue) -> None:
        answered = asyncio.get_running_loop().create_future()

        def waiter() -> None:
            if not answered.done():
                answered.set_result(None)

        self._queue, self._waiter = queue, waiter
        queue.hold(waiter, self.registry.clock())
        await answered

    def on_connection_close(self) -> None:
        self._hung_up = True
        if self._queue is not None:
            self._queue.abandon(self._waiter, self.registry.clock())
            self._waiter()

    async def delete(self) -> None:
        if (begun := await self._begin()) is not None:
            self._delete_queue(*begun)

    def _delete_queue(self, user_id: int, params: Params) -> None:
        self.registry.remove(self.registry.get(params.text("queue_id"), user_id))
        self.succeed(params)

    def options(self) -> None:
        self.set_status(204)
        self.set_header("Allow", "DELETE, GET, OPTIONS")


class DeleteHandler(EventsHandler):
    """A DELETE that another shard sent here through nginx; clients cannot reach this address."""

    async def get(self) -> None:
        if (begun := await self._begin()) is not None:
            self._delete_queue(*begun)


class InternalHandler(ApiHandler):
    """Django asks for a new queue; only processes of this host know the secret."""

    def post(self) -> None:
        fields = json.loads(self.request.body)
        if not settings.SHARED_SECRET or not hmac.compare_digest(fields.pop("secret", ""), settings.SHARED_SECRET):
            raise JsonableError("Access denied", "UNAUTHORIZED", 403)
        self.succeed(queue_id=self.registry.allocate(fields).id)


class HealthHandler(ApiHandler):
    """Whether this process answers."""

    def get(self) -> None:
        self.succeed(queues=len(self.registry.queues))


def make_application(registry: Registry, port: int) -> Application:
    """All addresses of a Tornado process."""
    shared = {"registry": registry, "port": port, "limits": MemoryStore()}
    return Application(
        [
            (r"/(?:api/v1|json)/events", EventsHandler, shared),
            (r"/(?:api/v1|json)/events/delete", DeleteHandler, shared),
            (r"/api/internal/events", InternalHandler, shared),
            (r"/health", HealthHandler, shared),
        ]
    )
