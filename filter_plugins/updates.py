"""Filters of the verb os_updates: which hosts are due, in which order, what speaks against it; and of the timers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

MODES = ("safe", "dist")
REBOOTS = ("auto", "never", "always")
PLACES = ("quorum or monitor", "spare app", "database replica", "database leader", "active app")
"""The order of the hosts: what nobody notices comes first, what has to be moved away from comes last."""
LISTS_SECONDS = 86400
"""Package lists that are older say nothing about what there is to upgrade."""
SHOWN = 12
OWN_TASKS = {"etcd.service": "etcd", "patroni.service": "patroni"}
"""Units that are not just restarted: the cluster has to know."""
CALENDAR = re.compile(
    r"(?P<date>(?:.* )?)(?P<hour>\d{1,2}):(?P<minute>\d{2})(?P<second>:\d{2})?(?P<zone> [A-Za-z/_]+)?"
)


def update_options_problem(options: Mapping[str, Any], hosts: Iterable[str]) -> str:
    """Return what is wrong with what the operator asked for, or nothing.

    options: `mode`, `reboot`, `downtime`, `hosts` and `limit`, the value of --limit. hosts: all of the inventory.
    """
    known = list(hosts)
    wrong = []
    if options["mode"] not in MODES:
        wrong.append(f"os_updates_mode cannot be {options['mode']}; choose {' or '.join(MODES)}")
    if options["reboot"] not in REBOOTS:
        wrong.append(f"os_updates_reboot cannot be {options['reboot']}; choose {' or '.join(REBOOTS)}")
    unknown = [host for host in update_hosts(options, known) if host not in known]
    if unknown:
        wrong.append(f"os_updates_hosts: no such host in the inventory: {', '.join(unknown)}")
    if options.get("limit"):
        wrong.append(
            "with --limit the other hosts would not be looked at; say which are to be updated with "
            f"-e os_updates_hosts={options['limit']}"
        )
    return "; ".join(wrong)


def update_hosts(options: Mapping[str, Any], hosts: Iterable[str]) -> list[str]:
    """Return the hosts that the operator wants; from the command line they come as words with commas between."""
    wanted = options.get("hosts") or []
    if isinstance(wanted, str):
        wanted = [word for word in re.split(r"[,\s]+", wanted) if word]
    return [str(host) for host in wanted] or list(hosts)


def update_reboots(plan: Mapping[str, Any], reboot: str) -> bool:
    """Tell whether the host is to be started anew. The kernel of a container is somebody else's."""
    return not plan["container"] and (reboot == "always" or (reboot == "auto" and bool(plan["reboot"])))


