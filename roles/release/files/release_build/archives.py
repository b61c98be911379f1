"""Reads tar archives of any compression, and refuses those that are damaged or would write elsewhere."""

from __future__ import annotations

import bz2
import gzip
import lzma
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

_MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_BROKEN = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError, ValueError)


class ArchiveError(Exception):
    """An archive that must not be used, in one clause that its name is put before."""


class _Watched:
    """A file that remembers what was read last: a whole tar archive ends with a block of zeros."""

    def __init__(self, stream: IO[bytes]):
        self.stream = stream
        self.last = b""

    def read(self, size: int = -1) -> bytes:
        data = self.stream.read(size)
        self.last = data
        return data

    def seek(self, *where: int) -> int:
        return self.stream.seek(*where)

    def tell(self) -> int:
        return self.stream.tell()


@contextmanager
def _decompressed(path: Path) -> Iterator[IO[bytes]]:
    """Open a file, whatever compressed it."""
    with path.open("rb") as raw:
        start = raw.read(6)
        raw.seek(0)
        kind = next((kind for magic, kind in _MAGIC.items() if start.startswith(magic)), "")
        if kind == "zstd":
            # Beside the archive and not in /tmp, which may be small.
            with tempfile.TemporaryFile(dir=path.parent) as plain:
                try:
                    done = subprocess.run(["zstd", "-dc", "--", str(path)], stdout=plain, stderr=subprocess.PIPE)
                except FileNotFoundError:
                    raise ArchiveError("is compressed by zstd, and there is no program zstd here: install it") from None
                if done.returncode:
                    raise ArchiveError("is damaged or cut short: zstd cannot read it")
                plain.seek(0)
                yield plain
            return
        opened: Any = {"gzip": gzip.open, "bzip2": bz2.open, "xz": lzma.open}.get(kind)
        if opened is None:
            yield raw
        else:
            with opened(raw) as plain:
                yield plain


def _safe(name: str) -> bool:
    """Tell whether a name stays below the folder that it is unpacked into."""
    return not name.startswith("/") and ".." not in name.split("/")


class _Guard:
    """Refuses members that would write outside of the folder that they are unpacked into."""

    def __init__(self) -> None:
        self.links: set[str] = set()

    def check(self, member: tarfile.TarInfo) -> None:
        """Refuse a member, or remember it."""
        name = member.name.removeprefix("./")
        if not _safe(name) or (member.islnk() and not _safe(member.linkname)):
            raise ArchiveError(f"has the member {member.name}, which leads outside")
        if not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
            raise ArchiveError(f"has the member {member.name}, which is neither file, folder nor link")
        parts = name.split("/")
        # A link may point anywhere, but nothing is written through it.
        if any("/".join(parts[:depth]) in self.links for depth in range(1, len(parts))):
            raise ArchiveError(f"has the member {member.name}, which leads through a link")
        if name in self.links:
            raise ArchiveError(f"has the member {member.name} twice, once as a link")
        if member.issym():
            self.links.add(name)


@contextmanager
def members(path: Path) -> Iterator[tuple[tarfile.TarFile, Iterator[tarfile.TarInfo]]]:
    """Open an archive and go through its members, each checked, to the very end."""

    def walk(tar: tarfile.TarFile, watched: _Watched) -> Iterator[tarfile.TarInfo]:
        guard = _Guard()
        for member in tar:
            guard.check(member)
            yield member
        if len(watched.last) != tarfile.BLOCKSIZE or watched.last.strip(b"\0"):
            raise ArchiveError("is cut short")

    try:
        with _decompressed(path) as stream:
            watched = _Watched(stream)
            try:
                tar = tarfile.open(fileobj=watched, mode="r:")  # type: ignore[call-overload] # noqa: SIM115
            except _BROKEN:
                raise ArchiveError("is damaged, or no tar archive at all") from None
            with tar:
                yield tar, walk(tar, watched)
    except (EOFError, tarfile.ReadError):
        raise ArchiveError("is cut short") from None
    except (tarfile.TarError, zlib.error, lzma.LZMAError, gzip.BadGzipFile):
        raise ArchiveError("is damaged") from None


def unpack(path: Path, target: Path) -> None:
    """Unpack an archive into an empty folder."""
    # The members were checked; Debian 12's Python has no filters yet, and newer ones want one named.
    options: dict[str, Any] = {"filter": "tar"} if hasattr(tarfile, "tar_filter") else {}
    with members(path) as (tar, found):
        for member in found:
            tar.extract(member, target, **options)


def only_folder(root: Path) -> Path:
    """Return the one folder that holds everything, as in a release's tarball, or the root itself."""
    inside = list(root.iterdir())
    return inside[0] if len(inside) == 1 and inside[0].is_dir() and not inside[0].is_symlink() else root
