"""Fixtures of the tests on the running lab."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.lab.support import Lab

# These would beat the CA that a client is told to trust.
for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
    os.environ.pop(variable, None)


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """The lab, healthy before the tests and left with every node running."""
    running = Lab()
    assert running.answers(), f"{running.url} does not answer"
    yield running
    for node in running.state["nodes"]:
        running.docker("start", node)


@pytest.fixture(scope="session")
def client(lab: Lab) -> Callable[[dict[str, str]], Any]:
    """Makes clients of the unmodified `zulip` package for a user of the lab."""
    import zulip

    def make(user: dict[str, str]) -> Any:
        return zulip.Client(
            email=user["email"], api_key=user["api_key"], site=lab.url, cert_bundle=lab.ca_file, client="tests"
        )

    return make
