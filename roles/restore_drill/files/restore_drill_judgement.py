"""What a drill judges by: where replay ended, how many rows there are, and what bytes uploads have."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from restore_drill_words import DrillError

# ---- WAL -------------------------------------------------------------------------------------------------------------


def lsn_number(text: str) -> int:
    """Return the position that `0/3000060` names."""
    try:
        high, low = str(text).split("/")
        return (int(high, 16) << 32) + int(low, 16)
    except ValueError as error:
        raise DrillError(f"{text!r} is no position in WAL") from error


def segment_place(name: str, segment_bytes: int) -> tuple[int, int]:
    """Return timeline and number of a segment, 24 hexadecimal digits."""
    try:
        if len(name) != 24:
            raise ValueError
        timeline, high, low = (int(name[place : place + 8], 16) for place in (0, 8, 16))
    except ValueError as error:
        raise DrillError(f"{name!r} is no WAL segment") from error
    return timeline, high * ((1 << 32) // segment_bytes) + low


def end_problem(last_lsn: str, timeline: int, newest: str, segment_bytes: int) -> str:
    """Return why the end of replay is not the newest archived segment, or nothing.

    More may have been archived since that was looked up, so later is right as well. A position at the very start of a
    segment is the end of the one before, as after a switch.
    """
    wanted_timeline, wanted = segment_place(newest, segment_bytes)
    position = lsn_number(last_lsn)
    reached = max(position - 1, 0) // segment_bytes
    if reached < wanted:
        return f"replay ended at {last_lsn}, {wanted - reached} segments before {newest}, which is archived"
    if timeline < wanted_timeline:
        return f"replay ended on timeline {timeline}; {newest}, which is archived, is of timeline {wanted_timeline}"
    return ""


# ---- rows ------------------------------------------------------------------------------------------------------------


class Counts(NamedTuple):
    """What was counted, and what is wrong with it."""

    problems: list[str]
    tables: int
    rows: int


def judge_counts(
    restored: Mapping[str, tuple[int | None, int]],
    live: Mapping[str, int],
    missing: Iterable[str],
    allowed: Mapping[str, Any],
) -> Counts:
    """Compare restored rows with the live ones up to the same id.

    restored: greatest id and rows by table. live: rows up to that id. missing: tables that the live database has had
    from before the drill on. allowed: `percent` and `rows`, of which the greater counts, and `volatile`, tables whose
    rows come and go by the second.
    """
    problems = [f"{table} is missing" for table in sorted(missing)]
    for table, (greatest, rows) in sorted(restored.items()):
        if table in allowed["volatile"] or table not in live:
            continue
        limit = allowed["rows"] if greatest is None else max(allowed["rows"], live[table] * allowed["percent"] / 100)
        if abs(live[table] - rows) > limit:
            more = "at least " if greatest is None else ""
            problems.append(f"{table} has {rows} rows, the live one {more}{live[table]}")
    if not restored and not problems:
        problems.append("there is no table with rows to count")
    return Counts(problems, len(restored), sum(rows for _, rows in restored.values()))


# ---- uploads ---------------------------------------------------------------------------------------------------------


def judge_hashes(
    restored: Mapping[str, str], live: Mapping[str, Mapping[str, Any] | None], taken: float
) -> tuple[list[str], int, int]:
    """Compare hashes of restored files with the live ones.

    live: for each name sha256 and `modified`, or nothing where there is no such file. taken: when the snapshot was
    begun. Returns names that differ, how many are alike, how many were changed or removed since.
    """
    wrong, alike, since = [], 0, 0
    for name, digest in sorted(restored.items()):
        found = live.get(name)
        if not found or (found["sha256"] != digest and float(found["modified"]) >= taken):
            since += 1
        elif found["sha256"] != digest:
            wrong.append(name)
        else:
            alike += 1
    return wrong, alike, since


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def object_keys(inventory: Any) -> Iterator[str]:
    """Yield every `key` in an inventory of objects, however it is nested."""
    if isinstance(inventory, dict):
        if isinstance(inventory.get("key"), str):
            yield inventory["key"]
        for value in inventory.values():
            yield from object_keys(value)
    elif isinstance(inventory, list):
        for value in inventory:
            yield from object_keys(value)
