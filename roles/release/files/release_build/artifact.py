"""The artefact: every file with one owner, one time stamp and a plain mode, listed with its sum, packed."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tarfile
import time
from pathlib import Path
from typing import BinaryIO

from .virtualenv import MARKER
from .workshop import Failure, change_owner

EPOCH = 1_577_836_800
"""One time stamp for every file: compiled files stay valid on each host, and the same input packs to the same files."""


def age(tree: Path) -> int:
    """Return the time stamp for a release: that of its newest file, for an application that asks how old it is.

    A source that knows no times, which is older than any release, gets EPOCH. Called before anything is built in it.
    """
    found = [int(path.lstat().st_mtime) for path in tree.rglob("*") if path.is_file() and not path.is_symlink()]
    newest = max(found, default=0)
    return newest if EPOCH < newest <= time.time() else EPOCH


def normalise(root: Path, python: str, stamp: int = EPOCH) -> None:
    """Give each file one owner, one time stamp and a plain mode, and compile Python files against that stamp."""
    for cache in [path for path in root.rglob("__pycache__") if not path.is_symlink()]:
        shutil.rmtree(cache, ignore_errors=True)
    change_owner(root, os.geteuid(), os.getegid())
    for path in [root, *root.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o111 else 0o644)
        os.utime(path, (stamp, stamp), follow_symlinks=False)
    subprocess.run(
        [python, "-m", "compileall", "-q", "-j0", "--invalidation-mode=timestamp", str(root)],
        # A package may carry files for another Python; they are not what anybody imports.
        check=False,
        stdout=subprocess.DEVNULL,
    )
    for path in [root, *root.rglob("*")]:
        os.utime(path, (stamp, stamp), follow_symlinks=False)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 sum of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sums(parts: dict[str, Path]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the SHA-256 of every file and the target of every link, by name in the artefact."""
    files, links = {}, {}
    for part, root in parts.items():
        for path in sorted(root.rglob("*")):
            name = f"{part}/{path.relative_to(root)}"
            if path.is_symlink():
                links[name] = os.readlink(path)
            elif path.is_file() and path.name != MARKER:
                files[name] = file_sha256(path)
    return files, links


def add(tar: tarfile.TarFile, path: Path, name: str) -> None:
    """Add one file, folder or link."""
    member = tar.gettarinfo(path, arcname=name)
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    if member.islnk():
        # A second name of one file: stored as a file of its own, so that each name can be verified alone.
        member.type, member.linkname, member.size = tarfile.REGTYPE, "", path.stat().st_size
    if member.isreg():
        with path.open("rb") as stream:
            tar.addfile(member, stream)
    else:
        tar.addfile(member)


def pack(manifest: Path, parts: dict[str, Path], output: Path) -> None:
    """Write the artefact, the manifest first, so that whoever unpacks it can verify each file as it comes."""
    temporary = output.with_name(f".{output.name}")
    with temporary.open("wb") as target:
        packer = subprocess.Popen(["zstd", "-q", "-9", "-T0", "-c"], stdin=subprocess.PIPE, stdout=target)
        stream: BinaryIO | None = packer.stdin  # type: ignore[assignment]
        assert stream is not None
        with stream, tarfile.open(fileobj=stream, mode="w|") as tar:
            add(tar, manifest, "manifest.json")
            for part, root in parts.items():
                add(tar, root, part)
                for path in sorted(root.rglob("*")):
                    if path.name != MARKER:
                        add(tar, path, f"{part}/{path.relative_to(root)}")
        if packer.wait():
            raise Failure("zstd failed to pack the artefact")
        target.flush()
        os.fsync(target.fileno())
    temporary.replace(output)
