"""What a log of errors gained during a run: entries counted, and without secrets."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from typing import Any

MASK = "***"
SHORTEST = 8
"""A shorter line of a secret is not looked for: masking it would hide other words."""
TEXT = 300
GROUPS = 50
ENTRY = re.compile(r"^\[?\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d\S*\s*")
PROCESS = re.compile(r"(?<=[:\[])\d+(?=\])")
NUMBER = re.compile(r"0x[0-9a-fA-F]+|\d+")
USERINFO = re.compile(r"(?P<scheme>\b[a-zA-Z][a-zA-Z0-9+.-]*://)[^\s/@'\"<>]+@")
NAMED = re.compile(
    r"""(?P<name>[\w-]*(?:password|passwd|secret|token|api_?key|authorization)[\w-]*["']?\s*[:=]\s*)"""
    r"""(?P<value>(?:Basic|Bearer)\s+\S+|"[^"]*"|'[^']*'|[^\s,;&)\]}]+)""",
    re.IGNORECASE,
)


def secret_pieces(secrets: Any) -> set[str]:
    """Return the lines of secrets that are worth looking for, out of any nest of lists and mappings."""
    if isinstance(secrets, Mapping):
        return set().union(*(secret_pieces(value) for value in secrets.values()))
    if isinstance(secrets, (list, tuple, set)):
        return set().union(*(secret_pieces(value) for value in secrets))
    lines = [line.strip() for line in str(secrets).splitlines()]
    return {line for line in lines if len(line) >= SHORTEST and not line.startswith("-----")}


def without_secrets(text: str, secrets: Any = ()) -> str:
    """Return a text without the given secrets, the passwords in its URLs, and what follows a name of a secret."""
    for piece in sorted(secret_pieces(secrets), key=len, reverse=True):
        text = text.replace(piece, MASK)
    text = USERINFO.sub(rf"\g<scheme>{MASK}@", text)
    return NAMED.sub(rf"\g<name>{MASK}", text)


def log_entries(text: str) -> list[list[str]]:
    """Divide a log into entries: a line with a time begins one, what follows without a time belongs to it."""
    entries: list[list[str]] = []
    for line in text.splitlines():
        if not line.strip():
            continue
        if ENTRY.match(line) or not entries:
            entries.append([line])
        else:
            entries[-1].append(line)
    return entries


def _words(entry: list[str]) -> str:
    """Return what an entry says: its first line without the time, and of a traceback the last line as well."""
    first = PROCESS.sub("", ENTRY.sub("", entry[0])).strip()
    traced = any(line.startswith("Traceback (most recent call last)") for line in entry)
    return f"{first} | {entry[-1].strip()}" if traced and len(entry) > 1 else first


def grouped(text: str) -> list[dict[str, Any]]:
    """Return the distinct entries of a log, the most frequent first. Entries that differ in numbers alone are one."""
    found: dict[str, dict[str, Any]] = {}
    for entry in log_entries(text):
        said = _words(entry)
        group = found.setdefault(NUMBER.sub("#", said), {"count": 0, "text": said[:TEXT]})
        group["count"] += 1
    groups = sorted(found.values(), key=lambda group: -group["count"])
    rest = sum(group["count"] for group in groups[GROUPS:])
    return groups[:GROUPS] + ([{"count": rest, "text": "others"}] if rest else [])


def log_arguments(stdout: str) -> list[str]:
    """Return `inode size path` of each log, as words for a program, out of lines of the same."""
    return [word for line in stdout.splitlines() for word in line.split(" ", 2)]


def errors_found(stdout: str, secrets: Iterable[Any] = ()) -> dict[str, dict[str, Any]]:
    """Return what is new in each log, out of lines `bytes path base64`; files that gained nothing are left out."""
    found = {}
    for line in stdout.splitlines():
        size, _, rest = line.partition(" ")
        path, _, content = rest.rpartition(" ")
        if not int(size):
            continue
        raw = base64.b64decode(content)
        text = without_secrets(raw.decode("utf-8", "replace"), secrets)
        groups = grouped(text)
        entries = sum(group["count"] for group in groups)
        found[path] = {"bytes": int(size), "cut": int(size) > len(raw), "entries": entries, "groups": groups}
    return found
