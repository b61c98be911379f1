"""The release artefact and the application's profile."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from plugin_utils.validation.controller import artifact_problems, profile_problems, shelf_problems

DIGEST = hashlib.sha256(b"release").hexdigest()
OTHER = hashlib.sha256(b"other").hexdigest()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "release.tar").write_bytes(b"release")
    (tmp_path / "playbooks" / "profiles").mkdir(parents=True)
    (tmp_path / "playbooks" / "profiles" / "zulip.yml").touch()
    return tmp_path


@pytest.mark.parametrize("checksum", [None, "", DIGEST, DIGEST.upper()])
def test_right_artifact(root: Path, checksum: str | None) -> None:
    (root / "release.tar.sha256").write_text(f"{DIGEST} *release.tar\n")
    assert list(artifact_problems("release.tar", checksum, root, "")) == []
    assert list(artifact_problems(str(root / "release.tar"), checksum, root, "")) == []
    assert list(artifact_problems("https://example.com/r.tar", checksum, root, "")) == []


@pytest.mark.parametrize(
    ("artifact", "checksum", "sidecar", "expected"),
    [
        ("", None, None, "`release_artifact` is empty; run playbooks/build.yml"),
        ("none.tar", None, None, "none.tar does not exist; run playbooks/build.yml"),
        ("release.tar", OTHER, None, "not the one in release_artifact_sha256; copy or build it again"),
        ("release.tar", None, f"{OTHER}  release.tar\n", "release.tar.sha256; copy or build it again"),
        ("release.tar", DIGEST, f"{OTHER}  release.tar\n", "release.tar.sha256; copy or build it again"),
        ("release.tar", None, "nothing\n", "no line of sha256sum in it"),
        ("release.tar", "abc", None, "`release_artifact_sha256` abc is no SHA-256"),
    ],
)
def test_wrong_artifact(root: Path, artifact: str, checksum: str | None, sidecar: str | None, expected: str) -> None:
    if sidecar:
        (root / "release.tar.sha256").write_text(sidecar)
    problems = list(artifact_problems(artifact, checksum, root, "here"))
    assert len(problems) == 1
    assert expected in problems[0]


def test_profile(root: Path) -> None:
    assert list(profile_problems("zulip", root, "here:1")) == []
    assert list(profile_problems("zulp", root, "here:1")) == ["here:1: `app_profile` cannot be zulp; choose zulip"]


def _shelf(root: Path, content: str, digest: str) -> Path:
    shelf = root / "shelf"
    shelf.mkdir()
    (shelf / "app-1.tar.zst").write_text(content)
    (shelf / "app-trixie.json").write_text(json.dumps({"artifact": "app-1.tar.zst", "sha256": digest}))
    return shelf


def test_the_newest_artefact_of_the_shelf_is_checked(root: Path) -> None:
    digest = hashlib.sha256(b"release").hexdigest()
    assert list(shelf_problems("app", _shelf(root, "release", digest), "here")) == []


def test_an_artefact_of_the_shelf_that_changed_is_refused(root: Path) -> None:
    (problem,) = shelf_problems("app", _shelf(root, "something else", "0" * 64), "here")
    assert "app-trixie.json; copy or build it again, do not deploy it" in problem


def test_an_empty_shelf_says_what_to_run(root: Path) -> None:
    (problem,) = shelf_problems("app", root / "none", "here")
    assert "run playbooks/build.yml" in problem


def test_an_index_that_is_none_is_named(root: Path) -> None:
    shelf = _shelf(root, "release", "0" * 64)
    (shelf / "app-trixie.json").write_text("[]")
    (problem,) = shelf_problems("app", shelf, "here")
    assert "app-trixie.json" in problem
