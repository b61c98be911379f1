"""How a restore works on its host: programs and files of the user postgres, and one at a time for a directory."""

from __future__ import annotations

import contextlib
import fcntl
import grp
import hashlib
import os
import pwd
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

RUN = Path("/run/zulip-ha-restore")


class StepError(Exception):
    """Told in one line."""


# ---- running programs ------------------------------------------------------------------------------------------------


def last_words(text: str) -> str:
    """Return the line that says why, without pgBackRest's time and process."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if re.search(r"\b(ERROR|FATAL|PANIC)\b", line)]
    found = (errors or lines or ["no reason was given"])[-1 if not errors else 0]
    return re.sub(r"^.*?(ERROR|FATAL|PANIC):\s*(\[\d+\]:\s*)?", "", found)


def run(arguments: Sequence[str], check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program; what it said is the error when it fails."""
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, errors="replace", **options)
    if check and done.returncode:
        # What was run last: before it are runuser and its options.
        name = os.path.basename(arguments[arguments.index("--") + 1] if "--" in arguments else arguments[0])
        raise StepError(f"{name}: {last_words(done.stderr + done.stdout)}")
    return done


def as_postgres(arguments: Sequence[str], check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program as the user postgres."""
    surroundings = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/var/lib/postgresql"}
    return run(["runuser", "-u", "postgres", "--", *arguments], check=check, cwd="/", env=surroundings, **options)


# ---- directories and files -------------------------------------------------------------------------------------------


def identity(directory: Path) -> str:
    """Return a name for a directory that may be part of another's."""
    return hashlib.sha256(str(directory).encode()).hexdigest()[:10]


@contextlib.contextmanager
def locked(directory: Path, patience: float = 3600) -> Iterator[int]:
    """One at a time for a directory.

    What fetches inherits the lock: when the one who asked was killed, the next waits for the end of that.
    """
    RUN.mkdir(parents=True, exist_ok=True)
    handle = os.open(RUN / f"{identity(directory)}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    end = time.monotonic() + patience
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= end:
                    raise StepError(f"something else works on {directory} since more than {patience:.0f} s") from None
                time.sleep(0.5)
        yield handle
    finally:
        os.close(handle)


def private_place(directory: Path) -> Path:
    """Return where a restore into a directory keeps what others may not read. In memory."""
    return RUN / identity(directory)


def own(path: Path, mode: int = 0o700) -> Path:
    """Make a directory of postgres'."""
    path.mkdir(parents=True, exist_ok=True)
    user = pwd.getpwnam("postgres")
    os.chown(path, user.pw_uid, user.pw_gid)
    path.chmod(mode)
    return path


def filled(directory: Path) -> bool:
    """Return whether there is anything in a directory."""
    return directory.is_dir() and any(directory.iterdir())


def tree_bytes(directory: Path) -> int:
    """Return what a directory takes on its disk."""
    if not directory.exists():
        return 0
    said = run(["du", "--summarize", "--block-size=1", "--", str(directory)], check=False).stdout
    return int(said.split()[0]) if said else 0


def write_private(path: Path, text: str) -> None:
    """Write a file that root may change and postgres read."""
    group = grp.getgrnam("postgres").gr_gid
    for place in (RUN, path.parent):
        place.mkdir(parents=True, exist_ok=True)
        os.chown(place, 0, group)
        place.chmod(0o750)
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640), "w", encoding="utf-8") as file:
        os.fchown(file.fileno(), 0, group)
        file.write(text)
