"""The lab's server as its state file describes it, and real `zulip` clients of it."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import zulip

PAGE = 1000


class Refused(Exception):
    """Why a program cannot begin, in one line."""


class Server:
    """Who may talk to the server, and where it is."""

    def __init__(self, state: Path, host: str = "") -> None:
        """Read the state file; `host` is the server's own name, which then leads to the virtual IP."""
        try:
            data = json.loads(state.read_text(encoding="utf-8"))
            self.url, self.ca_file = str(data["url"]), str(data["ca_file"])
            self.users: list[dict[str, str]] = [user for user in data["users"] if user.get("api_key")]
        except OSError as error:
            raise Refused(f"{state}: {error.strerror}") from None
        except (ValueError, KeyError) as error:
            raise Refused(f"{state} is no state of a lab: {error}") from None
        if not self.users:
            raise Refused(f"{state} names no user with an API key")
        if host:
            address = urlsplit(self.url).hostname
            self.url = self.url.replace(str(address), host, 1)
            _resolve(host, str(address))

    def client(self, user: dict[str, str], retry: bool = False) -> Any:
        """Return a client, which has then talked to the server once. Without `retry` it reports each failure."""
        # These would beat the CA that the client is told to trust.
        for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
            os.environ.pop(variable, None)
        client: Any
        try:
            client = zulip.Client(
                email=user["email"],
                api_key=user["api_key"],
                site=self.url,
                cert_bundle=self.ca_file,
                client="load",
                retry_on_errors=retry,
            )
        except Exception as error:
            raise Refused(f"{self.url} does not answer {user['email']}: {error}") from None
        # Neither proxies nor a .netrc of whoever runs this, and less work a request.
        client.session.trust_env = False
        return client


def _resolve(host: str, address: str) -> None:
    """Let a name lead to an address in this process."""
    ask = socket.getaddrinfo

    def answer(name: Any, *arguments: Any, **options: Any) -> Any:
        return ask(address if name == host else name, *arguments, **options)

    socket.getaddrinfo = answer  # type: ignore[assignment]


def in_channel(channel: str, topic: str = "") -> list[dict[str, str]]:
    """Return the narrow of a channel or of a topic in it; `stream` is what all releases understand."""
    topics = [{"operator": "topic", "operand": topic}] if topic else []
    return [{"operator": "stream", "operand": channel}, *topics]


def page_after(client: Any, channel: str, anchor: int, rendered: bool = False) -> dict[str, Any]:
    """Ask for the page of messages that follows an anchor; it may begin with the anchor itself."""
    return client.get_messages(
        {
            "anchor": anchor,
            "num_before": 0,
            "num_after": PAGE,
            "narrow": in_channel(channel),
            "apply_markdown": rendered,
        }
    )


def messages_after(client: Any, channel: str, anchor: int, rendered: bool = False) -> Iterator[dict[str, Any]]:
    """Yield every message of a channel after an anchor, page by page."""
    while True:
        answer = page_after(client, channel, anchor, rendered)
        if answer.get("result") != "success":
            raise Refused(f"the messages of {channel} cannot be read: {answer.get('msg')}")
        new = [message for message in answer["messages"] if message["id"] > anchor]
        yield from new
        if answer.get("found_newest") or not new:
            return
        anchor = new[-1]["id"]
