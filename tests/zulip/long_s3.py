"""Uploads of a real Zulip move to S3 and are served from there, over TLS; the backup has the list of objects.

The server is Ceph's object gateway, started by the test on this machine (tests/s3/server.py). Its certificate is signed
by the site's own CA, which the test brings to the hosts' store as an operator would. nginx asks a name server alone:
dnsmasq answers for the one name.

Not part of `tests/run`: ZULIP_ARTIFACT=PATH-or-URL pytest tests/zulip/long_s3.py
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.lab.support import Lab, wait_for
from tests.lab.verbs import CACHE, Run, Site
from tests.restore.conftest import facts, overrides
from tests.s3.certificate import certificate, gateway
from tests.s3.server import REGION, ObjectStore
from tests.zulip.conftest import STATE

INVENTORY = "inventories/zulip"
PORT, DNS_PORT = 8601, 8653
NAME = "s3.zulip-real.test"
OUT = CACHE / "zulip-s3"
BUCKETS = {"uploads_s3_bucket": "chat-uploads", "uploads_s3_avatar_bucket": "chat-avatars"}
UPLOADS = "/home/zulip/uploads/files"


class Uploads:
    """What a user sees of uploads."""

    def __init__(self, lab: Lab, client: Callable[[dict[str, str]], Any]) -> None:
        self.lab, self.owner = lab, client(lab.user("owner"))
        self.owner.ensure_session()

    def send(self, folder: Path) -> tuple[str, str]:
        """Upload 300 kB that nobody has yet; return its path and its SHA-256."""
        file = folder / f"{uuid.uuid4().hex}.bin"
        content = uuid.uuid4().bytes * 20000
        file.write_bytes(content)
        with file.open("rb") as handle:
            answer = self.owner.upload_file(handle)
        assert answer["result"] == "success", answer
        return answer.get("url") or answer["uri"], hashlib.sha256(content).hexdigest()

    def fetch(self, path: str, **headers: str) -> requests.Response:
        """Get an upload as the web client does."""
        return self.owner.session.get(self.lab.url + path, headers=headers, timeout=30)


def digest(answer: requests.Response) -> str:
    """SHA-256 of what came, or why nothing did."""
    return hashlib.sha256(answer.content).hexdigest() if answer.status_code == 200 else f"{answer.status_code}"


@pytest.fixture(scope="module")
def site(lab: Lab) -> Site:
    """The lab's verbs."""
    return Site(OUT, INVENTORY, STATE)


@pytest.fixture(scope="module")
def user(lab: Lab, client: Callable[[dict[str, str]], Any]) -> Uploads:
    """A user."""
    return Uploads(lab, client)


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    """The server, with both buckets, and its name."""
    address = gateway(INVENTORY)
    running = ObjectStore(OUT / "server", address, PORT, *certificate(INVENTORY, NAME, address, OUT / "certificates"))
    if not shutil.which("dnsmasq"):
        subprocess.run(["apt-get", "-qq", "install", "--no-install-recommends", "dnsmasq-base"], check=True)
    names = subprocess.Popen(
        ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--bind-interfaces",
         f"--port={DNS_PORT}", f"--listen-address={address}", f"--address=/{NAME}/{address}", f"--local=/{NAME}/"],
    )  # fmt: skip
    running.start()
    try:
        for bucket in BUCKETS.values():
            running.make_bucket(bucket)
        yield running
    finally:
        running.remove()
        names.terminate()
        names.wait(10)


def layer(store: ObjectStore, backend: str) -> str:
    """The operator's variables, as docs/runbooks/uploads_to_s3.md has them."""
    values = {
        "uploads_backend": backend,
        **BUCKETS,
        "uploads_s3_endpoint": f"https://{NAME}:{PORT}",
        "uploads_s3_region": REGION,
        "uploads_s3_addressing_style": "path",
        "uploads_s3_access_key": store.keys["access_key"],
        "uploads_s3_secret_key": store.keys["secret_key"],
        "nginx_resolvers": [f"{gateway(INVENTORY)}:{DNS_PORT}"],
    }
    return "".join(f"{name}: {json.dumps(value)}\n" for name, value in values.items())


def done(run: Run) -> Run:
    """A verb that ended well."""
    assert run.status == 0, run.text[-6000:]
    return run


