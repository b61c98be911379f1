"""Files of nginx."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

from .units import UNIT_NAME


def nginx_snippet_files(
    snippets: Iterable[Mapping[str, Any]], level: str, effects: Iterable[str]
) -> list[dict[str, Any]]:
    """Return the files of an operator's snippets, `[{name, content}]`, in the form that `managed_files` takes.

    level: `http` or `server`, where nginx reads them.
    """
    files = []
    for snippet in snippets:
        if not UNIT_NAME.fullmatch(snippet["name"]):
            raise AnsibleFilterError(
                f"nginx_{level}_snippets: {snippet['name']!r} is not a name: "
                "letters, digits, dots, dashes and underscores"
            )
        files.append(
            {
                "path": f"/etc/nginx/zulip-ha/{level}.d/{snippet['name']}.conf",
                "content": snippet["content"].rstrip("\n") + "\n",
                "effects": list(effects),
                "variable": f"nginx_{level}_snippets",
            }
        )
    return files
