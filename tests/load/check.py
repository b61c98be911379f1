"""python -m tests.load.check HISTORY: reads the messages back and judges a run. Exit 1: violated, 2: cannot tell."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from tests.load import checker, picture
from tests.load.__main__ import ROOT
from tests.load.answers import of_call
from tests.load.clients import download, nonce_in
from tests.load.history import Line, read
from tests.load.server import Refused, Server, messages_after


def number_or_any(text: str) -> float | None:
    """Read a limit; `any` is none."""
    return None if text == "any" else float(text)


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    default = checker.Thresholds()
    parser = argparse.ArgumentParser(prog="python -m tests.load.check", description=__doc__)
    parser.add_argument("history", type=Path)
    parser.add_argument("--state", type=Path, default=ROOT / "lab/state.json", help="the lab's state file")
    parser.add_argument("--host", default="", help="ask the virtual IP under this name, as DNS would have it")
    limit: dict[str, Any] = {"type": number_or_any, "metavar": "N|any"}
    parser.add_argument("--max-failed", default=default.max_failed, **limit, help="default: %(default)s")
    parser.add_argument("--max-gap", default=default.max_gap, **limit, help="seconds, default: %(default)s")
    parser.add_argument(
        "--max-stall", default=default.max_stall, **limit, help="seconds without any success, default: any"
    )
    parser.add_argument("--max-reregistered", default=default.max_reregistered, **limit, help="default: any")
    parser.add_argument("--min-rate", type=float, default=default.min_rate, help="requests/s, default: %(default)s")
    parser.add_argument("--min-requests", type=int, default=default.min_requests, help="default: %(default)s")
    parser.add_argument(
        "--patience", type=float, default=0, help="seconds that scheduled messages and jobs may still take"
    )
    parser.add_argument("--json", type=Path, help="write everything there")
    parser.add_argument("--markdown", type=Path, help="write the table there")
    parser.add_argument("--picture", type=Path, help="draw latencies, failures and marks there, as SVG")
    return parser.parse_args(arguments)


def messages_of(client: Any, lines: list[Line]) -> list[dict[str, Any]]:
    """Return the messages of a run as the server has them now, and whether the jobs that they caused were done."""
    begins = [line for line in lines if line["kind"] == "mark" and line["name"] == "load begins"]
    if not begins:
        raise Refused("the load never began")
    about = begins[0]["data"]
    done: set[str | None] = set()
    if any(line.get("job") for line in lines):
        rendered = messages_after(client, about["channel"], about["anchor"], rendered=True)
        done = {nonce_in(message["content"]) for message in rendered if "message_embed" in message["content"]}
    return [
        {"nonce": nonce, "id": message["id"], "topic": message["subject"], "job_done": nonce in done}
        for message in messages_after(client, about["channel"], about["anchor"])
        if (nonce := nonce_in(message["content"]))
    ]


def is_owed(lines: list[Line], final: list[dict[str, Any]]) -> bool:
    """Whether the server still has to send or to do something by itself."""
    history = checker.Run(lines)
    return bool(checker.plans(history, final)["lost"] or checker.jobs(history, final)["undone"])


def read_back(server: Server, lines: list[Line], patience: float = 0) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the messages of a run as the server has them now, and the uploads that it no longer has."""
    client = server.client(server.users[0], retry=True)
    final, ends = messages_of(client, lines), time.monotonic() + patience
    while time.monotonic() < ends and is_owed(lines, final):
        time.sleep(1)
        final = messages_of(client, lines)
    uploads = {line["url"]: line["sha256"] for line in lines if line["kind"] == "upload" and line["outcome"] == "ok"}
    lost = []
    for url, digest in uploads.items():
        answer = of_call(lambda url=url, digest=digest: download(client, url, digest), lambda: None)  # type: ignore[misc]
        if not answer.ok:
            lost.append(f"{url} ({answer.error})")
    return final, lost


