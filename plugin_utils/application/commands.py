"""Commands of a contract, and sizes by memory."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
SIZE = re.compile(r"(\d+)([KMG])")


def contract_command(argv: Sequence[str], values: Mapping[str, Any]) -> list[str]:
    """Fill the {placeholders} of a command of the contract.

    A word that is nothing but a placeholder whose value is a list becomes that many words.
    """

    def value_of(name: str) -> Any:
        if name not in values:
            raise AnsibleFilterError(
                f"the command {' '.join(argv)!r} wants {{{name}}}, known are: {', '.join(sorted(values))}"
            )
        return values[name]

    result: list[str] = []
    for word in argv:
        whole = PLACEHOLDER.fullmatch(word)
        if whole and not isinstance(value_of(whole.group(1)), str) and isinstance(value_of(whole.group(1)), Sequence):
            result += [str(item) for item in value_of(whole.group(1))]
        else:
            result.append(PLACEHOLDER.sub(lambda found: str(value_of(found.group(1))), word))
    return result


def systemd_exec(argv: Sequence[str], specifiers: Iterable[str] = ()) -> str:
    """Return a command as systemd's Exec lines want it.

    Each word is taken literally, apart from the given specifiers (as `%i`).
    """
    words = []
    for word in argv:
        if "\n" in word:
            raise AnsibleFilterError(f"a unit's command cannot hold a line break: {word!r}")
        text = word.replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$").replace("%", "%%")
        for specifier in specifiers:
            text = text.replace("%" + specifier, specifier)
        words.append(text if re.fullmatch(r"[^\s\"';\\]+", text) else f'"{text}"')
    return " ".join(words)


def by_memory(table: Iterable[Mapping[str, Any]], memory_mb: float) -> Any:
    """Return the value of the last row whose `above_mb` is less than the host's memory."""
    rows = sorted(table, key=lambda row: row["above_mb"])
    fitting = [row["value"] for row in rows if memory_mb > row["above_mb"]]
    if not fitting:
        raise AnsibleFilterError(f"a host with {memory_mb} MB of memory is smaller than any size that is known")
    return fitting[-1]


def sized(memory: Mapping[str, Any], processes: int) -> dict[str, str]:
    """Return `high` and `max` of one unit; with `per_process`, of as many processes as it has.

    Sizes are written as systemd does, in whole K, M or G (powers of 1024).
    """
    limits = {key: str(memory[key]) for key in ("high", "max")}
    if not memory.get("per_process"):
        return limits
    for key, text in limits.items():
        found = SIZE.fullmatch(text)
        if not found:
            raise AnsibleFilterError(f"a memory limit is a number with K, M or G, as 512M, not {text!r}")
        limits[key] = f"{int(found.group(1)) * processes}{found.group(2)}"
    return limits


def contract_values(values: Mapping[str, Any], placeholders: Mapping[str, Any]) -> dict[str, Any]:
    """Fill the {placeholders} in the values of a mapping; what is no text stays as it is."""
    return {
        key: contract_command([value], placeholders)[0] if isinstance(value, str) else value
        for key, value in values.items()
    }
