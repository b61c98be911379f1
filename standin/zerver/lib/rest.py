"""Turns plain functions into endpoints of the API under /api/v1/ (API key) and /json/ (session and CSRF token)."""

import logging
from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse, QueryDict
from django.urls import URLPattern, path
from django.utils.datastructures import MultiValueDict
from django.views.decorators.csrf import csrf_exempt

from zerver.lib.auth import check_active, user_from_basic
from zerver.lib.events import record_activity
from zerver.lib.exceptions import JsonableError, unauthorized
from zerver.lib.params import Params
from zerver.lib.rate_limit import RedisStore, Usage, check_limit
from zerver.models import UserProfile

logger = logging.getLogger(__name__)

# handler(request, user, params, **path_arguments) -> the answer's data, or a whole answer
Handler = Callable[..., dict[str, Any] | HttpResponseBase]


def read_params(request: HttpRequest) -> Params:
    """The query's and the body's fields, whatever the method."""
    body: MultiValueDict[str, str] = request.POST
    if request.method in {"PATCH", "PUT", "DELETE"}:
        body = QueryDict(request.body)
    return Params({**request.GET.dict(), **body.dict()})


def client_name(request: HttpRequest) -> str:
    """The program that sent the request, from its User-Agent."""
    return request.headers.get("User-Agent", "").partition("/")[0][:30] or "Unspecified"


def session_user(request: HttpRequest) -> UserProfile:
    """The logged-in user of a browser."""
    if not request.user.is_authenticated:
        raise unauthorized(scheme="Session")
    return check_active(request.user)


def json_error(error: JsonableError) -> JsonResponse:
    """The answer that an error becomes."""
    return JsonResponse(error.body(), status=error.status, headers=error.headers)


def run_handler(
    request: HttpRequest,
    handler: Handler,
    find_user: Callable[[HttpRequest], UserProfile] | None,
    arguments: dict[str, Any],
) -> HttpResponseBase:
    """Authenticate, count, call, and answer in the API's form whatever happens."""
    usage: Usage | None = None
    try:
        params = read_params(request)
        user = find_user(request) if find_user else None
        store = RedisStore()
        if user is None:
            usage = check_limit(store, "api_by_ip", request.META["REMOTE_ADDR"])
        else:
            usage = check_limit(store, "api_by_user", str(user.id))
            record_activity(user, client_name(request), handler.__name__)
        result = handler(request, user, params, **arguments)
        if isinstance(result, dict):
            answer = {"result": "success", "msg": "", **result}
            if unsupported := params.unsupported:
                answer["ignored_parameters_unsupported"] = unsupported
            response: HttpResponseBase = JsonResponse(answer)
        else:
            response = result
    except JsonableError as error:
        response = json_error(error)
    except Exception:
        logger.exception("%s %s failed", request.method, request.path)
        response = json_error(JsonableError("Internal server error", "INTERNAL_SERVER_ERROR", 500))
    if usage is not None:
        for name, value in usage.headers().items():
            response.headers.setdefault(name, value)
    response.headers["Cache-Control"] = "private, no-store"
    return response


def basic_user(request: HttpRequest) -> UserProfile:
    """The user of an API client."""
    if header := request.headers.get("Authorization"):
        return user_from_basic(header)
    raise unauthorized()


def basic_or_session_user(request: HttpRequest) -> UserProfile:
    """For addresses that clients and browsers share."""
    return basic_user(request) if "Authorization" in request.headers else session_user(request)


def make_view(
    handlers: dict[str, Handler], find_user: Callable[[HttpRequest], UserProfile] | None
) -> Callable[..., HttpResponseBase]:
    """One Django view for all methods of an address."""

    def view(request: HttpRequest, **arguments: Any) -> HttpResponseBase:
        if request.method == "OPTIONS":
            return HttpResponse(status=204, headers={"Allow": ", ".join(sorted(handlers))})
        if request.method not in handlers:
            error = JsonableError("Method Not Allowed", "METHOD_NOT_ALLOWED", 405, allowed_methods=sorted(handlers))
            return json_error(error)
        return run_handler(request, handlers[request.method], find_user, arguments)

    return view


def rest_path(route: str, *, anonymous: bool = False, **handlers: Handler) -> list[URLPattern]:
    """Both addresses of an endpoint. An API key is itself a proof that no other site made the browser ask."""
    return [
        path(f"api/v1/{route}", csrf_exempt(make_view(handlers, None if anonymous else basic_user))),
        path(f"json/{route}", make_view(handlers, None if anonymous else session_user)),
    ]
