"""Prints how long each play took and how many results it had: the number of module executions is what a run costs."""

from __future__ import annotations

import time

from ansible.playbook.play import Play
from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: play_times
type: aggregate
short_description: Time and module executions of each play
description:
  - Prints one line a play at the end of a run, the time it took in seconds and the number of modules it ran on hosts.
  - Skipped tasks cost next to nothing and are not counted.
options: {}
"""


class CallbackModule(CallbackBase):
    """Collects wall time and executions a play; prints them with the statistics."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "play_times"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self.started = time.monotonic()
        self.plays: list[dict] = []

    def _close(self) -> None:
        if self.plays and "seconds" not in self.plays[-1]:
            self.plays[-1]["seconds"] = time.monotonic() - self.plays[-1]["from"]

    def v2_playbook_on_play_start(self, play: Play) -> None:
        self._close()
        self.plays.append({"name": play.get_name(), "from": time.monotonic(), "executions": 0})

    def _count(self, result: object, **_: object) -> None:
        if self.plays:
            self.plays[-1]["executions"] += 1

    v2_runner_on_ok = _count
    v2_runner_on_failed = _count
    v2_runner_on_unreachable = _count

    def v2_playbook_on_stats(self, stats: object) -> None:
        self._close()
        self._display.banner("TIMES")
        for play in self.plays:
            self._display.display(f"{play['seconds']:7.1f} s {play['executions']:5d} results  {play['name']}")
        total = time.monotonic() - self.started
        executions = sum(play["executions"] for play in self.plays)
        self._display.display(f"{total:7.1f} s {executions:5d} results  in all")
