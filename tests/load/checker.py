"""What a history says about the server: pure functions from its lines to measures, and from measures to a judgement."""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.load.answers import LIMITED, OK, REFUSED, REQUEUED

Line = dict[str, Any]

# Kinds with a schedule, whose rate is promised; and how each is called in sums.
ORDINARY = {"send": "write", "read": "read", "upload": "upload", "download": "download"}
# What zulip.Client allows a request. Its limit is for each packet: an answer in drops takes longer and "succeeds".
ANSWER_LIMIT = 15.0
# A poll is answered within 60 s, by a heartbeat at least. After 90 s zulip.Client asks again without saying so.
POLL_LIMIT = 85.0
EXAMPLES = 5


@dataclass(frozen=True)
class Thresholds:
    """What a run may show; None: anything."""

    max_failed: int | None = 0
    max_gap: float | None = 5.0
    max_stall: float | None = None
    max_reregistered: int | None = None
    min_rate: float = 20.0
    min_requests: int = 100


def failure(line: Line) -> str | None:
    """Return why a request counts as failed, None when it does not."""
    if line["outcome"] == LIMITED:
        return None
    if line["outcome"] not in (OK, REQUEUED):
        return str(line.get("error") or line["outcome"])
    limit = POLL_LIMIT if line["kind"] == "poll" else ANSWER_LIMIT
    return f"answered only after more than {limit:g} s" if line["ended"] - line["began"] > limit else None


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that this share of all does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return median, 95th percentile and maximum."""
    return {name: round(percentile(values, share), 3) for name, share in (("p50", 0.5), ("p95", 0.95), ("max", 1.0))}


def longest_pause(moments: Iterable[float], begin: float, end: float) -> tuple[float, float]:
    """Return the longest time without one of the moments between begin and end, and when it began."""
    inside = [begin, *sorted(moment for moment in moments if begin < moment < end), end]
    return max(((b - a, a) for a, b in itertools.pairwise(inside)), default=(0.0, begin))


def _descents(items: Sequence[tuple[int, str]]) -> list[tuple[str, str]]:
    """Return the neighbours of which the second has the lower number."""
    return [(a[1], b[1]) for a, b in itertools.pairwise(items) if b[0] < a[0]]


class Run:
    """A history, sorted into what the questions below need."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self.lines = lines
        self.requests = [line for line in lines if "outcome" in line]
        self.ordinary = [line for line in self.requests if line["kind"] in ORDINARY]
        self.marks = [line for line in lines if line["kind"] == "mark"]
        begins, ends = self.named("load begins"), self.named("load ends")
        # Readers had the time to get everything.
        self.ended = bool(self.named("history ends"))
        moments: list[float] = [line["ended"] if "ended" in line else line["began"] for line in lines]
        self.begin: float = begins[0]["began"] if begins else min((line["began"] for line in lines), default=0.0)
        self.last = max(moments, default=0.0)
        self.end: float = ends[-1]["began"] if ends else self.last
        self.about: dict[str, Any] = begins[0]["data"] if begins else {}
        self.sends = {line["nonce"]: line for line in self.requests if line["kind"] in ("send", "last")}
        self.planned = {line["nonce"]: line for line in self.requests if line["kind"] == "schedule"}
        self.acknowledged = {nonce: line for nonce, line in self.sends.items() if line["outcome"] == OK}
        self.readers = sorted(
            {line["client"] for line in self.requests if line["kind"] in ("register", "poll", "catchup")}
        )

    def named(self, name: str) -> list[Line]:
        """Return the marks of this name."""
        return [line for line in self.marks if line["name"] == name]

    def since_begin(self, moment: float) -> float:
        """Return a moment as seconds of the run."""
        return round(moment - self.begin, 3)

    def phase(self, moment: float) -> str:
        """Return the last mark before a moment."""
        return next((line["name"] for line in reversed(self.marks) if line["began"] <= moment), "")


def failures(history: Run) -> dict[str, Any]:
    """Count what failed, by kind and text."""
    failed = [(line, why) for line in history.requests if (why := failure(line))]
    return {
        "failed": len(failed),
        "failed_by_kind": dict(Counter(line["kind"] for line, _ in failed)),
        "errors": dict(Counter(f"{line['kind']}: {why}" for line, why in failed).most_common()),
        "examples": [
            {
                "t": history.since_begin(line["began"]),
                "at": line["at"],
                "took": round(line["ended"] - line["began"], 3),
                "client": line["client"],
                "kind": line["kind"],
                "outcome": line["outcome"],
                "phase": history.phase(line["began"]),
                "error": why,
            }
            for line, why in failed[:EXAMPLES]
        ],
        "limited": sum(line["outcome"] == LIMITED for line in history.requests),
    }


