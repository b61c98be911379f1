"""Which backup gets a restore to its target, and that all is there which it needs."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from postgresql_backup_repository import WARNING, BackupError, Config, exact, listing, repository_file, say, utc
from postgresql_backup_survey import survey
from postgresql_backup_wal import Segment, archive, segment_number, waldump, walk

POINT = re.compile(r"\bRESTORE_POINT (?P<name>.*?)\s*\Z")
STAMP = re.compile(r"(?P<date>\d{4}-?\d\d-?\d\d)[T_-](?P<clock>\d\d[:-]?\d\d(?:[:-]?\d\d)?)")


# ---- the target ------------------------------------------------------------------------------------------------------


class Target(NamedTuple):
    """Where a restore is to end: at the latest moment, at a time, or at a named point."""

    kind: str
    text: str = ""
    time: float | None = None


def parse_target(text: str) -> Target:
    """Return what `--to` says."""
    if text == "latest":
        return Target("latest")
    if text.startswith("name:"):
        name = text.removeprefix("name:")
        if not name or "\n" in name:
            raise BackupError("name: needs the name of a restore point, as in name:20260101T020000Z-upgrade")
        return Target("name", name)
    try:
        moment = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
    except ValueError:
        raise BackupError(
            f"{text} is no moment: write latest, name:POINT, or a time like 2026-01-31T14:05:00Z"
        ) from None
    # Without a zone, as the backup host's clock has it.
    return Target("time", text, moment.astimezone(UTC).timestamp())


def name_time(name: str) -> float | None:
    """Return the time in the name of a restore point, as the site's runs name them (20260131T140500Z-upgrade)."""
    match = STAMP.search(name)
    if not match:
        return None
    digits = re.sub(r"\D", "", match["date"] + match["clock"]).ljust(14, "0")
    try:
        return datetime.strptime(digits, "%Y%m%d%H%M%S").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None


def find_point(
    config: Config, repository: Mapping[str, Any], name: str, segments: Sequence[Segment], version: int
) -> Segment:
    """Return the segment that holds a restore point. From about the time in its name on, else from the newest back."""
    hint = name_time(name)
    if hint is not None:
        order = [segment for segment in segments if segment.time >= hint - 3600]
    else:
        order = list(reversed(segments))
    for count, segment in enumerate(order, 1):
        for line in waldump(config, repository["number"], segment, version, "XLOG"):
            match = POINT.search(line)
            if match and match["name"].strip() == name:
                return segment
        if count % 100 == 0:
            say(f"looking for the restore point {name}: {count} of {len(order)} segments")
    raise BackupError(f"no restore point {name} in repository {repository['number']} ({repository['place']})")


# ---- a backup's files ------------------------------------------------------------------------------------------------


def check_set(config: Config, number: int, backup: Mapping[str, Any]) -> None:
    """Refuse a backup whose manifest, or a file it names, is not there, in itself or in one that it builds on."""
    label = backup["label"]
    text = repository_file(config, number, f"backup/{config.stanza}/{label}/backup.manifest")
    if text is None:
        raise BackupError(f"backup {label} of repository {number} has no manifest")
    wanted = manifest_files(text.decode(errors="replace"), label)
    if not any(wanted.values()):
        raise BackupError(f"the manifest of backup {label} of repository {number} is broken or empty")
    for other, names in wanted.items():
        folder = f"backup/{config.stanza}/{other}"
        there = {stem(name) for name in listing(config, number, folder, recurse=True)}
        gone = sorted(names - there)
        if gone:
            raise BackupError(f"backup {label} of repository {number} lacks {other}/{gone[0]}")


def stem(name: str) -> str:
    """Return a file's name without what compression and block increments add."""
    return re.sub(r"(?:\.pgbi|\.gz|\.lz4|\.zst|\.bz2)\Z", "", name)


def manifest_files(manifest: str, label: str) -> dict[str, set[str]]:
    """Return the files that a manifest needs, by the backup that they are in."""
    found: dict[str, set[str]] = {label: set()}
    section = ""
    for line in manifest.splitlines():
        if line.startswith("["):
            section = line
        elif section == "[target:file]":
            name, _, text = line.partition("={")
            try:
                entry = json.loads("{" + text)
            except ValueError:
                continue
            if entry.get("size", 1) == 0:
                continue
            inside = f"bundle/{entry['bni']}" if "bni" in entry else stem(name)
            found.setdefault(entry.get("reference", label), set()).add(inside)
    return found


# ---- choosing --------------------------------------------------------------------------------------------------------


