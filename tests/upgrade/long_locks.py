"""A migration behind a long transaction: it gives up soon, tries again, and nobody waits for longer than that.

Not part of `tests/run`: pytest tests/upgrade/long_locks.py
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

from tests.lab.support import wait_for
from tests.lab.verbs import Site
from tests.upgrade.test_upgrade import source

RETRIES = re.compile(r"FAILED - RETRYING: \[\w+\]: Migrations \| Apply them")


class Transaction:
    """A session that has read the messages and does not end, as a report or a forgotten psql does it."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.leader = next(
            node for node in site.in_group("database")
            if "f" in site.run(node, "su postgres -c \"psql -Atc 'select pg_is_in_recovery()'\"")
        )  # fmt: skip

    def __enter__(self) -> Transaction:
        sql = "begin; select count(*) from zulip.zerver_message; select pg_sleep(1800);"
        self.site.run(
            self.leader, f"systemd-run --collect --uid=postgres --setenv=PGAPPNAME=report psql -d zulip -c '{sql}'"
        )
        return self

    def __exit__(self, *error: object) -> None:
        # Nothing tells a session that sleeps that its client is gone.
        sql = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'report'"
        self.site.run(self.leader, f'su postgres -c "psql -d zulip -Atc \\"{sql}\\""')


def retries(log: Path) -> int:
    """How often the migration was tried again."""
    return len(RETRIES.findall(log.read_text()))


def test_a_migration_that_waits_gives_up_and_tries_again(site: Site, releases: dict[str, Any]) -> None:
    with site.load("locks") as load:
        with Transaction(site):
            load.mark("upgrade behind a long transaction")
            process, log = site.start("upgrade", *source(releases, "locks"))
            try:
                wait_for("a second attempt", lambda: retries(log) >= 2 or process.poll() is not None, 600)
                assert process.poll() is None, log.read_text()[-4000:]
                # Meanwhile the older release goes on.
                assert site.version() != releases["locks"]["version"]
            except BaseException:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                raise
        load.mark("the transaction ends")
        assert process.wait(900) == 0, log.read_text()[-6000:]
        load.mark("end")
        time.sleep(1)
    assert site.version() == releases["locks"]["version"]
    verdict = load.check("--max-failed", "0", "--max-gap", "5")
    assert verdict.returncode == 0, verdict.stdout + verdict.stderr
