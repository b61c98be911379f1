"""Tarballs from a URL: whole or not at all, once, and with nobody's password in what is shown."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Shelf, Web

Tarball = Callable[..., Path]
SECRET = "s3cr3t-word"


@pytest.fixture
def offered(web: Web, tarball: Tarball) -> str:
    """A tarball on the web server; its sum."""
    data = tarball().read_bytes()
    (web.folder / "app.tar.gz").write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def test_a_download_is_kept_under_its_sum(shelf: Shelf, web: Web, offered: str) -> None:
    seen = shelf.source(source=web.url("app.tar.gz"), sha256=offered)
    assert (seen["digest"], seen["version"], seen["origin"]) == (offered, "9.1", web.url("app.tar.gz"))
    assert shelf.archives() == [f"{offered}.tar"]
    # With the sum that it must have, nobody has to be asked again.
    shelf.source(source=web.url("app.tar.gz"), sha256=offered)
    assert len(web.requests) == 1


def test_without_a_sum_the_server_is_asked_whether_it_changed(shelf: Shelf, web: Web, offered: str) -> None:
    for _ in range(2):
        assert shelf.source(source=web.url("app.tar.gz"))["digest"] == offered
    assert [code for _, _, code in web.requests] == [200, 304]
    (web.folder / "app.tar.gz").write_bytes((web.folder / "app.tar.gz").read_bytes() + b"\0" * 20)
    assert shelf.source(source=web.url("app.tar.gz"))["digest"] != offered


def test_another_sum_is_refused_and_nothing_kept(shelf: Shelf, web: Web, offered: str) -> None:
    refusal = shelf.refusal(source=web.url("app.tar.gz"), sha256="0" * 64)
    assert f"has the SHA-256 {offered}, and release_source_sha256 wants" in refusal
    assert shelf.archives() == []


def test_a_kept_file_that_was_changed_is_downloaded_again(shelf: Shelf, web: Web, offered: str) -> None:
    seen = shelf.source(source=web.url("app.tar.gz"), sha256=offered)
    Path(seen["archive"]).write_bytes(b"tampered")
    assert shelf.source(source=web.url("app.tar.gz"), sha256=offered)["version"] == "9.1"
    assert len(web.requests) == 2


def test_a_connection_that_ends_early_is_noticed(shelf: Shelf, web: Web, offered: str) -> None:
    web.cut = True
    assert "was cut short while it was downloaded" in shelf.refusal(source=web.url("app.tar.gz"))
    assert shelf.archives() == []


def test_what_the_server_says_is_said(shelf: Shelf, web: Web) -> None:
    assert "none.tar.gz answers 404" in shelf.refusal(source=web.url("none.tar.gz"))
    closed = "http://127.0.0.1:9/app.tar.gz"
    assert f"{closed} cannot be had" in shelf.refusal(source=closed)


def test_a_download_that_was_killed_starts_over(shelf: Shelf, web: Web, offered: str) -> None:
    web.gate = threading.Event()
    request = json.dumps(shelf.request(source=web.url("app.tar.gz")))
    with subprocess.Popen(shelf.command("source"), stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as run:
        assert run.stdin
        run.stdin.write(request)
        run.stdin.close()
        until = time.monotonic() + 20
        while not list(shelf.directory.rglob(".part*")) and time.monotonic() < until:
            time.sleep(0.02)
        run.send_signal(signal.SIGKILL)
    assert list(shelf.directory.rglob(".part*"))
    assert shelf.archives() == []
    web.gate.set()
    web.gate = None
    assert shelf.source(source=web.url("app.tar.gz"))["digest"] == offered
    assert not list(shelf.directory.rglob(".part*"))


def test_credentials_reach_the_server_alone(shelf: Shelf, web: Web, offered: str, tmp_path: Path) -> None:
    url = web.url("app.tar.gz?token=abcdef", f"me:{SECRET}@")
    seen = json.dumps(shelf.source(source=url))
    assert SECRET not in seen
    assert "token" not in seen
    assert web.requests[0][1]["Authorization"].startswith("Basic ")
    (web.folder / "app.tar.gz").unlink()
    refusal = shelf.refusal(source=url)
    assert "answers 404" in refusal
    assert SECRET not in refusal
    assert "abcdef" not in refusal
    kept = [path for path in shelf.directory.rglob("*") if path.is_file() and path.suffix != ".tar"]
    assert all(SECRET not in path.read_text() for path in kept)


def test_credentials_do_not_follow_to_another_place(shelf: Shelf, web: Web, offered: str) -> None:
    web.redirect["/moved.tar.gz"] = web.url("app.tar.gz")
    shelf.source(source=web.url("moved.tar.gz", f"me:{SECRET}@"))
    first, second = web.requests
    assert "Authorization" in first[1]
    assert "Authorization" not in second[1]


def test_a_proxy_of_the_environment_is_used(shelf: Shelf, web: Web, offered: str) -> None:
    # A proxy is asked for the whole URL.
    environment = {"http_proxy": web.url("").rstrip("/")}
    assert "answers 404" in shelf.refusal(source="http://elsewhere.invalid/app.tar.gz", environment=environment)
    assert web.requests[0][0] == "http://elsewhere.invalid/app.tar.gz"


def test_an_archive_that_is_no_source_is_checked_alike(shelf: Shelf, web: Web, offered: str) -> None:
    request = {"location": web.url("app.tar.gz"), "sha256": offered, "variable": "release_venv_archive_sha256"}
    done = shelf.run("archive", request)
    seen = json.loads(done.stdout)
    assert (seen["digest"], seen["origin"]) == (offered, web.url("app.tar.gz"))
    assert Path(seen["archive"]).parent.name == "virtualenvs"
    done = shelf.run("archive", {**request, "sha256": "0" * 64})
    assert done.returncode == 1
    assert "release_venv_archive_sha256 wants" in done.stderr
    done = shelf.run("archive", {**request, "location": "/none", "sha256": ""})
    assert done.stderr == "there is no /none\n"
