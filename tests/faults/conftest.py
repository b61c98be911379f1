"""Faults on the converged lab, once for all tests of this folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from tests.faults import actions
from tests.faults.campaign import OUT
from tests.faults.nodes import Nodes
from tests.lab.support import Lab


@pytest.fixture(scope="session", autouse=True)
def left_as_it_was() -> Iterator[None]:
    """Whatever a test broke is undone, also when it failed in the middle."""
    shutil.rmtree(OUT / "test", ignore_errors=True)
    nodes = Nodes(Lab().state)
    yield
    assert actions.sweep(nodes) == []
