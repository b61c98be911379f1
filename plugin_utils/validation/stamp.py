"""Whether the inventory knows of the breaking changes of this repository's version."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .places import at

VALUE = "site_acknowledged_version"
_VERSION = re.compile(r"\d+(\.\d+){0,2}")


def parts(version: str) -> tuple[int, ...]:
    """Return a version as three numbers; what is left out is 0."""
    numbers = [int(number) for number in str(version).split(".")]
    return (*numbers, *([0] * (3 - len(numbers))))


def read_version(root: Path) -> str:
    """Return the repository's version; empty when there is none."""
    path = root / "VERSION"
    return path.read_text(encoding="utf-8").strip() if path.is_file() else ""


def version_problems(
    acknowledged: Any, version: str, changes: Iterable[Mapping[str, str]], where: str
) -> Iterable[str]:
    """Yield the line for an inventory that was last looked after at an older version, or at a newer one.

    acknowledged: the inventory's value; without one nobody asked to be told. version: the repository's, empty for none.
    changes: `[{since, what, do}]`.
    """
    text = str(acknowledged or "")
    if not text:
        return
    if not _VERSION.fullmatch(text):
        yield at(where, f'`{VALUE}` cannot be "{text}"; write a version, as in "{short(version or "0.4.0")}"')
        return
    if version and parts(text) > parts(version):
        yield at(
            where,
            f"the inventory was made for version {text} of this repository, and this is {version}; update the "
            f'checkout, or set `{VALUE}: "{short(version)}"` if going back is what you want',
        )
        return
    newer = [change for change in changes if parts(change["since"]) > parts(text)]
    if newer:
        listed = "; ".join(f"{change['since']}: {change['what']} -> {change['do']}" for change in newer)
        latest = max((change["since"] for change in newer), key=parts)
        yield at(
            where,
            f"since {text} breaking changes: {listed}. "
            f'When you have done that, set `{VALUE}: "{short(latest)}"` in 50-site.yml',
        )


def short(version: str) -> str:
    """Return a version without a last number that is 0."""
    return version.removesuffix(".0") if version.count(".") == 2 else version
