"""The converged lab, its playbooks, and load on it while they run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.lab.support import Lab
from tests.load.history import mark
from tests.upgrade.make_releases import make, variants

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / ".cache/upgrade"


class Run:
    """A playbook that has ended."""

    def __init__(self, status: int, text: str, seconds: float) -> None:
        self.status, self.text, self.seconds = status, text, seconds

    @property
    def refusal(self) -> str:
        """The line with which it refused."""
        found = re.search(r"^\s+msg: (.+?)(?=^\s+\w+:|^\s*$|\Z)", self.text.partition("fatal:")[2], re.M | re.S)
        return " ".join(found[1].split()) if found else ""

    def changed(self) -> dict[str, int]:
        """Number of changes by host."""
        return {host: int(count) for host, count in re.findall(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)", self.text, re.M)}


class Site(Lab):
    """The lab with its verbs."""

    def start(self, playbook: str, *options: str) -> tuple[subprocess.Popen[bytes], Path]:
        """Begin a verb; what it prints goes into a file."""
        OUT.mkdir(parents=True, exist_ok=True)
        log = OUT / f"{time.strftime('%H%M%S')}-{playbook}.log"
        path = "site.yml" if playbook == "site" else f"playbooks/{playbook}.yml"
        command = [f"{ROOT}/.venv/bin/ansible-playbook", path, *options]
        environment = {**os.environ, "ANSIBLE_CONFIG": f"{ROOT}/ansible.cfg", "ANSIBLE_FORCE_COLOR": "0"}
        with log.open("wb") as stream:
            process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=stream,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        return process, log

    def play(self, playbook: str, *options: str) -> Run:
        """Run a verb to its end."""
        began = time.monotonic()
        process, log = self.start(playbook, *options)
        process.wait(1800)
        return Run(process.returncode, log.read_text(), time.monotonic() - began)

    def version(self) -> str:
        """The release that answers clients."""
        answer = requests.get(f"{self.url}/api/v1/server_settings", verify=self.ca_file, timeout=10)
        return str(answer.json()["zulip_version"])


class Load:
    """Clients at work. What they saw is judged when they stop."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.history = OUT / f"{name}.jsonl"
        self.verdict: dict[str, Any] = {}

    def __enter__(self) -> Load:
        OUT.mkdir(parents=True, exist_ok=True)
        self.history.unlink(missing_ok=True)
        command = [sys.executable, "-m", "tests.load", "--state", "lab/state.json", "--out", str(self.history)]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line.startswith("load:"), "the load did not begin"
        return self

    def mark(self, name: str, **data: Any) -> None:
        """Note a moment for the picture."""
        mark(str(self.history), name, **data)

    def __exit__(self, *error: object) -> None:
        self.process.terminate()
        self.process.wait(60)

    def check(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Judge. The figures are in `verdict` afterwards."""
        base = OUT / self.name
        command = [
            sys.executable, "-m", "tests.load.check", str(self.history), "--state", "lab/state.json",
            "--json", f"{base}.json", "--markdown", f"{base}.md", "--picture", f"{base}.svg", *options,
        ]  # fmt: skip
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        self.verdict = json.loads(Path(f"{base}.json").read_text())
        print(done.stdout)
        return done


@pytest.fixture(scope="session")
def site() -> Site:
    """The lab, healthy before the tests."""
    running = Site()
    assert running.answers(), f"{running.url} does not answer"
    return running


@pytest.fixture(scope="session")
def releases() -> dict[str, dict[str, str]]:
    """Test releases of the stand-in: path of the source and version, by name."""
    known = variants()
    return {name: make(name, known, OUT / "releases") for name in known}
