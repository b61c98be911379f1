"""A certificate for the tests' S3 server, signed by a lab's own CA, whose key is in the lab's vault."""

from __future__ import annotations

import ipaddress
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.lab.support import BIN, ROOT


def vault(inventory: str) -> dict[str, Any]:
    """A lab's secrets; inventory: its folder below the repository."""
    path = ROOT / inventory / "group_vars/all/80-secrets.yml"
    command = [str(BIN / "ansible-vault"), "view", "--vault-password-file", str(ROOT / "lab/vault-password"), str(path)]
    return dict(yaml.safe_load(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def gateway(inventory: str) -> str:
    """This machine's address in a lab's network."""
    hosts = yaml.safe_load((ROOT / inventory / "hosts.yml").read_text())
    return str(hosts["all"]["vars"]["lab_gateway"])


def certificate(inventory: str, name: str, address: str, folder: Path) -> tuple[Path, Path, Path]:
    """Make a certificate for a name and an address; return the paths of certificate, key and CA."""
    secrets = vault(inventory)
    ca_key = serialization.load_pem_private_key(secrets["vault_pki_ca_key"].encode(), None)
    ca = x509.load_pem_x509_certificates(secrets["vault_pki_ca_certificate"].encode())[0]
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    names = [x509.DNSName(name), x509.IPAddress(ipaddress.ip_address(address))]
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "s3 of the tests")]))
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
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
