"""The running lab for its tests: its state, its nodes, playbook runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
# Another lab than the one of inventories/lab; its plays want ANSIBLE_INVENTORY as well.
STATE = Path(os.environ.get("LAB_STATE") or ROOT / "lab/state.json").absolute()


class Lab:
    """A running lab, as its state file describes it."""

    def __init__(self, state: Path = STATE) -> None:
        self.state: dict[str, Any] = json.loads(state.read_text(encoding="utf-8"))
        self.url: str = self.state["url"]
        self.ca_file: str = self.state["ca_file"]

    def user(self, role: str, index: int = 0) -> dict[str, str]:
        """Return one of the lab's users by role."""
        return [user for user in self.state["users"] if user["role"] == role][index]

    def in_group(self, group: str) -> list[str]:
        """Return the names of a group's nodes."""
        return [name for name, node in self.state["nodes"].items() if group in node["groups"]]

    def docker(self, verb: str, node: str) -> None:
        """Start, stop or kill a node's container."""
        subprocess.run(
            ["docker", verb, self.state["nodes"][node]["container"]], check=True, capture_output=True, timeout=120
        )

    def run(self, node: str, command: str, check: bool = True) -> str:
        """Run a shell command on a node and return what it printed."""
        done = subprocess.run(
            ["docker", "exec", self.state["nodes"][node]["container"], "bash", "-c", command],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert not check or done.returncode == 0, f"{node}: {command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def active(self) -> list[str]:
        """Return the app hosts that hold the lease right now."""
        return [
            node
            for node in self.in_group("app")
            if self.run(node, "test -e /run/zulip-ha/active && echo yes", check=False)
        ]

    def answers(self) -> bool:
        """Whether the server answers at the virtual IP, over TLS that is verified."""
        try:
            return requests.get(f"{self.url}/api/v1/server_settings", verify=self.ca_file, timeout=3).status_code == 200
        except requests.RequestException:
            return False


def wait_for(what: str, condition: Callable[[], Any], seconds: float) -> Any:
    """Poll until the condition holds; fail with what was waited for."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.3)
    pytest.fail(f"{what}: not within {seconds} s")


def command(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the repository and return the finished process; warnings are part of what a person sees."""
    return subprocess.run(
        words,
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
        check=False,
    )


def playbook(*arguments: str, inventory: str = "inventories/lab") -> subprocess.CompletedProcess[str]:
    """Run ansible-playbook in the repository and return the finished process."""
    return command(str(BIN / "ansible-playbook"), "-i", inventory, *arguments)
