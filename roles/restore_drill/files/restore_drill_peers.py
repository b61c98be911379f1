"""The app hosts, which read a message and hash uploads for a drill."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from restore_drill_command import parsed, run
from restore_drill_words import DrillError

ASKED_NAMES = 200
"""How many files an app host is asked for at once."""


class Peers:
    """The app hosts, which do two things for a drill (drill_peer)."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config

    def ask(self, host: Mapping[str, str], request: str, stdin: str = "") -> Any:
        """Ask one host."""
        command = [*self.config["ssh"], host["address"], request]
        return parsed(run(command, stdin), host["name"])

    def turns(self) -> Iterator[tuple[str, Mapping[str, str]]]:
        """Yield the spare hosts, and then any; a host says itself that it is no spare."""
        if not self.config["app_hosts"]:
            raise DrillError("no app host is named")
        for which in ("spare", "any"):
            for host in self.config["app_hosts"]:
                yield which, host

    def message(self) -> tuple[str, dict[str, Any]]:
        """Have a message read by the application; return by whom, and the answer."""
        refused: dict[str, str] = {}
        for which, host in self.turns():
            try:
                return host["name"], self.ask(host, f"read-message {which}")
            except DrillError as error:
                refused[host["name"]] = str(error)
        raise DrillError("; ".join(f"{name}: {why}" for name, why in refused.items()))

    def hashes(self, names: Sequence[str]) -> tuple[str, dict[str, Any]]:
        """Return what the app hosts' files are. What one does not have, the next is asked for."""
        found: dict[str, Any] = {}
        answered: list[str] = []
        refused: dict[str, str] = {}
        for which, host in self.turns():
            wanted = [name for name in names if not found.get(name)]
            if host["name"] in answered or not wanted:
                continue
            try:
                for start in range(0, len(wanted), ASKED_NAMES):
                    part = json.dumps(wanted[start : start + ASKED_NAMES])
                    found.update(self.ask(host, f"sha256 {which}", part))
                answered.append(host["name"])
            except DrillError as error:
                refused[host["name"]] = str(error)
        if not answered:
            raise DrillError("; ".join(f"{name}: {why}" for name, why in refused.items()))
        return " and ".join(answered), found
