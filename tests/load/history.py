"""The history of a run: one JSON line a request or mark, appended by this program and by whoever breaks the server.

Times are `time.monotonic()`, which all processes of a machine share on Linux; `at` is the same moment on the clock.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

Line = dict[str, Any]


def wall(monotonic: float | None = None) -> str:
    """Return a moment of the monotonic clock, or now, as UTC text."""
    ago = 0.0 if monotonic is None else time.monotonic() - monotonic
    return datetime.fromtimestamp(time.time() - ago, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class History:
    """Appends lines. Each is one write to a file opened for appending, so that writers never mix theirs."""

    def __init__(self, path: Path | str, new: bool = False) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | (os.O_EXCL if new else 0)
        self._file = os.open(path, flags, 0o644)

    def write(self, **line: Any) -> None:
        """Append one line."""
        os.write(self._file, (json.dumps(line, separators=(",", ":")) + "\n").encode())

    def mark(self, name: str, /, **data: Any) -> None:
        """Append what happens now besides the requests."""
        self.write(kind="mark", name=name, began=round(time.monotonic(), 4), at=wall(), data=data)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def mark(path: Path | str, name: str, /, **data: Any) -> None:
    """Draw a fault or a phase into a history that another process writes."""
    history = History(path)
    history.mark(name, **data)
    history.close()


def _lines(path: Path | str) -> Iterator[Line]:
    text = Path(path).read_bytes()
    whole, _, cut = text.rpartition(b"\n")
    # What follows the last end of line is what a killed writer left.
    del cut
    for number, raw in enumerate(whole.split(b"\n") if whole else [], 1):
        try:
            line = json.loads(raw)
            line["kind"], line["began"]
        except (ValueError, TypeError, KeyError):
            raise ValueError(f"{path}: line {number} is no line of a history") from None
        yield line


def read(path: Path | str) -> list[Line]:
    """Return the lines of a history in the order of their beginnings."""
    return sorted(_lines(path), key=lambda line: line["began"])
