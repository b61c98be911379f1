"""Backups that are nowhere but in S3: all five nodes and the backup host's disks are lost, and the site comes back.

The server is Ceph's object gateway, started by the test on this machine, over TLS (tests/s3/server.py). Its certificate
is signed by the site's own CA, whose key the test takes out of the lab's vault.

Not part of `tests/run`: pytest tests/restore/long_s3.py
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from tests.lab.support import ROOT, wait_for
from tests.load.history import read
from tests.restore.account import account, uploads
from tests.restore.conftest import OUT, RPO, Backups, facts, figures, overrides
from tests.s3.certificate import certificate, gateway
from tests.s3.server import REGION, ObjectStore

INVENTORY = "inventories/lab"
PORT = 8600
# pgBackRest looks for names alone in a certificate.
NAME = "s3.zulip-ha.test"
ENDPOINT = f"https://{NAME}:{PORT}"
CA_FILE = "/etc/zulip-ha/pki/ca.pem"
# Kept beside the lab's state while it runs, so that a test that was killed leaves nothing that matters.
FOLDER = ROOT / ".cache/restore/s3"


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    """The server, with an empty bucket for each kind of backup."""
    address = gateway(INVENTORY)
    pem, key, ca = certificate(INVENTORY, NAME, address, OUT / "s3-certificates")
    running = ObjectStore(FOLDER, address, PORT, pem, key, ca)
    running.start()
    try:
        for bucket in ("pgbackrest", "restic"):
            running.make_bucket(bucket)
        yield running
    finally:
        running.remove()


@pytest.fixture(scope="module")
def only_s3(site: Backups, store: ObjectStore) -> Iterator[None]:
    """A site that keeps its backups in S3 alone; afterwards it is as it was."""
    keys = store.keys
    repository = {
        **{"type": "s3", "bucket": "pgbackrest", "endpoint": ENDPOINT, "region": REGION, "path": "/site"},
        **{"uri_style": "path", "ca_file": CA_FILE, "key": keys["access_key"], "key_secret": keys["secret_key"]},
    }
    layer = {
        "backup_repositories": [repository],
        "restic_repository": f"s3:{ENDPOINT}/restic",
        "restic_ca_file": CA_FILE,
        "restic_environment": {
            **{"AWS_ACCESS_KEY_ID": keys["access_key"], "AWS_SECRET_ACCESS_KEY": keys["secret_key"]},
            "AWS_DEFAULT_REGION": REGION,
        },
    }
    tell_the_name(site)
    # JSON is YAML.
    with overrides("".join(f"{name}: {json.dumps(value)}\n" for name, value in layer.items())):
        done = site.play("site")
        assert done.status == 0, done.text[-6000:]
        yield
    done = site.play("site")
    assert done.status == 0, done.text[-6000:]
    done = site.play("backup", *facts(type="full"))
    assert done.status == 0, done.text[-6000:]


def tell_the_name(site: Backups) -> None:
    """Each node knows where the server is, as a name server would tell it."""
    for node in site.state["nodes"]:
        site.run(node, f"grep -q {NAME} /etc/hosts || echo {gateway(INVENTORY)} {NAME} >>/etc/hosts")


def lose_disks(site: Backups) -> None:
    """The backup host's disks too are gone."""
    for kind in ("pgbackrest", "restic"):
        container = site.state["nodes"][site.host]["container"]
        subprocess.run(["docker", "volume", "rm", f"{container}-{kind}"], check=True, capture_output=True)


def test_the_site_comes_back_from_s3_alone(site: Backups, store: ObjectStore, only_s3: None) -> None:
    with site.load("s3") as load:
        time.sleep(15)
        before = datetime.now(UTC)
        done = site.play("backup", *facts(type="full"))
        assert done.status == 0, done.text[-6000:]
        time.sleep(60)
        done = site.play("lab/lose.yml")
        assert done.status == 0, done.text[-3000:]
        load.kill()
    lose_disks(site)
    done = site.play("lab/create.yml")
    assert done.status == 0, done.text[-3000:]
    tell_the_name(site)
    restored = site.restore("site", "latest", *facts(old_site_stopped=True))
    assert restored.status == 0, restored.text[-8000:]
    wait_for("an answer at the virtual IP", site.answers, 60)

    lines = read(load.history)
    run = next(line["data"]["run"] for line in lines if line.get("name") == "load begins")
    receivers = len([user for user in site.state["users"] if user.get("api_key")])
    found = account(lines, site.messages(run), receivers)
    assert found.acknowledged > 100
    assert found.present > 0
    assert found.wrong == {}
    assert found.rpo <= RPO
    files = uploads(lines, before)
    assert files, "nothing was uploaded before the backup"
    assert {url: site.hash_of(url) for url in files} == files
    figures(
        "from S3 alone (Ceph's gateway on the same machine)",
        {
            "RPO of the database": f"{found.rpo:.1f} s",
            "uploads compared by hash": str(len(files)),
            "restore.yml, bare nodes to serving": f"{restored.seconds:.0f} s",
        },
    )


def test_an_endpoint_that_is_away_stops_nothing_and_is_caught_up_with(
    site: Backups, store: ObjectStore, only_s3: None
) -> None:
    with site.load("s3_away") as load:
        time.sleep(5)
        with store.away():
            load.mark("S3 is away")
            site.sql("select pg_switch_wal()", "postgres")
            time.sleep(30)
        load.mark("S3 is back")
        site.wait_until_archived(site.now(), 300)
    verdict = load.check("--max-failed", "0", "--max-gap", "5")
    assert verdict.returncode == 0, verdict.stdout + verdict.stderr
    assert site.program("postgresql_backup choose --to latest --json")["set"]
