"""Where a value was written, for messages that an operator can follow."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

try:
    from ansible._internal._datatag._tags import Origin
except ImportError:  # an unsupported ansible-core still has to be told so
    Origin = None


def origin(value: Any) -> tuple[str | None, int | None]:
    """Return file and line of a value as Ansible's loader tagged it; (None, None) when it did not."""
    tag = Origin.get_tag(value) if Origin is not None else None
    return (tag.path, tag.line_num) if tag is not None and tag.path else (None, None)


def short(path: str | os.PathLike[str]) -> str:
    """Return a path as seen from the current folder when it lies below it, else the whole path."""
    path = os.path.abspath(path)
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative


def place(*values: Any, file: str | Path | None = None) -> str:
    """Return `file:line` of the first value that has one, else the file; an empty string when nothing is known."""
    for value in values:
        path, line = origin(value)
        if path:
            return f"{short(path)}:{line}" if line else short(path)
    return short(file) if file else ""


def at(where: str, message: str) -> str:
    """Return a message with its place in front."""
    return f"{where}: {message}" if where else message
