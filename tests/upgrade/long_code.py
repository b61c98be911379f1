"""A release of code alone under load, and the same again.

Not part of `tests/run`: pytest tests/upgrade/long_code.py
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.lab.verbs import Site
from tests.upgrade.test_upgrade import roll, source


@pytest.mark.usefixtures("base")
def test_an_upgrade_of_code_fails_no_request(site: Site, releases: dict[str, Any]) -> None:
    roll(site, releases, (("upgrade", "code"), ("rollback", "base"), ("upgrade", "code")), "code")


def test_the_same_again_changes_nothing(site: Site, releases: dict[str, Any]) -> None:
    before = site.active()
    done = site.play("upgrade", *source(releases, "code"))
    assert done.status == 0, done.text[-6000:]
    assert not any(count for host, count in done.changed().items() if host != "localhost"), done.changed()
    assert site.active() == before
