"""An upgrade and its way back on the five nodes, under load. The tests build on each other: a site has one release."""

from __future__ import annotations

import json
from typing import Any

from tests.lab.support import ROOT
from tests.lab.verbs import Site
from tests.upgrade.conftest import OUT

Step = tuple[str, str]
STEPS: tuple[Step, ...] = (("upgrade", "expand"), ("rollback", "base"), ("upgrade", "expand"))
"""A release with a migration that the older code can live with, back over it, and again (code alone: long_code.py)."""


def source(releases: dict[str, Any], name: str) -> list[str]:
    """The options that upgrade to a release."""
    return ["-e", f"release_source={releases[name]['path']}"]


def noted(site: Site) -> str:
    """The release that the next backup is going to be of."""
    said = site.run(site.in_group("backup")[0], "cat /etc/zulip-ha/postgresql-backup.json")
    return str(json.loads(said)["annotations"]["release"])


def shelf(site: Site) -> str:
    """The artefact that the shelf points at, which site.yml takes."""
    codename = site.run(site.in_group("app")[0], ". /etc/os-release; echo $VERSION_CODENAME")
    name = json.loads((ROOT / f"artifacts/standin-{codename}.json").read_text())["artifact"]
    return str(ROOT / "artifacts" / name)


def roll(site: Site, releases: dict[str, Any], steps: tuple[Step, ...], label: str) -> None:
    """Take the steps under load: no request fails, nothing is lost."""
    versions = {"base": site.version(), **{name: release["version"] for name, release in releases.items()}}
    with site.load(label) as load:
        for verb, name in steps:
            load.mark(f"{verb} {name}")
            done = site.play(verb, *(source(releases, name) if verb == "upgrade" else []))
            assert done.status == 0, done.text[-6000:]
            assert site.version() == versions[name], f"{verb} {name}"
            assert noted(site) == versions[name], "a backup says which release can read it"
            assert len(site.active()) == 1
        load.mark("end")
    judged = load.check("--max-failed", "0", "--max-gap", "5")
    assert judged.returncode == 0, judged.stdout + judged.stderr


def test_an_upgrade_and_a_rollback_fail_no_request(site: Site, releases: dict[str, Any]) -> None:
    roll(site, releases, STEPS, "rolling")


def test_the_report_says_how_long_each_phase_took() -> None:
    newest = sorted((ROOT / "artifacts/reports").glob("*-upgrade"))[-1]
    report = json.loads((newest / "report.json").read_text())
    assert report["result"] == "ok"
    assert [phase["name"] for phase in report["phases"]][:3] == ["check", "unpack", "plan"]
    assert {"migrate", "spares", "gate", "active host", "after"} <= {phase["name"] for phase in report["phases"]}
    assert report["moves"][0]["moved"] is True
    assert report["restore_point"]
    assert (newest / "report.html").exists()


def test_a_migration_that_breaks_older_code_is_refused(site: Site, releases: dict[str, Any]) -> None:
    before = site.version(), shelf(site)
    done = site.play("upgrade", *source(releases, "breaks"))
    assert done.status != 0
    assert "strategy=offline" in done.refusal, done.text[-3000:]
    assert "older code cannot live with" in done.refusal
    assert (site.version(), shelf(site)) == before, "the next site.yml keeps to what runs"


def test_figures_are_there_for_the_documentation() -> None:
    assert (OUT / "rolling.md").read_text()
