"""Moves what a role would write to another place."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from typing import Any


def below(files: Iterable[Mapping[str, Any]], root: str) -> list[dict[str, Any]]:
    """Return files of `managed_files` with their paths below a folder, and without effects."""
    return [{**entry, "path": f"{root}{entry['path']}", "effects": []} for entry in files]


def folders(files: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the folders of files, each once."""
    return sorted({posixpath.dirname(entry["path"]) for entry in files})


class FilterModule:
    """Paths."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"below": below, "folders": folders}
