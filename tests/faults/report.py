"""python -m tests.faults.report RESULT.faults.json …: one table of many runs; --into FILE puts it between marks."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.faults import figures
from tests.faults.catalogue import FAULTS, describe

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


def _spread(value: Mapping[str, float] | None) -> str:
    return f"{value['p50']:.1f} / {value['p95']:.1f} / {value['max']:.1f}" if value else "–"


def markdown(results: Sequence[Mapping[str, Any]]) -> str:
    """Return the table, what was lost in all, and what was violated."""
    steps = [step for result in results for step in result["steps"]]
    happened = [step for step in steps if not step["absent"] and not step["error"]]
    survived = [step for step in happened if step["survived"]]
    by_itself = sum(step["whole"] is not None and not step["hands"] for step in survived)
    told = [result["load"]["messages"] for result in results]
    seeds = sorted({str(result["seed"]) for result in results if result["seed"] is not None})
    lines = [
        "| fault | n | writes | who comes anew | open event queues | requests failed | lost | by itself |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in figures.table(steps):
        lines.append(
            f"| {row['name']} | {row['n']} | {_spread(row['writes'])} | {_spread(row['visits'])}"
            f" | {_spread(row['events'])} | {row['failed']} | {row['lost']} | {row['by_itself']} of {row['n']} |"
        )
    waiting = [step["jobs_waiting"] for step in happened if step.get("jobs_waiting") is not None]
    jobs = [result["load"]["jobs"] for result in results]
    lines += [
        "",
        "Seconds, p50 / p95 / max: the longest time between two messages that were acknowledged, between two that"
        " somebody got who came anew, and between two that an event queue or its successor got.",
        "",
        f"* {len(happened)} faults in {len(results)} runs"
        + (f", seeds {', '.join(seeds)}" if seeds else "")
        + f"; early revocation {'on' if all(result['revokes_early'] for result in results) else 'off'}",
        f"* {sum(one['acknowledged'] for one in told)} messages acknowledged,"
        f" {sum(len(one['lost']) for one in told)} lost,"
        f" {sum(one['unknown'] for one in told)} without an answer",
        f"* {by_itself} of {len(survived)} faults that the design survives: whole again without hands",
        f"* {sum(len(result['samples']['two_active']) for result in results)} times two active hosts,"
        f" {sum(len(result['samples']['two_leaders']) for result in results)} commits of a second leader, in"
        f" {sum(result['samples']['looks'] for result in results)} looks",
        f"* {sum(result['load']['plans']['acknowledged'] for result in results)} scheduled messages,"
        f" {sum(len(result['load']['plans']['lost']) for result in results)} never sent,"
        f" {sum(len(result['load']['plans']['twice']) for result in results)} sent twice",
        f"* {sum(one['caused'] for one in jobs)} jobs, {sum(len(one['undone']) for one in jobs)} never done,"
        f" {sum(waiting)} waited for a lost host in {len(waiting)} losses",
    ]
    violations = [f"{result['name']}: {one}" for result in results for one in result["violations"]]
    lines += ["", *(f"* **violated** {one}" for one in violations)] if violations else ["", "Nothing was violated."]
    return "\n".join(lines) + "\n"


def catalogue() -> str:
    """Return the table of what each fault is, from the code."""
    lines = ["| fault | what users see | survived | lasts |", "| --- | --- | --- | --- |"]
    for name in FAULTS:
        about = describe(name)
        lasts = f"{about['dwell']:g} s" if about["dwell"] else "a moment"
        lines.append(f"| {name} | {about['users']} | {'yes' if about['survived'] else 'no'} | {lasts} |")
    return "\n".join(lines) + "\n"


def put_into(text: str, what: str, begin: str = BEGIN, end: str = END) -> str:
    """Return a text with what stands between its two marks replaced."""
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f"{begin} and {end} have to be there once")
    return re.sub(f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: f"{begin}\n{what}{end}", text, flags=re.DOTALL)


def main(arguments: list[str]) -> int:
    """Print, or put into a file."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.report", description=__doc__)
    parser.add_argument("results", nargs="*", type=Path, help="the .faults.json files of runs")
    parser.add_argument("--into", type=Path, help="a Markdown file with marks")
    parser.add_argument("--catalogue", action="store_true", help="the table of what each fault is instead")
    options = parser.parse_args(arguments)
    if not options.catalogue and not options.results:
        parser.error("no results were named")
    results = [json.loads(path.read_text(encoding="utf-8")) for path in options.results]
    what = catalogue() if options.catalogue else markdown(results)
    if not options.into:
        print(what, end="")
        return 0
    marks = ("<!-- faults: begin -->", "<!-- faults: end -->") if options.catalogue else (BEGIN, END)
    options.into.write_text(put_into(options.into.read_text(encoding="utf-8"), what, *marks), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
