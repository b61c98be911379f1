"""The lab with its verbs, and load on it while they run: shared by the tests of upgrades and of restores."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import requests

from tests.lab.support import ROOT, STATE, Lab
from tests.load.history import mark

CACHE = ROOT / ".cache"


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
    """A lab with its verbs. What they print goes into the folder `out`."""

    def __init__(self, out: Path, inventory: str = "", state: Path = STATE) -> None:
        super().__init__(state)
        self.out, self.inventory = out, inventory or os.environ.get("ANSIBLE_INVENTORY", "inventories/lab")

    def start(self, playbook: str, *options: str) -> tuple[subprocess.Popen[bytes], Path]:
        """Begin a verb (its name), or a playbook (its path); what it prints goes into a file."""
        self.out.mkdir(parents=True, exist_ok=True)
        log = self.out / f"{time.strftime('%H%M%S')}-{Path(playbook).stem}.log"
        verb = "site.yml" if playbook == "site" else f"playbooks/{playbook}.yml"
        path = playbook if playbook.endswith(".yml") else verb
        command = [f"{ROOT}/.venv/bin/ansible-playbook", "-i", self.inventory, path, *options]
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

    def load(self, name: str) -> Load:
        """Clients at work until the end of the block."""
        return Load(name, self.out)

    def version(self) -> str:
        """The release that answers clients."""
        answer = requests.get(f"{self.url}/api/v1/server_settings", verify=self.ca_file, timeout=10)
        return str(answer.json()["zulip_version"])

    def sql(self, query: str, database: str = "zulip", node: str = "") -> str:
        """Ask the leader, or a node, as the superuser."""
        psql = f"runuser -u postgres -- psql -X -At -v ON_ERROR_STOP=1 {database} <<'QUERY'\n{query}\nQUERY"
        return self.run(node or self.leader(), psql)

    def leader(self) -> str:
        """The database host that takes writes."""
        asked = "runuser -u postgres -- psql -X -Atc 'select pg_is_in_recovery()'"
        return next(node for node in self.in_group("database") if self.run(node, asked, check=False) == "f")


class Load:
    """Clients at work. What they saw is judged when they stop."""

    def __init__(self, name: str, out: Path, *options: str) -> None:
        """`options` are the load's own."""
        self.name, self.out, self.options = name, out, options
        self.history = out / f"{name}.jsonl"
        self.verdict: dict[str, Any] = {}

    def __enter__(self) -> Load:
        self.out.mkdir(parents=True, exist_ok=True)
        self.history.unlink(missing_ok=True)
        command = [sys.executable, "-m", "tests.load", "--state", str(STATE), "--out", str(self.history)]
        command += self.options
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line.startswith("load:"), "the load did not begin"
        return self

    def mark(self, name: str, /, **data: Any) -> None:
        """Note a moment for the picture."""
        mark(str(self.history), name, **data)

    def kill(self) -> None:
        """End it at once: there is no server any more whose last words it could wait for."""
        self.process.kill()

    def __exit__(self, *error: object) -> None:
        self.process.terminate()
        # Readers may wait for the last message.
        self.process.wait(240)

    def check(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Judge. The figures are in `verdict` afterwards."""
        base = self.out / self.name
        command = [
            sys.executable, "-m", "tests.load.check", str(self.history), "--state", str(STATE),
            "--json", f"{base}.json", "--markdown", f"{base}.md", "--picture", f"{base}.svg", *options,
        ]  # fmt: skip
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        self.verdict = json.loads(Path(f"{base}.json").read_text())
        print(done.stdout)
        return done


def refused(done: Run, words: str) -> None:
    """One line that says it, and no host was changed."""
    assert done.status != 0, done.text[-3000:]
    assert words in done.refusal, done.refusal or done.text[-3000:]
    changed = {host: count for host, count in done.changed().items() if host != "localhost"}
    assert not any(changed.values()), changed
    print(f"\n{done.refusal}")
