"""Where backups of the database go, as far as it can be judged without asking there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ..endpoint import endpoint
from .places import at, place

VALUES = ("backup_repositories",)
"""Variables that these checks read."""

MOST = 4
"""More can be had from Debian 13 on alone, and nobody needs them."""
TYPES = ("posix", "s3")
COMMON = frozenset({"type", "path", "cipher_pass", "retention_full", "retention_diff", "options"})
S3 = frozenset(
    {
        "bucket",
        "endpoint",
        "region",
        "key",
        "key_secret",
        "key_type",
        "role",
        "uri_style",
        "ca_file",
        "port",
        "verify",
        "sse",
        "kms_key_id",
        "sse_customer_key",
    }
)
SSE = {"none": "", "aws:kms": "kms_key_id", "customer": "sse_customer_key"}
"""Encryption by the server, and the key that it needs."""


def backup_problems(values: Mapping[str, Any], inventory: str) -> Iterable[str]:
    """Yield what is wrong with `backup_repositories`. What is not set, or cannot be known yet, is left to the role."""
    repositories = values.get("backup_repositories")
    if not isinstance(repositories, list | tuple):
        return  # a wrong type has its own line already
    where = place(repositories, *repositories[:1]) or inventory
    if not 0 < len(repositories) <= MOST:
        yield at(where, f"`backup_repositories` has {len(repositories)} of them; give one to {MOST}")
        return
    seen: dict[tuple[Any, ...], int] = {}
    for number, item in enumerate(repositories, 1):
        name = f"`backup_repositories` number {number}"
        here = place(item) or where
        if not isinstance(item, Mapping):
            yield at(here, f"{name} is no mapping; write {{type: posix, path: /var/lib/pgbackrest}}")
            continue
        problem = _problem(item)
        if problem:
            yield at(here, f"{name} {problem}")
            continue
        target = (item["type"], item.get("endpoint"), item.get("bucket"), item.get("path"))
        if target in seen:
            yield at(here, f"{name} is the same place as number {seen[target]}; remove one")
        seen.setdefault(target, number)


def _problem(item: Mapping[str, Any]) -> str:
    """Return what is wrong with one repository; nothing when it can work."""
    kind = item.get("type")
    if kind not in TYPES:
        return f"has the type {kind or 'nothing'}; choose {' or '.join(TYPES)}"
    strange = sorted(set(item) - COMMON - (S3 if kind == "s3" else set()))
    if strange:
        return f"has `{strange[0]}`, which a repository of type {kind} does not know; remove it"
    path = item.get("path")
    if path is not None and not re.fullmatch(r"/[^\s]*[^\s/]", str(path)):
        return f"has the path {path}; write an absolute one"
    if kind == "posix":
        return "" if path else "lacks `path`; name a directory of the backup host, like /var/lib/pgbackrest"
    lacking = [key for key in ("bucket", "endpoint", "region") if not item.get(key)]
    if item.get("key_type", "shared") == "shared":
        lacking += [key for key in ("key", "key_secret") if not item.get(key)]
    sse = str(item.get("sse") or "none")
    if sse == "AES256":
        return "has `sse: AES256`, for which pgBackRest has no header; make it the default of the bucket"
    if sse not in SSE:
        return f"has `sse: {sse}`; choose {', '.join(SSE)}"
    if SSE[sse] and not item.get(SSE[sse]):
        lacking.append(SSE[sse])
    if lacking:
        return f"lacks {', '.join(f'`{key}`' for key in lacking)}"
    if str(item["endpoint"]).startswith("http://"):
        return f"has the endpoint {item['endpoint']}; backups go over TLS alone, write the host's name"
    server = endpoint(str(item["endpoint"]))
    if not server:
        return f"has the endpoint {item['endpoint']}; write the host's name, with `:` and the port if it is not 443"
    if server.is_address and item.get("verify", True):
        return (
            f"has the endpoint {item['endpoint']}, an address; pgBackRest looks for names alone in a certificate, "
            "write the host's name"
        )
    if item.get("uri_style", "path") not in ("host", "path"):
        return f"has `uri_style: {item['uri_style']}`; choose host or path"
    return ""
