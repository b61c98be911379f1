"""The converged lab for upgrades, and the releases that they bring."""

from __future__ import annotations

import pytest

from tests.lab.verbs import CACHE, Site
from tests.upgrade.make_releases import make, variants

OUT = CACHE / "upgrade"


@pytest.fixture(scope="session")
def site() -> Site:
    """The lab, healthy before the tests."""
    running = Site(OUT)
    assert running.answers(), f"{running.url} does not answer"
    return running


@pytest.fixture(scope="session")
def releases() -> dict[str, dict[str, str]]:
    """Test releases of the stand-in: path of the source and version, by name."""
    known = variants()
    return {name: make(name, known, OUT / "releases") for name in known}
