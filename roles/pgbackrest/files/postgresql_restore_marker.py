"""What is kept of a restore: a marker beside the directory, by which the next step knows how far it came."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def marker_file(directory: Path) -> Path:
    """Return where the marker is: beside the data."""
    return directory.parent / "restore.json"


def read_marker(directory: Path) -> dict[str, Any]:
    """Return what is known of a directory that this program brought; nothing for another one."""
    try:
        found = json.loads(marker_file(directory).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and found.get("directory") == str(directory) else {}


def write_marker(directory: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """Replace the marker as a whole, so that it is there after a power cut."""
    content = read_marker(directory) | dict(values) | {"directory": str(directory)}
    path = marker_file(directory)
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "w", encoding="utf-8") as file:
        json.dump(content, file, indent=2, sort_keys=True)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    return content
