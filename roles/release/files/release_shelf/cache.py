"""The folder of archives on the controller: whole files under their sums, the last few of them."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

KEPT = 3


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def newest_first(paths: list[Path]) -> list[Path]:
    """Sort by age, ties by name."""
    return sorted(paths, key=lambda path: (path.stat().st_mtime_ns, path.name), reverse=True)


class Cache:
    """One folder of archives. What is being written has a name with a dot; killed runs leave nothing else."""

    def __init__(self, directory: Path):
        self.directory = directory

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other runs out, and remove what killed ones have left."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for path in self.directory.glob(".*"):
                if path.name != ".lock":
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            yield

    def temporary(self) -> Path:
        """Return the name of what is being written."""
        return self.directory / f".part.{os.getpid()}"

    def add(self, temporary: Path, name: str) -> Path:
        """Give what was written its name, and drop the oldest."""
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        path = self.directory / name
        temporary.replace(path)
        return self.used(path)

    def used(self, path: Path) -> Path:
        """Make an archive the newest, and drop the oldest."""
        os.utime(path)
        for old in newest_first([*self.directory.glob("*.tar"), *self.directory.glob("*.tar.gz")])[KEPT:]:
            old.unlink(missing_ok=True)
        return path
