"""What a release is built from: tarballs and folders are described, or refused in one line."""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Shelf, link, make_tar

Tarball = Callable[..., Path]


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
def test_a_tarball_is_described_without_unpacking_it(shelf: Shelf, tarball: Tarball, mode: str) -> None:
    path = tarball(mode=mode)
    seen = shelf.source(source=str(path))
    assert seen == {
        "digest": hashlib.sha256(path.read_bytes()).hexdigest(),
        "archive": str(path),
        "version": "9.1",
        "kind": "tarball",
        "commit": "",
        "origin": "app-9.1.tar.gz",
        "prebuilt": False,
    }


def test_a_tarball_by_zstd(shelf: Shelf, tarball: Tarball, tmp_path: Path) -> None:
    path = tarball(name="plain.tar", mode="w", assets=True)
    packed = tmp_path / "app.tar.zst"
    assert os.spawnlp(os.P_WAIT, "zstd", "zstd", "-q", str(path), "-o", str(packed)) == 0
    seen = shelf.source(source=str(packed))
    assert (seen["version"], seen["prebuilt"]) == ("9.1", True)
    packed.write_bytes(packed.read_bytes()[:-20])
    assert "is damaged or cut short" in shelf.refusal(source=str(packed))


def test_a_tarball_that_brings_its_assets_says_so(shelf: Shelf, tarball: Tarball) -> None:
    assert shelf.source(source=str(tarball(assets=True)))["prebuilt"] is True


def test_a_tarball_without_a_top_folder(shelf: Shelf, tmp_path: Path) -> None:
    files = {"./version.py": 'APP_VERSION = "10.0-dev+git"\n', "./sub/version.py": "", "./other": ""}
    assert shelf.source(source=str(make_tar(tmp_path / "x.tar", files, "w")))["version"] == "10.0-dev+git"


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_a_tarball_that_is_cut_short_is_refused(shelf: Shelf, tmp_path: Path, mode: str, share: float) -> None:
    files = {f"app/{number}": os.urandom(600).hex() for number in range(30)}
    path = make_tar(tmp_path / "app.tar", {"app/version.py": 'APP_VERSION = "9.1"\n', **files}, mode)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert "app.tar is cut short" in shelf.refusal(source=str(path))


