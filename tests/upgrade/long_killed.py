"""The controller is killed in each phase of an upgrade, and the next run goes on: users see nothing of it.

Not part of `tests/run`: pytest tests/upgrade/long_killed.py
"""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

import pytest

from tests.lab.support import ROOT, wait_for
from tests.lab.verbs import Site
from tests.upgrade.test_upgrade import source

PHASES = ("check", "unpack", "plan", "before", "migrate", "spares", "gate", "active host", "after")


def reports() -> set[str]:
    """The reports that there are."""
    folder = ROOT / "artifacts/reports"
    return {path.name for path in folder.glob("*-upgrade")} if folder.exists() else set()


def phase_of(name: str) -> str:
    """The phase that a run is in."""
    try:
        report = json.loads((ROOT / "artifacts/reports" / name / "report.json").read_text())
    except (OSError, ValueError):
        return ""
    return str(report["phases"][-1]["name"]) if report["phases"] else ""


@pytest.mark.usefixtures("base")
def test_a_run_that_is_killed_is_finished_by_the_next(site: Site, releases: dict[str, Any]) -> None:
    killed = []
    with site.load("killed") as load:
        for number, phase in enumerate(PHASES):
            before = reports()
            process, _ = site.start("upgrade", *source(releases, "expand"))
            try:
                name = wait_for("a report", lambda: next(iter(reports() - before), ""), 300)  # noqa: B023
                wait_for(f"the phase {phase}", lambda: phase_of(name) == phase or process.poll() is not None, 600)  # noqa: B023
                assert process.poll() is None, f"it ended before the phase {phase}"
                # Not always at the same place of it.
                time.sleep(0.7 * (number % 4))
                load.mark(f"killed in {phase}")
            finally:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            killed.append(phase)
        done = site.play("upgrade", *source(releases, "expand"))
        assert done.status == 0, done.text[-6000:]
        load.mark("end")
    assert killed == list(PHASES)
    assert site.version() == releases["expand"]["version"]
    again = site.play("upgrade", *source(releases, "expand"))
    assert not any(count for host, count in again.changed().items() if host != "localhost"), again.changed()
    verdict = load.check("--max-failed", "0", "--max-gap", "5")
    assert verdict.returncode == 0, verdict.stdout + verdict.stderr
