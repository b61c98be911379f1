"""The report of a run as data: begun, grown phase by phase, ended. Every function returns a new one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .identity import run_by

FORMAT = 1
TIME = "%Y-%m-%dT%H:%M:%SZ"
CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")
WRITING = ("created", "changed", "removed")
CHANGES = "changes.jsonl"


def utc(now: datetime | None = None) -> str:
    """Return a time as reports and logs have it."""
    return (now or datetime.now(UTC)).strftime(TIME)


def _seconds(begun: str, ended: str) -> int:
    return int((datetime.strptime(ended, TIME) - datetime.strptime(begun, TIME)).total_seconds())


def plain(value: Any) -> Any:
    """Return data as JSON has it, without what Ansible hangs onto texts."""
    return json.loads(json.dumps(value, default=str))


def one_line(text: object) -> str:
    """Return a text as one line of a log."""
    return CONTROL.sub(lambda found: found.group().encode("unicode_escape").decode(), str(text))


def report_begin(
    verb: str, site: str, directory: str, hosts: Iterable[str], now: datetime | None = None
) -> dict[str, Any]:
    """Return the report of a run that begins.

    verb: what is run. site: name of the site. directory: of all reports; empty for a run that writes none, as in check
    mode.
    """
    began = utc(now)
    name = f"{re.sub(r'[-:]', '', began)}-{verb}"
    return {
        "format": FORMAT,
        "name": name,
        "directory": str(Path(directory) / name) if directory else "",
        "verb": str(verb),
        "site": str(site),
        "by": run_by(),
        "from": "",
        "to": "",
        "strategy": "",
        "restore_point": "",
        "began": began,
        "ended": "",
        "seconds": 0,
        # What stays when the run is killed.
        "result": "unfinished",
        "message": "",
        "hosts": [str(host) for host in hosts],
        "phases": [],
        "migrations": [],
        "moves": [],
        "changes": {},
        "errors": {},
        "notes": [],
    }


def report_with(report: Mapping[str, Any], facts: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a report with more facts: what is a list there grows, a mapping is merged, anything else is replaced."""
    result = plain(report)
    for key, value in plain(facts or {}).items():
        old = result.get(key)
        if isinstance(old, list):
            more = value if isinstance(value, list) else [value]
            result[key] = old + [entry for entry in more if entry not in old]
        elif isinstance(old, dict) and isinstance(value, dict):
            result[key] = {**old, **value}
        else:
            result[key] = value
    return result


def _end_phase(phases: list[dict[str, Any]], now: str) -> None:
    if phases and not phases[-1]["ended"]:
        phases[-1].update(ended=now, seconds=_seconds(phases[-1]["began"], now))


def report_phase(
    report: Mapping[str, Any], name: str, ends: bool = False, now: datetime | None = None
) -> dict[str, Any]:
    """Return a report in which a phase begins, and the one before it has ended.

    A phase that runs already goes on: a play with `serial` comes by once for each of its batches.
    """
    result, at = plain(report), utc(now)
    phases = result["phases"]
    running = phases[-1]["name"] if phases and not phases[-1]["ended"] else ""
    if ends or running != name:
        _end_phase(phases, at)
    if not ends and running != name:
        phases.append({"name": str(name), "began": at, "ended": "", "seconds": 0})
    return result


def report_end(
    report: Mapping[str, Any], result: str = "ok", message: str = "", now: datetime | None = None
) -> dict[str, Any]:
    """Return the report of a run that is over. A run that failed stays so, whatever is said after."""
    over, at = plain(report), utc(now)
    _end_phase(over["phases"], at)
    if over["result"] != "failed":
        over.update(result=str(result), message=str(message).strip())
    over.update(ended=at, seconds=_seconds(over["began"], at))
    return over


def releases(report: Mapping[str, Any]) -> str:
    """Return from which release to which, or the one, or nothing."""
    names = [str(report.get(key) or "") for key in ("from", "to")]
    return " -> ".join(name or "?" for name in names) if any(names) else ""


def report_line(report: Mapping[str, Any], text: str, now: datetime | None = None) -> str:
    """Return a line for the log of the hosts."""
    parts = [utc(now), report["verb"], releases(report), text, f"(by {report['by']})"]
    return one_line(" ".join(str(part) for part in parts if part))


def changed_files(result: Mapping[str, Any]) -> list[str]:
    """Return the files that one result of managed_files says it wrote."""
    files = result.get("files")
    if not isinstance(files, Mapping):
        return []
    return sorted(str(path) for path, action in files.items() if action in WRITING)


def report_changes(directory: str) -> dict[str, list[str]]:
    """Return the files that were written on each host, as the callback plugin run_report noted them during the run."""
    found: dict[str, set[str]] = {}
    try:
        lines = (Path(directory) / CHANGES).read_text(encoding="utf-8").splitlines() if directory else []
    except OSError:
        lines = []
    for line in lines:
        try:
            entry = json.loads(line)
            found.setdefault(entry["host"], set()).update(entry["files"])
        except (ValueError, KeyError, TypeError):
            # The last line of a run that was killed while it wrote.
            continue
    return {host: sorted(files) for host, files in sorted(found.items())}