@pytest.fixture(scope="module")
def moved(site: Site, store: ObjectStore, user: Uploads, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict]:
    """A site whose uploads were moved while it served; afterwards they are on its own disks again."""
    folder = tmp_path_factory.mktemp("uploads")
    ca = "/usr/local/share/ca-certificates/s3-of-the-tests.crt"
    for node in site.state["nodes"]:
        site.run(node, f"grep -q {NAME} /etc/hosts || echo {gateway(INVENTORY)} {NAME} >>/etc/hosts")
        site.run(node, f"cp /etc/zulip-ha/pki/ca.pem {ca} && update-ca-certificates >/dev/null 2>&1")
    files = dict([user.send(folder), user.send(folder)])
    with overrides(layer(store, "local"), INVENTORY):
        print(done(site.play("uploads_to_s3")).text[-1500:])
    between, content = user.send(folder)
    with overrides(layer(store, "s3"), INVENTORY):
        done(site.play("site"))
        done(site.play("uploads_to_s3", *facts(final=True)))
        yield {**files, between: content}
    done(site.play("site"))
    for node in site.state["nodes"]:
        site.run(node, f"rm {ca} && update-ca-certificates --fresh >/dev/null 2>&1")


def test_what_was_uploaded_before_comes_from_s3(site: Site, user: Uploads, store: ObjectStore, moved: dict) -> None:
    # The local files are out of the way, so that nothing but S3 can answer.
    for node in site.in_group("app"):
        site.run(node, f"mv {UPLOADS} {UPLOADS}.aside")
    try:
        assert {path: digest(user.fetch(path)) for path in moved} == moved
    finally:
        for node in site.in_group("app"):
            site.run(node, f"rm -rf {UPLOADS} && mv {UPLOADS}.aside {UPLOADS}")
    for path, content in moved.items():
        kept = store.request("GET", f"/chat-uploads/{path.removeprefix('/user_uploads/')}")
        assert hashlib.sha256(kept.content).hexdigest() == content


def test_a_new_upload_is_an_object_and_no_file(
    site: Site, user: Uploads, store: ObjectStore, moved: dict, tmp_path: Path
) -> None:
    path, content = user.send(tmp_path)
    assert digest(user.fetch(path)) == content
    part = user.fetch(path, Range="bytes=1000-1999")
    assert (part.status_code, len(part.content)) == (206, 1000)
    kept = store.request("GET", f"/chat-uploads/{path.removeprefix('/user_uploads/')}")
    assert hashlib.sha256(kept.content).hexdigest() == content
    name = path.rsplit("/", 1)[1]
    for node in site.in_group("app"):
        assert site.run(node, f"find /home/zulip/uploads -name '{name}'") == ""


def test_nobody_gets_an_upload_without_being_asked_who_he_is(lab: Lab, moved: dict) -> None:
    answer = requests.get(lab.url + next(iter(moved)), verify=lab.ca_file, timeout=20, allow_redirects=False)
    assert answer.status_code in (302, 403)


def test_the_backup_has_the_list_and_the_drill_misses_an_object(
    site: Site, user: Uploads, store: ObjectStore, moved: dict, tmp_path: Path
) -> None:
    path, _ = user.send(tmp_path)
    sent = user.owner.send_message({"type": "stream", "to": "general", "topic": "s3", "content": f"[file]({path})"})
    assert sent["result"] == "success", sent
    done(site.play("backup"))
    green = done(site.play("restore_drill"))
    assert "attachments are in it" in green.text, green.text[-3000:]
    answer = store.request("DELETE", f"/chat-uploads/{path.removeprefix('/user_uploads/')}")
    assert answer.status_code == 204
    done(site.play("backup"))
    red = site.play("restore_drill")
    assert red.status != 0
    assert "1 attachments are not among" in red.text, red.text[-3000:]


def test_without_s3_the_site_serves_and_uploads_fail_within_their_time(
    site: Site, user: Uploads, store: ObjectStore, moved: dict, tmp_path: Path
) -> None:
    with store.away():
        began = time.monotonic()
        sent = user.owner.send_message({"type": "stream", "to": "general", "topic": "s3", "content": "no S3"})
        assert sent["result"] == "success", sent
        assert time.monotonic() - began < 5
        file = tmp_path / "lost.bin"
        file.write_bytes(b"x" * 1000)
        with file.open("rb") as handle:
            answer = user.owner.session.post(f"{user.lab.url}/api/v1/user_uploads", files={"file": handle}, timeout=90)
        assert answer.status_code >= 500
        assert site.answers()
    wait_for("uploads again", lambda: digest(user.fetch(user.send(tmp_path)[0])) != "502", 60)


def test_a_second_run_changes_nothing(site: Site, moved: dict) -> None:
    assert set(done(site.play("site")).changed().values()) == {0}
