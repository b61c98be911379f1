"""The module that brings a release to a host, on folders of its own."""

from __future__ import annotations

import getpass
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from library import release_state

pytestmark = pytest.mark.skipif(shutil.which("zstd") is None, reason="zstd is not installed")


class Site:
    """A host's folders, and artefacts for it."""

    def __init__(self, root: Path):
        self.root = root
        self.deployments = root / "deployments"
        self.venvs = root / "venvs"
        self.archive = root / "artifact.tar.zst"

    def release(self, number: int) -> dict[str, Any]:
        """A manifest's summary."""
        return {
            "format": 1,
            "id": f"id{number}",
            "deployment": f"2026-01-0{number}",
            "venv": str(self.venvs / f"id{number}"),
            "codename": "x",
        }

    def pack(self, number: int = 1, damage: str = "", extra: dict[str, bytes] | None = None) -> dict[str, Any]:
        """Make an artefact; return its summary."""
        release = self.release(number)
        contents = {"release/app.py": f"n = {number}\n".encode(), "release/static/a.js": b"a", "venv/bin/x": b"#!"}
        links = {"release/.venv": release["venv"]}
        files = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
        if damage == "content":
            contents["release/app.py"] = b"n = 66\n"
        if damage == "missing":
            del contents["release/app.py"]
        if damage == "link":
            links = {"release/.venv": "/elsewhere"}
        manifest = {**release, "files": files, "links": {"release/.venv": release["venv"]}}
        if damage == "manifest":
            manifest["id"] = "other"
        contents.update(extra or {})
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            self.add(tar, "manifest.json", json.dumps(manifest).encode())
            for folder in ("release", "release/static", "venv", "venv/bin"):
                member = tarfile.TarInfo(folder)
                member.type, member.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(member)
            for name, data in contents.items():
                self.add(tar, name, data)
            for name, target in links.items():
                member = tarfile.TarInfo(name)
                member.type, member.linkname = tarfile.SYMTYPE, target
                tar.addfile(member)
        self.archive.write_bytes(
            subprocess.run(["zstd", "-qc"], input=buffer.getvalue(), capture_output=True, check=True).stdout
        )
        return release

    @staticmethod
    def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
        """Add a file."""
        member = tarfile.TarInfo(name)
        member.size, member.mode, member.mtime = len(data), 0o644, 1000
        tar.addfile(member, io.BytesIO(data))

    def wanted(self, release: dict[str, Any], check: bool = False, **options: Any) -> release_state.Release:
        """The module's work, before it is done."""
        params = {
            "release": release,
            "archive": str(self.archive),
            "sha256": hashlib.sha256(self.archive.read_bytes()).hexdigest() if self.archive.exists() else "",
            "deployments": str(self.deployments),
            "owner": getpass.getuser(),
            "static_from": "static",
            "static_to": str(self.root / "static"),
            "activate": False,
            "keep": 3,
            **options,
        }
        return release_state.Release(params, check)

    def run(self, release: dict[str, Any], check: bool = False, **options: Any) -> dict[str, Any]:
        """Run as the module does."""
        wanted = self.wanted(release, check, **options)
        needs = wanted.install()
        if not needs:
            wanted.link()
        return wanted.result(needs, "")

    def links(self) -> dict[str, str]:
        """Where the links point."""
        return {link: release_state.link_name(self.deployments, link) for link in release_state.LINKS}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A host."""
    monkeypatch.setattr(os, "chown", lambda *_: None)
    return Site(tmp_path)


def test_the_first_release_becomes_current(site: Site) -> None:
    release = site.pack()
    result = site.run(release)
    assert result["changed"]
    assert result["needs"] == []
    assert not result["activation_due"]
    assert site.links() == {"current": "2026-01-01", "last": "", "next": ""}
    assert (site.deployments / "current/app.py").read_text() == "n = 1\n"
    assert (site.root / "static/a.js").read_text() == "a"
    assert (site.venvs / "id1/bin/x").exists()
    assert not site.archive.exists()


def test_the_second_time_nothing_is_to_do_and_nothing_is_needed(site: Site) -> None:
    release = site.pack()
    site.run(release)
    result = site.run(release)
    assert not result["changed"]
    assert result["needs"] == []


def test_another_release_waits_until_it_is_activated(site: Site) -> None:
    site.run(site.pack(1))
    second = site.pack(2)
    result = site.run(second)
    assert result["activation_due"]
    assert site.links() == {"current": "2026-01-01", "last": "", "next": "2026-01-02"}
    assert not site.run(second)["changed"]
    assert site.run(second, activate=True)["changed"]
    assert site.links() == {"current": "2026-01-02", "last": "2026-01-01", "next": ""}
    assert not site.run(second, activate=True)["changed"]


def test_going_back_to_current_drops_next(site: Site) -> None:
    first = site.pack(1)
    site.run(first)
    site.run(site.pack(2))
    assert site.run(first)["changed"]
    assert site.links()["next"] == ""


def test_what_is_missing_is_named(site: Site) -> None:
    result = site.run(site.release(1), owner="nobody-of-that-name")
    assert result["changed"]
    assert result["needs"] == ["account", "archive"]
    assert not site.deployments.exists()


def test_check_mode_predicts_and_touches_nothing(site: Site) -> None:
    release = site.pack()
    assert site.run(release, check=True)["changed"]
    assert not site.deployments.exists()
    site.run(release)
    assert not site.run(release, check=True)["changed"]
    second = site.pack(2)
    assert site.run(second, check=True, activate=True)["changed"]
    assert site.links()["current"] == "2026-01-01"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("content", "has not the sum"),
        ("missing", "lacks 1 files"),
        ("link", "is not the manifest's"),
        ("manifest", "id is other, wanted is id1"),
    ],
)
def test_a_damaged_artefact_leaves_nothing_that_looks_complete(site: Site, damage: str, message: str) -> None:
    release = site.pack(damage=damage)
    with pytest.raises(release_state.ReleaseError, match=message):
        site.run(release)
    assert site.links()["current"] == ""
    assert not (site.deployments / "2026-01-01").exists()
    # What it left behind is in nobody's way.
    assert not site.run(site.pack())["activation_due"]


def test_another_sum_is_refused_before_anything_is_unpacked(site: Site) -> None:
    release = site.pack()
    with pytest.raises(release_state.ReleaseError, match="wanted is 00"):
        site.run(release, sha256="00")
    assert not site.deployments.exists()


@pytest.mark.parametrize("name", ["../evil", "release/../../evil", "/evil"])
def test_a_member_that_leads_outside_is_refused(site: Site, name: str) -> None:
    release = site.pack(extra={name: b"x"})
    with pytest.raises(release_state.ReleaseError, match="leads outside"):
        site.run(release)


def test_a_member_behind_a_link_is_refused(site: Site, tmp_path: Path) -> None:
    unpacker = release_state.Unpacker({"files": {}, "links": {}}, {"release": tmp_path / "r"})
    (tmp_path / "r").mkdir()
    (tmp_path / "r/out").symlink_to("/tmp")
    with pytest.raises(release_state.ReleaseError, match="through a link"):
        unpacker.place("release/out/evil")


def test_the_rest_of_a_killed_run_is_replaced(site: Site) -> None:
    release = site.pack()
    for folder in (site.deployments / "2026-01-01", site.deployments / ".unpack-2026-01-01", site.venvs / "id1"):
        folder.mkdir(parents=True)
        (folder / "half").write_text("x")
    site.run(release)
    assert not (site.deployments / "2026-01-01/half").exists()
    assert not (site.venvs / "id1/half").exists()


def test_a_virtualenv_that_was_built_here_is_kept(site: Site) -> None:
    release = site.pack()
    venv = site.venvs / "id1"
    venv.mkdir(parents=True)
    (venv / release_state.MARKER).write_text(json.dumps(release))
    (venv / "own").write_text("x")
    site.run(release)
    assert (venv / "own").exists()


def test_old_releases_go_and_those_that_links_point_to_stay(site: Site) -> None:
    for number in range(1, 7):
        site.run(site.pack(number), activate=True, keep=1)
    names = sorted(path.name for path in site.deployments.iterdir() if not path.is_symlink())
    assert names == ["2026-01-04", "2026-01-05", "2026-01-06"]
    assert sorted(path.name for path in site.venvs.iterdir()) == ["id4", "id5", "id6"]


def test_static_files_of_earlier_releases_stay(site: Site) -> None:
    site.run(site.pack(1))
    (site.root / "static/old.js").write_text("old")
    (site.root / "static/a.js").write_text("changed")
    site.run(site.pack(2), activate=True)
    assert (site.root / "static/old.js").exists()
    assert (site.root / "static/a.js").read_text() == "a"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("codename", "bookworm", "distribution bookworm"),
        ("python", "3.11", "Python 3.11"),
        ("architecture", "arm64", "architecture arm64"),
        ("format", 2, "format 2"),
    ],
)
def test_a_release_for_another_host_is_refused(key: str, value: object, message: str) -> None:
    release = {"format": 1, "id": "i", "codename": "trixie", "python": "3.13", "architecture": "x86_64"}
    assert release_state.misfit(release, "trixie", "3.13", "x86_64") is None
    assert message in str(release_state.misfit({**release, key: value}, "trixie", "3.13", "x86_64"))


def test_the_code_name_is_read(tmp_path: Path) -> None:
    (tmp_path / "os-release").write_text('ID=debian\nVERSION_CODENAME="trixie"\n')
    assert release_state.host_codename(str(tmp_path / "os-release")) == "trixie"
