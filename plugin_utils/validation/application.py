"""What an inventory says of the application, as far as it can be judged without a release or a host."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

from ..application import files, settings, sharding
from .places import at, place

VALUES = (
    "app_tornado_shards",
    "app_tornado_hosts",
    "app_tornado_regexes",
    "uploads_backend",
    "uploads_s3_bucket",
    "uploads_s3_avatar_bucket",
    "uploads_s3_endpoint",
    "zulip_settings",
    "zulip_settings_imports",
    "zulip_files",
)
"""Variables that these checks read."""


def application_problems(values: Mapping[str, Any], inventory: str) -> Iterable[str]:
    """Yield what is wrong. Values that are not set, or cannot be known yet, are left to the roles."""

    def where(*names: str) -> str:
        return place(*(values.get(name) for name in names)) or inventory

    if values.get("uploads_backend") == "s3":
        for name in ("uploads_s3_bucket", "uploads_s3_avatar_bucket"):
            if not values.get(name):
                yield at(
                    where("uploads_backend"), f"`uploads_backend: s3` needs `{name}`; name a bucket, or use `local`"
                )
        endpoint = values.get("uploads_s3_endpoint") or "https://"
        if not str(endpoint).startswith("https://"):
            yield at(
                where("uploads_s3_endpoint"),
                f"`uploads_s3_endpoint` {endpoint} is not served: objects are fetched over TLS alone; write https://…",
            )
    try:
        shards = values.get("app_tornado_shards") or 1
        hosts, regexes = values.get("app_tornado_hosts") or {}, values.get("app_tornado_regexes") or []
        sharding.tornado_sharding(shards, values.get("site_hostname") or "localhost", hosts, regexes)
    except AnsibleFilterError as error:
        yield at(where("app_tornado_hosts", "app_tornado_regexes", "app_tornado_shards"), str(error))
    except (TypeError, ValueError, KeyError):
        pass  # a wrong type has its own line already
    try:
        wanted = values.get("zulip_settings") or {}
        settings.python_assignments(wanted)
        for name in ("EXTERNAL_HOST", "ZULIP_ADMINISTRATOR"):
            if name in wanted and not wanted[name]:
                yield at(
                    where("zulip_settings"), f"`zulip_settings.{name}` is empty; remove it, it is made from site_*"
                )
        settings.python_imports(values.get("zulip_settings_imports") or [])
        files.application_files(values.get("zulip_files") or [], "", "", [])
    except AnsibleFilterError as error:
        yield at(where("zulip_settings", "zulip_settings_imports", "zulip_files"), str(error))
    except (TypeError, ValueError, KeyError, AttributeError):
        pass
