"""pgBackRest with a configuration of its own: the site's repositories, and one directory that is none of the site's."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from postgresql_restore_host import StepError, as_postgres, last_words, own, private_place, write_private

CONFIGURATION = Path("/etc/pgbackrest/pgbackrest.conf")
DROP_INS = Path("/etc/pgbackrest/conf.d")


# ---- the configuration -----------------------------------------------------------------------------------------------


def merged_configuration(texts: Sequence[str]) -> dict[str, dict[str, list[str]]]:
    """Return sections, keys and values of configuration files; a later file replaces a key of one before."""
    merged: dict[str, dict[str, list[str]]] = {}
    for text in texts:
        found: dict[str, dict[str, list[str]]] = {}
        section = ""
        for line in text.splitlines():
            line = line.strip()
            if line.startswith("[") and line.endswith("]"):
                section = line[1:-1]
            elif line and not line.startswith(("#", ";")) and "=" in line:
                key, value = (part.strip() for part in line.split("=", 1))
                found.setdefault(section, {}).setdefault(key, []).append(value)
        for section, keys in found.items():
            merged.setdefault(section, {}).update(keys)
    return merged


def stanza_name(sections: Mapping[str, Any]) -> str:
    """Return the only stanza that the configuration names."""
    names = sorted({name.partition(":")[0] for name in sections} - {"global", ""})
    if len(names) != 1:
        raise StepError(f"{CONFIGURATION} names {', '.join(names) or 'no stanza'}: say which with --stanza")
    return names[0]


def private_configuration(
    sections: Mapping[str, Mapping[str, list[str]]], stanza: str, directory: Path, spool: Path
) -> str:
    """Return the site's repositories with this directory as the only database: it is none of the site's."""
    kept = {name: dict(keys) for name, keys in sections.items() if name.partition(":")[0] in ("global", stanza)}
    for keys in kept.values():
        for key in list(keys):
            if re.match(r"pg\d+-", key) or key in ("lock-path", "spool-path", "archive-async", "log-level-file"):
                del keys[key]
    kept.setdefault("global", {}).update(
        {"lock-path": [str(spool / "lock")], "spool-path": [str(spool)], "log-level-file": ["off"]}
    )
    kept.setdefault("global:archive-get", {}).update({"archive-async": ["y"]})
    kept["global:archive-get"].setdefault("archive-get-queue-max", ["256MiB"])
    kept.setdefault(stanza, {})["pg1-path"] = [str(directory)]
    lines = []
    for name in sorted(kept):
        lines.append(f"[{name}]")
        lines += [f"{key}={value}" for key, values in sorted(kept[name].items()) for value in values]
    return "\n".join(lines) + "\n"


class Repository:
    """pgBackRest, told of nothing but the repositories and one directory."""

    def __init__(self, directory: Path, stanza: str = "") -> None:
        try:
            texts = [CONFIGURATION.read_text(encoding="utf-8")]
            texts += [path.read_text(encoding="utf-8") for path in sorted(DROP_INS.glob("*.conf"))]
        except OSError as error:
            raise StepError(f"{error.filename}: {error.strerror}") from error
        sections = merged_configuration(texts)
        self.stanza = stanza or stanza_name(sections)
        self.spool = directory.parent / "restore-spool"
        self.place = private_place(directory)
        self.file = self.place / "pgbackrest.conf"
        self.text = private_configuration(sections, self.stanza, directory, self.spool)

    def prepare(self) -> None:
        """Write the configuration, and begin with an empty spool."""
        # In memory: it has the repository's key.
        write_private(self.file, self.text)
        shutil.rmtree(self.spool, ignore_errors=True)
        own(self.spool)

    def command(self, *words: str) -> list[str]:
        """Return a command line of pgBackRest's."""
        return ["pgbackrest", f"--config={self.file}", f"--stanza={self.stanza}", *words]

    def info(self) -> dict[str, Any]:
        """Return what pgBackRest knows of the stanza."""
        # Of all repositories: which of them fails is said by their states.
        done = as_postgres(self.command("--log-level-console=off", "--log-level-stderr=error", "--output=json", "info"))
        try:
            # What went wrong may be told in several lines, which pgBackRest writes as they are.
            found: list[dict[str, Any]] = json.loads(done.stdout, strict=False)
        except ValueError:
            raise StepError(
                f"pgbackrest info says nothing that can be read: {last_words(done.stdout + done.stderr)}"
            ) from None
        return next((one for one in found if one.get("name") == self.stanza), {})


# ---- what it knows of a backup ---------------------------------------------------------------------------------------


def chosen_backup(info: Mapping[str, Any], repository: int, label: str) -> dict[str, Any]:
    """Return what is known of one backup: `bytes`, `start`, `system`, `version` and the archive it belongs to."""
    states = {int(one["key"]): one.get("status", {}) for one in info.get("repo", [])}
    state = states.get(repository)
    if state is None:
        raise StepError(
            f"there is no repository {repository}; there are {', '.join(map(str, sorted(states))) or 'none'}"
        )
    backup = next(
        (
            one
            for one in info.get("backup", [])
            if one["label"] == label and int(one["database"].get("repo-key", 1)) == repository
        ),
        None,
    )
    if backup is None:
        reason = state.get("message", "")
        raise StepError(
            f"repository {repository} has no backup {label}"
            + (f": {' '.join(reason.split())}" if state.get("code") else "")
        )
    number = backup["database"]["id"]
    database: dict[str, Any] = next(
        (one for one in info.get("db", []) if one["id"] == number and int(one.get("repo-key", 1)) == repository),
        {},
    )
    return {
        "label": label,
        "bytes": int(backup["info"]["size"]),
        "start": backup.get("archive", {}).get("start", ""),
        "system_id": str(database.get("system-id", "")),
        "version": str(database.get("version", "")),
        "newest": newest_segment(info, repository, number),
    }


def newest_segment(info: Mapping[str, Any], repository: int, number: int) -> str:
    """Return the newest segment in the archive of one database of a repository."""
    for one in info.get("archive", []):
        database = one.get("database", {})
        if database.get("id") == number and int(database.get("repo-key", 1)) == repository:
            return str(one.get("max") or "")
    return ""
