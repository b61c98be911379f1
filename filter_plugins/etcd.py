"""Filters for etcd: which voters may have been part of a cluster."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def etcd_has_data(found: Mapping[str, Any]) -> bool:
    """Whether etcd has ever written on a host, by what was found in its folders.

    Folders alone say nothing: etcd makes them before it asks anybody whether it may start.
    """
    return any(str(file["path"]).endswith("/member/wal") for file in found.get("files", []))


def etcd_maybe_members(peers: Iterable[Mapping[str, str]], hostvars: Mapping[str, Any], mark: str) -> list[str]:
    """Return the names of the voters that were part of a cluster, or of which this run does not know it.

    `mark` is the file that etcd's unit leaves once a majority had the member. `hostvars` has what the role found on
    each host that this run reaches.
    """
    names = []
    for peer in peers:
        found = hostvars.get(peer["name"], {}).get("__etcd_found") or {}
        if "files" not in found or any(file["path"] == mark for file in found["files"]):
            names.append(peer["name"])
    return names


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"etcd_has_data": etcd_has_data, "etcd_maybe_members": etcd_maybe_members}
