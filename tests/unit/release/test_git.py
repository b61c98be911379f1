"""A commit of a repository: fetched without its history, packed once, named by its digits."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from .conftest import CREATES, Shelf


class Upstream:
    """A repository with two commits, a branch and a tag."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.url = str(folder / ".git")
        folder.mkdir()
        self.git("init", "--quiet", "--initial-branch=main")
        self.first = self.commit("9.1")
        self.git("tag", "--annotate", "--message=x", "v9.1")
        self.second = self.commit("9.2")

    def git(self, *arguments: str) -> str:
        """Run git."""
        identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        done = subprocess.run(
            ["git", *identity, *arguments],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=True,
            env=environment,
        )
        return done.stdout.strip()

    def commit(self, version: str) -> str:
        """Commit a version."""
        (self.folder / "version.py").write_text(f'APP_VERSION = "{version}"\n')
        self.git("add", ".")
        self.git("commit", "--quiet", "--message=x")
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def upstream(tmp_path: Path) -> Upstream:
    """A repository."""
    return Upstream(tmp_path / "upstream")


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_tag_branch_and_commit(shelf: Shelf, upstream: Upstream, scheme: str) -> None:
    url = scheme + upstream.url
    for ref, commit, version in (
        ("main", upstream.second, "9.2"),
        ("v9.1", upstream.first, "9.1"),
        (upstream.first, upstream.first, "9.1"),
    ):
        seen = shelf.source(git_url=url, git_ref=ref)
        assert (seen["commit"], seen["digest"], seen["version"]) == (commit, commit, version)
        assert (seen["kind"], seen["origin"], seen["prebuilt"]) == ("git", url, False)
    assert shelf.archives() == sorted(f"{commit}.tar.gz" for commit in (upstream.first, upstream.second))


def test_only_the_one_commit_is_fetched(shelf: Shelf, upstream: Upstream) -> None:
    shelf.source(git_url=upstream.url, git_ref="main")
    (copy,) = (shelf.directory / "git").iterdir()
    done = subprocess.run(["git", f"--git-dir={copy}", "cat-file", "-e", upstream.first], stderr=subprocess.DEVNULL)
    assert done.returncode != 0


def test_a_branch_that_moved_is_followed(shelf: Shelf, upstream: Upstream) -> None:
    assert shelf.source(git_url=upstream.url, git_ref="main")["commit"] == upstream.second
    third = upstream.commit("9.3")
    assert shelf.source(git_url=upstream.url, git_ref="main")["version"] == "9.3"
    # One that is known needs no network.
    Path(upstream.url).rename(upstream.folder / "gone")
    assert shelf.source(git_url=upstream.url, git_ref=third)["version"] == "9.3"


def test_a_checkout_with_assets_is_prebuilt(shelf: Shelf, upstream: Upstream) -> None:
    (upstream.folder / CREATES).mkdir(parents=True)
    (upstream.folder / CREATES / "x").write_text("x")
    upstream.commit("9.3")
    assert shelf.source(git_url=upstream.url, git_ref="main")["prebuilt"] is True


def test_what_is_not_there_is_named(shelf: Shelf, upstream: Upstream) -> None:
    assert "has no tag, branch or commit v9.9" in shelf.refusal(git_url=upstream.url, git_ref="v9.9")
    refusal = shelf.refusal(git_url=upstream.url, git_ref=upstream.first[:10])
    assert "a commit needs all its digits" in refusal
    assert "/none" in shelf.refusal(git_url="/none", git_ref="main")
    for ref in ("--upload-pack=x", "a b", "main:main"):
        assert "is not the name of a tag, branch or commit" in shelf.refusal(git_url=upstream.url, git_ref=ref)
    tree = upstream.git("rev-parse", "HEAD^{tree}")
    assert "is no commit" in shelf.refusal(git_url=upstream.url, git_ref=tree)


def test_a_fetch_that_was_killed_leaves_no_lock_behind(shelf: Shelf, upstream: Upstream) -> None:
    shelf.source(git_url=upstream.url, git_ref="main")
    (copy,) = (shelf.directory / "git").iterdir()
    (copy / "shallow.lock").write_text("")
    (copy / "FETCH_HEAD.lock").write_text("")
    assert shelf.source(git_url=upstream.url, git_ref="v9.1")["version"] == "9.1"


def test_an_old_commit_is_refused(shelf: Shelf, upstream: Upstream) -> None:
    upstream.commit("8.4")
    assert "the release 8.4" in shelf.refusal(git_url=upstream.url, git_ref="main")


def test_credentials_are_not_shown(shelf: Shelf) -> None:
    refusal = shelf.refusal(git_url="https://me:s3cr3t@127.0.0.1:9/app.git", git_ref="main")
    assert "https://127.0.0.1:9/app.git" in refusal
    assert "s3cr3t" not in refusal
