"""What users saw of each fault: pure functions of a history and of the moments at which the faults happened."""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from tests.load.answers import OK
from tests.load.checker import Line, failure, percentile

RECENT = 5.0
"""Seconds before a cause is taken away, in which a site that survives it must have stored something."""
GAPS = {"writes": "a message is acknowledged", "reads": "something is read", "visits": "who comes anew gets a message",
        "events": "an open event queue, or its successor, gets a message"}  # fmt: skip


class Seen:
    """The moments at which users got what they wanted, in order, by what it was."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self.moments: dict[str, list[float]] = defaultdict(list)
        self.failed: list[float] = []
        readers: set[str] = set()
        for line in lines:
            if "outcome" not in line:
                continue
            kind = line["kind"]
            if kind == "visit" or kind == "change":
                # What a visitor's own message did is a request of its own.
                pass
            elif failure(line):
                self.failed.append(line["began"])
            if line["outcome"] != OK:
                continue
            if kind in ("send", "read", "visit"):
                self.moments[{"send": "writes", "read": "reads", "visit": "visits"}[kind]].append(line["ended"])
            if line.get("delivered"):
                readers.add(line["client"])
                self.moments[f"events of {line['client']}"].append(line["ended"])
        for moments in self.moments.values():
            moments.sort()
        self.failed.sort()
        self.readers = sorted(readers)

    def gap(self, name: str, begin: float, end: float) -> float | None:
        """Return the longest time between two of these moments that has a part in [begin, end]; None without any."""
        moments = self.moments.get(name)
        if not moments:
            return None
        first = max(bisect.bisect_right(moments, begin) - 1, 0)
        last = min(bisect.bisect_left(moments, end), len(moments) - 1)
        inside = moments[first : last + 1]
        longest = max((b - a for a, b in zip(inside, inside[1:], strict=False)), default=0.0)
        # What never came again has lasted until the end at least.
        return round(max(longest, end - moments[-1], 0.0), 3)

    def failures(self, begin: float, end: float) -> int:
        """Count requests that were made in a time and failed."""
        return bisect.bisect_left(self.failed, end) - bisect.bisect_left(self.failed, begin)

    def any(self, name: str, begin: float, end: float) -> bool:
        """Whether there is such a moment in a time."""
        moments = self.moments.get(name, [])
        return bisect.bisect_left(moments, begin) < bisect.bisect_right(moments, end)


def of_step(seen: Seen, step: Mapping[str, Any], lost: Sequence[float], since: float, end: float) -> dict[str, Any]:
    """Return what users saw of one fault.

    `lost` are the moments at which lost messages had been acknowledged: those between `since`, when the site was whole
    before the fault, and the moment at which it is whole again. `end` is that of the history.
    """
    begin, until = step["began"], step["whole"] or end
    found: dict[str, Any] = {name: seen.gap(name, begin, until) for name in ("writes", "reads", "visits")}
    events = [gap for reader in seen.readers if (gap := seen.gap(f"events of {reader}", begin, until)) is not None]
    found["events"] = max(events, default=None)
    found["failed"] = seen.failures(begin, until)
    found["lost"] = sum(since <= moment < until for moment in lost)
    lasted = step["healed"] - step["injected"]
    found["went_on"] = seen.any("writes", step["healed"] - RECENT, step["healed"]) if lasted > RECENT else None
    return found


def complaints(step: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with how the site took one fault, in words; `step` has its figures."""
    wrong = []
    if step.get("error"):
        wrong.append(f"{step['name']}: it did not happen: {step['error']}")
        return wrong
    if step["whole"] is None:
        wrong.append(f"{step['name']}: the site was not whole again, also by hand: {_few(step['problems'])}")
    elif step["hands"]:
        wrong.append(f"{step['name']}: it took hands: {_few(step['problems'])}")
    if step["survived"] and step["figures"]["went_on"] is False:
        wrong.append(f"{step['name']}: nothing was stored in the last {RECENT:g} s of it, which it should survive")
    if step["planned"] and step["figures"]["failed"]:
        wrong.append(f"{step['name']}: {step['figures']['failed']} requests failed, and none may")
    return wrong


def _few(problems: Sequence[str]) -> str:
    return "; ".join(problems[:3]) + (" …" if len(problems) > 3 else "")


def table(steps: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one row a kind of fault: how often, and the spread of what users saw."""
    by_name: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for step in steps:
        if not step.get("error") and not step.get("absent"):
            by_name[step["name"]].append(step)
    rows = []
    for name in sorted(by_name):
        mine = by_name[name]
        row: dict[str, Any] = {"name": name, "n": len(mine)}
        for gap in GAPS:
            values = [step["figures"][gap] for step in mine if step["figures"][gap] is not None]
            row[gap] = {
                word: round(percentile(values, share), 2) for word, share in (("p50", 0.5), ("p95", 0.95), ("max", 1.0))
            } if values else None  # fmt: skip
        row["failed"] = sum(step["figures"]["failed"] for step in mine)
        row["lost"] = sum(step["figures"]["lost"] for step in mine)
        row["by_itself"] = sum(step["whole"] is not None and not step["hands"] for step in mine)
        row["seconds_to_whole"] = max((step["whole"] - step["healed"] for step in mine if step["whole"]), default=None)
        rows.append(row)
    return rows
