#!/usr/bin/python
"""Reads the state of one host: its units, its cluster members, its place in the site."""

from __future__ import annotations

import functools
import json
import os
import socket
import ssl
import subprocess
import time
from http.client import HTTPException, HTTPSConnection
from urllib.parse import urlsplit

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: host_health
short_description: State of one host of the site
description:
  - Reads, and never changes, what the host itself knows.
  - Nothing is judged across hosts; the filter C(health_report) does that.
options:
  units:
    description: systemd units that must be active.
    type: list
    elements: str
    default: []
  address:
    description: The host's own address, under which etcd and Patroni answer.
    type: str
    required: true
  etcd:
    description: The host is an etcd member.
    type: bool
    default: false
  patroni:
    description: The host runs PostgreSQL under Patroni.
    type: bool
    default: false
  app:
    description: The host is an application server.
    type: bool
    default: false
  hostname:
    description: Public name of the server, which its certificate has to carry.
    type: str
    default: ''
  virtual_ip:
    description: The virtual IP to look for on the host's interfaces; empty for none.
    type: str
    default: ''
  pki:
    description: Directory of C(ca.pem), C(node.pem) and C(node.key).
    type: path
    default: /etc/zulip-ha/pki
  timeout:
    description: Bound of each probe in seconds.
    type: float
    default: 5.0
author: [zulip-ha]
"""

EXAMPLES = """
- name: Health | Read the host's state
  host_health:
    address: "{{ site_address }}"
    etcd: "{{ 'quorum' in group_names }}"
    units: [etcd.service]
  register: health
"""

RETURN = """
units:
  description: State of each unit that is not active, and of each failed unit of the host that no timer starts.
  type: dict
  returned: always
jobs:
  description: Failed units that a timer starts. They are tried again by themselves, and serve nobody meanwhile.
  type: list
  elements: str
  returned: always
etcd:
  description: C(healthy), C(leader) or C(error).
  type: dict
  returned: when asked for
patroni:
  description: Patroni's own status, or C(error).
  type: dict
  returned: when asked for
app:
  description: HTTP status of /health and /ha/active, whether the lease is held and the virtual IP is on the host.
  type: dict
  returned: when asked for
certificate_days:
  description: Days until the node certificate expires; null without one.
  type: int
  returned: always
"""


def run(command: list[str], timeout: float) -> tuple[int, str]:
    """Run a command that only reads; a missing binary and a timeout are answers too."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return 127, str(error)
    return done.returncode, (done.stdout or done.stderr).strip()


def show_units(properties: str, units: list[str], timeout: float) -> list[dict[str, str]]:
    """Return properties of units, one dictionary for each."""
    if not units:
        return []
    _, out = run(["systemctl", "show", f"--property={properties}", *units], timeout)
    return [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in out.split("\n\n")]


def units_state(wanted: list[str], timeout: float) -> dict[str, str]:
    """Return the state of wanted units that are not active."""
    states: dict[str, str] = {}
    seen: set[str] = set()
    for fields in show_units("Id,ActiveState,SubState,Names", wanted, timeout):
        seen |= set(fields.get("Names", "").split()) | {fields.get("Id", "")}
        if fields.get("ActiveState") not in ("active", "reloading"):
            states[fields.get("Id", "?")] = fields.get("ActiveState", "unknown")
    states.update({unit: "unknown" for unit in wanted if unit not in seen})
    return states


def failed_units(timeout: float) -> tuple[list[str], list[str]]:
    """Return the units that failed: those of timers apart."""
    _, out = run(["systemctl", "list-units", "--failed", "--plain", "--no-legend", "--no-pager"], timeout)
    failed = [line.split()[0] for line in out.splitlines() if line.split()]
    jobs = {
        fields.get("Id", "")
        for fields in show_units("Id,TriggeredBy", failed, timeout)
        if any(name.endswith(".timer") for name in fields.get("TriggeredBy", "").split())
    }
    return [name for name in failed if name not in jobs], [name for name in failed if name in jobs]


