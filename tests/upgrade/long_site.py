"""The site's own playbook with another release on the shelf: as careful as an upgrade.

Not part of `tests/run`: pytest tests/upgrade/long_site.py
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.lab.support import ROOT
from tests.lab.verbs import Site
from tests.upgrade.test_upgrade import shelf, source


@pytest.mark.usefixtures("base")
def test_a_release_that_is_only_on_the_shelf_is_judged(site: Site, releases: dict[str, Any]) -> None:
    version, artefact = site.version(), shelf(site)

    built = site.play("build", *source(releases, "breaks"))
    assert built.status == 0, built.text[-3000:]
    done = site.play("site")
    assert done.status != 0, done.text[-3000:]
    assert "older code cannot live with" in done.refusal, done.refusal or done.text[-3000:]
    assert "strategy=offline" in done.refusal
    assert site.version() == version
    assert site.play("health").status == 0

    done = site.play("upgrade", *source(releases, "breaks"), "-e", "strategy=offline")
    assert done.status == 0, done.text[-6000:]
    assert site.version() == releases["breaks"]["version"]
    newest = sorted((ROOT / "artifacts/reports").glob("*-upgrade"))[-1]
    point = json.loads((newest / "report.json").read_text())["restore_point"]

    for verb, options in (
        ("site", ["-e", f"release_artifact={artefact}", "-e", "release_allow_downgrade=true"]),
        ("rollback", []),
    ):
        done = site.play(verb, *options)
        assert done.status != 0, done.text[-3000:]
        assert "cannot come back" in done.refusal, done.refusal or done.text[-3000:]
        assert point in done.refusal
        assert site.version() == releases["breaks"]["version"]
    assert site.play("health").status == 0
