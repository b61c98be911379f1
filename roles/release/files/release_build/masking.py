"""Keeps credentials out of what is shown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit, urlunsplit

MASK = "***"
SHORTEST = 4
"""A shorter secret is not looked for in texts: masking it would make them unreadable and hide nothing."""
_USERINFO = re.compile(r"(?P<scheme>\b[a-zA-Z][a-zA-Z0-9+.-]*://)[^\s/@'\"<>]+@")
_SECRET_NAME = re.compile(r"TOKEN|PASSW|SECRET|AUTH(?!OR)|CREDENTIAL|API_?KEY", re.IGNORECASE)


def secrets_of(environment: Mapping[str, str]) -> set[str]:
    """Return the secrets that an environment holds: passwords in URLs, and values whose name says that they are one."""
    found = set()
    for name, value in environment.items():
        for word in str(value).split():
            userinfo = word.partition("://")[2].partition("/")[0].rpartition("@")[0]
            # A user name alone is a token as often as not.
            password = userinfo.partition(":")[2] or userinfo
            found |= {password, unquote(password)}
        if _SECRET_NAME.search(name):
            found.add(str(value))
    return {secret for secret in found if len(secret) >= SHORTEST and secret.lower() not in ("true", "false", "none")}


def mask(text: str, secrets: set[str] | frozenset[str] = frozenset()) -> str:
    """Return a text without the credentials in its URLs and without the given secrets."""
    text = _USERINFO.sub(rf"\g<scheme>{MASK}@", text)
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, MASK)
    return text


def plain_url(url: str) -> str:
    """Return a URL without user, password, query and fragment, any of which may be a credential."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    if not parts.scheme or (not host and parts.scheme != "file"):
        # The short form of SSH, user@host:path, where the user is part of the name.
        return url
    return urlunsplit((parts.scheme, host, parts.path, "", ""))
