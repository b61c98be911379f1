"""What there is: the repositories with their backups and how far each reaches, for programs and as a table."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable, Mapping
from typing import Any

from postgresql_backup_repository import BackupError, Config, backrest, broken_repository, utc
from postgresql_backup_wal import last_commit, newest_segments, waldump

COMMIT_SEGMENTS = 5
"""In so many segments from the end a commit is looked for. The canary makes one every half minute."""


def parse_stanzas(text: str) -> list[dict[str, Any]] | None:
    """Return what `pgbackrest info` says; None where it is no JSON.

    What a wrong key leaves of a file is quoted in there as it is, and may have a quotation mark in it.
    """
    try:
        found: list[dict[str, Any]] = json.loads(text or "[]", strict=False)
    except ValueError:
        return None
    return found


def parse_info(text: str, config: Config, now: float) -> list[dict[str, Any]]:
    """Return the repositories with their backups, out of `pgbackrest info`."""
    stanzas = parse_stanzas(text)
    if stanzas is None:
        broken = {"code": 99, "message": text}
        stanzas = [
            {
                "name": config.stanza,
                "repo": [{"key": item["number"], "status": broken} for item in config.repositories],
            }
        ]
    stanza: dict[str, Any] = next((entry for entry in stanzas if entry.get("name") == config.stanza), {})
    status = {entry["key"]: entry["status"] for entry in stanza.get("repo", ())}
    databases = {(entry["repo-key"], entry["id"]): entry for entry in stanza.get("db", ())}
    result = []
    for item in config.repositories:
        number = item["number"]
        said = status.get(number, {"code": 1, "message": "missing stanza path"})
        archives = [entry for entry in stanza.get("archive", ()) if entry["database"]["repo-key"] == number]
        newest: dict[str, Any] = max(archives, key=lambda entry: entry["database"]["id"], default={})
        last = databases.get((number, newest.get("database", {}).get("id")), {})
        error = broken_repository(config, number, said["message"]) if said["code"] == 99 else ""
        result.append(
            {
                **item,
                "error": error,
                "system_id": str(last.get("system-id", "")),
                "version": int(float(last.get("version", 0))),
                "archive": newest.get("id", ""),
                "newest_wal": newest.get("max"),
                "backups": [
                    parse_backup(entry, databases.get((number, entry["database"]["id"]), {}), now)
                    for entry in stanza.get("backup", ())
                    if entry["database"]["repo-key"] == number
                ],
            }
        )
    return result


def parse_backup(entry: Mapping[str, Any], database: Mapping[str, Any], now: float) -> dict[str, Any]:
    """Return one backup."""
    stop = entry["timestamp"]["stop"]
    return {
        "label": entry["label"],
        "type": entry["type"],
        "start": utc(entry["timestamp"]["start"]),
        "stop": utc(stop),
        "age_seconds": max(0, int(now - stop)),
        "seconds": stop - entry["timestamp"]["start"],
        "database_bytes": entry["info"]["size"],
        "repo_bytes": entry["info"]["repository"]["delta"],
        "wal_start": entry["archive"]["start"],
        "wal_stop": entry["archive"]["stop"],
        "needs": entry.get("reference") or [],
        "error": bool(entry.get("error")),
        "annotations": entry.get("annotation") or {},
        "system_id": str(database.get("system-id", "")),
        "version": int(float(database.get("version", 0))),
        "database_id": entry["database"]["id"],
    }


def info(config: Config) -> list[dict[str, Any]]:
    """Return the repositories with their backups."""
    text = backrest(config, "info", "--output=json").decode(errors="replace")
    if parse_stanzas(text) is not None:
        return parse_info(text, config, time.time())
    # One that does not open must not hide the others, so each is asked alone.
    found = []
    for number in config.numbers:
        text = backrest(config, "info", f"--repo={number}", "--output=json").decode(errors="replace")
        found += [entry for entry in parse_info(text, config, time.time()) if entry["number"] == number]
    return found


def reach(config: Config, repository: Mapping[str, Any]) -> dict[str, Any]:
    """Return how far a repository reaches: the time of the newest archived segment, and of the last commit in it."""
    segments = newest_segments(config, repository)
    if not segments:
        return {"newest_wal_at": None, "reaches": None}
    commit = None
    with contextlib.suppress(BackupError):
        for segment in reversed(segments[-COMMIT_SEGMENTS:]):
            commit = last_commit(waldump(config, repository["number"], segment, repository["version"], "Transaction"))
            if commit is not None:
                break
    # Without a commit nothing was lost up to the end of the segment; its file is younger than that.
    return {"newest_wal_at": segments[-1].time, "reaches": commit if commit is not None else segments[-1].time}


def survey(config: Config) -> list[dict[str, Any]]:
    """Return the repositories with their backups and how far they reach."""
    result = []
    for repository in info(config):
        found: dict[str, Any] = {"newest_wal_at": None, "reaches": None}
        if not repository["error"]:
            try:
                found = reach(config, repository)
            except BackupError as error:
                repository["error"] = str(error)
        stops = [backup["stop"] for backup in repository["backups"] if not backup["error"]]
        result.append(
            repository
            | {
                "newest_wal_at": utc(found["newest_wal_at"]),
                "archive_age_seconds": None
                if found["newest_wal_at"] is None
                else max(0, int(time.time() - found["newest_wal_at"])),
                "reaches": utc(found["reaches"]),
                "earliest": min(stops, default=None),
            }
        )
    return result


def bytes_text(count: float) -> str:
    """Return a number of bytes for people."""
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TB"


def age_text(seconds: float) -> str:
    """Return an age for people."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def table(repositories: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return what there is as lines for people."""
    lines = []
    for repository in repositories:
        lines.append(f"repository {repository['number']}: {repository['place']}")
        if repository["error"]:
            lines.append(f"  {repository['error']}")
            continue
        if not repository["backups"]:
            lines.append("  no backup yet")
        else:
            lines.append(f"  from {repository['earliest']} to {repository['reaches']}")
            lines.append(
                f"  {'LABEL':<34} {'TYPE':<5} {'STARTED':<20} {'TOOK':>8} {'AGE':>9} {'DATABASE':>10} {'STORED':>10}"
            )
        for backup in repository["backups"]:
            row = (
                f"  {backup['label']:<34} {backup['type']:<5} {backup['start']:<20} {age_text(backup['seconds']):>8} "
                f"{age_text(backup['age_seconds']):>9} {bytes_text(backup['database_bytes']):>10} "
                f"{bytes_text(backup['repo_bytes']):>10}"
            )
            lines.append(row + ("  BROKEN PAGES" if backup["error"] else ""))
    return lines