def in_range(repository: Mapping[str, Any], target: Target) -> str:
    """Return why a time is outside of what a repository has; nothing when it is inside."""
    earliest, reaches = exact(repository["earliest"]), exact(repository["reaches"])
    if target.time is None or earliest is None:
        return ""
    if target.time < earliest:
        return f"{utc(target.time)} is before the end of the first backup, {repository['earliest']}"
    if reaches is not None and target.time > reaches + 1:
        return f"{utc(target.time)} is after the last change that was archived, {repository['reaches']}"
    return ""


def choose_in(
    config: Config, repository: Mapping[str, Any], target: Target, options: argparse.Namespace
) -> dict[str, Any]:
    """Return the backup of one repository that gets to the target, checked as far as reading can."""
    number = repository["number"]
    words = f"repository {number} ({repository['place']})"
    if repository["error"]:
        raise BackupError(repository["error"])
    backups = [backup for backup in repository["backups"] if not backup["error"]]
    if options.set:
        backups = [backup for backup in backups if backup["label"] == options.set]
        if not backups:
            raise BackupError(f"{words} has no good backup {options.set}")
    if not backups:
        raise BackupError(f"{words} has no backup")
    if options.system_id and all(backup["system_id"] != options.system_id for backup in backups):
        raise BackupError(
            f"{words} belongs to another cluster: system id {backups[-1]['system_id']}, not {options.system_id}"
        )
    if options.version and all(backup["version"] != options.version for backup in backups):
        raise BackupError(f"{words} holds PostgreSQL {backups[-1]['version']}, not {options.version}")
    backups = [
        backup
        for backup in backups
        if (not options.system_id or backup["system_id"] == options.system_id)
        and (not options.version or backup["version"] == options.version)
    ]
    outside = in_range(repository, target)
    if outside:
        raise BackupError(f"{words}: {outside}")
    moment = target.time
    if target.kind == "name":
        moment = name_time(target.text)
        point_backup = backups[0]
        archive_id = f"{point_backup['version']}-{point_backup['database_id']}"
        segments, histories = archive(config, repository, point_backup["wal_start"][:16], archive_id)
        point = find_point(config, repository, target.text, segments, point_backup["version"])
        backups = [backup for backup in backups if segment_number(backup["wal_stop"]) < segment_number(point.name)] or [
            backup for backup in backups if segment_number(backup["wal_stop"]) <= segment_number(point.name)
        ]
        if not backups:
            raise BackupError(f"{words} has no backup from before the restore point {target.text}")
        moment = point.time
    elif moment is not None:
        backups = [backup for backup in backups if (exact(backup["stop"]) or 0) <= moment]
        if not backups:
            raise BackupError(f"{words} has no backup from before {utc(moment)}")
    chosen = max(backups, key=lambda backup: (backup["database_id"], str(backup["stop"])))
    if chosen["database_bytes"] <= 0:
        raise BackupError(f"backup {chosen['label']} of {words} is empty")
    check_set(config, number, chosen)
    archive_id = f"{chosen['version']}-{chosen['database_id']}"
    segments, histories = archive(config, repository, chosen["wal_start"][:16], archive_id)
    walked = walk(segments, histories, chosen["wal_start"], moment)
    if walked.missing:
        raise BackupError(
            f"{words}: WAL segment {walked.missing[0]}"
            + (f" and {len(walked.missing) - 1} more are" if len(walked.missing) > 1 else " is")
            + f" missing between backup {chosen['label']} and the target"
        )
    if not walked.segments or segment_number(walked.segments[-1].name) < segment_number(chosen["wal_stop"]):
        raise BackupError(f"{words}: WAL segment {chosen['wal_stop']}, where backup {chosen['label']} ends, is missing")
    return {
        "repo": number,
        "place": repository["place"],
        "set": chosen["label"],
        "type": chosen["type"],
        "stop": chosen["stop"],
        "database_bytes": chosen["database_bytes"],
        "repo_bytes": chosen["repo_bytes"],
        "reaches": repository["reaches"],
        "earliest": repository["earliest"],
        "newest_wal": walked.segments[-1].name,
        "segments": len(walked.segments),
        "system_id": chosen["system_id"],
        "version": chosen["version"],
        "annotations": chosen["annotations"],
    }


def choose(config: Config, options: argparse.Namespace) -> dict[str, Any]:
    """Return the backup to restore from: of the first repository that has one which gets to the target."""
    target = parse_target(options.to)
    repositories = [item for item in survey(config) if options.repo in (None, item["number"])]
    if not repositories:
        raise BackupError(f"there is no repository {options.repo}; those are {', '.join(map(str, config.numbers))}")
    problems = []
    for repository in repositories:
        try:
            found = choose_in(config, repository, target, options)
        except BackupError as error:
            problems.append(str(error))
            continue
        for problem in problems:
            say(problem, WARNING)
        return found
    raise BackupError("; ".join(problems))
