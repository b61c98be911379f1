"""Filters of upgrade and rollback: what a run is going to do, in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

QUIET = ("unchanged", "kept")


def changed_paths(files: Mapping[str, str] | None) -> list[str]:
    """Return the files that `managed_files` would write or remove, of its answer's path -> what becomes of it."""
    return sorted(path for path, what in (files or {}).items() if what not in QUIET)


def _users(plan: Mapping[str, Any]) -> str:
    """Return what users notice."""
    if not plan["due"] and not plan["pending"]:
        return "nothing, unless files below restart something"
    if plan["strategy"] == "offline":
        return "the maintenance page while migrations run and everything restarts"
    if not plan["spares"]:
        return "failed requests while the only app host restarts"
    return "requests wait for about a second or two while a spare takes over, none fails; pages reload by themselves"


def upgrade_plan(plan: Mapping[str, Any]) -> list[str]:
    """Return the lines of a plan.

    plan: `from` and `to`, versions; `strategy`; `due`, whether the release has to be made current; `known`, whether its
    migrations could be read; `pending` and `judgement`, of migration_plan; `files` by host; `active` and `spares`.
    """
    runs = "" if plan["due"] else " (runs already)"
    lines = [f"release     {plan['from'] or 'none'} -> {plan['to'] or 'none'}{runs}", f"strategy    {plan['strategy']}"]
    if plan["known"]:
        lines.append(f"migrations  {len(plan['pending'])} pending; {plan['judgement'].get('text') or 'none'}")
        for one in plan["pending"]:
            lines.append(f"            {one['app']}.{one['name']}: {one['verdict']}")
    else:
        lines.append("migrations  known once the release is on the hosts: it is not unpacked in check mode")
    for host, files in plan["files"].items():
        lines.append(f"files       {host}: {', '.join(files) if files else 'none change'}")
    order = [*plan["spares"], *(f"{host} after a move" if plan["spares"] else host for host in plan["active"])]
    lines.append(f"order       {', '.join(order)}")
    lines.append(f"users see   {_users(plan)}")
    return lines


def rollback_problem(hosts: Iterable[str], hostvars: Mapping[str, Any], wanted: str = "") -> str:
    """Return why a deployment cannot be gone back to, or nothing. wanted: its name as typed, empty for the last one."""
    names = {host: hostvars[host]["rollback_name"] for host in hosts}
    if not wanted and len(set(names.values())) > 1:
        said = ", ".join(f"{host} {name or 'none'}" for host, name in names.items())
        return f"the hosts do not agree which deployment was the last one ({said}): name it with -e to="
    for host, name in names.items():
        if not name:
            return f"{host} has no deployment before the current one"
        if not hostvars[host]["rollback_release"].get("id"):
            return f"{host} has no deployment {name}"
    if all(hostvars[host]["rollback_current"] == name for host, name in names.items()):
        return f"{next(iter(names.values()))} is what runs"
    return ""


def other_release(hosts: Iterable[str], hostvars: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Return the hosts that run a release other than the wanted one, of its manifest; without those that run none."""
    running = {host: hostvars[host].get("release_running") or {} for host in hosts}
    return [host for host, release in running.items() if release.get("id") and release["id"] != wanted.get("id")]


class FilterModule:
    """Upgrade and rollback."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "changed_paths": changed_paths,
            "upgrade_plan": upgrade_plan,
            "rollback_problem": rollback_problem,
            "other_release": other_release,
        }
