"""An S3 server that is one: Ceph's object gateway over one monitor and one disk, from Debian's packages.

All of it is in one folder, and nothing runs but what was started here.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import requests

PACKAGES = ["ceph-mon", "ceph-osd", "radosgw"]
PROGRAMS = ["ceph", "ceph-authtool", "ceph-mon", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin"]
REGION = "us-east-1"
CAPABILITIES: dict[str, tuple[str, ...]] = {
    "mon.": ("--cap", "mon", "allow *"),
    "client.admin": ("--cap", "mon", "allow *", "--cap", "osd", "allow *"),
    "osd.0": ("--cap", "mon", "allow profile osd", "--cap", "osd", "allow *"),
    "client.rgw": ("--cap", "mon", "allow rw", "--cap", "osd", "allow rwx"),
}
CONFIGURATION = """\
[global]
fsid = {fsid}
mon_host = v2:127.0.0.1:{monitor_port}
mon_initial_members = a
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
keyring = {folder}/keyring
mon_data = {folder}/mon
osd_data = {folder}/osd
rgw_data = {folder}/rgw
run_dir = {folder}
admin_socket =
log_file =
log_to_stderr = true
mon_cluster_log_file = /dev/null
# One copy on one disk, which is a file that grows.
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 1
osd_pool_default_pgp_num = 1
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_data_avail_crit = 1
osd_objectstore = bluestore
bluestore_block_size = {size}
bluestore_cache_autotune = false
bluestore_cache_size = 134217728
rgw_thread_pool_size = 64
rgw_enable_usage_log = false
"""


class Failed(Exception):
    """The server did not do as it should."""


def install() -> None:
    """Bring the packages to this machine; costs nothing when they are there."""
    if all(shutil.which(program) for program in PROGRAMS):
        return
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    quiet = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300"]
    subprocess.run([*quiet, "update"], check=True)
    subprocess.run(
        [*quiet, "install", "--no-install-recommends", *PACKAGES],
        env=environment, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def signature(secret: str, date: str, text: str) -> str:
    """Sign a text as AWS does (version 4)."""
    key = f"AWS4{secret}".encode()
    for part in (date[:8], REGION, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, text.encode(), "sha256").hex()


def signed_headers(
    method: str, host: str, path: str, body: bytes, access_key: str, secret_key: str, date: str
) -> dict[str, str]:
    """Return the headers of a request without a query, signed."""
    digest = hashlib.sha256(body).hexdigest()
    headers = {"host": host, "x-amz-content-sha256": digest, "x-amz-date": date}
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    request = "\n".join([method, path, "", lines, names, digest])
    scope = f"{date[:8]}/{REGION}/s3/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", date, scope, hashlib.sha256(request.encode()).hexdigest()])
    signed = signature(secret_key, date, text)
    credential = f"AWS4-HMAC-SHA256 Credential={access_key}/{scope}, SignedHeaders={names}, Signature={signed}"
    return {**{name: headers[name] for name in headers if name != "host"}, "authorization": credential}


class ObjectStore:
    """The server. Its folder keeps buckets and keys from one start to the next; `remove` ends that."""

    def __init__(
        self,
        folder: Path,
        address: str,
        port: int,
        certificate: Path,
        key: Path,
        ca: Path,
        name: str = "",
        gib: int = 32,
    ) -> None:
        """Say where it listens, and with which certificate.

        Without a `name`, buckets are paths below any name and address. With one, they are hosts of that domain too, and
        paths below that name or an address; any other name in a request is then taken for a bucket's.
        """
        self.folder, self.address, self.port = folder.resolve(), address, port
        self.certificate, self.key, self.ca = certificate.resolve(), key.resolve(), ca.resolve()
        self.name, self.gib = name, gib

    # ---- what clients need

    @property
    def host(self) -> str:
        """Address and port as in a URL."""
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"

    @property
    def endpoint(self) -> str:
        return f"https://{self.host}"

    @property
    def keys(self) -> dict[str, str]:
        """The one user's access_key and secret_key."""
        path = self.folder / "keys.json"
        if not path.exists():
            made = {"access_key": f"AK{secrets.token_hex(9).upper()}", "secret_key": secrets.token_urlsafe(30)}
            self._write(path, json.dumps(made))
        return dict(json.loads(path.read_text()))

    def request(self, method: str, path: str, body: bytes = b"") -> requests.Response:
        """Make one signed request; path: /bucket or /bucket/key."""
        date = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        path = quote(path)
        headers = signed_headers(method, self.host, path, body, **self.keys, date=date)
        return requests.request(
            method, self.endpoint + path, data=body, headers=headers, verify=str(self.ca), timeout=60
        )

    def make_bucket(self, name: str) -> None:
        """Make a bucket; it may be there."""
        answer = self.request("PUT", f"/{name}")
        if not answer.ok:
            raise Failed(f"no bucket {name}: {answer.text[:300]}")

    # ---- its life

    def __enter__(self) -> ObjectStore:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start what does not run, and wait until it answers."""
        install()
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / "ready").exists():
            self._make()
        self._launch("mon", ["ceph-mon", "-i", "a", "-f"])
        self._launch("osd", ["ceph-osd", "-i", "0", "-f"])
        self.start_gateway()
        if not (self.folder / "user").exists():
            self._make_user()

    def stop(self) -> None:
        """End all of it; what was stored stays in the folder."""
        for name in ("gateway", "osd", "mon"):
            self._end(name)

    def remove(self) -> None:
        """End it and delete what was stored."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start_gateway(self) -> None:
        """Start what answers clients."""
        frontend = f"beast ssl_endpoint={self.host} ssl_certificate={self.certificate} ssl_private_key={self.key}"
        options = [f"--rgw-frontends={frontend}", f"--rgw-dns-name={self.name}"]
        self._launch("gateway", ["radosgw", "-n", "client.rgw", "-f", *options])
        self._wait_until_it_answers(120)

    @contextmanager
    def away(self) -> Iterator[None]:
        """Be unreachable until the end of the block: connections are refused."""
        self._end("gateway")
        try:
            yield
        finally:
            self.start_gateway()

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Answer nothing until the end of the block: connections are taken, and hang."""
        pid = self._pid("gateway")
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    # ---- the cluster

    def _run(self, *command: str) -> str:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        if done.returncode:
            raise Failed(f"{' '.join(command[:3])}: {done.stderr.strip()[-500:]}")
        return done.stdout

    def _conf(self) -> list[str]:
        return ["-c", f"{self.folder}/ceph.conf"]

    @staticmethod
    def _write(path: Path, text: str) -> None:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
            stream.write(text)

    def _make(self) -> None:
        """Make an empty cluster, anew when an earlier try was killed."""
        self.stop()
        for path in self.folder.iterdir():
            if path.name != "keys.json":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for name in ("mon", "osd", "rgw"):
            (self.folder / name).mkdir()
        fsid, disk, port = str(uuid.uuid4()), str(uuid.uuid4()), free_port()
        values = {"fsid": fsid, "monitor_port": port, "folder": self.folder, "size": self.gib << 30}
        self._write(self.folder / "ceph.conf", CONFIGURATION.format(**values))
        keyring = f"{self.folder}/keyring"
        for entity, rights in CAPABILITIES.items():
            first = ["--create-keyring"] if entity == "mon." else []
            self._run("ceph-authtool", *first, keyring, "--gen-key", "-n", entity, *rights)
        monmap = f"{self.folder}/monmap"
        self._run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", f"[v2:127.0.0.1:{port}]", monmap)
        self._run("ceph-mon", *self._conf(), "--mkfs", "-i", "a", "--monmap", monmap, "--keyring", keyring)
        self._launch("mon", ["ceph-mon", "-i", "a", "-f"])
        self._run("ceph", *self._conf(), "--connect-timeout=30", "osd", "new", disk)
        self._run("ceph-osd", *self._conf(), "-i", "0", "--mkfs", "--osd-uuid", disk)
        self._write(self.folder / "ready", "")

    def _make_user(self) -> None:
        keys = self.keys
        words = ["user", "create", "--uid=test", "--display-name=test"]
        secret = [f"--access-key={keys['access_key']}", f"--secret-key={keys['secret_key']}"]
        self._run("radosgw-admin", *self._conf(), "-n", "client.rgw", *words, *secret)
        self._write(self.folder / "user", "")

    # ---- processes

    def _pid(self, name: str) -> int:
        """Return the process of this folder, or 0: a number may have become another's."""
        try:
            pid = int((self.folder / f"{name}.pid").read_text())
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return 0
        return pid if f"{self.folder}/ceph.conf".encode() in words else 0

    def _launch(self, name: str, command: Sequence[str]) -> None:
        if self._pid(name):
            return
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [command[0], *self._conf(), *command[1:]],
                cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self._write(self.folder / f"{name}.pid", str(process.pid))

    def _end(self, name: str) -> None:
        pid = self._pid(name)
        for number, seconds in ((signal.SIGTERM, 15), (signal.SIGKILL, 5)):
            if not pid:
                return
            os.kill(pid, number)
            until = time.monotonic() + seconds
            while self._alive(pid) and time.monotonic() < until:
                time.sleep(0.1)
            pid = self._pid(name) if self._alive(pid) else 0

    @staticmethod
    def _alive(pid: int) -> bool:
        """Whether it runs; a child that ended is taken off the list."""
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        return True

    def _wait_until_it_answers(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        why: object = "?"
        gone = 0
        while time.monotonic() < until:
            pid = self._pid("gateway")
            # While a program is being loaded, /proc has no words of it yet.
            gone = 0 if pid and self._alive(pid) else gone + 1
            if gone > 3:
                why = "it has ended"
                break
            try:
                answer = requests.get(self.endpoint, verify=str(self.ca), timeout=5)
                if answer.ok:
                    return
                why = answer.status_code
            except requests.exceptions.SSLError as error:
                raise Failed(f"{self.endpoint}: {error}") from None
            except requests.RequestException as error:
                why = error
            time.sleep(0.3)
        log = (self.folder / "gateway.log").read_text(errors="replace").splitlines()[-3:]
        raise Failed(f"{self.endpoint} does not answer ({why}): {' / '.join(log)}")


def environment(store: ObjectStore) -> Mapping[str, str]:
    """Return what restic, boto3 and the like read."""
    keys = store.keys
    return {
        "AWS_ACCESS_KEY_ID": keys["access_key"],
        "AWS_SECRET_ACCESS_KEY": keys["secret_key"],
        "AWS_DEFAULT_REGION": REGION,
    }
