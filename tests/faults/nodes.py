"""The lab's containers, and nothing else: every command of this suite that leaves this program goes through here."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Any

LABEL = "zulip-ha.lab"
RUNNING, PAUSED = "running", "paused"


class NodeError(Exception):
    """A command on a node failed, or took too long."""


class NotOurs(Exception):
    """A container that does not belong to this lab."""


def run_docker(words: Sequence[str], timeout: float, text: str | None = None) -> str:
    """Run the client of the engine; whatever it does ends in time."""
    try:
        done = subprocess.run(
            ["docker", *words], input=text, capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        raise NodeError(f"docker {' '.join(words[:3])}: not within {timeout:g} s") from None
    if done.returncode:
        raise NodeError(f"docker {' '.join(words[:3])}: {(done.stderr or done.stdout).strip()[-500:]}")
    # Only this one: of several lines the last may be empty.
    return done.stdout.removesuffix("\n")


class Nodes:
    """The nodes of a lab by their names. Refuses a state file that names somebody else's containers."""

    def __init__(self, state: Mapping[str, Any], docker: Callable[..., str] = run_docker) -> None:
        self.state, self._docker = state, docker
        self._containers = {name: str(node["container"]) for name, node in state["nodes"].items()}
        self.groups = {name: tuple(node["groups"]) for name, node in state["nodes"].items()}
        self.addresses = {name: str(node["address"]) for name, node in state["nodes"].items()}
        self.virtual_ip = str(state.get("virtual_ip", ""))
        labels = self.inspect(f'{{{{index .Config.Labels "{LABEL}"}}}}')
        for name, label in labels.items():
            if not label or self._containers[name] != f"{label}-{name}":
                raise NotOurs(f"the container {self._containers[name]} is no node of a lab (label {LABEL}: {label!r})")

    def __iter__(self) -> Any:
        return iter(self._containers)

    def in_group(self, group: str) -> list[str]:
        """Return the names of a group's nodes."""
        return [name for name, groups in self.groups.items() if group in groups]

    def inspect(self, template: str) -> dict[str, str]:
        """Return something that the engine knows of each container, by node."""
        out = self._docker(["inspect", "--format", template, *self._containers.values()], 30)
        return dict(zip(self._containers, out.split("\n"), strict=True))

    def status(self) -> dict[str, str]:
        """Return `running`, `paused`, `exited`, … by node."""
        return self.inspect("{{.State.Status}}")

    def engine(self, node: str, verb: str, *options: str, timeout: float = 60) -> str:
        """Have the engine do something with a node: kill, start, pause, unpause."""
        return self._docker([verb, *options, self._containers[node]], timeout)

    def network(self, verb: str, node: str, *options: str) -> str:
        """Take a node from its network, or bring it back; `options` end with the network."""
        return self._docker(["network", verb, *options, self._containers[node]], 30)

    def networks(self, node: str) -> dict[str, Any]:
        """Return the networks of a node with the addresses that it has there."""
        out = self._docker(["inspect", "--format", "{{json .NetworkSettings.Networks}}", self._containers[node]], 30)
        return dict(json.loads(out))

    def sh(self, node: str, script: str, *arguments: str, timeout: float = 30, user: str = "root") -> str:
        """Run a shell script in a node. It ends there as well when its time is over."""
        inside = ["timeout", "--kill-after=2", f"{timeout:g}", "bash", "-euo", "pipefail", "-c", script, "bash"]
        words = ["exec", "--user", user, self._containers[node], *inside, *arguments]
        try:
            return self._docker(words, timeout + 5)
        except NodeError as error:
            raise NodeError(f"{node}: {error}") from None

    def python(self, node: str, program: str, *arguments: str, timeout: float = 30) -> str:
        """Run a Python program in a node, from standard input."""
        words = ["exec", "-i", self._containers[node], "timeout", f"{timeout:g}", "python3", "-I", "-", *arguments]
        return self._docker(words, timeout + 5, program)

    def command(self, node: str, *words: str, user: str = "root") -> list[str]:
        """Return the words that run a long-lived command in a node; its standard input ends when we do."""
        return ["docker", "exec", "-i", "--user", user, self._containers[node], *words]
