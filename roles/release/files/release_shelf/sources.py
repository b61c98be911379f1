"""Finds what a release is built from, whatever it comes as, and reads its version without unpacking it."""

from __future__ import annotations

import gzip
import os
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from release_build import archives
from release_build.masking import plain_url

from .cache import Cache, file_sha256
from .downloads import download, wrong_sum
from .git import Repository

ALWAYS_EXCLUDED = {".git", "__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".venv", "node_modules"}
LARGEST_TEXT = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_NUMBER = re.compile(r"\d+(?:\.\d+)*")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+~_-]*\Z")


@dataclass
class Source:
    """An archive, and where it came from."""

    kind: str
    origin: str
    archive: Path
    digest: str
    commit: str = ""


def is_url(text: str) -> bool:
    """Tell a URL from a path."""
    return re.match(r"https?://", text) is not None


def members(directory: Path, excluded: set[str]) -> list[Path]:
    """Return a folder's files and links, sorted, without what a work tree collects."""
    found = []
    for root, folders, files in os.walk(directory):
        folders[:] = sorted(set(folders) - excluded)
        here = Path(root)
        found += [here / name for name in files if name not in excluded and not name.endswith(".pyc")]
        found += [here / name for name in folders if (here / name).is_symlink()]
    return sorted(found)


def pack_folder(directory: Path, excluded: set[str], target: Path) -> None:
    """Write a folder as a tar.gz that depends on nothing but names, contents and execute bits."""
    with (
        target.open("wb") as raw,
        gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=6, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as tar,
    ):
        for path in members(directory, excluded):
            member = tar.gettarinfo(path, arcname=str(path.relative_to(directory)))
            member.uid = member.gid = member.mtime = 0
            member.uname = member.gname = "root"
            member.mode = 0o755 if member.mode & 0o111 else 0o644
            if member.islnk():
                # Which of its names comes first is chance.
                member.type, member.linkname, member.size = tarfile.REGTYPE, "", path.stat().st_size
            if member.isreg():
                with path.open("rb") as stream:
                    tar.addfile(member, stream)
            else:
                tar.addfile(member)


def from_folder(directory: Path, excluded: set[str], cache: Cache) -> Source:
    """Pack a folder."""
    temporary = cache.temporary()
    try:
        pack_folder(directory, excluded, temporary)
        digest = file_sha256(temporary)
        return Source("folder", directory.resolve().name, cache.add(temporary, f"{digest}.tar.gz"), digest)
    finally:
        temporary.unlink(missing_ok=True)


def from_location(location: str, wanted: str, variable: str, cache: Cache) -> Source:
    """Take a tarball from a path, where it stays, or from a URL."""
    if wanted and not _SHA256.match(wanted.lower()):
        raise SystemExit(f"{variable} {wanted} is no SHA-256: write the 64 digits that sha256sum prints")
    wanted = wanted.lower()
    if is_url(location):
        archive, digest = download(location, wanted, variable, cache)
        return Source("tarball", plain_url(location), archive, digest)
    path = Path(location).expanduser()
    if not path.is_file():
        raise SystemExit(f"there is no {path}")
    digest = file_sha256(path)
    if wanted and digest != wanted:
        raise SystemExit(wrong_sum(str(path), digest, wanted, variable))
    return Source("tarball", path.name, path.resolve(), digest)


