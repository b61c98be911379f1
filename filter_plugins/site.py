"""Filters over the inventory: addresses, members, lists by group and the port matrix."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleFilterError

ANY_SOURCES = ["0.0.0.0/0", "::/0"]


def site_addresses(hosts: Iterable[str], hostvars: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the `site_address` of each host, in the order given, without repeats."""
    return list(dict.fromkeys(str(hostvars[host]["site_address"]) for host in hosts))


def site_members(hosts: Iterable[str], hostvars: Mapping[str, Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return `[{name, address}]` for hosts that form a cluster, in inventory order."""
    return [{"name": str(host), "address": str(hostvars[host]["site_address"])} for host in hosts]


def by_groups(lists: Mapping[str, Iterable[str]], group_names: Iterable[str]) -> list[str]:
    """Return the sorted union of the lists of `all` and of each group that the host is in."""
    wanted = set(lists.get("all", ()))
    for group in group_names:
        wanted.update(lists.get(group, ()))
    return sorted(wanted)


def _sources(
    rule: Mapping[str, Any], groups: Mapping[str, Iterable[str]], hostvars: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """Resolve a rule's `from`: `any`, networks, addresses and group names, mixed as one likes."""
    result: list[str] = []
    wanted = rule["from"]
    for source in [wanted] if isinstance(wanted, str) else wanted:
        if source == "any":
            return list(ANY_SOURCES)
        if source in groups:
            result += site_addresses(groups[source], hostvars)
            continue
        try:
            result.append(str(ipaddress.ip_network(source, strict=False)))
        except ValueError as error:
            raise AnsibleFilterError(
                f"port rule '{rule['name']}': '{source}' is neither 'any', a group of the inventory, nor a network"
            ) from error
    return sorted(set(result), key=lambda text: (":" in text, ipaddress.ip_network(text, strict=False)))


def site_firewall_rules(
    ports: Iterable[Mapping[str, Any]],
    groups: Mapping[str, Iterable[str]],
    hostvars: Mapping[str, Mapping[str, Any]],
    group_names: Iterable[str],
    address: str,
) -> list[dict[str, Any]]:
    """Return the rules of one host out of the port matrix.

    ports: `[{name, to, from, port, protocol}]`; `to` is a group, a list of groups, or `all`; `from` is `any`, groups or
      networks; `protocol` is tcp (default), udp or vrrp, which has no port.
    Returns `[{name, protocol, port, ipv4, ipv6}]` with sorted sources of each family. The host's own address is not a
    source: local traffic is always allowed. A rule that is left without sources is dropped.
    """
    mine = {"all", *group_names}
    rules = []
    for port in ports:
        to = [port["to"]] if isinstance(port["to"], str) else port["to"]
        if not mine.intersection(to):
            continue
        sources = [source for source in _sources(port, groups, hostvars) if source.split("/")[0] != address]
        if sources:
            rules.append(
                {
                    "name": port["name"],
                    "protocol": port.get("protocol", "tcp"),
                    "port": port.get("port"),
                    "ipv4": [source for source in sources if ":" not in source],
                    "ipv6": [source for source in sources if ":" in source],
                }
            )
    return rules


def repository_path(path: str) -> str:
    """Return an absolute path; a relative one is below this repository, wherever the playbook and the inventory are."""
    return str(Path(__file__).resolve().parents[1] / path)


class FilterModule:
    """Filters over the inventory."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "site_addresses": site_addresses,
            "repository_path": repository_path,
            "site_members": site_members,
            "by_groups": by_groups,
            "site_firewall_rules": site_firewall_rules,
        }
