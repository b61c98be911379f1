"""What the samplers saw: kept in a file while a run goes on, and judged afterwards. The judging is pure."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.faults.nodes import RUNNING, NodeError, Nodes
from tests.load.history import History

Line = Mapping[str, Any]
SOURCE = Path(__file__).with_name("sampler.py")
THAW_GRACE = 0.5
"""How long a host may still be called active after it was frozen, or had no CPU, for longer than its lease.

Its marker is a file, which stays as it was until the agent has run. The agent looks at its deadline before anything
else, but the kernel has to give it a processor first.
"""
FROZEN = 2.5
"""Seconds without a look, after which a lease may be somebody else's: less than that cannot cost it."""
COVERED = 0.8
"""Of the time in which a node ran; less and nobody knows what was between the looks."""


# --- judging ---------------------------------------------------------------------------------------------------------


def segments(lines: Iterable[Line], word: str) -> dict[str, list[tuple[float, float]]]:
    """Return by node the times in which every look saw this word; neighbours that touch are one."""
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for line in sorted((line for line in lines if "state" in line), key=lambda line: line["from"]):
        if word not in line["state"].split():
            continue
        mine = found[line["node"]]
        if mine and line["from"] <= mine[-1][1]:
            mine[-1] = (mine[-1][0], max(line["to"], mine[-1][1]))
        else:
            mine.append((line["from"], line["to"]))
    return dict(found)


def overlaps(found: Mapping[str, Sequence[tuple[float, float]]]) -> Iterator[tuple[float, float, str, str]]:
    """Yield (from, to, node, node) where two nodes claim the same time.

    A single look is a moment: it overlaps only with a time of another node that surrounds it.
    """
    names = sorted(found)
    for number, one in enumerate(names):
        for other in names[number + 1 :]:
            for a in found[one]:
                for b in found[other]:
                    begin, end = max(a[0], b[0]), min(a[1], b[1])
                    if begin <= end:
                        yield begin, end, one, other


def woken(lines: Iterable[Line], node: str, moment: float, gap: float = FROZEN) -> float | None:
    """Return when a node was seen again, if it had not been for `gap` seconds until shortly before a moment."""
    looks = sorted((line["from"], line["to"]) for line in lines if line["node"] == node and "state" in line)
    before = [one for one in looks if one[0] <= moment]
    for earlier, later in zip(reversed(before[:-1]), reversed(before), strict=False):
        if later[0] - earlier[1] > gap:
            return later[0]
        if moment - later[0] > THAW_GRACE:
            return None
    return None


