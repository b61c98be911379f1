"""Requirement files as pip reads them: which names they ask for, and the same files without some of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_COMMENT = re.compile(r"(^|\s+)#.*$")
_NAME = re.compile(r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(?:\[[^\]]*\])?\s*(?:$|[@=<>!~;(]|\s--)")
_EGG = re.compile(r"[#&]egg=(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)")
_FILE = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._]*(?:-[A-Za-z_][A-Za-z0-9._]*)*)-\d[^/]*\.(?:whl|zip|tar\.gz)\b")
_OPTION = re.compile(r"(?P<option>--[a-z-]+|-[a-z])(?:\s*=\s*|\s+)?(?P<value>.*)")


def canonical(name: str) -> str:
    """Return a project's name as all its spellings are compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


def name_of(line: str) -> str:
    """Return the canonical name that a requirement asks for; nothing where it has none."""
    if line.startswith("-"):
        option = _OPTION.match(line)
        return name_of(option["value"]) if option and option["option"] in ("-e", "--editable") else ""
    # Options of one requirement, its hashes above all.
    text = line.split(" --")[0].strip()
    if egg := _EGG.search(text):
        return canonical(egg["name"])
    if "://" not in text.split("@")[0] and (name := _NAME.match(text)) and "/" not in text.split("@")[0]:
        return canonical(name["name"])
    file = _FILE.search(text.split("#")[0].rsplit("/", 1)[-1])
    return canonical(file["name"]) if file else ""


def logical_lines(text: str) -> Iterator[str]:
    """Return the lines of a requirement file, joined where one goes on and without comments."""
    joined = ""
    for line in text.splitlines():
        if line.endswith("\\") and not line.lstrip().startswith("#"):
            joined += line[:-1].strip() + " "
            continue
        whole = _COMMENT.sub("", joined + line).strip()
        joined = ""
        if whole:
            yield " ".join(whole.split())
    if joined.strip():
        yield joined.strip()


@dataclass
class Requirements:
    """What some requirement files ask for together."""

    lines: list[str] = field(default_factory=list)
    dropped: set[str] = field(default_factory=set)

    @property
    def hashed(self) -> bool:
        """Tell whether pip will want a hash for each: then the files name every dependency too."""
        return any("--hash" in line or line.startswith("--require-hashes") for line in self.lines)

    def read(self, path: Path, without: set[str]) -> None:
        """Add a file, and the files that it includes, leaving out some names."""
        for line in logical_lines(path.read_text(encoding="utf-8")):
            option = _OPTION.match(line) if line.startswith("-") else None
            if option and option["option"] in ("-r", "--requirement"):
                self.read(path.parent / option["value"], without)
            elif option and option["option"] in ("-c", "--constraint"):
                self.lines.append(f"--constraint {(path.parent / option['value']).resolve()}")
            elif (name := name_of(line)) and name in without:
                self.dropped.add(name)
            else:
                self.lines.append(line)
