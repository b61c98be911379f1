"""Where a recovery came to in the log of changes: segments, positions, timelines, and whether the archive goes on."""

from __future__ import annotations

import re

SEGMENT = re.compile(r"^[0-9A-F]{24}$")


def segment_number(name: str, size: int) -> int:
    """Return the place of a segment in the log, whatever its timeline."""
    return int(name[8:16], 16) * ((1 << 32) // size) + int(name[16:24], 16)


def segment_name(timeline: int, number: int, size: int) -> str:
    """Return the name of the segment at a place."""
    high, low = divmod(number, (1 << 32) // size)
    return f"{timeline:08X}{high:08X}{low:08X}"


def lsn_number(lsn: str) -> int:
    """Return a position as a number of bytes."""
    high, low = lsn.split("/")
    return (int(high, 16) << 32) + int(low, 16)


def lsn_of_segment(name: str, size: int) -> str:
    """Return the position at which a segment begins."""
    number = segment_number(name, size) * size
    return f"{number >> 32:X}/{number & 0xFFFFFFFF:X}"


def segment_of(timelines: set[int], lsn: str, size: int, newest: str, timeline: int) -> str:
    """Return the name of the segment that was replayed last, on the timeline before the one that begins here."""
    before = max(timelines - {timeline}, default=int(newest[:8] or "1", 16))
    return segment_name(before, max(lsn_number(lsn) - 1, 0) // size, size)


def parents(history: str) -> set[int]:
    """Return the timelines that a timeline comes from."""
    lines = (line.split() for line in history.splitlines())
    return {int(words[0]) for words in lines if words and words[0].isdigit()}


def end_problem(newest: str, lsn: str, size: int, timelines: set[int]) -> str:
    """Return why a recovery to the latest moment did not reach it, or nothing.

    newest: the newest segment that was archived when the recovery began. timelines: those that were replayed.
    """
    if not newest:
        return ""
    if int(newest[:8], 16) not in timelines:
        return (
            f"recovery never came to timeline {int(newest[:8], 16)}, on which the newest archived segment {newest} is: "
            f"the file {newest[:8]}.history is missing in the archive"
        )
    # The end of the last change is the first byte after it.
    last = max(lsn_number(lsn) - 1, 0) // size
    if last >= segment_number(newest, size):
        return ""
    end = segment_name(int(newest[:8], 16), last, size)
    following = segment_name(int(newest[:8], 16), last + 1, size)
    # At the end of a segment all of it was good.
    missing = f"{following} is missing" if lsn_number(lsn) % size == 0 else f"{end} is damaged, or {following} missing"
    return f"recovery ended at {lsn}, before the newest archived segment {newest}: in the archive {missing}"
