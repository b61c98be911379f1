"""Releases of an application: their numbers, and what differs between them in its contract."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

_NUMBERS = re.compile(r"\d+(?:\.\d+)*")
NEWEST = (10**6,)
"""Stands for a release that nobody knows yet: newer than any that is named."""


def release_number(version: str) -> tuple[int, ...]:
    """Return the numbers that a version begins with: `9.0-dev+git` is (9, 0). An empty version is the newest."""
    text = str(version or "").strip()
    if not text:
        return NEWEST
    found = _NUMBERS.match(text)
    if not found:
        raise AnsibleFilterError(f"{text!r} is no version of a release: it begins with no number")
    numbers = [int(part) for part in found.group().split(".")]
    # 9 and 9.0 and 9.0.0 are one.
    while len(numbers) > 1 and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def _applies(entry: Mapping[str, Any], number: tuple[int, ...]) -> bool:
    """Tell whether an entry is one of this release's."""
    if "since" in entry and number < release_number(entry["since"]):
        return False
    return not ("before" in entry and number >= release_number(entry["before"]))


def _resolve(value: Any, number: tuple[int, ...]) -> Any:
    """Return a part of the contract as one release has it."""
    if isinstance(value, Mapping):
        if set(value) == {"by_version"}:
            fitting = [entry["value"] for entry in value["by_version"] if _applies(entry, number)]
            if not fitting:
                raise AnsibleFilterError(f"the contract says nothing of this release: {value['by_version']}")
            return _resolve(fitting[-1], number)
        return {key: _resolve(item, number) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        result = []
        for item in value:
            if not isinstance(item, Mapping):
                result.append(_resolve(item, number))
            elif _applies(item, number):
                resolved = _resolve(item, number)
                if isinstance(resolved, dict):
                    resolved = {key: part for key, part in resolved.items() if key not in ("since", "before")}
                result.append(resolved)
        return result
    return value


def contract_for(
    contract: Mapping[str, Any], version: str = "", found: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the contract of one release.

    In a list, a mapping with `since` and `before` stays only for the releases from the one to below the other. One
    whose only key is `by_version` becomes the value of the last of its entries that applies.
    found: what the release itself was found to have when it was built. Its queues are the ones that it has workers for,
    whatever the contract expects; what the contract says of a queue of that name stays.
    """
    result: dict[str, Any] = _resolve(contract, release_number(version))
    queues = (found or {}).get("queues")
    if queues:
        known = {queue["name"]: queue for queue in result.get("queues", ())}
        result["queues"] = [known.get(name, {"name": name}) for name in sorted(queues)]
    return result
