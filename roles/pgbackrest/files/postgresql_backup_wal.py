"""The archive of WAL: its segments, what is in them, and the way of a recovery over them and their timelines."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from postgresql_backup_repository import BackupError, Config, backrest, environment, listing, one_line, repository_file

SEGMENT = re.compile(r"(?P<name>[0-9A-F]{24})-[0-9a-f]{40}(?:\.\w+)?\Z")
HISTORY = re.compile(r"(?P<timeline>[0-9A-F]{8})\.history\Z")
COMMIT = re.compile(r"\bCOMMIT (?:PREPARED \S+: )?(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?) \S+")


# ---- segments --------------------------------------------------------------------------------------------------------


class Segment(NamedTuple):
    """A file of 16 MB of the archive."""

    name: str
    path: str
    time: float


def parse_segments(files: Mapping[str, Mapping[str, Any]], folder: str) -> list[Segment]:
    """Return the whole segments among the files of a folder, by name."""
    found = []
    for name, entry in files.items():
        match = SEGMENT.fullmatch(name.rpartition("/")[2])
        if match:
            found.append(Segment(match["name"], f"{folder}/{name}", float(entry.get("time", 0))))
    return sorted(found)


def archive_folder(config: Config, repository: Mapping[str, Any]) -> str:
    """Return the folder of the present cluster's WAL."""
    return f"archive/{config.stanza}/{repository['archive']}"


def newest_segments(config: Config, repository: Mapping[str, Any]) -> list[Segment]:
    """Return the segments that were archived last, of the folder of the newest."""
    if not repository["newest_wal"]:
        return []
    folder = f"{archive_folder(config, repository)}/{repository['newest_wal'][:16]}"
    return parse_segments(listing(config, repository["number"], folder), folder)


