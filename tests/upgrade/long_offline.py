"""A release that needs a stop: the maintenance page under load, and no way back over its migration.

Not part of `tests/run`: pytest tests/upgrade/long_offline.py, on a lab that runs the repository's release
"""

from __future__ import annotations

from typing import Any

from tests.lab.verbs import Site
from tests.upgrade.conftest import OUT
from tests.upgrade.test_upgrade import source


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


def test_figures_are_there_for_the_documentation() -> None:
    assert (OUT / "offline.md").read_text()
