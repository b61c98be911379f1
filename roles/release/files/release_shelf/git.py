"""Fetches one commit of a repository, without its history, and packs it."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from pathlib import Path

from release_build.masking import mask, plain_url, secrets_of

from .cache import Cache

_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?\Z")
_REF = re.compile(r"[A-Za-z0-9_@][A-Za-z0-9_./@+-]*\Z")


class Repository:
    """A bare copy of a repository on the controller."""

    def __init__(self, url: str, shelf: Path):
        self.url = url
        self.shown = plain_url(url)
        self.directory = shelf / "git" / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}.git"
        self.environment = {
            **os.environ,
            # Nobody is there to answer a question.
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "true",
            "GIT_SSH_COMMAND": os.environ.get("GIT_SSH_COMMAND", "ssh -o BatchMode=yes"),
            "LC_ALL": "C",
        }

    def git(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run git on the copy."""
        try:
            return subprocess.run(
                ["git", f"--git-dir={self.directory}", "-c", "gc.auto=0", *arguments],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
            )
        except FileNotFoundError:
            raise SystemExit("there is no program git on the controller: install it, or build from a tarball") from None

    def trouble(self, done: subprocess.CompletedProcess[str]) -> str:
        """Return in one line what git complains about, without credentials."""
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        chosen = [line for line in lines if line.startswith(("fatal:", "error:"))] or lines[-1:] or ["git failed"]
        return mask(re.sub(r"^(fatal|error): ", "", chosen[0]), secrets_of({"url": self.url}))

    def prepare(self) -> None:
        """Make the copy, and free one that a killed run has left locked."""
        if not (self.directory / "HEAD").exists():
            self.directory.mkdir(parents=True, exist_ok=True)
            if (done := self.git("init", "--quiet", "--bare", str(self.directory))).returncode:
                raise SystemExit(f"{self.directory} cannot be made: {self.trouble(done)}")
        for lock in self.directory.rglob("*.lock"):
            lock.unlink()

    def commit(self, ref: str) -> str:
        """Return the commit of a tag, a branch or a commit, fetched."""
        if not _REF.match(ref):
            raise SystemExit(f"release_git_ref {ref} is not the name of a tag, branch or commit")
        self.prepare()
        if (
            _COMMIT.match(ref)
            and not (done := self.git("rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}")).returncode
        ):
            return done.stdout.strip()
        done = self.git("fetch", "--quiet", "--depth=1", "--no-tags", "--force", "--", self.url, ref)
        if done.returncode:
            trouble = self.trouble(done)
            if "couldn't find remote ref" in trouble:
                hint = " (a commit needs all its digits)" if re.fullmatch(r"[0-9a-f]{4,39}", ref) else ""
                raise SystemExit(f"{self.shown} has no tag, branch or commit {ref}{hint}")
            raise SystemExit(f"{ref} cannot be fetched from {self.shown}: {trouble}")
        done = self.git("rev-parse", "--verify", "--quiet", "FETCH_HEAD^{commit}")
        if done.returncode:
            raise SystemExit(f"{ref} of {self.shown} is no commit")
        return done.stdout.strip()

    def pack(self, commit: str, cache: Cache) -> Path:
        """Return a commit's files as an archive. Its name is the commit's, so the same one is packed once."""
        path = cache.directory / f"{commit}.tar.gz"
        if path.exists():
            return cache.used(path)
        temporary = cache.temporary()
        try:
            done = self.git("archive", "--format=tar.gz", "-3", f"--output={temporary}", commit)
            if done.returncode:
                raise SystemExit(f"{commit} of {self.shown} cannot be packed: {self.trouble(done)}")
            return cache.add(temporary, path.name)
        finally:
            temporary.unlink(missing_ok=True)