class Probe:
    """HTTPS requests with the node's certificate against services of this host."""

    def __init__(self, pki: str, timeout: float) -> None:
        self.pki, self.timeout = pki, timeout

    @functools.cached_property
    def _context(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        context.load_verify_locations(cafile=os.path.join(self.pki, "ca.pem"))
        context.load_cert_chain(os.path.join(self.pki, "node.pem"), os.path.join(self.pki, "node.key"))
        return context

    def get(self, url: str, connect: str = "", data: bytes | None = None) -> tuple[int, str]:
        """Return status and body; (0, reason) when there was no answer.

        connect: address to reach the URL's host at, whose name still has to be in the certificate.
        """
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 443
        try:
            with socket.create_connection((connect or host, port), timeout=self.timeout) as raw:
                connection = HTTPSConnection(host, port, timeout=self.timeout)
                connection.sock = self._context.wrap_socket(raw, server_hostname=host)
                connection.request("POST" if data else "GET", parts.path, body=data)
                answer = connection.getresponse()
                return answer.status, answer.read().decode(errors="replace")
        except (OSError, ValueError, HTTPException) as error:
            return 0, str(error)


def etcd_state(probe: Probe, address: str) -> dict:
    """Ask the local member for its own health, which includes whether it sees a leader."""
    status, body = probe.get(f"https://{address}:2379/health")
    if status != 200 or json.loads(body).get("health") != "true":
        return {"healthy": False, "error": body[:200]}
    status, body = probe.get(f"https://{address}:2379/v3/maintenance/status", data=b"{}")
    answer = json.loads(body) if status == 200 else {}
    return {"healthy": True, "leader": bool(answer) and answer["leader"] == answer["header"]["member_id"]}


def patroni_state(probe: Probe, address: str) -> dict:
    """Return what Patroni says of this member and of the cluster."""
    status, body = probe.get(f"https://{address}:8008/patroni")
    if not status:
        return {"error": body[:200]}
    member = json.loads(body)
    status, body = probe.get(f"https://{address}:8008/cluster")
    cluster = json.loads(body) if status == 200 else {}
    return {
        "state": member.get("state"),
        "role": {"master": "primary"}.get(member.get("role"), member.get("role")),
        "timeline": member.get("timeline"),
        "pending_restart": bool(member.get("pending_restart")),
        "paused": bool(cluster.get("pause")),
        "members": [
            {key: entry.get(key) for key in ("name", "role", "state", "lag")} for entry in cluster.get("members", [])
        ],
    }


def app_state(probe: Probe, hostname: str, virtual_ip: str) -> dict:
    """Return what this application server answers and whether it is the active one."""
    _, addresses = run(["ip", "-json", "address"], probe.timeout)
    try:
        present = {entry["local"] for link in json.loads(addresses) for entry in link.get("addr_info", [])}
    except ValueError:
        present = set()
    health, reason = probe.get(f"https://{hostname}/health", "127.0.0.1")
    return {
        "health": health,
        "health_reason": "" if health == 200 else reason[:200],
        "active": probe.get(f"https://{hostname}/ha/active", "127.0.0.1")[0] == 200,
        "lease": os.path.exists("/run/zulip-ha/active"),
        "virtual_ip": virtual_ip in present,
    }


def certificate_days(pki: str, timeout: float) -> int | None:
    """Return the days that the node certificate has left, asked of openssl in steps that mean something."""
    path = os.path.join(pki, "node.pem")
    code, out = run(["openssl", "x509", "-in", path, "-noout", "-enddate"], timeout)
    if code:
        return None
    end = ssl.cert_time_to_seconds(out.partition("=")[2])
    return int((end - time.time()) // 86400)


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "units": {"type": "list", "elements": "str", "default": []},
            "address": {"type": "str", "required": True},
            "etcd": {"type": "bool", "default": False},
            "patroni": {"type": "bool", "default": False},
            "app": {"type": "bool", "default": False},
            "hostname": {"type": "str", "default": ""},
            "virtual_ip": {"type": "str", "default": ""},
            "pki": {"type": "path", "default": "/etc/zulip-ha/pki"},
            "timeout": {"type": "float", "default": 5.0},
        },
        supports_check_mode=True,
    )
    wanted = module.params
    probe = Probe(wanted["pki"], wanted["timeout"])
    failed, jobs = failed_units(wanted["timeout"])
    result: dict = {
        "changed": False,
        "units": units_state(wanted["units"], wanted["timeout"]) | dict.fromkeys(failed, "failed"),
        "jobs": jobs,
        "certificate_days": certificate_days(wanted["pki"], wanted["timeout"]),
    }
    if wanted["etcd"]:
        result["etcd"] = etcd_state(probe, wanted["address"])
    if wanted["patroni"]:
        result["patroni"] = patroni_state(probe, wanted["address"])
    if wanted["app"]:
        result["app"] = app_state(probe, wanted["hostname"], wanted["virtual_ip"])
    module.exit_json(**result)


if __name__ == "__main__":
    main()
