"""Request middleware."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse


class RealIpMiddleware:
    """Takes the client's address from nginx, which always sets X-Real-Ip itself."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if real_ip := request.headers.get("X-Real-Ip"):
            request.META["REMOTE_ADDR"] = real_ip
        return self.get_response(request)