def find(request: dict[str, Any], shelf: Path) -> Source:
    """Return the archive of what the operator asked for."""
    source, ref, wanted = request["source"], request["git_ref"], request["sha256"]
    cache = Cache(shelf / "sources")
    if source and ref:
        raise SystemExit("release_source and release_git_ref are both set: leave one of them empty")
    source = source or request["default_source"]
    with cache.held():
        if ref:
            if wanted:
                raise SystemExit("release_source_sha256 is the sum of a tarball, and release_git_ref is set: empty it")
            if not request["git_url"]:
                raise SystemExit("release_git_ref is set, and release_git_repo_url is empty: name the repository")
            repository = Repository(request["git_url"], shelf)
            commit = repository.commit(ref)
            return Source("git", repository.shown, repository.pack(commit, cache), commit, commit)
        if not source:
            raise SystemExit(
                "there is nothing to build: set release_source to a release tarball, its URL or a folder, "
                "or release_git_ref to a tag, branch or commit"
            )
        if not is_url(source) and urlsplit(source).scheme and "://" in source:
            raise SystemExit(
                f"release_source {plain_url(source)} is no http(s) URL: for a repository set release_git_ref"
            )
        folder = Path(source).expanduser()
        if is_url(source) or folder.is_file():
            return from_location(source, wanted, "release_source_sha256", cache)
        if wanted and folder.is_dir():
            raise SystemExit(f"release_source_sha256 is the sum of a tarball, and {folder} is a directory: empty it")
        if not folder.is_dir():
            raise SystemExit(f"the release source {folder} is neither a tarball nor a directory")
        return from_folder(folder, ALWAYS_EXCLUDED | set(request.get("exclude", [])), cache)


def numbers(version: str) -> tuple[int, ...]:
    """Return a version's leading numbers without zeros at the end: 9.0-dev is 9."""
    found = _NUMBER.match(version)
    parts = [int(part) for part in found[0].split(".")] if found else []
    while parts and not parts[-1]:
        parts.pop()
    return tuple(parts)


def look(source: Source, version_file: str, creates: str) -> tuple[str | None, bool]:
    """Go through the whole archive once: return the text of the version's file, and whether the assets are in it."""
    texts: dict[str, str] = {}
    names: set[str] = set()
    try:
        with archives.members(source.archive) as (tar, found):
            for member in found:
                name = member.name.removeprefix("./").rstrip("/")
                names |= {name} if name not in ("", ".") else set()
                if version_file and member.isreg() and name.endswith(version_file) and member.size <= LARGEST_TEXT:
                    stream = tar.extractfile(member)
                    assert stream is not None
                    texts[name] = stream.read().decode("utf-8", errors="replace")
    except archives.ArchiveError as error:
        raise SystemExit(f"the archive {source.origin} {error}") from None
    tops = {name.partition("/")[0] for name in names}
    # A release tarball has one folder that holds everything.
    inside = len(tops) == 1 and any("/" in name for name in names)
    top = f"{tops.pop()}/" if inside else ""
    goal = f"{top}{creates}"
    prebuilt = bool(creates) and any(name == goal or name.startswith(f"{goal}/") for name in names)
    return texts.get(f"{top}{version_file}"), prebuilt


def version_of(text: str | None, origin: str, version_file: str, pattern: str, oldest: str) -> str:
    """Return the version that a release's own file gives it."""
    if text is None:
        raise SystemExit(f"the release source {origin} has no {version_file}, so it is no release of this application")
    found = re.search(pattern, text, re.MULTILINE)
    if not found or not _VERSION.match(found[1]):
        raise SystemExit(f"no version in {version_file} of {origin}: nothing matches {pattern}")
    if oldest and numbers(found[1]) < numbers(oldest):
        raise SystemExit(
            f"the release {found[1]} of {origin} is older than {oldest}, the oldest that can be built: take a newer one"
        )
    return found[1]


def describe(request: dict[str, Any], shelf: Path) -> dict[str, Any]:
    """Return what would be built."""
    source = find(request, shelf)
    version_file, creates = request["version"].get("file", ""), request["creates"]
    text, prebuilt = look(source, version_file, creates)
    version = "0"
    if version_file:
        version = version_of(text, source.origin, version_file, request["version"]["pattern"], request["oldest"])
    return {
        "digest": source.digest,
        "archive": str(source.archive),
        "version": version,
        "kind": source.kind,
        "commit": source.commit,
        "origin": source.origin,
        "prebuilt": prebuilt,
    }


def describe_archive(request: dict[str, Any], shelf: Path) -> dict[str, str]:
    """Return where an archive that is no source is on the controller, checked like one."""
    cache = Cache(shelf / "virtualenvs")
    with cache.held():
        source = from_location(request["location"], request["sha256"], request["variable"], cache)
    look(source, "", "")
    return {"digest": source.digest, "archive": str(source.archive), "origin": source.origin}
