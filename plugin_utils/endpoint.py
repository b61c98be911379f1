"""The address of an S3 server as operators write it: `s3.example.org`, `https://s3.example.org:9000`, `[fd00::1]`."""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

_ENDPOINT = re.compile(r"(?:https://)?(?P<host>\[[0-9A-Fa-f:]+\]|[^/:]+)(?::(?P<port>\d+))?/*")


class Endpoint(NamedTuple):
    """Where the server is: host, in brackets for IPv6, and port, empty for the usual one."""

    host: str
    port: str

    @property
    def is_address(self) -> bool:
        """Whether the host is an IP address instead of a name."""
        try:
            ipaddress.ip_address(self.host.strip("[]"))
        except ValueError:
            return False
        return True


def endpoint(text: str) -> Endpoint | None:
    """Return what an endpoint says; nothing when it is none, as with `http://` or a path."""
    found = _ENDPOINT.fullmatch(text)
    return Endpoint(found["host"], found["port"] or "") if found else None
