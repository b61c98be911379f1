"""A release that needs a stop: the maintenance page under load, and no way back over its migration.

Not part of `tests/run`: pytest tests/upgrade/long_offline.py. The last of these suites on a lab: the site stays on a
release whose schema the code of the others cannot live with.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.lab.verbs import Site
from tests.upgrade.conftest import OUT
from tests.upgrade.test_upgrade import source


@pytest.mark.usefixtures("base")
def test_offline_shows_the_maintenance_page_and_loses_nothing(site: Site, releases: dict[str, Any]) -> None:
    with site.load("offline") as load:
        load.mark("upgrade breaks, offline")
        done = site.play("upgrade", *source(releases, "breaks"), "-e", "strategy=offline")
        load.mark("end")
        assert done.status == 0, done.text[-6000:]
        assert site.version() == releases["breaks"]["version"]
    done_check = load.check("--max-failed", "any", "--max-gap", "any")
    assert done_check.returncode == 0, done_check.stdout + done_check.stderr


def test_no_way_back_over_such_a_migration(site: Site) -> None:
    done = site.play("rollback")
    assert done.status != 0
    assert "cannot come back" in done.refusal
    assert "restore point" in done.refusal


@pytest.mark.parametrize("strategy", ["rolling", "offline"])
def test_no_upgrade_to_a_release_that_cannot_live_with_it(site: Site, releases: dict[str, Any], strategy: str) -> None:
    """As the versions compare it is none that is older; a build of another commit may be."""
    done = site.play("upgrade", *source(releases, "expand"), "-e", f"strategy={strategy}")
    assert done.status != 0, done.text[-3000:]
    assert "cannot come back" in done.refusal, done.refusal or done.text[-3000:]
    assert site.version() == releases["breaks"]["version"]
    assert site.answers()


def test_figures_are_there_for_the_documentation() -> None:
    assert (OUT / "offline.md").read_text()
