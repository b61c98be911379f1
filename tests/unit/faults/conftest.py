"""A lab of five nodes that exists in this process alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.faults.health import Cast
from tests.faults.nodes import NodeError, Nodes

GROUPS = {
    "app1": ["app"],
    "app2": ["app"],
    "db1": ["database", "quorum"],
    "db2": ["database", "quorum"],
    "mon1": ["backup", "monitor", "quorum"],
}
STATE = {
    "url": "https://192.0.2.10",
    "virtual_ip": "192.0.2.10",
    "nodes": {
        name: {"container": f"lab-{name}", "address": f"192.0.2.{number}", "groups": groups}
        for number, (name, groups) in enumerate(GROUPS.items(), 11)
    },
}
CAST = Cast("app1", "app2", "db1", "db2", "mon1", "db1", "mon1")


class FakeDocker:
    """An engine that remembers what it was told; `refuse` says which commands fail."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.status = dict.fromkeys(GROUPS, "running")
        self.networks: dict[str, list[str]] = {name: ["labnet"] for name in GROUPS}
        self.labels = dict.fromkeys(GROUPS, "lab")
        self.refuse: Callable[[Sequence[str]], bool] = lambda words: False

    def __call__(self, words: Sequence[str], timeout: float, text: str | None = None) -> str:
        self.calls.append(list(words))
        assert timeout > 0
        if self.refuse(words):
            raise NodeError(f"refused: {' '.join(words[:3])}")
        names = [word.removeprefix("lab-") for word in words if word.startswith("lab-")]
        match list(words):
            case ["inspect", "--format", template, *_]:
                return "\n".join(str(self._inspected(template, name)) for name in names)
            case [("kill" | "start" | "pause" | "unpause") as verb, *_]:
                before = {"kill": "running", "start": "exited", "pause": "running", "unpause": "paused"}[verb]
                if self.status[names[0]] != before:
                    raise NodeError(f"{verb}: {names[0]} is {self.status[names[0]]}")
                self.status[names[0]] = {"kill": "exited", "pause": "paused"}.get(verb, "running")
            case ["network", "disconnect", *_]:
                self.networks[names[0]] = []
            case ["network", "connect", *_]:
                self.networks[names[0]] = [words[-2]]
            case ["exec", *_]:
                if self.status[names[0]] != "running":
                    raise NodeError(f"{names[0]} is {self.status[names[0]]}")
        return ""

    def _inspected(self, template: str, name: str) -> Any:
        if "Labels" in template:
            return self.labels[name]
        if "Networks" in template:
            return "{" + ", ".join(f'"{one}": {{}}' for one in self.networks[name]) + "}"
        return self.status[name]

    def said(self, *parts: str) -> list[list[str]]:
        """Return the commands that have all of these in them."""
        return [call for call in self.calls if all(part in " ".join(call) for part in parts)]


@pytest.fixture
def docker() -> FakeDocker:
    """The engine."""
    return FakeDocker()


@pytest.fixture
def nodes(docker: FakeDocker) -> Nodes:
    """The lab."""
    return Nodes(STATE, docker)
