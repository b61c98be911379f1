"""Trees of the test releases, and how the programs are run in them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.app.paths import ROOT

SETTINGS = """
EXTERNAL_HOST = "chat.example.com"
SECRET_KEY = SHARED_SECRET = "none"
LOG_DIR = "/nonexistent"
DATABASES = {{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": {name!r}}}}}
CACHES = {{"default": {{"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}}}
"""
FILES = ROOT / "roles/app/files"


class Site:
    """A database, and releases that know it."""

    def __init__(self, directory: Path, releases: Path):
        self.settings = directory / "settings.py"
        self.settings.write_text(SETTINGS.format(name=str(directory / "database")))
        self.releases = releases
        self.environment = {**os.environ, "STANDIN_SETTINGS": str(self.settings), "PYTHONDONTWRITEBYTECODE": "1"}
        self.environment.pop("DJANGO_SETTINGS_MODULE", None)

    def tree(self, variant: str) -> Path:
        """Return the tree of a variant, or of the stand-in as it is."""
        return self.releases / variant if variant else ROOT / "standin"

    def program(self, name: str, variant: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a program of the role by standard input."""
        return subprocess.run(
            [sys.executable, "-", *words],
            cwd=self.tree(variant),
            env=self.environment,
            input=(FILES / name).read_text(),
            capture_output=True,
            text=True,
        )

    def plan(self, variant: str, *words: str) -> dict[str, Any]:
        """Return what migration_plan prints."""
        done = self.program("migration_plan", variant, *words)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def migrate(self, variant: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Apply what is pending."""
        manage = self.tree(variant) / "manage.py"
        return self.program("migration_run", variant, "--", str(manage), "migrate", "--no-input", *words)


@pytest.fixture(scope="session")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The variants, unpacked: a folder of each."""
    directory = tmp_path_factory.mktemp("releases")
    program = ROOT / "tests/upgrade/make_releases.py"
    subprocess.run([sys.executable, program, directory], check=True, capture_output=True)
    for path in directory.glob("*.tar.gz"):
        with tarfile.open(path) as tar:
            (top,) = {member.name.partition("/")[0] for member in tar.getmembers()}
            tar.extractall(directory, filter="data")
        (directory / top).rename(directory / path.name.removesuffix(".tar.gz"))
    return directory


@pytest.fixture
def make_site(releases: Path, tmp_path: Path) -> Callable[[], Site]:
    """Makes a site without a database."""
    return lambda: Site(tmp_path, releases)


@pytest.fixture(scope="session")
def migrated(releases: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database of the stand-in as it is."""
    directory = tmp_path_factory.mktemp("migrated")
    done = Site(directory, releases).migrate("")
    assert done.returncode == 0, done.stderr
    return directory / "database"


@pytest.fixture
def site(make_site: Callable[[], Site], migrated: Path, tmp_path: Path) -> Site:
    """A site whose database is that of the stand-in as it is."""
    shutil.copy(migrated, tmp_path / "database")
    return make_site()
