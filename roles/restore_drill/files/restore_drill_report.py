"""What is told of drills: figures for Prometheus, and a table for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from restore_drill_words import duration, size, timestamp

WORDS = {
    "choose": "the latest backup can be restored",
    "space": "there is room for it",
    "fetch": "its files are whole",
    "recover": "WAL was replayed",
    "end": "to the newest that is archived",
    "canary": "which is as new as it has to be",
    "amcheck": "tables and indexes are sound",
    "counts": "rows are those of the live database",
    "message": "the application reads a message",
    "uploads": "uploads have the right bytes",
    "remove": "the scratch instance is gone",
}


def metrics(state: Mapping[str, Any]) -> str:
    """Return the figures as Prometheus takes them from a file."""
    ended = [one for one in state["runs"] if one.get("ended") is not None]
    last = ended[-1] if ended else {}
    good: dict[str, Any] = next((one for one in reversed(ended) if one["ok"]), {})
    values: list[tuple[str, str, Any]] = [
        ("last_success_timestamp_seconds", "When the last drill ended in which everything was right.", None),
        ("last_run_timestamp_seconds", "When the last drill ended.", None),
        ("ok", "Whether everything was right in the last drill.", int(last["ok"]) if last else 0),
        ("seconds", "How long the last drill took, checks and all.", last.get("seconds")),
        ("bytes", "Bytes of the database that the last good drill restored.", good.get("bytes")),
        ("restore_seconds", "How long the last good drill took to restore the database and replay WAL.",
         good.get("restore_seconds")),
        ("seconds_per_gigabyte", "The same for 10^9 bytes of database.", good.get("seconds_per_gigabyte")),
    ]  # fmt: skip
    for place, key in ((0, "last_success"), (1, "last_run")):
        moment = state.get(key)
        values[place] = (*values[place][:2], timestamp(moment) if moment is not None else 0)
    lines = []
    for name, text, value in values:
        if value is not None:
            full = f"zulip_ha_restore_drill_{name}"
            lines += [f"# HELP {full} {text}", f"# TYPE {full} gauge", f"{full} {value:.10g}"]
    for name, text in (("ok", "Whether a step of the last drill went well."), ("seconds", "How long a step took.")):
        full = f"zulip_ha_restore_drill_check_{name}"
        steps = last.get("steps", [])
        lines += [f"# HELP {full} {text}", f"# TYPE {full} gauge"] if steps else []
        lines += [f'{full}{{check="{step["name"]}"}} {float(step[name]):.10g}' for step in steps]
    return "\n".join(lines) + "\n"


def table(entry: Mapping[str, Any]) -> list[str]:
    """Return a drill as lines for people."""
    lines = [f"{'STEP':<9} {'':<4} {'TIME':>8}  WHAT"]
    for step in entry.get("steps", []):
        verdict = "-" if step["skipped"] else "ok" if step["ok"] else "BAD"
        # What it says when all is well would be wrong beside what is not.
        words = f"{WORDS.get(step['name'], '')}: " if step["ok"] else ""
        text = f"{words}{step['detail']}".removesuffix(": ")
        lines.append(f"{step['name']:<9} {verdict:<4} {duration(step['seconds']):>8}  {text}")
    if entry.get("restore_seconds") is not None and entry.get("bytes"):
        rate = f", {entry['seconds_per_gigabyte']:.1f} s for each GB"
        lines.append(f"restored {size(entry['bytes'])} in {duration(entry['restore_seconds'])}{rate}")
    verdict = "all is well" if entry.get("ok") else f"RED: {entry.get('error') or 'it did not end'}"
    lines.append(f"began {entry.get('began')}, ended {entry.get('ended')}: {verdict}")
    return lines