def two_active(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Return the times in which two app hosts were active, beyond what a host that woke up is granted."""
    found = []
    for begin, end, one, other in overlaps(segments(lines, "active")):
        awake = [moment for node in (one, other) if (moment := woken(lines, node, end)) is not None]
        if awake and end <= max(awake) + THAW_GRACE:
            continue
        found.append({"from": begin, "to": end, "seconds": round(end - begin, 3), "nodes": [one, other]})
    return found


def two_leaders(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Return commits that a leader acknowledged after its successor had acknowledged one.

    A leader that is cut off may well believe in itself for a while. What it must not do is to tell anybody that
    something is stored: with a synchronous standby it cannot.
    """
    commits = sorted((line for line in lines if "timeline" in line), key=lambda line: line["from"])
    first: dict[int, float] = {}
    for line in commits:
        first[line["timeline"]] = min(line["to"], first.get(line["timeline"], line["to"]))
    found = []
    for line in commits:
        newer = [
            timeline for timeline, moment in first.items() if timeline > line["timeline"] and moment < line["from"]
        ]
        if newer:
            found.append({**line, "newer": max(newer)})
    by_timeline: dict[int, set[str]] = defaultdict(set)
    for line in commits:
        by_timeline[line["timeline"]].add(line["node"])
    found += [{"timeline": one, "nodes": sorted(nodes)} for one, nodes in by_timeline.items() if len(nodes) > 1]
    return found


def seconds_seen(lines: Iterable[Line], node: str, begin: float, end: float) -> float:
    """Return how much of a time is in segments of a node."""
    mine = sorted((line["from"], line["to"]) for line in lines if line["node"] == node and "state" in line)
    seen, until = 0.0, begin
    for start, stop in mine:
        start, stop = max(start, until), min(stop, end)
        if stop > start:
            seen, until = seen + stop - start, stop
    return seen


def judge(lines: Sequence[Line], nodes: Mapping[str, Sequence[tuple[float, float]]]) -> dict[str, Any]:
    """Return figures and violations; `nodes` are the times in which each sampled node was running."""
    actives, leaders = two_active(lines), two_leaders(lines)
    vips = sum(end - begin for begin, end, *_ in overlaps(segments(lines, "vip")))
    wrong = [f"{' and '.join(one['nodes'])} were active at once for {one['seconds']} s" for one in actives]
    for one in leaders:
        if "newer" in one:
            wrong.append(
                f"{one['node']} acknowledged a commit on timeline {one['timeline']} after one on {one['newer']}"
            )
        else:
            wrong.append(f"{' and '.join(one['nodes'])} acknowledged commits on the same timeline {one['timeline']}")
    for node, times in nodes.items():
        asked = sum(end - begin for begin, end in times)
        seen = sum(seconds_seen(lines, node, begin, end) for begin, end in times)
        if asked <= 0 or seen < COVERED * asked:
            wrong.append(f"{node} was looked at for {seen:.0f} s of {asked:.0f} s: nobody knows what it did meanwhile")
    return {
        "looks": sum(line.get("n", 0) for line in lines),
        "commits": sum("timeline" in line for line in lines),
        "two_active": actives,
        "two_leaders": leaders,
        "two_virtual_ips_seconds": round(vips, 3),
        "violations": wrong,
    }


# --- looking ---------------------------------------------------------------------------------------------------------


class Samplers:
    """One reader for each node that can be active or lead; a node that was killed is taken up again when it is back."""

    def __init__(self, nodes: Nodes, path: Path) -> None:
        self.nodes, self.path = nodes, path
        path.unlink(missing_ok=True)
        self.history = History(path, new=True)
        self.stopping = threading.Event()
        self.processes: dict[str, subprocess.Popen[str]] = {}
        self.threads = [
            threading.Thread(target=self._follow, args=(node, kind), name=f"sampler {node}", daemon=True)
            for kind, group in (("app", "app"), ("database", "database"))
            for node in nodes.in_group(group)
        ]

    def __enter__(self) -> Samplers:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stopping.set()
        for process in list(self.processes.values()):
            with contextlib.suppress(OSError):
                assert process.stdin
                process.stdin.close()
            process.terminate()
        for thread in self.threads:
            thread.join(10)

    def _follow(self, node: str, kind: str) -> None:
        words = ["python3", "-I", "-u", "-c", SOURCE.read_text(encoding="utf-8"), kind]
        words += [self.nodes.virtual_ip] if kind == "app" else []
        while not self.stopping.is_set():
            with contextlib.suppress(NodeError, OSError):
                if self.nodes.status()[node] == RUNNING:
                    self._read(node, kind, words)
            self.stopping.wait(1)

    def _read(self, node: str, kind: str, words: list[str]) -> None:
        command = self.nodes.command(node, *words, user="postgres" if kind == "database" else "root")
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.processes[node] = process
        assert process.stdout
        for raw in process.stdout:
            with contextlib.suppress(ValueError):
                line = json.loads(raw)
                # As a line of a history, so that one reader reads both.
                self.history.write(kind="sample", began=line["from"], node=node, **line)
        process.wait(10)

    def lines(self) -> list[Line]:
        """Return what has been seen until now."""
        text = self.path.read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def running_times(
    begin: float, end: float, nodes: Iterable[str], down: Iterable[tuple[str, float, float]]
) -> dict[str, list[tuple[float, float]]]:
    """Return the times in which each node ran: all of it but those in which it was down or frozen."""
    found = {}
    for node in nodes:
        times, since = [], begin
        for _, start, stop in sorted(one for one in down if one[0] == node):
            if start > since:
                times.append((since, start))
            since = max(since, stop)
        if end > since:
            times.append((since, end))
        found[node] = times
    return found


def wait_until_seen(samplers: Samplers, seconds: float = 20) -> None:
    """Wait for the first look of every node; a run without samplers would prove nothing."""
    ends = time.monotonic() + seconds
    wanted = {thread.name.removeprefix("sampler ") for thread in samplers.threads}
    while (missing := wanted - {line["node"] for line in samplers.lines()}) and time.monotonic() < ends:
        time.sleep(0.3)
    if missing:
        raise NodeError(f"nobody looks at {', '.join(sorted(missing))}")
