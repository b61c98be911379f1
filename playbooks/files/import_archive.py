"""Reads an archive of Zulip's `manage.py backup`: says what is in it, and unpacks a part of it.

  import_archive.py inspect ARCHIVE [--secrets]            reads all of it, and prints what was found as JSON
  import_archive.py unpack ARCHIVE database|uploads FOLDER [--owner USER]

Nothing is written outside of FOLDER. What was unpacked before by a run that was killed is not unpacked again.
"""

from __future__ import annotations

import argparse
import configparser
import gzip
import hashlib
import json
import os
import re
import shutil
import sys
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

ROOT = "zulip-backup"
VERSIONS = ("zulip-version", "os-version", "postgres-version")
DATA = re.compile(r"(\d+)\.dat(\.gz)?")
CHUNK = 1 << 20
END = b"\\.\n"


class Failed(Exception):
    """Says in one line what is wrong."""


class Hashing:
    """A file that is hashed as it is read."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream, self.digest = stream, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self.stream.read(size)
        self.digest.update(data)
        return data


def members(stream: IO[bytes]) -> Iterator[tuple[PurePosixPath, tarfile.TarInfo, IO[bytes] | None]]:
    """Yield path below the archive's one folder, entry and content (of a file) of each member, in order."""
    with tarfile.open(fileobj=stream, mode="r|") as tar:
        for entry in tar:
            path = PurePosixPath(entry.name)
            if path.is_absolute() or ".." in path.parts or path.parts[:1] != (ROOT,):
                raise Failed(f"it is no archive of manage.py backup: {entry.name!r} in it is not below {ROOT}/")
            yield path.relative_to(ROOT), entry, tar.extractfile(entry) if entry.isreg() else None
            # Else it keeps every entry in memory.
            tar.members.clear()  # type: ignore[attr-defined]


def copied_rows(stream: IO[bytes], packed: bool) -> tuple[int | None, int]:
    """Return the rows and the bytes of a table in a dump; it is read to its end, which shows whether it is whole."""
    source: IO[bytes] = gzip.GzipFile(fileobj=stream) if packed else stream  # type: ignore[assignment]
    lines = size = 0
    tail = b""
    while data := source.read(CHUNK):
        lines += data.count(b"\n")
        size += len(data)
        tail = (tail + data)[-16:]
    # A backslash in data is two, so this is the end of the rows and nothing else.
    at = tail.rfind(END)
    return (lines - tail[at:].count(b"\n") if at >= 0 else None), size


def secrets_of(text: str) -> dict[str, str]:
    """Return the secrets of a zulip-secrets.conf."""
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(text)
    except configparser.Error as error:
        raise Failed(f"zulip-secrets.conf in it cannot be read: {str(error).splitlines()[0]}") from None
    return dict(parser["secrets"]) if parser.has_section("secrets") else {}


def inspect(archive: Path) -> dict[str, Any]:
    """Read all of an archive; return what is in it."""
    found: dict[str, Any] = dict.fromkeys(VERSIONS, "")
    dump: dict[str, Any] = {"toc": False, "files": 0, "bytes": 0, "raw": 0, "rows": {}}
    uploads = {"files": 0, "bytes": 0, "skipped": 0}
    secrets: dict[str, str] = {}
    with archive.open("rb") as file:
        hashing = Hashing(file)
        with gzip.GzipFile(fileobj=hashing) as stream:  # type: ignore[call-overload]
            for path, entry, content in members(stream):
                name, top = path.name, path.parts[:1]
                if content is None:
                    uploads["skipped"] += top == ("uploads",) and not entry.isdir()
                elif str(path) in VERSIONS:
                    found[name] = content.read(4096).decode(errors="replace").strip()
                elif top == ("uploads",):
                    uploads["files"] += 1
                    uploads["bytes"] += entry.size
                elif str(path) == "settings/zulip-secrets.conf":
                    secrets = secrets_of(content.read(CHUNK).decode(errors="replace"))
                elif top == ("database",):
                    dump["files"] += 1
                    dump["bytes"] += entry.size
                    dump["toc"] |= name == "toc.dat"
                    if data := DATA.fullmatch(name):
                        rows, raw = copied_rows(content, bool(data[2]))
                        dump["rows"][data[1]] = rows
                        dump["raw"] += raw
            # To the checksum at its end.
            while stream.read(CHUNK):
                pass
        while hashing.read(CHUNK):
            pass
    found |= {"sha256": hashing.digest.hexdigest(), "bytes": archive.stat().st_size}
    return {**found, "dump": dump, "uploads": uploads, "secrets": secrets}


def place(content: IO[bytes], target: Path, entry: tarfile.TarInfo) -> bool:
    """Write a file so that it is whole when its name appears; tell whether it was not there yet."""
    there = target.stat() if target.is_file() else None
    if there and (there.st_size, int(there.st_mtime)) == (entry.size, int(entry.mtime)):
        return False
    part = target.with_name(f".{target.name[:200]}.import")
    with part.open("wb") as stream:
        shutil.copyfileobj(content, stream, CHUNK)
    os.chmod(part, 0o644)
    os.utime(part, (entry.mtime, entry.mtime))
    part.replace(target)
    return True


def unpack(archive: Path, part: str, folder: Path, owner: str) -> dict[str, int]:
    """Unpack the files of a part into a folder, its own folders included; return how many were new."""
    done = {"new": 0, "there": 0}
    with archive.open("rb") as file, gzip.GzipFile(fileobj=file) as stream:
        if owner:
            # Whatever links lie in its folder, nothing is written but what that user may write.
            become(owner)
        os.umask(0o022)
        for path, entry, content in members(stream):  # type: ignore[arg-type]
            if content is None or path.parts[:1] != (part,) or len(path.parts) < 2:
                continue
            target = folder.joinpath(*path.parts[1:])
            target.parent.mkdir(parents=True, exist_ok=True)
            done["new" if place(content, target, entry) else "there"] += 1
    return done


def become(owner: str) -> None:
    """Go on as another user."""
    import pwd

    user = pwd.getpwnam(owner)
    os.initgroups(owner, user.pw_gid)
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)


def main(arguments: list[str] | None = None) -> int:
    """Do what was asked; return the exit status."""
    parser = argparse.ArgumentParser(prog="import_archive.py")
    actions = parser.add_subparsers(dest="action", required=True)
    look = actions.add_parser("inspect")
    look.add_argument("archive", type=Path)
    look.add_argument("--secrets", action="store_true", help="print the values of secrets too, not their names alone")
    take = actions.add_parser("unpack")
    take.add_argument("archive", type=Path)
    take.add_argument("part", choices=["database", "uploads"])
    take.add_argument("folder", type=Path)
    take.add_argument("--owner", default="")
    given = parser.parse_args(arguments)
    try:
        if given.action == "inspect":
            answer = inspect(given.archive)
            if not given.secrets:
                answer["secrets"] = sorted(answer["secrets"])
        else:
            answer = unpack(given.archive, given.part, given.folder, given.owner)
    except Failed as error:
        print(f"{given.archive}: {error}", file=sys.stderr)
        return 1
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        print(f"{given.archive} is not whole: {error}", file=sys.stderr)
        return 1
    except (OSError, LookupError) as error:
        print(f"{given.archive}: {error}", file=sys.stderr)
        return 1
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
