"""What a restore refuses, each in one line and before anything is changed, beyond what test_restore.py sees.

Not part of `tests/run`: pytest tests/restore/long_refused.py
"""

from __future__ import annotations

import requests

from tests.lab.verbs import refused
from tests.restore.conftest import Backups, facts, other_cluster


def test_a_backup_of_another_cluster_is_refused(site: Backups) -> None:
    before = site.identity()
    with other_cluster(site):
        refused(site.restore("database"), "another cluster")
    assert site.identity() == before
    assert requests.get(f"{site.url}/api/v1/server_settings", verify=site.ca_file, timeout=10).ok


def test_too_little_disk_is_refused(site: Backups) -> None:
    before = site.identity()
    refused(site.restore("database", "latest", *facts(disk_factor=1000000)), "free")
    assert site.identity() == before


def test_another_major_version_is_refused(site: Backups) -> None:
    before = site.identity()
    other = int(site.sql("show server_version_num", "postgres")) // 10000 - 1
    refused(site.restore("database", "latest", *facts(postgresql_version=other)), str(other))
    assert site.identity() == before
