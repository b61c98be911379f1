"""Credentials are taken out of whatever is shown."""

from __future__ import annotations

import pytest
from release_build.masking import mask, plain_url, secrets_of


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Looking in indexes: https://me:word@pypi.test/simple", "Looking in indexes: https://***@pypi.test/simple"),
        ("git+ssh://git@host/x.git and https://token@h/y", "git+ssh://***@host/x.git and https://***@h/y"),
        ("foo @ https://h/x.zip", "foo @ https://h/x.zip"),
        ("https://h/@scope/package and me@example.org", "https://h/@scope/package and me@example.org"),
    ],
)
def test_urls(text: str, shown: str) -> None:
    assert mask(text) == shown


def test_secrets_of_an_environment() -> None:
    environment = {
        "PIP_INDEX_URL": "https://me:w%2Ford@pypi.test/simple",
        "PIP_EXTRA_INDEX_URL": "https://a.test/simple https://token-1@b.test/simple",
        "npm_config__authToken": "npm-word",
        "GIT_AUTHOR_NAME": "someone",
        "HTTPS_PROXY": "http://proxy:3128",
        "SHORT_TOKEN": "x",
    }
    assert secrets_of(environment) == {"w%2Ford", "w/ord", "token-1", "npm-word"}
    assert mask("npm-word, w/ord and xx by someone", secrets_of(environment)) == "***, *** and xx by someone"


@pytest.mark.parametrize(
    ("url", "plain"),
    [
        ("https://me:word@h:8/x.tar.gz?sig=1#f", "https://h:8/x.tar.gz"),
        ("https://h/x", "https://h/x"),
        ("git@host:path/x.git", "git@host:path/x.git"),
        ("/srv/x.git", "/srv/x.git"),
        ("file:///srv/x.git", "file:///srv/x.git"),
    ],
)
def test_plain_urls(url: str, plain: str) -> None:
    assert plain_url(url) == plain


def test_a_switch_is_no_secret() -> None:
    assert secrets_of({"DISABLE_MANDATORY_SECRET_CHECK": "True", "NO_AUTH": "false"}) == set()
