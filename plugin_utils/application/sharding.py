"""Which Tornado processes serve which organisation."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

from .settings import plain

FIRST_TORNADO_PORT = 9800
HOST_NAME = re.compile(r"[A-Za-z0-9_.:\[\]-]+")


def tornado_ports(shards: int) -> list[int]:
    """Return the ports of the shards, contiguous from 9800, as the application counts on."""
    if shards < 1:
        raise AnsibleFilterError(f"there must be one Tornado shard or more, not {shards}")
    return [FIRST_TORNADO_PORT + number for number in range(shards)]


def event_servers(shards: int, address: str, poll_address: str) -> list[dict[str, Any]]:
    """Return the Tornado processes as HAProxy's event servers.

    address: where they listen. poll_address: where nginx asks, so that a planned move can end users' polls without what
    the application itself asks at 127.0.0.1.
    """
    return [
        {"name": f"{name}_{port}", "bind": bind, "port": port, "address": address}
        for port in tornado_ports(shards)
        for name, bind in (("tornado", "127.0.0.1"), ("polls", poll_address))
    ]


def tornado_queues(shards: int) -> list[str]:
    """Return the broker's queues that Tornado reads, as the application names them."""
    return ["notify_tornado"] if shards == 1 else [f"notify_tornado_port_{port}" for port in tornado_ports(shards)]


def event_probes(shards: int, address: str) -> dict[str, str]:
    """Return what the lease's agent connects to, and the unit behind it."""
    return {f"tcp:{address}:{port}": f"zulip-tornado@{port}.service" for port in tornado_ports(shards)}


def _ports(ports: int | Sequence[int], known: Sequence[int], what: str) -> list[int]:
    """Return the ports of one assignment, checked."""
    wanted = [int(port) for port in ([ports] if isinstance(ports, int | str) else ports)]
    unknown = [port for port in wanted if port not in known]
    if not wanted or unknown:
        raise AnsibleFilterError(f"{what}: Tornado shards are {known[0]} to {known[-1]}, not {unknown or ports}")
    return wanted


def tornado_sharding(
    shards: int, hostname: str, hosts: Mapping[str, Any], regexes: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Decide which organisation is served by which shards.

    hosts: {host name: port or [ports]}; regexes: [{regex, ports}], tried in order after the hosts. Without any of them
    and with several shards, all of them serve the site's own host name, by user.
    Returns `ports`, `json` (sharding.json), and for nginx `upstreams` ({name: [ports]}) with `hosts` and `regexes`.
    """
    known = tornado_ports(shards)
    result: dict[str, Any] = {"ports": known, "json": {}, "upstreams": {}, "hosts": {}, "regexes": []}
    if shards == 1:
        result["upstreams"] = {"tornado": known}
        result["default"] = "tornado"
        return result
    if not hosts and not regexes:
        hosts = {hostname: known}

    def upstream(ports: list[int]) -> str:
        name = "tornado" + "_".join(map(str, ports))
        result["upstreams"][name] = ports
        return name

    def compact(ports: list[int]) -> int | list[int]:
        return ports[0] if len(ports) == 1 else ports

    result["default"] = upstream([known[0]])
    result["json"] = {"shard_map": {}, "shard_regexes": []}
    for host in sorted(hosts):
        if not HOST_NAME.fullmatch(host):
            raise AnsibleFilterError(f"tornado sharding: {host!r} is not a host name")
        ports = _ports(hosts[host], known, host)
        result["json"]["shard_map"][str(host)] = compact(ports)
        result["hosts"][str(host)] = upstream(ports)
    for entry in regexes:
        if re.search(r"[\s\"{};]", entry["regex"]):
            raise AnsibleFilterError(
                f"tornado sharding: the expression {entry['regex']!r} must hold no blank, quote, brace or semicolon"
            )
        ports = _ports(entry["ports"], known, entry["regex"])
        result["json"]["shard_regexes"].append([str(entry["regex"]), compact(ports)])
        result["regexes"].append({"regex": str(entry["regex"]), "upstream": upstream(ports)})
    served = {port for ports in result["upstreams"].values() for port in ports}
    assigned = {
        port
        for ports in result["json"]["shard_map"].values()
        for port in ([ports] if isinstance(ports, int) else ports)
    }
    assigned |= {
        port for _, ports in result["json"]["shard_regexes"] for port in ([ports] if isinstance(ports, int) else ports)
    }
    if idle := sorted((served | set(known)) - assigned):
        raise AnsibleFilterError(
            f"tornado sharding: no organisation is assigned to {idle}; "
            f"every shard from {known[0]} to {known[-1]} must be named"
        )
    return result


def sharding_section(sharding: Mapping[str, Any]) -> dict[str, str]:
    """Return the section `tornado_sharding` of zulip.conf, which tells the application its ports; empty for one."""
    hosts: dict[str, list[str]] = {}
    regexes: dict[str, list[str]] = {}
    data = sharding["json"]
    for host, ports in data.get("shard_map", {}).items():
        hosts.setdefault(_key(ports), []).append(host)
    for regex, ports in data.get("shard_regexes", []):
        regexes.setdefault(_key(ports) + "_regex", []).append(regex)
    section = {key: " ".join(names) for key, names in hosts.items()}
    # A key stands once: several expressions become one.
    section |= {
        key: found[0] if len(found) == 1 else "|".join(f"(?:{regex})" for regex in found)
        for key, found in regexes.items()
    }
    return section


def _key(ports: int | Sequence[int]) -> str:
    """Return the key of ports: 9801, or 9801_9802."""
    return str(ports) if isinstance(ports, int) else "_".join(map(str, ports))


def sharding_json(sharding: Mapping[str, Any]) -> str:
    """Return the text of sharding.json."""
    return json.dumps(plain(sharding["json"]), indent=2, sort_keys=True) + "\n"


def orphaned_queues(queues: Sequence[Mapping[str, Any]], ports: Sequence[int]) -> list[str]:
    """Return Tornado's queues that no shard reads.

    queues: `{name, consumers}` as RabbitMQ lists them. ports: of the shards. A queue that somebody reads is none.
    """
    wanted = tornado_queues(len(ports))
    names = re.compile(r"notify_tornado(_port_\d+)?")
    return sorted(
        queue["name"]
        for queue in queues
        if names.fullmatch(queue["name"]) and queue["name"] not in wanted and not queue["consumers"]
    )
