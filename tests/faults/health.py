"""Whether the site is whole, by the same code as `make health`, without Ansible: it is asked every second."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.nodes import RUNNING, NodeError, Nodes

ROOT = Path(__file__).resolve().parents[2]
Look = Mapping[str, Mapping[str, Any]]
"""What host_health says, by node; {"msg": why} of one that did not answer."""

# host_health imports Ansible for its arguments alone, and no node has it.
BEFORE = """
import sys, types
for name in ("ansible", "ansible.module_utils", "ansible.module_utils.basic"):
    sys.modules[name] = types.ModuleType(name)
sys.modules["ansible.module_utils.basic"].AnsibleModule = None
"""
AFTER = """
def look(units, address, groups, hostname, virtual_ip):
    probe = Probe("/etc/zulip-ha/pki", 3.0)
    failed, jobs = failed_units(5.0)
    found = {"units": units_state(units, 5.0) | dict.fromkeys(failed, "failed"), "jobs": jobs, "certificate_days": 99}
    if "quorum" in groups:
        found["etcd"] = etcd_state(probe, address)
    if "database" in groups:
        found["patroni"] = patroni_state(probe, address)
    if "app" in groups:
        found["app"] = app_state(probe, hostname, virtual_ip)
    return found
print(json.dumps(look(**json.loads(sys.argv[1]))))
"""
# What is enabled and runs, and what the application's target wants. Singletons run on the host that is active.
UNITS = """
for unit in $(systemctl list-unit-files --state=enabled,enabled-runtime --plain --no-legend \
        --type=service,timer,path,target | cut -d' ' -f1); do
    case $unit in *@.*) continue ;; esac
    if systemctl --quiet is-active "$unit"; then echo "$unit"; fi
done
systemctl list-units --state=active --plain --no-legend zulip-django.service zulip-fts.service \
    'zulip-tornado@*.service' 'zulip-worker*.service' | cut -d' ' -f1
"""


def program() -> str:
    """Return what runs on a node: the module's own source between what it needs here."""
    source = (ROOT / "library/host_health.py").read_text(encoding="utf-8")
    # Only the first statement of a file may be this one.
    future = "from __future__ import annotations\n"
    return future + BEFORE + source.replace(future, "").replace('if __name__ == "__main__":\n    main()\n', "") + AFTER


def health_report(results: Look, virtual_ip: bool) -> dict[str, Any]:
    """Judge as `make health` does."""
    spec = importlib.util.spec_from_file_location("health_filter", ROOT / "filter_plugins/health.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    report: Callable[..., dict[str, Any]] = module.health_report
    return report({name: {"health_host": found} for name, found in results.items()}, list(results), virtual_ip)


@dataclass(frozen=True)
class Cast:
    """Which node plays which role at a moment; empty when nobody does."""

    active: str = ""
    spare: str = ""
    leader: str = ""
    replica: str = ""
    etcd_leader: str = ""
    etcd_follower: str = ""
    witness: str = ""
    """A voter that has no database."""


def cast_of(results: Look, groups: Mapping[str, tuple[str, ...]]) -> Cast:
    """Read the roles from what the nodes say of themselves; among equals the first by name."""

    def first(group: str, plays: Callable[[Mapping[str, Any]], Any]) -> str:
        return next((name for name in sorted(results) if group in groups[name] and plays(results[name])), "")

    def role(wanted: str) -> Callable[[Mapping[str, Any]], bool]:
        return lambda found: found.get("patroni", {}).get("role") == wanted

    def leads(wanted: bool) -> Callable[[Mapping[str, Any]], bool]:
        return lambda found: found.get("etcd", {}).get("healthy") and found["etcd"].get("leader") is wanted

    return Cast(
        active=first("app", lambda found: found.get("app", {}).get("lease")),
        spare=first("app", lambda found: found.get("app", {}).get("lease") is False),
        leader=first("database", role("primary")),
        replica=first("database", role("replica")),
        etcd_leader=first("quorum", leads(True)),
        etcd_follower=first("quorum", leads(False)),
        witness=next(
            (name for name in sorted(groups) if "quorum" in groups[name] and "database" not in groups[name]), ""
        ),
    )


class Health:
    """Looks at all nodes at once."""

    def __init__(self, nodes: Nodes, hostname: str) -> None:
        self.nodes, self.hostname = nodes, hostname
        self.program = program()
        self.units: dict[str, list[str]] = {}

    def remember(self) -> None:
        """Take what runs now for what has to run after each fault."""
        self.units = {node: self.nodes.sh(node, UNITS).split() for node in self.nodes}

    def look(self) -> dict[str, dict[str, Any]]:
        """Ask every node, and wait for none that cannot answer."""
        status = self.nodes.status()
        with ThreadPoolExecutor(len(status)) as pool:
            return dict(zip(status, pool.map(lambda node: self._one(node, status[node]), status), strict=True))

    def _one(self, node: str, status: str) -> dict[str, Any]:
        if status != RUNNING:
            return {"msg": status}
        wanted = {
            "units": self.units.get(node, []),
            "address": self.nodes.addresses[node],
            "groups": self.nodes.groups[node],
            "hostname": self.hostname,
            "virtual_ip": self.nodes.virtual_ip,
        }
        try:
            return dict(json.loads(self.nodes.python(node, self.program, json.dumps(wanted), timeout=20)))
        except (NodeError, ValueError) as error:
            return {"msg": str(error)[-200:]}

    def problems(self) -> list[str]:
        """Return what is wrong with the site, in words. Jobs that failed are a timer's, who tries them again."""
        return list(health_report(self.look(), bool(self.nodes.virtual_ip))["blocking"])

    def cast(self) -> Cast:
        """Return who plays which role now."""
        return cast_of(self.look(), self.nodes.groups)
