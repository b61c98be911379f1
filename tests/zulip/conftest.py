"""Fixtures of the tests on the lab with a real Zulip (inventories/zulip)."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from tests.lab.support import ROOT, Lab

STATE = ROOT / "lab/.state/zulip.json"
NO_RELEASE = (
    "no artefact of a real release was given: ZULIP_ARTIFACT=PATH-or-URL make molecule ROLE=zulip (docs/zulip.md)"
)

# These would beat the CA that a client is told to trust.
for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
    os.environ.pop(variable, None)


@pytest.fixture(scope="session")
def lab() -> Lab:
    """The lab with a real Zulip, which somebody has to have brought."""
    if not os.environ.get("ZULIP_ARTIFACT") or not STATE.exists():
        pytest.skip(NO_RELEASE)
    running = Lab(STATE)
    assert running.answers(), f"{running.url} does not answer"
    return running


@pytest.fixture(scope="session", autouse=True)
def site_name(lab: Lab) -> Iterator[str]:
    """The server's own name, which leads to the virtual IP as it would with an entry in DNS."""
    name = "chat.zulip-real.test"
    ask = socket.getaddrinfo

    def answer(host: Any, *arguments: Any, **options: Any) -> Any:
        return ask(lab.state["virtual_ip"] if host == name else host, *arguments, **options)

    socket.getaddrinfo = answer
    yield name
    socket.getaddrinfo = ask


@pytest.fixture(scope="session")
def client(lab: Lab, site_name: str) -> Callable[[dict[str, str]], Any]:
    """Makes clients of the unmodified `zulip` package for a user of the lab."""
    import zulip

    def make(user: dict[str, str]) -> Any:
        return zulip.Client(
            email=user["email"], api_key=user["api_key"], site=f"https://{site_name}", cert_bundle=lab.ca_file
        )

    return make


class Browser(requests.Session):
    """A browser as far as logging in and loading what a page names."""

    def __init__(self, site: str, ca_file: str) -> None:
        super().__init__()
        self.site, self.verify = f"https://{site}", ca_file
        self.headers["User-Agent"] = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"

    def log_in(self, user: dict[str, str]) -> requests.Response:
        """Log in by the form of the log-in page; return the page that follows."""
        page = self.get(f"{self.site}/login/", timeout=20)
        assert page.status_code == 200
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)
        assert token, "the log-in page has no form"
        return self.post(
            f"{self.site}/accounts/login/?next=/",
            data={"csrfmiddlewaretoken": token[1], "username": user["email"], "password": user["password"]},
            headers={"Referer": f"{self.site}/login/"},
            timeout=20,
        )

    def bundles(self, page: str) -> list[str]:
        """Return the addresses of the scripts and styles that a page names."""
        found = re.findall(r'(?:src|href)="((?:https://[^"/]+)?/static/[^"]+\.(?:js|css))"', page)
        return sorted({path if path.startswith("https") else self.site + path for path in found})


@pytest.fixture
def browser(lab: Lab, site_name: str) -> Browser:
    """A browser that nobody is logged in with."""
    return Browser(site_name, lab.ca_file)