def waldump(config: Config, number: int, segment: Segment, version: int, manager: str) -> list[str]:
    """Return pg_waldump's lines of one resource manager. An end in the middle of a record is none of our business."""
    content = repository_file(config, number, segment.path)
    if content is None:
        return []
    program = f"{config.bin.format(version=version)}/pg_waldump"
    suffix = segment.path.rpartition("-")[2].partition(".")[2]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / segment.name
        path.write_bytes(decompressed(content, suffix))
        try:
            done = subprocess.run(
                [program, f"--rmgr={manager}", str(path)],
                capture_output=True,
                check=False,
                timeout=120,
                env=environment(),
                stdin=subprocess.DEVNULL,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BackupError(f"{program}: {error}") from error
    return done.stdout.decode(errors="replace").splitlines()


def decompressed(content: bytes, suffix: str) -> bytes:
    """Return a segment as PostgreSQL wrote it."""
    if not suffix:
        return content
    program = {"zst": "zstd", "gz": "gzip", "lz4": "lz4", "bz2": "bzip2"}.get(suffix)
    if not program:
        raise BackupError(f"segments are compressed as .{suffix}, which is not known here")
    try:
        done = subprocess.run([program, "-dcq"], input=content, capture_output=True, check=False, env=environment())
    except OSError as error:
        raise BackupError(f"{program}: {error}") from error
    if done.returncode:
        raise BackupError(f"a segment of the archive is broken: {one_line(done.stderr.decode(errors='replace'))}")
    return done.stdout


def last_commit(lines: Iterable[str]) -> float | None:
    """Return the time of the last commit among pg_waldump's lines."""
    found = None
    for line in lines:
        match = COMMIT.search(line)
        if match:
            moment = datetime.fromisoformat(match["time"]).replace(tzinfo=UTC).timestamp()
            found = moment if found is None else max(found, moment)
    return found


# ---- the way of a recovery -------------------------------------------------------------------------------------------


def segment_number(name: str) -> int:
    """Return the place of a segment in the log, whatever its timeline."""
    return int(name[8:16], 16) * 256 + int(name[16:24], 16)


def segment_of(lsn: str) -> int:
    """Return the segment that a position is in."""
    high, low = lsn.split("/")
    return int(high, 16) * 256 + (int(low, 16) >> 24)


def parse_history(text: str) -> list[tuple[int, int]]:
    """Return `[(timeline, segment of its end)]`, oldest first, of a history file."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0].isdigit() and "/" in words[1]:
            found.append((int(words[0]), segment_of(words[1])))
    return found


class Way(NamedTuple):
    """The segments that a recovery reads, in order, up to a gap; and what is missing behind it."""

    segments: list[Segment]
    missing: list[str]


def path_of_timelines(histories: Mapping[int, list[tuple[int, int]]], start: int) -> list[tuple[int, int]]:
    """Return `[(timeline, its first segment)]` of the way that PostgreSQL takes from a backup's timeline to the latest.

    It looks for the history of the next timeline until there is none, and follows that one if it comes from ours.
    """
    latest = start
    while latest + 1 in histories:
        latest += 1
    ends = histories.get(latest, [])
    if latest != start and start not in [timeline for timeline, _ in ends]:
        raise BackupError(f"timeline {latest} of the archive does not come from timeline {start} of the backup")
    way, begin = [], 0
    for timeline, end in ends:
        way.append((timeline, begin))
        begin = end
    return [*way, (latest, begin)]


def walk(
    segments: Iterable[Segment], histories: Mapping[int, list[tuple[int, int]]], start: str, until: float | None
) -> Way:
    """Return the segments from a backup's first one on, as PostgreSQL reads them.

    Of the latest timeline that has a segment and had begun by then, and never again of an older one. With `until`, a
    gap behind that time is none.
    """
    by_place: dict[int, dict[int, Segment]] = {}
    for segment in segments:
        by_place.setdefault(segment_number(segment.name), {})[int(segment.name[:8], 16)] = segment
    way = path_of_timelines(histories, int(start[:8], 16))
    # What an old leader wrote after its timeline had ended is of no use.
    ends = dict(zip([timeline for timeline, _ in way], [begin for _, begin in way[1:]], strict=False))
    first = segment_number(start)
    last = max(
        (
            place
            for place, there in by_place.items()
            if any(begin <= place <= ends.get(timeline, place) and timeline in there for timeline, begin in way)
        ),
        default=first,
    )
    found: list[Segment] = []
    missing: list[str] = []
    now = way[0][0]
    for place in range(first, max(first, last) + 1):
        able = [
            timeline for timeline, begin in way if timeline >= now and begin <= place <= ends.get(timeline, place)
        ] or [now]
        there = by_place.get(place, {})
        here = next((there[timeline] for timeline in reversed(able) if timeline in there), None)
        if here is None:
            missing.append(f"{able[-1]:08X}{place // 256:08X}{place % 256:08X}")
        elif not missing:
            found.append(here)
            now = int(here.name[:8], 16)
    if until is not None and missing and found and found[-1].time >= until:
        missing = []
    return Way(found, missing)


def archive(
    config: Config, repository: Mapping[str, Any], since: str, archive_id: str = ""
) -> tuple[list[Segment], dict[int, list[tuple[int, int]]]]:
    """Return the segments from the folder `since` (16 digits) on, and the histories of timelines."""
    number = repository["number"]
    folder = f"archive/{config.stanza}/{archive_id or repository['archive']}"
    top = backrest(config, "repo-ls", f"--repo={number}", "--output=json", folder)
    names: dict[str, dict[str, Any]] = json.loads(top.decode(errors="replace") or "{}")
    segments: list[Segment] = []
    histories: dict[int, list[tuple[int, int]]] = {}
    for name, entry in names.items():
        match = HISTORY.fullmatch(name)
        if match:
            text = repository_file(config, number, f"{folder}/{name}") or b""
            histories[int(match["timeline"], 16)] = parse_history(text.decode(errors="replace"))
        elif entry.get("type") == "path" and len(name) == 16 and name[8:] >= since[8:]:
            below = f"{folder}/{name}"
            segments += parse_segments(listing(config, number, below), below)
    return sorted(segments), histories
