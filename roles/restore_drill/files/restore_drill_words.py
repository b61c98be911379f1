"""How a drill speaks: its lines and its errors, and times, sizes and names as people read them."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

SHOWN = 3
"""How many of many names a line holds."""
INFO, ERROR = 6, 3


class DrillError(Exception):
    """What is wrong, in one line."""


def say(text: str, priority: int = INFO) -> None:
    """Write one line; where the journal listens, with its priority."""
    prefix = f"<{priority}>" if "JOURNAL_STREAM" in os.environ else ""
    print(f"{prefix}restore drill: {text}", file=sys.stderr, flush=True)


def one_line(text: str) -> str:
    """Return the line that says why: the first error, or the last words. A priority for the journal is left out."""
    lines = [re.sub(r"^<\d>", "", line.strip()) for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if re.search(r"\b(ERROR|FATAL|PANIC|error): ", line)]
    return (errors[:1] or lines[-1:] or [""])[0][:500]


def timestamp(value: Any) -> float:
    """Return seconds since 1970 of a time in ISO 8601, UTC unless it says otherwise, or of a number."""
    if isinstance(value, int | float):
        return float(value)
    try:
        moment = datetime.fromisoformat(str(value).strip())
    except ValueError as error:
        raise DrillError(f"{value!r} is no time") from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def iso(moment: float) -> str:
    """Return a time for people and programs."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def duration(seconds: float) -> str:
    """Return a length of time for people."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def size(count: float) -> str:
    """Return a number of bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit in ("B", "kB") else f"{count:.1f} {unit}"
        count /= 1000
    return ""


def shown(names: Sequence[str]) -> str:
    """Return some of many names."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
