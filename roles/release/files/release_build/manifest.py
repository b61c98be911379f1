"""What others learn of a release without unpacking it: names found in its files, and files published as text."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from .workshop import Failure, inside

LARGEST = 1 << 20


def found(tree: Path, survey: dict[str, Any]) -> dict[str, list[str]]:
    """Return the names that a survey's patterns find, sorted, by the survey's name."""
    result = {}
    for name, search in survey.items():
        names: set[str] = set()
        for path in tree.glob(search["files"]):
            text = inside(tree, str(path.relative_to(tree))).read_text(encoding="utf-8", errors="replace")
            names |= {match[1] for match in re.finditer(search["pattern"], text, re.MULTILINE)}
        names -= set(search.get("exclude", []))
        if not names:
            raise Failure(f"the release has no {name}: nothing in {search['files']} matches {search['pattern']}")
        result[name] = sorted(names)
    return result


def published(tree: Path, publish: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    """Return the texts of files that other hosts need, by group and name."""
    result: dict[str, dict[str, str]] = {}
    for group, files in publish.items():
        result[group] = {}
        for name, relative in files.items():
            path = inside(tree, relative)
            if not path.is_file():
                raise Failure(f"the release has no {relative}, which is published as {name}")
            if path.stat().st_size > LARGEST:
                raise Failure(f"the release's {relative} is too large to be published: {path.stat().st_size} bytes")
            try:
                result[group][name] = path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                raise Failure(f"the release's {relative} is no text in UTF-8") from None
    return result