def test_a_tarball_that_is_cut_between_two_files_is_refused(shelf: Shelf, tarball: Tarball) -> None:
    path = tarball(mode="w")
    with tarfile.open(path) as tar:
        last = tar.getmembers()[-1]
    path.write_bytes(path.read_bytes()[: last.offset])
    assert "is cut short" in shelf.refusal(source=str(path))


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>" * 100, b"\x1f\x8bxxxxxxxxxxxxxxxx"])
def test_what_is_no_tarball_is_refused(shelf: Shelf, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "app.tar.gz"
    path.write_bytes(content)
    assert "the archive app.tar.gz is damaged, or no tar archive at all" in shelf.refusal(source=str(path))


def test_a_changed_byte_is_noticed(shelf: Shelf, tarball: Tarball) -> None:
    path = tarball()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    assert "the archive app-9.1.tar.gz is" in shelf.refusal(source=str(path))


def test_a_tarball_of_something_else_is_refused(shelf: Shelf, tmp_path: Path) -> None:
    path = make_tar(tmp_path / "x.tar.gz", {"x/README": "", "x/deeper/version.py": 'APP_VERSION = "9.1"'})
    assert "x.tar.gz has no version.py, so it is no release" in shelf.refusal(source=str(path))
    path = make_tar(tmp_path / "x.tar.gz", {"x/version.py": "nothing\n"})
    assert "no version in version.py of x.tar.gz" in shelf.refusal(source=str(path))
    # It becomes part of file names.
    path = make_tar(tmp_path / "x.tar.gz", {"x/version.py": 'APP_VERSION = "../9.1"\n'})
    assert "no version in version.py of x.tar.gz" in shelf.refusal(source=str(path))


@pytest.mark.parametrize(
    ("name", "member", "message"),
    [
        ("/etc/x", "text", "leads outside"),
        ("app/../../x", "text", "leads outside"),
        ("app/hard", link("../../etc/passwd", tarfile.LNKTYPE), "leads outside"),
        ("app/device", link("", tarfile.CHRTYPE), "neither file, folder nor link"),
    ],
)
def test_members_that_lead_outside_are_refused(
    shelf: Shelf, tmp_path: Path, name: str, member: str | tarfile.TarInfo, message: str
) -> None:
    path = make_tar(tmp_path / "x.tar.gz", {"app/version.py": 'APP_VERSION = "9.1"\n', name: member})
    refusal = shelf.refusal(source=str(path))
    assert f"has the member {name}, which" in refusal
    assert message in refusal


def test_nothing_is_written_through_a_link(shelf: Shelf, tmp_path: Path) -> None:
    version = {"app/version.py": 'APP_VERSION = "9.1"\n'}
    path = make_tar(tmp_path / "x.tar.gz", {**version, "app/etc": link("/etc"), "app/etc/cron.d/x": "x"})
    assert "app/etc/cron.d/x, which leads through a link" in shelf.refusal(source=str(path))
    with tarfile.open(path, "w:gz") as tar:
        for _ in range(2):
            member = link("/etc/passwd")
            member.name = "app/same"
            tar.addfile(member)
    assert "app/same twice" in shelf.refusal(source=str(path))
    # A link by itself may point anywhere: it is only a name.
    path = make_tar(tmp_path / "x.tar.gz", {**version, "app/settings": link("/etc/app/settings")})
    assert shelf.source(source=str(path))["version"] == "9.1"


@pytest.mark.parametrize(("version", "fits"), [("8.5", False), ("9.0-dev", True), ("9.0", True), ("10.0", True)])
def test_an_old_release_is_refused(shelf: Shelf, tarball: Tarball, version: str, fits: bool) -> None:
    path = str(tarball(version=version))
    if fits:
        assert shelf.source(source=path)["version"] == version
    else:
        assert f"the release {version} of app-9.1.tar.gz is older than 9.0" in shelf.refusal(source=path)


def test_the_sum_is_compared(shelf: Shelf, tarball: Tarball) -> None:
    path = tarball()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert shelf.source(source=str(path), sha256=digest.upper())["digest"] == digest
    refusal = shelf.refusal(source=str(path), sha256="0" * 64)
    assert f"has the SHA-256 {digest}, and release_source_sha256 wants {'0' * 64}" in refusal
    assert "is no SHA-256" in shelf.refusal(source=str(path), sha256="12")


def test_a_folder_is_packed_and_the_last_few_are_kept(shelf: Shelf, tmp_path: Path) -> None:
    folder = tmp_path / "app"
    (folder / "prod-static/serve").mkdir(parents=True)
    (folder / "prod-static/serve/x").write_text("x")
    for number in range(5):
        (folder / "version.py").write_text(f'APP_VERSION = "9.{number}"\n')
        seen = shelf.source(default_source=str(folder))
        assert (seen["kind"], seen["origin"], seen["version"]) == ("folder", "app", f"9.{number}")
        assert seen["prebuilt"] is True
    assert len(shelf.archives()) == 3
    assert Path(seen["archive"]).exists()
    assert "is a directory: empty it" in shelf.refusal(source=str(folder), sha256="0" * 64)


def test_what_a_killed_run_left_is_removed(shelf: Shelf, tmp_path: Path) -> None:
    sources = shelf.directory / "sources"
    sources.mkdir(parents=True)
    (sources / ".part.1").write_text("half")
    shelf.refusal()
    assert not (sources / ".part.1").exists()


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({}, "there is nothing to build: set release_source"),
        ({"source": "/x", "git_ref": "main"}, "are both set"),
        ({"git_ref": "main"}, "release_git_repo_url is empty"),
        ({"source": "/none.tar.gz"}, "/none.tar.gz is neither a tarball nor a directory"),
        ({"source": "ftp://u:secret@h/x.tar"}, "release_source ftp://h/x.tar is no http(s) URL"),
        ({"git_ref": "x", "git_url": "/x", "sha256": "0" * 64}, "is the sum of a tarball"),
    ],
)
def test_what_cannot_be_meant_is_refused(shelf: Shelf, request_: dict[str, str], message: str) -> None:
    refusal = shelf.refusal(**request_)
    assert message in refusal
    assert "secret" not in refusal
