"""Which Tornado process holds a user's event queues. nginx knows it by host name only, and its own map says so."""

import re
from typing import Any

from django.conf import settings

DEFAULT_PORT = 9800


def _shard_map(sharding: dict[str, Any]) -> dict[str, int | list[int]]:
    # Older files are the map itself.
    return sharding.get("shard_map", {k: v for k, v in sharding.items() if k != "shard_regexes"})


def _as_list(ports: int | list[int]) -> list[int]:
    return [ports] if isinstance(ports, int) else ports


def tornado_ports(sharding: dict[str, Any]) -> list[int]:
    """Every port that a shard listens on, lowest first."""
    mentioned = [*_shard_map(sharding).values(), *(ports for _, ports in sharding.get("shard_regexes", []))]
    return sorted({port for ports in mentioned for port in _as_list(ports)}) or [DEFAULT_PORT]


def realm_ports(sharding: dict[str, Any], host: str) -> list[int]:
    """The ports that share a realm's users."""
    if host in (shard_map := _shard_map(sharding)):
        return _as_list(shard_map[host])
    for pattern, ports in sharding.get("shard_regexes", []):
        if re.match(pattern, host, re.IGNORECASE):
            return _as_list(ports)
    return tornado_ports(sharding)[:1]


def user_port(user_id: int) -> int:
    """The port of the process that holds this user's queues."""
    ports = realm_ports(settings.SHARDING, settings.EXTERNAL_HOST)
    return ports[user_id % len(ports)]


def notify_queue(port: int) -> str:
    """The RabbitMQ queue that feeds the process at this port."""
    return "notify_tornado" if len(tornado_ports(settings.SHARDING)) == 1 else f"notify_tornado_port_{port}"
