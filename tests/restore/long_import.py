"""A server moves in: an archive as `manage.py backup` makes it, of the lab's own application at another time.

The archive is built from the lab's database, which then goes on; what the import brings back is what it was then.

Not part of `tests/run`: pytest tests/restore/long_import.py
"""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.support import ROOT
from tests.lab.verbs import refused
from tests.restore.conftest import OUT, Backups, facts

WORK = "/var/tmp/import-test"
FILE = "files/2/im/import-test/plan.txt"
# Of this run: the lab may have seen another one.
TAG = f"import {int(time.time())}"
ARCHIVE = OUT / "zulip-backup.tar.gz"
VAULT = ROOT / "inventories/lab/group_vars/all/80-secrets.yml"

# Paths and versions as the command of a stock server writes them; its settings have secrets of another server's.
BUILD = r"""
set -eu
rm -rf {work}; install -d -m 711 {work} {work}/zulip-backup/settings {work}/zulip-backup/uploads/files/2/im/import-test
cd {work}
printf '%s\n' {version} >zulip-backup/zulip-version
echo 'debian 12' >zulip-backup/os-version
runuser -u postgres -- psql -XAtc 'SHOW server_version_num' >zulip-backup/postgres-version
secrets=zulip-backup/settings/zulip-secrets.conf
printf '%s\n' '[secrets]' 'avatar_salt = of-the-old-server' 'shared_secret = not-this-one' >$secrets
echo 'the plan' >zulip-backup/uploads/{file}
install -d -o postgres {work}/dump
runuser -u postgres -- pg_dump --format=directory --file={work}/dump/database zulip
mv {work}/dump/database zulip-backup/database
tar -czf archive.tar.gz zulip-backup
base64 -w0 archive.tar.gz
rm -rf {work}
"""


def build(site: Backups, version: str = "") -> None:
    """Write the archive to this machine."""
    import base64

    script = BUILD.format(work=WORK, file=FILE, version=shlex.quote(version or site.version()))
    ARCHIVE.parent.mkdir(parents=True, exist_ok=True)
    ARCHIVE.write_bytes(base64.b64decode(site.run(site.leader(), script)))


def say(site: Backups, text: str) -> None:
    """Send a message to a channel."""
    answer = site.client("owner").send_message({"type": "stream", "to": "general", "topic": "import", "content": text})
    assert answer["result"] == "success", answer


def said(site: Backups, like: str) -> list[str]:
    found = site.sql(f"select content from zulip.zerver_message where content like '{like}%' order by id")
    return found.splitlines()


def words(site: Backups, **more: Any) -> list[str]:
    return facts(archive=str(ARCHIVE), confirm=site.name, allow_stale_backup=True, **more)


@pytest.fixture(scope="module")
def moved(site: Backups) -> Iterator[Backups]:
    """The lab, with an archive of a moment after which something else was said."""
    vault = VAULT.read_bytes()
    # A run that was ended in between leaves the database of before.
    done = site.play("import_backup", *facts(action="forget_old", confirm=site.name))
    assert done.status == 0, done.text[-4000:]
    say(site, f"{TAG}: before the archive")
    build(site)
    say(site, f"{TAG}: after the archive")
    yield site
    if VAULT.read_bytes() != vault:
        VAULT.write_bytes(vault)
        assert site.play("site").status == 0
    for host in site.in_group("app"):
        site.run(host, f"rm -rf /home/zulip/uploads/{Path(FILE).parent}")


def test_what_cannot_work_is_refused_before_anything_is_touched(moved: Backups) -> None:
    refused(moved.play("import_backup", *facts(archive=str(ARCHIVE))), f"-e confirm={moved.name}")
    refused(moved.play("import_backup", *words(moved)), "-e secrets=vault")
    whole = ARCHIVE.read_bytes()
    try:
        ARCHIVE.write_bytes(whole[: len(whole) * 2 // 3])
        refused(moved.play("import_backup", *words(moved, secrets="vault")), "is not whole")
        build(moved, "99.0")
        refused(moved.play("import_backup", *words(moved, secrets="vault")), "upgrade the site first")
    finally:
        ARCHIVE.write_bytes(whole)
    assert moved.answers()


def test_a_check_changes_nothing_and_says_what_is_in_it(moved: Backups) -> None:
    done = moved.play("import_backup", "--check", *words(moved, secrets="vault"))
    assert done.status == 0, done.text[-4000:]
    assert "uploads   1 files" in done.text
    assert moved.sql("select count(*) from pg_database where datname like 'zulip%'", "postgres") == "1"


def test_the_server_moves_in(moved: Backups) -> None:
    done = moved.play("import_backup", *words(moved, secrets="vault"))
    assert done.status == 0, done.text[-6000:]
    assert "of-the-old-server" not in done.text
    assert said(moved, f"{TAG}: ") == [f"{TAG}: before the archive"]
    kept = moved.sql("select datname from pg_database where datname like 'zulip_before_%'", "postgres")
    assert re.fullmatch(r"zulip_before_\d{14}", kept), kept
    for host in moved.in_group("app"):
        assert moved.run(host, f"cat /home/zulip/uploads/{FILE}") == "the plan"
        assert moved.run(host, f"stat -c %U /home/zulip/uploads/{FILE}") == "zulip"
        assert "of-the-old-server" in moved.run(host, "cat /etc/zulip/zulip-secrets.conf")
        assert "not-this-one" not in moved.run(host, "cat /etc/zulip/zulip-secrets.conf")
    for host in [*moved.in_group("app"), *moved.in_group("database")]:
        assert (
            moved.run(host, "ls -d /var/lib/zulip-ha/import /var/lib/postgresql/zulip-ha-import 2>/dev/null || true")
            == ""
        )
    # It is the application's again: a client sends, and gets what it sent.
    say(moved, f"{TAG}: in the new home")
    assert said(moved, f"{TAG}: ")[-1] == f"{TAG}: in the new home"
    assert moved.healthy()


def test_the_same_archive_again_is_no_second_import(moved: Backups) -> None:
    done = moved.play("import_backup", *words(moved, secrets="vault"))
    assert done.status == 0, done.text[-4000:]
    assert said(moved, f"{TAG}: ")[-1] == f"{TAG}: in the new home"
    again = moved.play("site")
    changed = {host: count for host, count in again.changed().items() if count}
    assert (again.status, changed) == (0, {}), again.text[-4000:]


def test_back_and_forget(moved: Backups) -> None:
    done = moved.play("import_backup", *facts(action="back", confirm=moved.name))
    assert done.status == 0, done.text[-4000:]
    assert said(moved, f"{TAG}: ") == [f"{TAG}: before the archive", f"{TAG}: after the archive"]
    done = moved.play("import_backup", *facts(action="forget_old", confirm=moved.name))
    assert done.status == 0, done.text[-4000:]
    names = json.loads(moved.sql("select json_agg(datname) from pg_database where datname like 'zulip%'", "postgres"))
    assert names == ["zulip"]
    assert moved.healthy()