def rows(measures: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the table."""

    def seconds(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f} s"

    def sizes(counts: dict[str, Any]) -> dict[str, Any]:
        return {name: len(value) if isinstance(value, list) else value for name, value in counts.items()}

    told, stall = measures["messages"], measures["stall"]
    readers = measures["readers"].values()
    table = [
        ("requests", f"{measures['requests']}, of these {measures['polls']} polls, in {measures['seconds']} s"),
        (
            "rate without polls",
            f"{measures['rate']}/s, lowest of 10 s {measures['lowest_rate_of_10_s']}/s,"
            f" {measures['missed_slots']} slots missed",
        ),
        ("failed requests", str(measures["failed"])),
        ("hit the rate limit", str(measures["limited"])),
        (
            "messages",
            f"{told['acknowledged']} acknowledged, {told['refused']} refused, {told['unknown']} without answer",
        ),
        ("lost messages", str(len(told["lost"]))),
        ("stored twice, out of order", f"{len(told['duplicates'])}, {len(told['disorder'])}"),
        ("scheduled messages, lost, sent twice", "{acknowledged}, {lost}, {twice}".format(**sizes(measures["plans"]))),
        ("jobs, never done", "{caused}, {undone}".format(**sizes(measures["jobs"]))),
        ("stale reads", str(len(measures["stale"]))),
        ("uploads, lost", f"{measures['uploads']}, {len(measures['uploads_lost'])}"),
        ("event gap", seconds(measures["event_gap"])),
        ("events that never came", str(sum(len(reader["undelivered"]) for reader in readers))),
        ("event queues lost", str(measures["reregistered"])),
        (
            "longest stall",
            f"{seconds(stall['all']['seconds'])}, writes {seconds(stall.get('write', {}).get('seconds'))}",
        ),
    ]
    for kind, found in measures["latency"].items():
        table.append(
            (
                f"latency {kind}",
                f"p50 {found['p50']:.3f} s, p95 {found['p95']:.3f} s, max {found['max']:.3f} s ({found['n']})",
            )
        )
    return table


def text(measures: dict[str, Any], wrong: list[str]) -> str:
    """Return table, violations and first failures for a terminal."""
    lines = [f"{name:<28}{value}" for name, value in rows(measures)]
    lines += [f"error {number:>5} x {what}" for what, number in measures["errors"].items()]
    lines += [
        f"failed at {one['t']:.1f} s ({one['at']}), {one['client']} after {one['took']:.2f} s,"
        f" in {one['phase']!r}: {one['error']}"
        for one in measures["examples"]
    ]
    return "\n".join(
        [*lines, *(f"VIOLATED: {one}" for one in wrong), "passed" if not wrong else f"{len(wrong)} violated"]
    )


def markdown(measures: dict[str, Any], wrong: list[str]) -> str:
    """Return table and violations as Markdown."""
    lines = [f"Load {measures['run']}, begun {measures['begin']}: " + ("**violated**" if wrong else "passed"), ""]
    lines += ["| what | figure |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows(measures))]
    if wrong:
        lines += ["", *(f"* {one}" for one in wrong)]
    if measures["errors"]:
        lines += ["", "| errors | what |", "| --- | --- |"]
        lines += [f"| {number} | {what.replace('|', chr(92) + '|')} |" for what, number in measures["errors"].items()]
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    """Check one history."""
    options = parse(arguments)
    allowed = checker.Thresholds(
        max_failed=None if options.max_failed is None else int(options.max_failed),
        max_gap=options.max_gap,
        max_stall=options.max_stall,
        max_reregistered=None if options.max_reregistered is None else int(options.max_reregistered),
        min_rate=options.min_rate,
        min_requests=options.min_requests,
    )
    try:
        lines = read(options.history)
        final, uploads_lost = read_back(Server(options.state, options.host), lines, options.patience)
    except (Refused, OSError, ValueError) as error:
        print(f"check: {error}", file=sys.stderr)
        return 2
    measures = checker.measure(lines, final, uploads_lost)
    wrong = checker.judge(measures, allowed)
    print(text(measures, wrong))
    if options.json:
        options.json.write_text(json.dumps({**measures, "violations": wrong}, indent=2) + "\n", encoding="utf-8")
    if options.markdown:
        options.markdown.write_text(markdown(measures, wrong), encoding="utf-8")
    if options.picture:
        options.picture.write_text(picture.draw(lines), encoding="utf-8")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