def update_restarts(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is to be restarted: `etcd` and `patroni`, which have tasks of their own, and effects for the rest."""
    own = {name: unit in plan["restart"] for unit, name in OWN_TASKS.items()}
    return {**own, "effects": [f"restart:{unit}" for unit in plan["restart"] if unit not in OWN_TASKS]}


def _due(plan: Mapping[str, Any], reboot: str) -> bool:
    """Tell whether there is anything to do on a host."""
    return bool(plan["upgradable"] or plan["interrupted"] or plan["restart"] or update_reboots(plan, reboot))


def _read(result: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Return the plan that a host printed, or why there is none."""
    if result.get("unreachable"):
        return {}, "no answer"
    try:
        plan = json.loads(result.get("stdout") or "")
    except ValueError:
        said = (result.get("stderr") or result.get("msg") or "it printed nothing").strip().splitlines()
        return {}, f"its packages cannot be looked at ({said[-1]}); run site.yml first"
    return plan, ""


def _host_problems(plan: Mapping[str, Any], fetched: bool) -> Iterable[str]:
    """Yield what keeps apt on one host from working."""
    if plan["busy"]:
        yield f"apt is in use by {plan['busy']}; wait until it has ended"
    if plan["broken"] and not plan["interrupted"]:
        yield f"apt cannot work: {plan['broken']}"
    age = plan["lists_age"]
    if fetched and (age is None or age > LISTS_SECONDS):
        yield "its package lists could not be fetched; try `apt-get update` there"


def _place(host: str, groups: Mapping[str, Sequence[str]], health: Mapping[str, Any]) -> int:
    """Return the number of the place in the order; a host with several parts has the last of theirs."""
    places = [0]
    if host in groups.get("app", ()):
        places.append(4 if (health.get("app") or {}).get("lease") else 1)
    if host in groups.get("database", ()):
        places.append(3 if (health.get("patroni") or {}).get("role") == "primary" else 2)
    return max(places)


def _alone(due: Iterable[str], groups: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the parts of the site that stand still while their only host is updated."""
    what = {"app": "the application", "database": "the database", "quorum": "etcd"}
    due = set(due)
    return [
        f"{text} has one host ({groups[group][0]})"
        for group, text in what.items()
        if len(groups.get(group, ())) == 1 and groups[group][0] in due
    ]


def update_plan(
    hostvars: Mapping[str, Mapping[str, Any]],
    groups: Mapping[str, Sequence[str]],
    options: Mapping[str, Any],
    problems: Iterable[str],
) -> dict[str, Any]:
    """Return `order` ([{host, is}]), `problems` (one line each) and `table` (lines).

    hostvars: of each host, `updates_read` is what `host_packages plan` gave, `health_host` what the module host_health
    did. options: as above, and `fetched`, whether the package lists were. problems: the site's own, as the filter
    health_report found them.
    """
    found, plans = list(problems), {}
    for host in groups["all"]:
        plan, why = _read(hostvars[host].get("updates_read") or {})
        if why:
            found.append(f"{host}: {why}")
        else:
            plans[host] = plan
            found += [f"{host}: {problem}" for problem in _host_problems(plan, options["fetched"])]
    wanted = update_hosts(options, groups["all"])
    due = [host for host in groups["all"] if host in plans and host in wanted and _due(plans[host], options["reboot"])]
    # Each unknown host is a line of its own already.
    places = {host: _place(host, groups, hostvars[host].get("health_host") or {}) for host in due}
    order = sorted(due, key=lambda host: (places[host], groups["all"].index(host)))
    alone = [] if options["downtime"] else _alone(due, groups)
    if alone:
        found.append(f"{' and '.join(alone)}, and stands still meanwhile: if that may be, -e os_updates_downtime=true")
    return {
        "order": [{"host": host, "is": PLACES[places[host]]} for host in order],
        "problems": list(dict.fromkeys(found)),
        "table": _table(order, places, plans, options["reboot"], [host for host in groups["all"] if host not in due]),
    }


def _table(
    order: Sequence[str], places: Mapping[str, int], plans: Mapping[str, Any], reboot: str, idle: Sequence[str]
) -> list[str]:
    """Return the lines that the operator sees first."""
    lines = []
    if order:
        lines.append(f"{'':<3} {'HOST':<20} {'IS':<18} {'PACKAGES':>8} {'SECURITY':>8}  THEN")
    for number, host in enumerate(order, 1):
        plan = plans[host]
        security = sum(1 for entry in plan["upgradable"] if entry["security"])
        then = "reboot" if update_reboots(plan, reboot) else "restart what changed"
        if plan["interrupted"]:
            then = f"finish an interrupted installation, {then}"
        lines.append(
            f"{number:<3} {host:<20} {PLACES[places[host]]:<18} {len(plan['upgradable']):>8} {security:>8}  {then}"
        )
    for host in order:
        lines += _packages(host, plans[host])
    if idle:
        lines.append(f"nothing to do: {', '.join(idle)}")
    return lines


def _packages(host: str, plan: Mapping[str, Any]) -> Iterable[str]:
    """Yield what would change on one host, short."""
    shown = [f"{entry['name']} {entry['from']} -> {entry['to']}" for entry in plan["upgradable"][:SHOWN]]
    if len(plan["upgradable"]) > SHOWN:
        shown.append(f"and {len(plan['upgradable']) - SHOWN} more")
    if shown:
        yield f"{host}: {', '.join(shown)}"
    for key, text in (("new", "installed besides"), ("removed", "REMOVED")):
        if plan[key]:
            yield f"{host}: {text}: {', '.join(entry['name'] for entry in plan[key])}"
    if plan["kept"]:
        yield f"{host}: held by an administrator, and left alone: {', '.join(plan['kept'])}"
    if plan["restart"]:
        yield f"{host}: runs what was replaced already: {', '.join(plan['restart'])}"
    if plan["reboot"]:
        yield f"{host}: a reboot is due: {plan['reboot']}"


def calendar_later(calendar: str, minutes: int) -> str:
    """Return a time as systemd's OnCalendar takes it, some minutes later on the same day."""
    found = CALENDAR.fullmatch(str(calendar).strip())
    if not found:
        raise AnsibleFilterError(f"{calendar!r} does not end in a time of day, as in `Sun *-*-* 03:00:00`")
    total = int(found["hour"]) * 60 + int(found["minute"]) + int(minutes)
    if total >= 24 * 60:
        raise AnsibleFilterError(f"{calendar!r} and {minutes} minutes is the next day; choose an earlier time")
    time = f"{total // 60:02}:{total % 60:02}{found['second'] or ''}"
    return f"{found['date']}{time}{found['zone'] or ''}"


class FilterModule:
    """Filters of the verb os_updates."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "update_options_problem": update_options_problem,
            "update_plan": update_plan,
            "update_reboots": update_reboots,
            "update_restarts": update_restarts,
            "calendar_later": calendar_later,
        }
