"""What an upgrade refuses: in one line, and nothing has changed.

Not part of `tests/run`: pytest tests/upgrade/long_refusals.py
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.lab.support import ROOT, wait_for
from tests.lab.verbs import Site, refused
from tests.upgrade.conftest import OUT


def artefact(site: Site, name: str, **manifest: Any) -> Path:
    """A copy of the artefact that runs, with another summary."""
    newest = json.loads((ROOT / f"artifacts/standin-{codename(site)}.json").read_text())
    path = OUT / f"{name}.tar.zst"
    shutil.copy(ROOT / "artifacts" / newest["artifact"], path)
    entry = {**newest, "artifact": path.name, "manifest": {**newest["manifest"], **manifest}}
    path.with_name(path.name + ".json").write_text(json.dumps(entry))
    return path


def codename(site: Site) -> str:
    return site.run("app1", ". /etc/os-release; echo $VERSION_CODENAME")


@contextmanager
def stopped(site: Site, node: str, unit: str) -> Iterator[None]:
    """A service that does not run."""
    site.run(node, f"systemctl stop {unit}")
    try:
        yield
    finally:
        site.run(node, f"systemctl start {unit}")
        wait_for("a healthy site", lambda: site.play("health").status == 0, 120)


def test_a_git_ref_that_does_not_exist(site: Site) -> None:
    options = ["-e", "release_git_ref=no-such-ref", "-e", f"release_git_repo_url={ROOT}"]
    refused(site.play("upgrade", *options), "no-such-ref")


def test_a_truncated_tarball(site: Site, releases: dict[str, Any]) -> None:
    path = OUT / "truncated.tar.gz"
    path.write_bytes(Path(releases["code"]["path"]).read_bytes()[:20000])
    refused(site.play("upgrade", "-e", f"release_source={path}"), "truncated.tar.gz")


def test_an_artefact_for_another_distribution(site: Site) -> None:
    other = "bookworm" if codename(site) == "trixie" else "trixie"
    path = artefact(site, "other", codename=other, id="other", deployment="2030-01-01-00-00-00")
    refused(site.play("upgrade", "-e", f"release_artifact={path}"), f"built for the distribution {other}")


def test_no_room_on_the_disk(site: Site) -> None:
    path = artefact(site, "large", id="large", deployment="2030-01-01-00-00-00")
    refused(site.play("upgrade", "-e", f"release_artifact={path}", "-e", "disk_factor=1000000"), "/home/zulip")


def test_a_spare_that_is_not_well(site: Site) -> None:
    spare = next(node for node in site.in_group("app") if node not in site.active())
    with stopped(site, spare, "redis-server.service"):
        refused(site.play("upgrade"), spare)


def test_replication_that_is_broken(site: Site) -> None:
    replica = next(
        node for node in site.in_group("database")
        if "t" in site.run(node, "su postgres -c \"psql -Atc 'select pg_is_in_recovery()'\"")
    )  # fmt: skip
    with stopped(site, replica, "patroni.service"):
        refused(site.play("upgrade"), replica)


@pytest.mark.parametrize("value", ["sideways"])
def test_a_strategy_that_nobody_knows(site: Site, value: str) -> None:
    refused(site.play("upgrade", "-e", f"strategy={value}"), "strategy is rolling or offline")


def test_files_that_were_edited_by_hand(site: Site) -> None:
    site.run("app1", "echo '# by hand' >> /etc/zulip/zulip.conf")
    try:
        refused(site.play("upgrade"), "/etc/zulip/zulip.conf")
    finally:
        site.run("app1", "sed -i '/^# by hand$/d' /etc/zulip/zulip.conf")
