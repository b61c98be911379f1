"""Downloads an archive once: checked against its sum, and asked for again only when the server says that it changed."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import os
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from release_build.masking import plain_url

from .cache import Cache, file_sha256

TIMEOUT = 60
CHUNK = 1 << 20
SYSTEM_CA = "/etc/ssl/certs/ca-certificates.crt"


def request_for(url: str, seen: dict[str, str]) -> urllib.request.Request:
    """Return the request for a URL: its credentials in a header, which no other host gets to see."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    request = urllib.request.Request(parts._replace(netloc=host, fragment="").geturl())
    request.add_header("User-Agent", "zulip-ha")
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        request.add_unredirected_header("Authorization", "Basic " + base64.b64encode(pair.encode()).decode())
    if seen.get("etag"):
        request.add_header("If-None-Match", seen["etag"])
    elif seen.get("modified"):
        request.add_header("If-Modified-Since", seen["modified"])
    return request


def opener() -> urllib.request.OpenerDirector:
    """Return what opens URLs: proxies from the environment, the system's certificates for every Python."""
    context = ssl.create_default_context()
    if not os.environ.get("SSL_CERT_FILE") and os.path.exists(SYSTEM_CA):
        context.load_verify_locations(SYSTEM_CA)
    return urllib.request.build_opener(urllib.request.HTTPSHandler(context=context))


def transfer(answer: Any, target: Path) -> str:
    """Write an answer into a file and return its sum; a connection that ended early is an error."""
    digest, size = hashlib.sha256(), 0
    with target.open("wb") as stream:
        while chunk := answer.read(CHUNK):
            digest.update(chunk)
            size += stream.write(chunk)
    wanted = answer.headers.get("Content-Length")
    if wanted and int(wanted) != size:
        raise http.client.IncompleteRead(b"", int(wanted) - size)
    return digest.hexdigest()


def wrong_sum(what: str, digest: str, wanted: str, variable: str) -> str:
    """Say that an archive is not the wanted one."""
    return f"{what} has the SHA-256 {digest}, and {variable} wants {wanted}: do not use it before you know why"


def download(url: str, wanted: str, variable: str, cache: Cache) -> tuple[Path, str]:
    """Return an archive from a URL, and its sum."""
    shown = plain_url(url)
    note = cache.directory / f"url-{hashlib.sha256(url.encode()).hexdigest()[:16]}.json"
    seen: dict[str, str] = json.loads(note.read_text(encoding="utf-8")) if note.exists() else {}
    digest = wanted or seen.get("digest", "")
    held = cache.directory / f"{digest}.tar"
    have = bool(digest) and held.exists() and file_sha256(held) == digest
    if have and wanted:
        return cache.used(held), digest
    temporary = cache.temporary()
    try:
        with opener().open(request_for(url, seen if have else {}), timeout=TIMEOUT) as answer:
            digest = transfer(answer, temporary)
            headers = answer.headers
        if wanted and digest != wanted:
            raise SystemExit(wrong_sum(shown, digest, wanted, variable))
        path = cache.add(temporary, f"{digest}.tar")
    except urllib.error.HTTPError as error:
        if error.code == 304:
            return cache.used(held), digest
        raise SystemExit(f"{shown} answers {error.code} {error.reason}") from None
    except http.client.IncompleteRead:
        raise SystemExit(f"{shown} was cut short while it was downloaded: run this again") from None
    except urllib.error.URLError as error:
        raise SystemExit(f"{shown} cannot be had: {error.reason}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise SystemExit(f"{shown} cannot be had: {error or type(error).__name__}") from None
    finally:
        temporary.unlink(missing_ok=True)
    known = {"digest": digest, "etag": headers.get("ETag", ""), "modified": headers.get("Last-Modified", "")}
    note.write_text(json.dumps(known), encoding="utf-8")
    for other in cache.directory.glob("url-*.json"):
        if not (cache.directory / f"{json.loads(other.read_text(encoding='utf-8')).get('digest')}.tar").exists():
            other.unlink()
    return path, digest
