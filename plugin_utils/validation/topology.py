"""Groups, hosts and addresses of an inventory."""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .places import at, place

REQUIRED = ("app", "database", "quorum", "backup", "monitor")
OPTIONAL = ("builder",)
MAY_BE_EMPTY = ("backup",)
"""Left empty on purpose: a site without backups. One that is forgotten is missing."""
_LABEL = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)\Z")
_MAIL = re.compile(r"[^@\s]+@[^@\s]+\Z")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass
class Host:
    """One host as its own variables describe it."""

    name: str
    address: Any = None
    ansible_host: Any = None
    port: int = 22
    # Containers and local connections are told apart by more than host and port.
    remote: bool = True


@dataclass
class Site:
    """What an inventory says about the site: groups and hosts, and the values that all hosts share."""

    inventory: str
    groups: Mapping[str, list[str]]
    hosts: list[Host] = field(default_factory=list)
    values: Mapping[str, Any] = field(default_factory=dict)

    def where(self, name: str) -> str:
        """Return the place of a site value, the inventory if it has none."""
        return place(self.values.get(name)) or self.inventory


def group_problems(site: Site) -> Iterable[str]:
    """Yield missing, empty and misspelt groups, and a quorum that can split in two halves."""
    if not any(site.groups.values()):
        yield at(site.inventory, f"no hosts; list your hosts in the groups {', '.join(REQUIRED)}")
        return
    strangers = [name for name in site.groups if name not in ("all", "ungrouped", *REQUIRED, *OPTIONAL)]
    for group in (*REQUIRED, *OPTIONAL):
        if site.groups.get(group):
            continue
        close = difflib.get_close_matches(group, strangers, n=1, cutoff=0.75)
        if close:
            yield at(site.inventory, f"group `{group}` is missing; do you mean it by `{close[0]}`? Rename that group")
        elif group in REQUIRED and not (group in MAY_BE_EMPTY and group in site.groups):
            state = "is empty; put" if group in site.groups else "is missing; add it with"
            yield at(site.inventory, f"group `{group}` {state} at least one host")
    quorum = site.groups.get("quorum") or []
    if quorum and len(quorum) % 2 == 0:
        yield at(
            site.inventory,
            f"group `quorum` has {len(quorum)} hosts ({', '.join(quorum)}); "
            "the number has to be odd, add one host or remove one",
        )


def _address(value: Any) -> Address | None:
    try:
        return ipaddress.ip_address(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _network(site: Site) -> tuple[Network | None, str | None]:
    """Return the site's network, or what is wrong with it."""
    value, where = site.values.get("site_network"), site.where("site_network")
    if not value:
        return None, at(
            where, "`site_network` is not set; give the network of all hosts, like 192.0.2.0/24, in 50-site.yml"
        )
    try:
        return ipaddress.ip_network(value), None
    except ValueError:
        pass
    try:
        hint = f"write {ipaddress.ip_network(value, strict=False)}"
    except ValueError:
        hint = "write one like 192.0.2.0/24"
    return None, at(where, f"`site_network` {value} is no network; {hint}")


def address_problems(site: Site) -> Iterable[str]:
    """Yield hosts without a usable address, the same host twice, and a virtual IP that cannot work."""
    network, problem = _network(site)
    if problem:
        yield problem
    by_address: dict[Address, Host] = {}
    by_target: dict[tuple[str, int], Host] = {}
    for host in site.hosts:
        where = place(host.address, host.ansible_host) or site.inventory
        address = _address(host.address)
        if address is None:
            shown = f"`{host.address}` is none" if host.address else "it has none"
            yield at(where, f"host `{host.name}` needs an IP address and {shown}; set `site_address` on it")
        elif address in by_address:
            yield _twice(where, by_address[address], host, str(address))
            continue
        else:
            by_address[address] = host
            if network and address not in network:
                yield at(
                    where,
                    f"host `{host.name}` has the address {address}, outside of `site_network` {network}; "
                    "correct one of them",
                )
        target = (str(host.ansible_host), host.port)
        if host.remote and host.ansible_host:
            if target in by_target:
                yield _twice(where, by_target[target], host, f"{target[0]} port {target[1]}")
            by_target.setdefault(target, host)
    yield from _virtual_ip_problems(site, network, by_address)


def _twice(where: str, first: Host, second: Host, address: str) -> str:
    return at(
        where,
        f"hosts `{first.name}` and `{second.name}` are the same machine ({address}); "
        "use one name for it and list that name in each of its groups",
    )


def _virtual_ip_problems(site: Site, network: Network | None, taken: Mapping[Address, Host]) -> Iterable[str]:
    """Yield what is wrong with the virtual IP, which only VRRP needs."""
    if site.values.get("edge_mode", "vrrp") != "vrrp":
        return
    value, where = site.values.get("site_virtual_ip"), site.where("site_virtual_ip")
    if not value:
        yield at(
            where, "`site_virtual_ip` is not set; give a free address of `site_network`, or set `edge_mode: external`"
        )
        return
    address = _address(value)
    if not isinstance(address, ipaddress.IPv4Address):
        yield at(where, f"`site_virtual_ip` {value} is no IPv4 address; write one of `site_network`")
    elif address in taken:
        yield at(where, f"`site_virtual_ip` {value} is the address of host `{taken[address].name}`; choose a free one")
    elif network and address not in network:
        yield at(where, f"`site_virtual_ip` {value} is outside of `site_network` {network}; choose an address inside")
    elif network and network.num_addresses > 2 and address in (network.network_address, network.broadcast_address):
        yield at(where, f"`site_virtual_ip` {value} is the network's own or its broadcast address; choose another")


def _is_name(value: str) -> bool:
    """Tell whether a value is a DNS name."""
    labels = value.removesuffix(".").split(".")
    return len(value) <= 253 and all(_LABEL.match(label) for label in labels) and not labels[-1].isdigit()


def identity_problems(site: Site) -> Iterable[str]:
    """Yield what is wrong with the site's public name and its administrator."""
    hostname, administrator = site.values.get("site_hostname"), site.values.get("site_administrator")
    where = site.where("site_hostname")
    if not hostname:
        yield at(where, "`site_hostname` is not set; give the public name, like chat.example.com, in 50-site.yml")
    elif isinstance(hostname, str) and _address(hostname) is None and not _is_name(hostname):
        yield at(where, f"`site_hostname` {hostname} is no host name; write it like chat.example.com, without https://")
    where = site.where("site_administrator")
    if not administrator:
        yield at(where, "`site_administrator` is not set; give the administrator's e-mail address in 50-site.yml")
    elif isinstance(administrator, str) and not _MAIL.match(administrator):
        yield at(where, f"`site_administrator` {administrator} is no e-mail address; write it like admin@example.com")
