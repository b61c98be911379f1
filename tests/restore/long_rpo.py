"""How old the end of the archive gets, under load and idle: the worst of many looks, not one lucky one.

Not part of `tests/run`: pytest tests/restore/long_rpo.py
"""

from __future__ import annotations

import time

from tests.restore.conftest import RPO, Backups, figures

SECONDS = 300
EVERY = 2.0


def worst_age(site: Backups, seconds: float) -> tuple[float, int]:
    """Return the greatest distance between now and what the repository reaches, and how often it was looked at."""
    ages = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        # First the time, then the look: what arrives in between makes it no worse than it is.
        now = site.now()
        reached = site.reaches()
        assert reached, "nothing is archived"
        # The program names whole seconds.
        ages.append(max(0.0, (now - reached).total_seconds() - 1))
        time.sleep(EVERY)
    return max(ages), len(ages)


def test_the_archive_is_never_older_than_a_minute_under_load(site: Backups) -> None:
    with site.load("rpo"):
        time.sleep(60)
        worst, looks = worst_age(site, SECONDS)
    figures("RPO under load", {"worst age of the end of the archive": f"{worst:.1f} s, {looks} looks in {SECONDS} s"})
    assert worst <= RPO


def test_the_archive_of_an_idle_site_is_not_much_older(site: Backups) -> None:
    time.sleep(60)
    worst, looks = worst_age(site, SECONDS)
    figures("RPO idle", {"worst age of the newest archived commit": f"{worst:.1f} s, {looks} looks in {SECONDS} s"})
    # Nothing is lost but the canary's own row, which is written every half minute.
    assert worst <= RPO + 30
