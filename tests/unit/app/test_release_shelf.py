"""The controller's shelf of artefacts."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.app.paths import ROOT


def shelf(tmp_path: Path, *arguments: str, stdin: str = "", code: int = 0) -> Any:
    """Run the program."""
    done = subprocess.run(
        [
            sys.executable,
            "-B",
            str(ROOT / "roles/release/files/release-shelf"),
            arguments[0],
            "--shelf",
            str(tmp_path / "shelf"),
            *arguments[1:],
        ],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout) if code == 0 else done.stderr


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A small source."""
    folder = tmp_path / "source"
    (folder / "sub").mkdir(parents=True)
    (folder / "VERSION").write_text("1.2\n")
    (folder / "sub/run").write_text("#!/bin/sh\n")
    (folder / "sub/run").chmod(0o755)
    (folder / "link").symlink_to("sub/run")
    return folder


def request(source: Path) -> str:
    """Return a request for a source."""
    empty = dict.fromkeys(("default_source", "sha256", "git_url", "git_ref", "oldest", "creates"), "")
    version = {"file": "VERSION", "pattern": r"^(\S+)$"}
    return json.dumps({**empty, "source": str(source), "version": version})


def look(tmp_path: Path, source: Path) -> Any:
    """Ask for a source's sum."""
    return shelf(tmp_path, "source", stdin=request(source))


def test_the_sum_is_of_names_contents_and_execute_bits_alone(tmp_path: Path, source: Path) -> None:
    first = look(tmp_path, source)
    assert first["version"] == "1.2"
    assert Path(first["archive"]).exists()
    os.utime(source / "VERSION", (1, 1))
    (source / "sub/__pycache__").mkdir()
    (source / "sub/__pycache__/x.pyc").write_text("x")
    (source / "sub/run").chmod(0o700)
    assert look(tmp_path, source) == first
    (source / "sub/run").chmod(0o644)
    assert look(tmp_path, source)["digest"] != first["digest"]


@pytest.mark.parametrize("change", ["content", "name", "link"])
def test_another_source_has_another_sum(tmp_path: Path, source: Path, change: str) -> None:
    first = look(tmp_path, source)["digest"]
    if change == "content":
        (source / "sub/run").write_text("#!/bin/bash\n")
    elif change == "name":
        (source / "sub/run").rename(source / "sub/walk")
    else:
        (source / "link").unlink()
        (source / "link").symlink_to("VERSION")
    assert look(tmp_path, source)["digest"] != first


def test_a_source_that_is_not_there_is_named(tmp_path: Path) -> None:
    stderr = shelf(tmp_path, "source", stdin=request(tmp_path / "none"), code=1)
    assert "none is neither a tarball nor a directory" in stderr


def test_a_source_without_its_version_is_refused(tmp_path: Path, source: Path) -> None:
    (source / "VERSION").write_text("\n")
    assert "no version in" in shelf(tmp_path, "source", stdin=request(source), code=1)


def publish(
    tmp_path: Path, number: int, *options: str, keep: int = 2, content: bytes = b"artefact", code: int = 0
) -> Any:
    """Put an artefact on the shelf."""
    folder = tmp_path / "shelf"
    folder.mkdir(exist_ok=True)
    artifact = folder / f"standin-1-trixie-{number}.tar.zst"
    artifact.write_bytes(content)
    os.utime(artifact, (1000 + number, 1000 + number))
    summary = {
        "sha256": hashlib.sha256(b"artefact").hexdigest(),
        "manifest": {"profile": "standin", "codename": "trixie", "id": str(number)},
    }
    return shelf(
        tmp_path, "publish", "--artifact", str(artifact), "--keep", str(keep), *options, stdin=json.dumps(summary),
        code=code,
    )  # fmt: skip


def find(tmp_path: Path, number: int) -> Any:
    """Look for an artefact."""
    return shelf(tmp_path, "find", "--profile", "standin", "--codename", "trixie", "--id", str(number))["entry"]


def test_publish_twice_changes_nothing(tmp_path: Path) -> None:
    assert publish(tmp_path, 1) == {"changed": True}
    assert publish(tmp_path, 1) == {"changed": False}
    entry = json.loads((tmp_path / "shelf/standin-trixie.json").read_text())
    assert entry["artifact"] == "standin-1-trixie-1.tar.zst"
    assert entry == find(tmp_path, 1)
    sums = (tmp_path / "shelf/standin-1-trixie-1.tar.zst.sha256").read_text()
    assert sums == f"{entry['sha256']}  standin-1-trixie-1.tar.zst\n"


def test_the_oldest_go(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        publish(tmp_path, number)
    assert find(tmp_path, 1) is None
    assert find(tmp_path, 2)
    assert find(tmp_path, 3)
    assert not list((tmp_path / "shelf").glob("*-1.tar.zst*"))


def test_what_the_shelf_points_at_stays_beside_what_is_only_built(tmp_path: Path) -> None:
    publish(tmp_path, 1)
    for number in (2, 3, 4):
        assert publish(tmp_path, number, "--no-point") == {"changed": True}
    assert json.loads((tmp_path / "shelf/standin-trixie.json").read_text())["manifest"]["id"] == "1"
    assert [number for number in (1, 2, 3, 4) if find(tmp_path, number)] == [1, 3, 4]


def test_what_goes_is_never_what_was_just_published(tmp_path: Path) -> None:
    publish(tmp_path, 9, keep=1)
    publish(tmp_path, 1, keep=1)
    assert find(tmp_path, 1)
    assert find(tmp_path, 9) is None


def test_an_artefact_whose_sum_differs_is_refused(tmp_path: Path) -> None:
    assert "build again" in publish(tmp_path, 1, content=b"another", code=1)
    assert find(tmp_path, 1) is None
