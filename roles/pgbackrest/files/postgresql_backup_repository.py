"""What the parts of postgresql_backup share: the configuration, and how pgBackRest is asked for what repositories hold.

pgBackRest itself runs as the user postgres.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ERROR, WARNING, INFO = 3, 4, 6


class BackupError(Exception):
    """Told in one line."""


def say(text: str, level: int = INFO) -> None:
    """Write one line; with its priority where the journal reads it."""
    prefix = f"<{level}>" if os.environ.get("JOURNAL_STREAM") else ""
    print(f"{prefix}{text}", file=sys.stderr, flush=True)


def utc(seconds: float | None) -> str | None:
    """Return a time as people and programs read it."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def exact(value: str | None) -> int | None:
    """Return a time of ours as seconds since 1970."""
    return int(datetime.fromisoformat(value.replace("Z", "+00:00")).timestamp()) if value else None


def one_line(text: str) -> str:
    """Return what a program said in one printable line: its first error, without the hints."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "ERROR" in line] or lines[-1:]
    first = re.sub(r"^.*?ERROR: *", "", errors[0]) if errors else "it said nothing"
    return "".join(character for character in first if character.isprintable() and character != "\ufffd")[:300]


def write(path: Path, text: str) -> None:
    """Replace a file as a whole; anybody may read it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as stream:
        stream.write(text)
    os.chmod(stream.name, 0o644)
    os.replace(stream.name, path)


def read(path: Path) -> dict[str, Any]:
    """Return what a state file holds; nothing where it is missing or broken."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(path.read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    return {}


# ---- the configuration -----------------------------------------------------------------------------------------------


class Config:
    """The configuration file, and the programs that are called by it."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.stanza: str = values["stanza"]
        self.members: list[dict[str, str]] = values["members"]
        self.patroni_port: int = values["patroni_port"]
        self.pki: str = values["pki"]
        self.here: str = values["here"]
        self.repositories: list[dict[str, Any]] = values["repositories"]
        self.data: str = values["data_directory"]
        self.version: int = int(values["version"])
        self.from_standby: bool = values["from_standby"]
        self.annotations: dict[str, str] = values["annotations"]
        self.adopt: str = str(values.get("adopt") or "")
        self.state = Path(values.get("state_directory", "/var/lib/zulip-ha/backup"))
        self.textfile = Path(values["textfile_directory"])
        self.pgbackrest: list[str] = values.get("pgbackrest", ["/usr/bin/pgbackrest"])
        self.bin: str = values.get("bin", "/usr/lib/postgresql/{version}/bin")
        self.lock = Path(values.get("lock", "/run/lock/zulip-ha-postgresql-backup.lock"))

    @classmethod
    def load(cls, path: str) -> Config:
        """Read the file."""
        try:
            return cls(json.loads(Path(path).read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError) as error:
            raise BackupError(f"{path}: {type(error).__name__}: {error}") from error

    @property
    def numbers(self) -> list[int]:
        """The numbers of the repositories."""
        return [item["number"] for item in self.repositories]

    def place(self, number: int) -> str:
        """Return in words where a repository is."""
        return next((item["place"] for item in self.repositories if item["number"] == number), f"number {number}")


# ---- pgBackRest ------------------------------------------------------------------------------------------------------


def as_postgres() -> dict[str, Any]:
    """Return what makes a child of root's the database's user."""
    if os.geteuid() != 0:
        return {}
    user = pwd.getpwnam("postgres")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": os.getgrouplist("postgres", user.pw_gid)}


def environment() -> dict[str, str]:
    """Return the environment of what is called: no language, no time zone, and nothing of a caller's PGBACKREST_*."""
    return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "TZ": "UTC", "HOME": "/var/lib/postgresql"}


def backrest(config: Config, *words: str, seconds: float = 600) -> bytes:
    """Run pgBackRest; return what it wrote."""
    command = [*config.pgbackrest, f"--stanza={config.stanza}", "--log-level-stderr=error", *words]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            check=False,
            timeout=seconds,
            stdin=subprocess.DEVNULL,
            env=environment(),
            cwd="/",
            **as_postgres(),
        )
    except subprocess.TimeoutExpired as error:
        raise BackupError(f"pgbackrest {words[-1]}: no answer within {seconds:.0f} s") from error
    except OSError as error:
        raise BackupError(f"pgbackrest: {error}") from error
    if done.returncode:
        raise BackupError(f"pgbackrest {words[0]}: {one_line(done.stderr.decode(errors='replace'))}")
    return bytes(done.stdout)


def repository_file(config: Config, number: int, path: str) -> bytes | None:
    """Return a file of a repository, decrypted; None when it is not there."""
    try:
        return backrest(config, "repo-get", f"--repo={number}", path)
    except BackupError as error:
        if "[055]" in str(error) or "missing file" in str(error):
            return None
        raise BackupError(broken_repository(config, number, str(error))) from error


def broken_repository(config: Config, number: int, text: str) -> str:
    """Return why a repository cannot be read, in words."""
    where = f"repository {number} ({config.place(number)})"
    if any(word in text for word in ("flush", "FormatError", "CryptoError", "outside of section", "cipher")):
        return f"{where} does not open with this key (vault_pgbackrest_cipher_pass)"
    return f"{where} cannot be read: {one_line(text)}"


def listing(config: Config, number: int, path: str, recurse: bool = False) -> dict[str, dict[str, Any]]:
    """Return the files of a folder of a repository: `{name: {type, size, time}}`."""
    words = ["--recurse"] if recurse else []
    text = backrest(config, "repo-ls", f"--repo={number}", "--output=json", *words, path)
    found: dict[str, dict[str, Any]] = json.loads(text.decode(errors="replace") or "{}")
    return {name: entry for name, entry in found.items() if entry.get("type") == "file"}
