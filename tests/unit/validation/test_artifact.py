"""The release artefact and the application's profile."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from plugin_utils.validation.controller import artifact_problems, profile_problems

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
        ("", None, None, "`release_artifact` is not set; run playbooks/build.yml"),
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
