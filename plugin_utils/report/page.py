"""The report as a page and as a table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from .record import releases

TEMPLATE = Path(__file__).resolve().parents[2] / "playbooks/templates/report.html.j2"


def duration(seconds: float) -> str:
    """Return a time in the two units that matter."""
    whole = int(seconds)
    if whole < 60:
        return f"{seconds:g} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _move(move: Any) -> str:
    """Return one move in words, of what its program says of it: `what`, `from`, `to`, `stall_seconds`, `seconds`."""
    if not isinstance(move, Mapping):
        return str(move)
    what = f"{move['what']}: " if move.get("what") else ""
    if move.get("moved") is False:
        return f"{what}not moved{', ' + str(move['why']) if move.get('why') else ''}"
    parts = [" -> ".join(str(move[key]) for key in ("from", "to") if move.get(key)) or "moved"]
    if move.get("stall_seconds") is not None:
        parts.append(f"stall {duration(float(move['stall_seconds']))}")
    steps = move.get("seconds")
    if isinstance(steps, Mapping):
        parts += [f"{name.replace('_', ' ')} {duration(float(value))}" for name, value in steps.items()]
    parts += [str(notice) for notice in move.get("notices") or []]
    return what + ", ".join(parts)


def _migration(migration: Any) -> str:
    """Return one migration in words."""
    if not isinstance(migration, Mapping):
        return str(migration)
    name = ".".join(str(migration[key]) for key in ("app", "name") if migration.get(key))
    kind = migration.get("kind") or migration.get("effect")
    return f"{name} ({kind})" if kind else name


def report_html(report: Mapping[str, Any]) -> str:
    """Return the page: one file without links to anything, and with everything escaped."""
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters.update(duration=duration, move=_move, migration=_migration)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    longest = max([float(phase["seconds"]) for phase in report["phases"]] or [0]) or 1
    return template.render(report=report, releases=releases(report), longest=longest)


def report_table(report: Mapping[str, Any]) -> list[str]:
    """Return the report as the lines of a table, for the end of a run."""
    rows: list[tuple[str, object]] = [
        ("verb", f"{report['verb']} on {report['site']}, by {report['by']}"),
        ("result", f"{report['result']}{': ' + str(report['message']) if report['message'] else ''}"),
        ("release", releases(report)),
        ("strategy", report["strategy"]),
        ("began", report["began"]),
        ("took", duration(report["seconds"]) if report["ended"] else ""),
        ("restore point", report["restore_point"]),
    ]
    rows += [
        (f"phase {phase['name']}", duration(phase["seconds"]) if phase["ended"] else "…") for phase in report["phases"]
    ]
    rows += [("migration", _migration(entry)) for entry in report["migrations"]]
    rows += [("move", _move(entry)) for entry in report["moves"]]
    rows += [(f"files on {host}", len(files)) for host, files in report["changes"].items()]
    for host, files in report["errors"].items():
        for path, found in files.items():
            rows.append((f"errors on {host}", f"{found['entries']} new in {path}{' (cut)' if found['cut'] else ''}"))
            rows += [("", f"{group['count']} x {group['text']}") for group in found["groups"]]
    rows += [("note", note) for note in report["notes"]]
    if report["directory"]:
        rows.append(("report", f"{report['directory']}/report.html"))
    rows = [(name, value) for name, value in rows if value != ""]
    width = max(len(name) for name, _ in rows)
    return [f"{name.upper():<{width}}  {value}".rstrip() for name, value in rows]
