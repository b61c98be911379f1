"""The page."""

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.csrf import ensure_csrf_cookie


@login_required
@ensure_csrf_cookie
def home(request: HttpRequest) -> HttpResponse:
    """A frame that the script fills through the API."""
    response = render(request, "zerver/home.html", {"user": request.user, "realm": request.user.realm})
    response.headers["Cache-Control"] = "private, no-store"
    return response
