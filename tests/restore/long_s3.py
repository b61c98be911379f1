"""Backups that are nowhere but in S3: all five nodes and the backup host's disks are lost, and the site comes back.

The server is Ceph's object gateway, started by the test on this machine, over TLS (tests/s3/server.py). Its certificate
is signed by the site's own CA, whose key the test takes out of the lab's vault.

Not part of `tests/run`: pytest tests/restore/long_s3.py
"""

from __future__ import annotations

import ipaddress
import json
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.lab.support import BIN, ROOT, wait_for
from tests.load.history import read
from tests.restore.account import account, uploads
from tests.restore.conftest import OUT, RPO, Backups, facts, figures, overrides
from tests.s3.server import REGION, ObjectStore

PORT = 8600
CA_FILE = "/etc/zulip-ha/pki/ca.pem"
# Kept beside the lab's state while it runs, so that a test that was killed leaves nothing that matters.
FOLDER = ROOT / ".cache/restore/s3"


def vault() -> dict[str, Any]:
    """The lab's secrets."""
    path = ROOT / "inventories/lab/group_vars/all/80-secrets.yml"
    command = [str(BIN / "ansible-vault"), "view", "--vault-password-file", str(ROOT / "lab/vault-password"), str(path)]
    return dict(yaml.safe_load(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def gateway() -> str:
    """This machine's address in the lab's network."""
    hosts = yaml.safe_load((ROOT / "inventories/lab/hosts.yml").read_text())
    return str(hosts["all"]["vars"]["lab_gateway"])


def certificate(address: str, folder: Path) -> tuple[Path, Path, Path]:
    """A certificate for an address, of the site's CA: paths of certificate, key and CA."""
    secrets = vault()
    ca_key = serialization.load_pem_private_key(secrets["vault_pki_ca_key"].encode(), None)
    ca = x509.load_pem_x509_certificates(secrets["vault_pki_ca_certificate"].encode())[0]
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "s3 of the tests")]))
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), critical=False)
        .sign(ca_key, hashes.SHA256())  # type: ignore[arg-type]
    )
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / "s3.pem", folder / "s3.key", folder / "ca.pem"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths[1].touch(0o600)
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    paths[2].write_text(secrets["vault_pki_ca_certificate"])
    return paths


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    """The server, with an empty bucket for each kind of backup."""
    address = gateway()
    pem, key, ca = certificate(address, OUT / "s3-certificates")
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
        **{"type": "s3", "bucket": "pgbackrest", "endpoint": store.endpoint, "region": REGION, "path": "/site"},
        **{"uri_style": "path", "ca_file": CA_FILE, "key": keys["access_key"], "key_secret": keys["secret_key"]},
    }
    layer = {
        "backup_repositories": [repository],
        "restic_repository": f"s3:{store.endpoint}/restic",
        "restic_ca_file": CA_FILE,
        "restic_environment": {
            **{"AWS_ACCESS_KEY_ID": keys["access_key"], "AWS_SECRET_ACCESS_KEY": keys["secret_key"]},
            "AWS_DEFAULT_REGION": REGION,
        },
    }
    # JSON is YAML.
    with overrides("".join(f"{name}: {json.dumps(value)}\n" for name, value in layer.items())):
        done = site.play("site")
        assert done.status == 0, done.text[-6000:]
        yield
    done = site.play("site")
    assert done.status == 0, done.text[-6000:]
    done = site.play("backup", *facts(type="full"))
    assert done.status == 0, done.text[-6000:]


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
