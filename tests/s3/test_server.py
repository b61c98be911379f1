"""The S3 server of the tests is one, and keeps what it was given."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import requests

from tests.s3.server import PROGRAMS, ObjectStore, free_port, signed_headers

CA = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]


def certificates(folder: Path) -> tuple[Path, Path, Path]:
    """Return a certificate for this machine, its key and its authority."""
    ca, key, certificate, request = (folder / name for name in ("ca.pem", "node.key", "node.pem", "node.csr"))

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], check=True, capture_output=True)

    openssl("req", "-x509", *CA, "-subj", "/CN=test", "-keyout", f"{folder}/ca.key", "-out", str(ca))
    openssl("req", *CA[:-2], "-subj", "/CN=localhost", "-keyout", str(key), "-out", str(request))
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost")
    signed = ["-CA", str(ca), "-CAkey", f"{folder}/ca.key", "-days", "2", "-extfile", f"{folder}/names"]
    openssl("x509", "-req", "-in", str(request), *signed, "-out", str(certificate))
    return certificate, key, ca


def test_a_signature_is_as_amazon_documents_it() -> None:
    """Of the same request, made by botocore's S3SigV4Auth."""
    headers = signed_headers("GET", "127.0.0.1:8600", "/b", b"", "AK", "secret", "20260102T030405Z")
    assert headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AK/20260102/us-east-1/s3/aws4_request, ")
    assert headers["authorization"].endswith(
        "Signature=86ddead27765408360717e73410ac489c0456d9759e6459bee5b7c7ae0ae741f"
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory):
    if os.geteuid() and not all(map(shutil.which, PROGRAMS)):
        pytest.skip("only root can install Ceph")
    folder = tmp_path_factory.mktemp("s3")
    store = ObjectStore(folder / "store", "127.0.0.1", free_port(), *certificates(folder))
    with store:
        store.make_bucket("backups")
        yield store
    store.remove()
    assert not store.folder.exists()


def test_it_keeps_what_it_was_given(store: ObjectStore) -> None:
    assert store.request("PUT", "/backups/a b/ü", b"content").status_code == 200
    store.stop()
    with pytest.raises(requests.ConnectionError):
        store.request("GET", "/backups/a b/ü")
    store.start()
    assert store.request("GET", "/backups/a b/ü").content == b"content"
    store.make_bucket("backups")


def test_strangers_get_nothing(store: ObjectStore) -> None:
    assert requests.get(f"{store.endpoint}/backups", verify=str(store.ca), timeout=10).status_code == 403
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(store.endpoint, timeout=10)


def test_it_can_be_away_and_silent(store: ObjectStore) -> None:
    with store.away(), pytest.raises(requests.ConnectionError):
        store.request("GET", "/backups")
    with store.silent(), pytest.raises(requests.ReadTimeout):
        requests.get(store.endpoint, verify=str(store.ca), timeout=2)
    assert store.request("GET", "/backups").status_code == 200
