"""The site that the tests of the leader watch begin with."""

from __future__ import annotations

import pytest

from tests.unit.leader_watch.world import Site


@pytest.fixture
def site() -> Site:
    """A site that has settled: the leader is seen by all, and somebody holds the lock."""
    site = Site()
    site.run(3)
    return site
