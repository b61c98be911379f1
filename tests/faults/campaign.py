"""One plan on the running lab: load, samplers and nemesis together, then the check. Writes JSON, Markdown and SVG."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.faults import figures, report, samples
from tests.faults.actions import Action
from tests.faults.catalogue import Stage, revokes_early
from tests.faults.health import Health
from tests.faults.nemesis import Nemesis, NotWhole
from tests.faults.nodes import NodeError, Nodes
from tests.faults.plan import Step
from tests.lab.support import STATE
from tests.lab.verbs import CACHE, Load, Site
from tests.load import checker, picture
from tests.load.check import messages_of, read_back
from tests.load.history import History, Line, read, wall
from tests.load.server import Server

OUT = CACHE / "faults"
# How often a message carries a link, whose job leaves a trace. A real Zulip leaves none: 0 there.
LINKS = int(os.environ.get("FAULTS_LINKS", "5"))
LOAD = (
    "--rate=25", "--writers=8", "--write-rate=8", "--visitors=4", "--planners=1", f"--links={LINKS}",
    # A reader whose host went without a word waits for as long as its client allows a poll.
    "--drain=120",
)  # fmt: skip
ALLOWED = checker.Thresholds(max_failed=None, max_gap=None, min_rate=5.0)
"""A fault fails requests and delays events: how many and how long is measured and not judged here."""
PATIENCE = 120.0
"""Seconds after the last fault in which scheduled messages are sent and jobs done."""
QUIET_SECONDS = 5.0
KEPT = ("messages", "plans", "jobs", "stale", "readers", "failed", "errors", "uploads_lost", "marks")
PLAY_SECONDS = 600.0
ROLES = {"member": 400, "moderator": 300}
CHANGE_ROLE = """
cd /home/zulip/deployments/current
exec runuser --user zulip -- .venv/bin/python manage.py change_user_role "$1" "$2"
"""


class Operator:
    """Changes a user's role on whichever host is active, so that a cache that was kept over a move shows."""

    def __init__(self, nodes: Nodes, health: Health, history: History, email: str) -> None:
        self.nodes, self.health, self.history, self.email = nodes, health, history, email
        self.role, self.active, self.works = "member", "", True

    def change(self, anyway: bool = False) -> None:
        """Change it when another host is active than last time. A release without such a command is left alone."""
        active = self.health.cast().active
        if not self.works or not active or (active == self.active and not anyway):
            return
        first, self.active = not self.active, active
        self.role = next(role for role in ROLES if role != self.role)
        began, error = time.monotonic(), ""
        try:
            self.nodes.sh(active, CHANGE_ROLE, self.email, self.role, timeout=60)
        except NodeError as problem:
            error = str(problem)
            self.works = not first
        ended = time.monotonic()
        line = {"kind": "change", "client": "operator", "scheduled": began, "began": began, "ended": ended}
        outcome = {"outcome": "unknown", "error": error} if error else {"outcome": "ok"}
        self.history.write(**line, **outcome, at=wall(began), status=None, email=self.email, role=ROLES[self.role])

    def put_back(self) -> None:
        """Leave the user as the lab made it."""
        if self.works and self.role != "member":
            self.change(anyway=True)


