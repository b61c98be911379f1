"""What the server says of itself, and logging in."""

from typing import Any

from django.conf import settings
from django.contrib.auth import views
from django.contrib.auth.forms import AuthenticationForm
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.utils.decorators import method_decorator
from django.utils.timezone import now
from django.views.decorators.csrf import ensure_csrf_cookie

from zerver.lib.auth import user_from_password
from zerver.lib.events import queue_event
from zerver.lib.exceptions import JsonableError
from zerver.lib.params import Params
from zerver.models import Realm, UserProfile


def the_realm() -> Realm:
    """The one organisation."""
    if realm := Realm.objects.first():
        return realm
    raise JsonableError("Invalid subdomain", "NONEXISTENT_SUBDOMAIN", 404)


def server_settings(request: HttpRequest, user: None, params: Params) -> dict[str, Any]:
    """The first thing that a client asks."""
    realm, url = the_realm(), f"https://{settings.EXTERNAL_HOST}"
    return {
        "zulip_version": settings.ZULIP_VERSION,
        "zulip_feature_level": settings.ZULIP_FEATURE_LEVEL,
        "zulip_merge_base": settings.ZULIP_VERSION,
        "push_notifications_enabled": False,
        "is_incompatible": False,
        "email_auth_enabled": True,
        "require_email_format_usernames": True,
        "realm_url": url,
        "realm_uri": url,
        "realm_name": realm.name,
        "realm_icon": "",
        "realm_description": realm.description,
        "realm_web_public_access_enabled": False,
        "authentication_methods": {"password": True, "email": True},
        "external_authentication_methods": [],
    }


def announce_login(user: UserProfile, client: str) -> None:
    """Tell the user by mail that somebody logged in."""
    body = (
        f"Somebody logged in to {settings.EXTERNAL_HOST} as {user.email} with {client} at {now():%Y-%m-%d %H:%M} UTC."
    )
    queue_event("email_senders", {"to": [user.email], "subject": "New login", "body": body})


def fetch_api_key(request: HttpRequest, user: None, params: Params) -> dict[str, Any]:
    """Exchange a password for the API key."""
    username, password = params.text("username"), params.text("password")
    the_realm()
    found = user_from_password(username, password)
    announce_login(found, "an API client")
    return {"api_key": found.api_key, "email": found.email, "user_id": found.id}


class LoginForm(AuthenticationForm):
    """Counts failures as the API does."""

    def clean(self) -> dict[str, Any]:
        try:
            self.user_cache = user_from_password(
                self.cleaned_data.get("username", ""), self.cleaned_data.get("password", "")
            )
        except JsonableError as error:
            raise ValidationError(error.msg) from None
        return self.cleaned_data


@method_decorator(ensure_csrf_cookie, name="dispatch")
class LoginView(views.LoginView):
    """The log-in page."""

    template_name = "zerver/login.html"
    authentication_form = LoginForm
    redirect_authenticated_user = True

    def form_valid(self, form: AuthenticationForm) -> HttpResponse:
        """Log in."""
        response = super().form_valid(form)
        announce_login(form.get_user(), "a browser")
        return response
