"""Files of the operator's below /etc/zulip, beside those that are made from variables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

from ansible.errors import AnsibleFilterError

FOLDER = PurePosixPath("/etc/zulip")
OURS = frozenset(
    {"settings.py", "settings_local.py", "zulip.conf", "zulip-secrets.conf", "sharding.json", "uwsgi.ini"}
    | {"nginx_sharding_map.conf"}
)


def _path(entry: Mapping[str, Any]) -> PurePosixPath:
    """Return the path of one file, checked."""
    path = PurePosixPath(str(entry["path"]))
    if path.is_absolute() or ".." in path.parts or not path.parts or str(path) in OURS:
        raise AnsibleFilterError(
            f"zulip_files: {str(path)!r} is not a path for a file of yours below {FOLDER}: "
            "write one like saml/idps/okta.crt"
        )
    return FOLDER / path


def application_files(
    files: Iterable[Mapping[str, Any]], owner: str, group: str, effects: Iterable[str]
) -> list[dict[str, Any]]:
    """Return the operator's files, `[{path, content}]`, in the form that `managed_files` takes."""
    return [
        {
            "path": str(_path(entry)),
            "content": str(entry["content"]).rstrip("\n") + "\n",
            "owner": owner,
            "group": group,
            "mode": "0600",
            "sensitive": True,
            "effects": list(effects),
            "variable": "zulip_files",
        }
        for entry in files
    ]


def application_file_directories(files: Iterable[Mapping[str, Any]], group: str) -> list[dict[str, Any]]:
    """Return the folders of these files that have to be there, parents first."""
    folders = {parent for entry in files for parent in _path(entry).parents if FOLDER in parent.parents}
    return [{"path": str(folder), "group": group, "mode": "0750"} for folder in sorted(folders)]