class Campaign:
    """A plan and its outcome. After `run` all of it is in `result`, and in files of this name."""

    def __init__(self, name: str, out: Path = OUT, seed: int | None = None) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.name, self.out, self.seed = name, out, seed
        self.site = Site(out)
        self.nodes = Nodes(self.site.state)
        self.health = Health(self.nodes, str(urlsplit(self.site.url).hostname))
        self.server = Server(STATE)
        self.load = Load(name, out, *LOAD)
        self.result: dict[str, Any] = {}

    def play(self, verb: str) -> None:
        """Run a verb of the site; whatever happens, it does not outlive this program."""
        process, log = self.site.start(verb)
        try:
            status = process.wait(PLAY_SECONDS)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            raise
        if status:
            raise NodeError(f"{verb} failed: {log.read_text()[-600:]}")

    def run(self, steps: Sequence[Step]) -> dict[str, Any]:
        """Make the plan happen under load, and judge."""
        ended, began = "", time.monotonic()
        nemesis = Nemesis(self.nodes, self.health, self.play, self.load, self._while_it_lasts)
        nemesis.prepare()
        samplers = samples.Samplers(self.nodes, self.out / f"{self.name}.samples.jsonl")
        # The faults are healed before the load ends, and that before nobody looks any more.
        with samplers, self.load, nemesis:
            member = next(user for user in self.server.users if user.get("role") == "member")
            operator = Operator(self.nodes, self.health, History(self.load.history), member["email"])
            nemesis.after = operator.change
            samples.wait_until_seen(samplers)
            began = time.monotonic()
            operator.change()
            try:
                nemesis.run(steps)
                time.sleep(QUIET_SECONDS)
            except NotWhole as error:
                ended = str(error)
            operator.put_back()
            stopped = time.monotonic()
        # What cannot be read back now can be judged by hand later.
        self._path(".steps.json").write_text(json.dumps(nemesis.done, indent=1) + "\n", encoding="utf-8")
        self.result = self._judge(nemesis.done, began, stopped, operator.works, ended)
        self._write()
        return self.result

    def _while_it_lasts(self, action: Action, stage: Stage) -> dict[str, Any]:
        """Count the jobs that wait in the broker of an active host that is away."""
        if stage.cast.active not in action.down:
            return {}
        lines = read(self.load.history)
        try:
            final = messages_of(self.server.client(self.server.users[0]), lines)
        # Whatever the client raises: the site may be away as a whole, and then nobody can say.
        except Exception as error:
            return {"jobs_waiting": None, "jobs_error": str(error)[:200]}
        return {"jobs_waiting": len(checker.jobs(checker.Run(lines), final)["undone"])}

    def _judge(
        self, steps: list[dict[str, Any]], began: float, stopped: float, looked_for_stale: bool, ended: str
    ) -> dict[str, Any]:
        lines: list[Line] = read(self.load.history)
        final, uploads_lost = read_back(self.server, lines, PATIENCE)
        measures = checker.measure(lines, final, uploads_lost)
        sampled = [line for line in read(self.out / f"{self.name}.samples.jsonl") if line["kind"] == "sample"]
        blind = [(node, one["began"], one["whole"] or stopped) for one in steps for node in one["blind"]]
        watched = [*self.nodes.in_group("app"), *self.nodes.in_group("database")]
        seen_by_samplers = samples.judge(sampled, samples.running_times(began, stopped, watched, blind))

        acknowledged = checker.Run(lines).acknowledged
        lost = [acknowledged[nonce]["ended"] for nonce in measures["messages"]["lost"]]
        seen, since = figures.Seen(lines), 0.0
        for step in steps:
            step["figures"] = figures.of_step(seen, step, lost, since, stopped)
            since = step["whole"] or stopped
        violations = [
            *([f"the run ended before its time: {ended}"] if ended else []),
            *checker.judge(measures, ALLOWED),
            *seen_by_samplers["violations"],
            *(complaint for step in steps if not step["absent"] for complaint in figures.complaints(step)),
        ]
        if not any(not step["absent"] and not step["error"] for step in steps):
            violations.append("no fault happened")
        return {
            "name": self.name,
            "seed": self.seed,
            "begin": measures["begin"],
            "revokes_early": revokes_early(self.nodes),
            "looked_for_stale_caches": looked_for_stale,
            "load": {key: measures[key] for key in KEPT},
            "samples": seen_by_samplers,
            "steps": steps,
            "violations": violations,
        }

    def _write(self) -> None:
        self._path(".faults.json").write_text(json.dumps(self.result, indent=1) + "\n", encoding="utf-8")
        self._path(".md").write_text(report.markdown([self.result]), encoding="utf-8")
        self._path(".svg").write_text(picture.draw(read(self.load.history)), encoding="utf-8")

    def _path(self, suffix: str) -> Path:
        return self.out / f"{self.name}{suffix}"
