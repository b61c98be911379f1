"""A history as an SVG: latency over time, marks as lines, failed requests in red, below whether anything succeeded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from tests.load.checker import ORDINARY, Line, Run, failure

WIDTH, HEIGHT = 1100, 420
LEFT, RIGHT, TOP, BOTTOM = 60, 20, 90, 40
COLOURS = {"send": "#1f77b4", "read": "#9a9a9a", "upload": "#2ca02c", "download": "#98df8a", "event": "#9467bd"}
LOWEST, HIGHEST = 0.001, 100.0


def _y(seconds: float) -> int:
    """Return the height of a latency, on a scale of powers of ten."""
    share = math.log10(min(max(seconds, LOWEST), HIGHEST) / LOWEST) / math.log10(HIGHEST / LOWEST)
    return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM))


def _points(history: Run) -> dict[str, set[tuple[float, float]]]:
    """Return (moment, seconds) by kind; an event's is the delay of its message to the slowest reader."""
    found: dict[str, set[tuple[float, float]]] = {kind: set() for kind in COLOURS}
    for line in history.ordinary:
        if not failure(line):
            found[line["kind"]].add((line["scheduled"], line["ended"] - line["scheduled"]))
    for line in history.requests:
        for nonce, _ in line.get("delivered", []):
            if told := history.acknowledged.get(nonce):
                found["event"].add((told["ended"], max(0.0, line["ended"] - told["ended"])))
    return found


def _faults(history: Run) -> list[tuple[float, float]]:
    """Return from when to when something was broken: from a mark `fault …` to the next `whole`."""
    found, since = [], None
    for mark in history.marks:
        if mark["name"].startswith("fault "):
            since = mark["began"] if since is None else since
        elif mark["name"] == "whole" and since is not None:
            found.append((since, mark["began"]))
            since = None
    return [*found, (since, history.end)] if since is not None else found


def _availability(history: Run) -> list[tuple[float, float, bool]]:
    """Return stretches of whole seconds in which something succeeded, and in which nothing did."""
    good = {int(line["ended"] - history.begin) for line in history.ordinary if not failure(line)}
    found: list[tuple[float, float, bool]] = []
    for second in range(int(history.end - history.begin)):
        begin, state = history.begin + second, second in good
        if found and found[-1][2] == state:
            found[-1] = (found[-1][0], begin + 1, state)
        else:
            found.append((begin, begin + 1, state))
    return found


def draw(lines: Sequence[Line]) -> str:
    """Return the picture. Points on the same pixel are drawn once, which keeps the file small."""
    history = Run(lines)
    seconds = max(history.end - history.begin, 1.0)

    def x(moment: float) -> int:
        return round(LEFT + min(max(moment - history.begin, 0.0), seconds) / seconds * (WIDTH - LEFT - RIGHT))

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif"'
        ' font-size="11">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
    ]
    for power in range(-3, 3):
        y = _y(10.0**power)
        parts.append(f'<path d="M{LEFT} {y}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{10.0**power:g} s</text>')
    step = next((n for n in (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 3600) if seconds / n <= 20), 7200)
    for t in range(0, int(seconds) + 1, step):
        parts.append(f'<text x="{x(history.begin + t)}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{t} s</text>')
    for begin, end in _faults(history):
        place = f'x="{x(begin)}" y="{TOP}" width="{max(x(end) - x(begin), 1)}" height="{HEIGHT - BOTTOM - TOP}"'
        parts.append(f'<rect {place} fill="#fff3e0"/>')
    for begin, end, good in _availability(history):
        place = f'x="{x(begin)}" y="{HEIGHT - 16}" width="{max(x(end) - x(begin), 1)}" height="8"'
        parts.append(f'<rect {place} fill="{"#98df8a" if good else "#d62728"}"/>')
    for kind, points in _points(history).items():
        pixels = sorted({(x(moment), _y(taken)) for moment, taken in points})
        if pixels:
            path = "".join(f"M{px - 1} {py}h2" for px, py in pixels)
            parts.append(f'<path d="{path}" stroke="{COLOURS[kind]}" stroke-width="2"/>')
    for line in history.requests:
        if why := failure(line):
            title = escape(f"{line['kind']}: {why}")
            place = f'cx="{x(line["began"])}" cy="{_y(line["ended"] - line["began"])}"'
            parts.append(f'<circle {place} r="3.5" fill="#d62728"><title>{title}</title></circle>')
    own = {"reader ends", "history ends"}
    for number, mark in enumerate(mark for mark in history.marks if mark["name"] not in own):
        at, height = x(mark["began"]), 34 + number % 5 * 11
        anchor = "end" if at > WIDTH * 0.8 else "start"
        parts.append(f'<path d="M{at} {height}V{HEIGHT - BOTTOM}" stroke="#ff7f0e" stroke-dasharray="3 3"/>')
        parts.append(
            f'<text x="{at + (-3 if anchor == "end" else 3)}" y="{height + 4}" text-anchor="{anchor}" fill="#b35900">'
            f"{escape(mark['name'])}</text>"
        )
    names = {**{kind: kind for kind in ORDINARY}, "event": "event after its message"}
    for number, (kind, colour) in enumerate([*COLOURS.items(), ("failed", "#d62728")]):
        left = LEFT + number * 160
        parts.append(f'<rect x="{left}" y="10" width="10" height="10" fill="{colour}"/>')
        parts.append(f'<text x="{left + 15}" y="19">{names.get(kind, kind)}</text>')
    return "\n".join([*parts, "</svg>", ""])
