"""Who makes a request: HTTP Basic with an API key, or a browser's session. Used by Django and by Tornado."""

import base64
import binascii

from django.contrib.auth import authenticate

from zerver.lib.cache import user_by_api_key
from zerver.lib.exceptions import JsonableError, unauthorized
from zerver.lib.rate_limit import RedisStore, check_limit, clear_limit
from zerver.models import UserProfile


def check_active(user: UserProfile) -> UserProfile:
    """Refuse accounts that may not be used now."""
    if user.realm.deactivated:
        raise JsonableError("This organization has been deactivated", "REALM_DEACTIVATED", 401)
    if not user.is_active:
        raise JsonableError("Account is deactivated", "USER_DEACTIVATED", 401)
    return user


def user_from_basic(header: str) -> UserProfile:
    """The user that an Authorization header names: e-mail address and API key."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        raise unauthorized("This endpoint requires HTTP basic authentication.")
    try:
        email, _, api_key = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        raise unauthorized("Invalid authorization header for basic auth") from None
    if not email or not api_key:
        raise unauthorized("Missing authorization header for basic auth")
    if len(api_key) != 32 or not api_key.isalnum():
        raise JsonableError("Malformed API key", "INVALID_API_KEY", 401)
    user = user_by_api_key(api_key)
    if user is None or user.email != email.strip().lower():
        raise JsonableError("Invalid API key", "INVALID_API_KEY", 401)
    return check_active(user)


def user_from_password(email: str, password: str) -> UserProfile:
    """The user with this password; failures are counted, and too many of them refused."""
    store, email = RedisStore(), email.strip().lower()
    check_limit(store, "authenticate_by_username", email)
    user = authenticate(username=email, password=password)
    if user is None:
        raise JsonableError("Your username or password is incorrect", "AUTHENTICATION_FAILED", 401)
    clear_limit(store, "authenticate_by_username", email)
    return check_active(user)
