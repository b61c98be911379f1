"""The converged lab for upgrades, and the releases that they bring."""

from __future__ import annotations

import pytest

from tests.lab.verbs import CACHE, Site
from tests.upgrade.make_releases import STANDIN, make, variants

OUT = CACHE / "upgrade"


@pytest.fixture(scope="session")
def site() -> Site:
    """The lab, healthy before the tests."""
    running = Site(OUT)
    assert running.answers(), f"{running.url} does not answer"
    return running


@pytest.fixture
def base(site: Site) -> str:
    """The version of the repository's own release, which runs: what tests/run leaves is newer, and goes back."""
    version = (STANDIN / "VERSION").read_text().strip()
    if site.version() != version:
        done = site.play("rollback")
        assert done.status == 0, done.text[-3000:]
    assert site.version() == version, "the deployment before is another one: make demo"
    return version


@pytest.fixture(scope="session")
def releases() -> dict[str, dict[str, str]]:
    """Test releases of the stand-in: path of the source and version, by name."""
    known = variants()
    return {name: make(name, known, OUT / "releases") for name in known}
