"""Makes a plan's faults happen, one after the other, and waits after each until the site is whole by itself."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from types import FrameType
from typing import Any, Protocol

from tests.faults import actions, catalogue
from tests.faults.actions import Absent, Action
from tests.faults.catalogue import Stage
from tests.faults.health import Health
from tests.faults.nodes import NodeError, Nodes
from tests.faults.plan import Step

BEGIN_SECONDS = 180.0
"""How long a site may take to be whole before the first fault."""
HANDS_SECONDS = 180.0
"""The same after somebody has started by hand what did not start by itself."""
POLL = 1.5


class Stopped(KeyboardInterrupt):
    """A signal asked for the end."""


class NotWhole(Exception):
    """The site was not whole in time."""


class Log(Protocol):
    """Where the faults are written down."""

    def mark(self, name: str, /, **data: Any) -> None:
        """Write one down."""


class Nemesis:
    """`nemesis.prepare()`, then `with nemesis: nemesis.run(steps)`. However that ends, every fault is healed."""

    def __init__(
        self,
        nodes: Nodes,
        health: Health,
        play: Callable[[str], None],
        log: Log,
        before_heal: Callable[[Action, Stage], dict[str, Any]] = lambda action, stage: {},
        after: Callable[[], None] = lambda: None,
    ) -> None:
        """`before_heal` adds to what is known of a fault while it lasts; `after` is called when the site is whole."""
        self.nodes, self.health, self.play, self.log = nodes, health, play, log
        self.before_heal, self.after = before_heal, after
        self.done: list[dict[str, Any]] = []
        self.current: Action | None = None
        self._deaf = False
        self._asked = False
        self._handlers: dict[int, Any] = {}

    # beginning and end

    def prepare(self) -> None:
        """Begin with a site that is whole."""
        # What an earlier run left that could not heal: it was killed, or the machine was.
        if problems := actions.sweep(self.nodes):
            raise NotWhole(f"what an earlier run left cannot be undone: {'; '.join(problems)}")
        self.wait_until_whole(BEGIN_SECONDS)
        self.health.remember()

    def __enter__(self) -> Nemesis:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._handlers[number] = signal.signal(number, self._signal)
        return self

    def __exit__(self, *error: object) -> None:
        self._deaf = True
        try:
            if self.current is not None:
                self._say("healing what lasts")
                self._try_to_heal(self.current)
            problems = actions.sweep(self.nodes)
            for problem in problems:
                self._say(f"not undone: {problem}")
        finally:
            self._listen_no_more()

    def _signal(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
        # While something is healed nothing may interrupt; all of it ends in time.
        if not self._deaf:
            raise Stopped(signal.Signals(number).name)

    def _listen_no_more(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    # one after the other

    def run(self, steps: Sequence[Step]) -> list[dict[str, Any]]:
        """Make them happen."""
        for position, step in enumerate(steps, 1):
            self._say(f"{position} of {len(steps)}: {step.name}")
            time.sleep(step.quiet)
            self._one(step)
            if self.done[-1]["whole"] is None:
                raise NotWhole(f"after {step.name}: {'; '.join(self.done[-1]['problems'][:3])}")
        return self.done

    def _one(self, step: Step) -> None:
        about = catalogue.describe(step.name)
        record: dict[str, Any] = {
            "name": step.name, "quiet": step.quiet, "dwell": step.dwell, "planned": self._is_planned(step.name),
            "survived": False, "error": "", "absent": "", "hands": False, "problems": [],
        }  # fmt: skip
        self.done.append(record)
        stage = Stage(self.nodes, self.health.cast(), self.health.cast, self.play, lambda: self.wait_until_whole(120))
        record["cast"] = asdict(stage.cast)
        now = time.monotonic()
        # Until they are known: nothing has happened, and the site is whole.
        record.update(began=now, injected=now, healed=now, whole=now, hits=[], blind=[])
        try:
            action = catalogue.build(step.name, stage)
        except Absent as error:
            self._say(f"{step.name}: {error}")
            record["absent"] = str(error)
            return
        record["survived"] = catalogue.survivable(step.name, action, self.nodes.groups)
        record["hits"], record["blind"] = sorted(action.hits), sorted(action.blind)
        self.current = action
        try:
            action.prepare()
            record["began"] = time.monotonic()
            self.log.mark(f"fault {step.name}", hits=sorted(action.hits))
            action.inject()
            record["injected"] = time.monotonic()
            time.sleep(step.dwell)
            record.update(self.before_heal(action, stage))
        except Absent as error:
            record["absent"] = str(error)
            self._say(f"{step.name}: {error}")
        except (NodeError, NotWhole, OSError) as error:
            record["error"] = str(error)
            self._say(f"{step.name} did not happen: {error}")
            record["injected"] = time.monotonic()
        record["healed"] = time.monotonic()
        self._heal(action, record)
        self.current = None
        self._recover(record, about["recovery"])
        if record["whole"] is not None:
            self.log.mark("whole")
            self.after()

    @staticmethod
    def _is_planned(name: str) -> bool:
        return all(fault.planned for fault in catalogue.find(name))

    def _heal(self, action: Action, record: dict[str, Any]) -> None:
        self.log.mark("healed")
        self._deaf = True
        try:
            if problem := self._try_to_heal(action):
                record["problems"].append(problem)
        finally:
            self._deaf = False
        if self._asked:
            raise Stopped("while it healed")

    def _try_to_heal(self, action: Action) -> str:
        """Heal, twice if need be: an engine that is busy may refuse the first time."""
        problem = ""
        for _ in range(2):
            try:
                action.heal()
                return ""
            except NodeError as error:
                problem = str(error)
                time.sleep(2)
        self._say(f"not healed: {problem}")
        return problem

    def _recover(self, record: dict[str, Any], seconds: float) -> None:
        try:
            self.wait_until_whole(seconds)
        except NotWhole as error:
            record["problems"].append(str(error))
            self._say(f"hands: {error}")
            problems = actions.sweep(self.nodes)
            actions.rescue(self.nodes, self.health.units)
            try:
                self.wait_until_whole(HANDS_SECONDS)
            except NotWhole as error:
                record["problems"] += [*problems, str(error)]
                record["whole"] = None
                return
        # Also when it was the fault that could not be healed: what is whole now was not left to itself.
        record["hands"] = bool(record["problems"])
        record["whole"] = time.monotonic()

    def wait_until_whole(self, seconds: float) -> None:
        """Wait until nothing is wrong with the site."""
        ends = time.monotonic() + seconds
        while problems := self.health.problems():
            if time.monotonic() > ends:
                raise NotWhole(f"not whole within {seconds:g} s: {'; '.join(problems[:4])}")
            time.sleep(POLL)

    @staticmethod
    def _say(text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