def rates(history: Run) -> dict[str, Any]:
    """Count requests, and what the schedule had to leave out."""
    seconds = history.end - history.begin
    number = len(history.ordinary)
    windows = Counter(int((line["began"] - history.begin) // 10) for line in history.ordinary)
    whole = [windows[n] / 10 for n in range(int(seconds // 10))]
    return {
        "seconds": round(seconds, 1),
        "requests": len(history.requests),
        "ordinary": number,
        "polls": sum(line["kind"] == "poll" for line in history.requests),
        "rate": round(number / seconds, 1) if seconds > 0 else 0.0,
        "lowest_rate_of_10_s": min(whole, default=None),
        "missed_slots": sum(line["slots"] for line in history.lines if line["kind"] == "missed"),
    }


def latencies(history: Run) -> dict[str, dict[str, float]]:
    """Return the spread of latencies by kind, from the moment at which each request was due.

    A slot that went by counts with the time until its client was free again, which a request would have waited.
    """
    found: dict[str, list[float]] = defaultdict(list)
    for line in history.ordinary:
        found[line["kind"]].append(line["ended"] - line["scheduled"])
    for line in history.lines:
        if line["kind"] == "missed":
            found[line["of"]] += [line["ended"] - line["began"] - n * line["interval"] for n in range(line["slots"])]
    return {kind: {"n": len(values), **spread(values)} for kind, values in sorted(found.items())}


def stalls(history: Run) -> dict[str, dict[str, float]]:
    """Return the longest time between two successes, over all scheduled requests and by kind."""
    good = [line for line in history.ordinary if line["outcome"] == OK]
    found = {}
    for name in ("all", *dict.fromkeys(ORDINARY.values())):
        chosen = [line["ended"] for line in good if name in ("all", ORDINARY[line["kind"]])]
        if chosen or name == "all":
            pause, since = longest_pause(chosen, history.begin, history.end)
            found[name] = {"seconds": round(pause, 3), "t": history.since_begin(since)}
    return found


def messages(history: Run, final: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Compare what writers were told with what the server has: `final` are {nonce, id, topic}."""
    run = f"{history.about.get('run', '')}-"
    ours = sorted((one for one in final if one["nonce"].startswith(run)), key=lambda one: one["id"])
    present: dict[str, list[int]] = defaultdict(list)
    for one in ours:
        present[one["nonce"]].append(one["id"])
    refused = [nonce for nonce, line in history.sends.items() if line["outcome"] in (REFUSED, LIMITED)]
    unknown = [nonce for nonce, line in history.sends.items() if line["outcome"] not in (OK, REFUSED, LIMITED)]
    acknowledged = history.acknowledged

    by_topic: dict[tuple[str, str], list[tuple[int, str]]] = defaultdict(list)
    for one in ours:
        # A message whose sender got no answer may have been stored at any time.
        if line := acknowledged.get(one["nonce"]):
            by_topic[line["client"], one["topic"]].append((line["seq"], one["nonce"]))
    disorder = [pair for items in by_topic.values() for pair in _descents(items)]
    return {
        "acknowledged": len(acknowledged),
        "refused": len(refused),
        "unknown": len(unknown),
        "unknown_present": sum(nonce in present for nonce in unknown),
        "present": len(ours),
        # An acknowledgement names the message, so another ID means that the acknowledged row is gone.
        "lost": sorted(nonce for nonce, line in acknowledged.items() if line["id"] not in present.get(nonce, [])),
        "refused_present": sorted(nonce for nonce in refused if nonce in present),
        "duplicates": sorted(nonce for nonce, ids in present.items() if len(ids) > 1),
        "strangers": sorted(nonce for nonce in present if nonce not in history.sends and nonce not in history.planned),
        "wrong_topic": sorted(
            one["nonce"]
            for one in ours
            if one["nonce"] in history.sends and one["topic"] != history.sends[one["nonce"]]["topic"]
        ),
        "disorder": disorder,
    }


def plans(history: Run, final: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Compare what was scheduled with what the server sent by itself: each once."""
    times = Counter(one["nonce"] for one in final)
    accepted = [nonce for nonce, line in history.planned.items() if line["outcome"] == OK]
    refused = [nonce for nonce, line in history.planned.items() if line["outcome"] in (REFUSED, LIMITED)]
    return {
        "acknowledged": len(accepted),
        "lost": sorted(nonce for nonce in accepted if not times[nonce]),
        "twice": sorted(nonce for nonce in history.planned if times[nonce] > 1),
        "refused_present": sorted(nonce for nonce in refused if times[nonce]),
    }


def jobs(history: Run, final: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Compare the jobs that acknowledged messages caused with those that a worker did."""
    done = {one["nonce"] for one in final if one.get("job_done")}
    caused = [nonce for nonce, line in history.acknowledged.items() if line.get("job")]
    return {"caused": len(caused), "undone": sorted(nonce for nonce in caused if nonce not in done)}


def stale_reads(history: Run) -> list[str]:
    """Return reads that show what had been changed before they began: a cache kept it.

    A change is a line {kind: change, email, role}; what is read while one is under way may be either.
    """
    changes = [line for line in history.requests if line["kind"] == "change"]
    found = []
    for line in history.requests:
        if "role" not in line or line["kind"] != "read" or line["outcome"] != OK:
            continue
        mine = [change for change in changes if change["email"] == line["email"]]
        before = [change for change in mine if change["ended"] < line["began"]]
        under_way = [change for change in mine if change["ended"] >= line["began"] and change["began"] <= line["ended"]]
        # A change without an answer may have happened or not, and later too.
        if (
            before
            and not under_way
            and all(change["outcome"] == OK for change in mine if change["began"] < line["ended"])
        ):
            now = before[-1]["role"]
            if line["role"] != now:
                found.append(f"{line['client']} at {history.since_begin(line['began'])} s: {line['role']}, not {now}")
    return found


def deliveries(history: Run, final: Sequence[dict[str, Any]], grace: float) -> dict[str, Any]:
    """Compare what was acknowledged with what each reader got.

    A reader is live from its first event queue until the run's last message came, or the history ends. In a history
    that was cut off, messages of its last `grace` seconds may be missing.
    """
    on_server = {one["nonce"] for one in final}
    complete = {mark["data"]["client"] for mark in history.named("reader ends") if mark["data"]["complete"]}
    readers = {}
    for reader in history.readers:
        lines = [line for line in history.requests if line["client"] == reader]
        live_since = next(
            (line["ended"] for line in lines if line["kind"] == "register" and line["outcome"] == OK), None
        )
        first: dict[str, float] = {}
        by_poll: Counter[tuple[str, int]] = Counter()
        order: dict[str, list[tuple[int, str]]] = defaultdict(list)
        for line in sorted(lines, key=lambda line: line["ended"]):
            for nonce, number in line.get("delivered", []):
                by_poll[nonce, number] += line["kind"] == "poll"
                if nonce not in first:
                    first[nonce] = line["ended"]
                    if told := history.acknowledged.get(nonce):
                        order[told["client"]].append((told["seq"], nonce))
        owed = {
            nonce: line
            for nonce, line in history.sends.items()
            if live_since is not None and line["began"] >= live_since and line["kind"] == "send"
        }
        missing = [
            nonce
            for nonce, line in owed.items()
            if nonce not in first and (history.ended or line["ended"] < history.last - grace)
        ]
        # A message may arrive before its sender gets the answer.
        delays = {
            nonce: max(0.0, first[nonce] - line["ended"])
            for nonce, line in history.acknowledged.items()
            if nonce in first and nonce in owed
        }
        worst = max(delays, key=lambda nonce: delays[nonce], default=None)
        readers[reader] = {
            "delivered": sum(nonce in owed for nonce in first),
            "delay": spread(list(delays.values())) if delays else None,
            "worst": worst,
            "worst_t": history.since_begin(history.acknowledged[worst]["ended"]) if worst else None,
            "undelivered": sorted(nonce for nonce in missing if nonce in history.acknowledged),
            "undelivered_unacknowledged": sorted(
                nonce for nonce in missing if nonce not in history.acknowledged and nonce in on_server
            ),
            "repeated": sorted(nonce for (nonce, _), times in by_poll.items() if times > 1),
            "disorder": [pair for items in order.values() for pair in _descents(items)],
            "reregistered": sum(line["outcome"] == REQUEUED for line in lines),
            "complete": reader in complete or not history.ended,
        }
    return {
        "readers": readers,
        "event_gap": max((one["delay"]["max"] for one in readers.values() if one["delay"]), default=None),
        "reregistered": sum(one["reregistered"] for one in readers.values()),
    }


def measure(
    lines: Sequence[Line], final: Sequence[dict[str, Any]], uploads_lost: Sequence[str] = (), grace: float = 5.0
) -> dict[str, Any]:
    """Return everything that a history and the server's messages after it show."""
    history = Run(lines)
    return {
        "run": history.about.get("run"),
        "begin": next((mark["at"] for mark in history.named("load begins")), None),
        "ended": history.ended,
        "died": [mark["data"] for mark in history.named("client died")],
        "stuck": [name for mark in history.named("history ends") for name in mark["data"]["stuck"]],
        **rates(history),
        **failures(history),
        "latency": latencies(history),
        "stall": stalls(history),
        "messages": messages(history, final),
        "plans": plans(history, final),
        "jobs": jobs(history, final),
        "stale": stale_reads(history),
        **deliveries(history, final, grace),
        "uploads": sum(line["kind"] == "upload" and line["outcome"] == OK for line in history.requests),
        "uploads_lost": list(uploads_lost),
        "marks": [
            {"t": history.since_begin(mark["began"]), "at": mark["at"], "name": mark["name"], "data": mark["data"]}
            for mark in history.marks
        ],
    }


def _some(items: Sequence[Any]) -> str:
    shown = ", ".join(" before ".join(reversed(item)) if isinstance(item, tuple) else str(item) for item in items[:3])
    return shown + (", …" if len(items) > 3 else "")


def judge(measures: dict[str, Any], allowed: Thresholds) -> list[str]:
    """Return what is wrong, in words; an empty list means that the run tested the server and the server passed."""
    wrong: list[str] = []
    told = measures["messages"]

    def say(condition: Any, text: str) -> None:
        if condition:
            wrong.append(text)

    def above(value: float | None, limit: float | None) -> bool:
        return value is not None and limit is not None and value > limit

    # Whether anything was tested.
    say(not measures["ended"], "the load did not end by itself: the history is cut off")
    for one in measures["died"]:
        wrong.append(f"{one['client']} died of a defect of the load: {one['error']}")
    say(measures["stuck"], f"clients did not end: {_some(measures['stuck'])}")
    say(measures["limited"], f"{measures['limited']} requests hit the server's rate limit: the load is set up wrongly")
    say(
        measures["ordinary"] < allowed.min_requests,
        f"only {measures['ordinary']} requests were made, at least {allowed.min_requests} are needed",
    )
    say(
        measures["rate"] < allowed.min_rate,
        f"{measures['rate']} requests/s is below {allowed.min_rate:g} ({measures['missed_slots']} slots missed)",
    )
    say(not told["acknowledged"], "no message was acknowledged")
    say(not measures["readers"], "there was no reader")
    for name, reader in measures["readers"].items():
        say(not reader["delivered"], f"{name} got no message at all")

    # What the server did.
    worst = next(iter(measures["errors"].items()), ("", 0))
    say(
        above(measures["failed"], allowed.max_failed),
        f"{measures['failed']} requests failed, {allowed.max_failed} may; {worst[1]} of them: {worst[0]}",
    )
    for key, text in (
        ("lost", "acknowledged messages are lost"),
        ("refused_present", "refused messages were stored"),
        ("duplicates", "messages are stored twice"),
        ("strangers", "messages are stored that nobody sent"),
        ("wrong_topic", "messages are in another topic than they were sent to"),
        ("disorder", "messages are stored in another order than they were sent in"),
    ):
        say(told[key], f"{len(told[key])} {text}: {_some(told[key])}")
    for key, text in (
        ("lost", "messages that the server was to send later were never sent"),
        ("twice", "messages that the server was to send later were sent twice"),
        ("refused_present", "messages were sent later though that was refused"),
    ):
        plan = measures["plans"][key]
        say(plan, f"{len(plan)} {text}: {_some(plan)}")
    undone, stale = measures["jobs"]["undone"], measures["stale"]
    say(undone, f"{len(undone)} of {measures['jobs']['caused']} jobs were never done: {_some(undone)}")
    say(stale, f"{len(stale)} reads show what had been changed before: {_some(stale)}")
    lost = measures["uploads_lost"]
    say(lost, f"{len(lost)} acknowledged uploads are lost or changed: {_some(lost)}")
    for name, reader in measures["readers"].items():
        for key, text in (
            ("undelivered", "acknowledged messages never came"),
            ("repeated", "messages came twice"),
            ("disorder", "messages came in another order than they were sent in"),
        ):
            say(reader[key], f"{name}: {len(reader[key])} {text}: {_some(reader[key])}")
        say(not reader["complete"], f"{name} never got the last message of the run")
        delay = reader["delay"] or {"max": None}
        say(
            above(delay["max"], allowed.max_gap),
            f"{name}: an event came {delay['max']} s after its message was acknowledged,"
            f" {allowed.max_gap} s are allowed ({reader['worst']} at {reader['worst_t']} s)",
        )
    stall = measures["stall"]["all"]
    say(
        above(stall["seconds"], allowed.max_stall),
        f"nothing succeeded for {stall['seconds']} s from {stall['t']} s on, {allowed.max_stall} s are allowed",
    )
    say(
        above(measures["reregistered"], allowed.max_reregistered),
        f"readers lost their event queue {measures['reregistered']} times, {allowed.max_reregistered} are allowed",
    )
    return wrong
