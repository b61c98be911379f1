"""Whether the disks of a host have the room that a new release needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def size(count: float) -> str:
    """Return a number of bytes for people."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def disk_space(stdout: str) -> dict[str, dict[str, Any]]:
    """Return the room of each path, out of lines `path exists mount bytes free`, where `exists` is 0 or 1."""
    found = {}
    for line in stdout.splitlines():
        path, exists, mount, total, free = line.rsplit(" ", 4)
        found[path] = {"exists": exists == "1", "mount": mount, "total": int(total), "free": int(free)}
    return found


def disk_problems(
    space: Mapping[str, Mapping[str, Any]],
    host: str,
    needs: Iterable[Mapping[str, Any]],
) -> list[str]:
    """Return what is too full on a host, one line each.

    space: of `disk_space`. needs: `[{path, bytes, percent, why, unless}]`, of which `bytes` or `percent` has to be
    free. Needs in bytes on one file system are not added up: whoever asks gives the whole need with each path. Where
    `unless` exists, which is one of the paths of `space`, the need has been met before.
    """
    problems, seen = [], set()
    for need in needs:
        if space.get(str(need.get("unless", "")), {}).get("exists"):
            continue
        have = space.get(str(need["path"]))
        if have is None:
            problems.append(f"{host}: nothing is known of the room at {need['path']}")
            continue
        wanted = max(int(need.get("bytes", 0)), -(-have["total"] * int(need.get("percent", 0)) // 100))
        if have["free"] >= wanted or (have["mount"], wanted) in seen:
            continue
        seen.add((have["mount"], wanted))
        percent = f" ({need['percent']} % of it)" if need.get("percent") else ""
        problems.append(
            f"{host}: {need['path']} ({have['mount']}) has {size(have['free'])} free and needs {size(wanted)}{percent}"
            f" for {need['why']}"
        )
    return problems
