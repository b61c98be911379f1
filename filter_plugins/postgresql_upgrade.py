"""Filters of major upgrades of PostgreSQL: where one stands, what speaks against it, how long it takes; the guard."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

# In this order. A phase is named when it has been reached; `stopping` and `rolling_back` when they begin.
PHASES = ("none", "prepared", "stopping", "stopped", "upgraded", "switched", "serving", "complete")
ACTIONS = ("upgrade", "rollback", "commit")
MODES = ("copy", "clone", "link")
GIB = 1 << 30
# What a run in the lab took besides, on two busy cores (docs/runbooks/postgresql_upgrade.md).
FIXED_SECONDS = 100
SECONDS_PER_1000_RELATIONS = 2.0
# Where nothing could be measured: a slow disk's.
DEFAULT_RATE = 100e6
# What the first stage of the analysis reads is small; its time follows the number of relations.
ANALYZE_SECONDS_PER_1000_RELATIONS = 5.0


def major_options_problem(given: Mapping[str, Any]) -> str:
    """Return why a run cannot begin, or nothing.

    given: `action`, `to`, `mode`, `confirm` and `limit` as typed, and `site`, the site's name.
    """
    action, target = str(given.get("action") or "upgrade"), str(given.get("to") or "")
    if action not in ACTIONS:
        return f"action is {', '.join(ACTIONS[:-1])} or {ACTIONS[-1]}, not {action}"
    if given.get("limit"):
        return "it is for all hosts of the database at once; leave --limit away"
    if target and not re.fullmatch(r"[1-9][0-9]", target):
        return f"to is a major version such as 17, not {target}"
    if action == "upgrade" and not target:
        return "say to which major version: -e to=17"
    if str(given.get("mode") or "copy") not in MODES:
        return f"mode is {', '.join(MODES[:-1])} or {MODES[-1]}, not {given['mode']}"
    if action == "rollback" and given.get("confirm") != given["site"]:
        return (
            "a rollback throws away everything that was written since users were let in again; "
            f"if that is wanted, run it with -e confirm={given['site']}"
        )
    return ""


def _marker(looks: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the marker that is furthest: a run that was killed while it wrote leaves some hosts one step behind."""
    markers: list[dict[str, Any]] = [
        {key: value for key, value in look["marker"].items() if key != "restore"}
        for look in looks.values()
        if set(look.get("marker") or ()) - {"restore"}
    ]
    return max(markers, key=lambda marker: int(marker.get("serial", 0)), default={})


def _restore_problem(marker: Mapping[str, Any]) -> str:
    """Return why a restore that was begun keeps others away, or nothing. It notes itself beside an upgrade."""
    restore = marker.get("restore") or {}
    if not restore:
        return ""
    return (
        f"a restore (what={restore.get('what')}, to={restore.get('to')}) is under way, and stands at "
        f"{restore.get('phase')}: finish it with playbooks/restore.yml -e what={restore.get('what')} "
        f"-e to={restore.get('to')}, or go back with -e action=back"
    )


def _deployed_problem(deployed: Mapping[str, int]) -> str:
    """Return why nothing can be said of the version that is deployed, or nothing."""
    if 0 in deployed.values():
        bare = ", ".join(sorted(host for host, version in deployed.items() if not version))
        return f"{bare} has no database of this repository yet: run site.yml first"
    if len(set(deployed.values())) > 1:
        said = ", ".join(f"{host} {version}" for host, version in sorted(deployed.items()))
        return f"the hosts do not agree which version is deployed ({said}): see /etc/patroni/config.yml there"
    return ""


def _begun_problem(action: str, target: int, mode: str, marker: Mapping[str, Any], version: int) -> str:
    """Return why this is not what can be done about an upgrade that was begun, or nothing."""
    what = f"an upgrade from {marker['from']} to {marker['to']}, mode {marker['mode']}"
    if marker["phase"] == "rolling_back" and action != "rollback":
        return f"{what}, is being rolled back: finish that first with -e action=rollback"
    if marker["phase"] == "committing" and action != "commit":
        return f"{what}, is being committed: finish that first with -e action=commit"
    if action == "upgrade" and (target != marker["to"] or mode not in ("", marker["mode"])):
        return f"{what}, was begun and is not committed: finish it, or end it with -e action=rollback"
    if action == "commit" and marker["phase"] not in ("complete", "committing"):
        return f"{what}, is not complete (it is {marker['phase']}): run it again with -e to={marker['to']} first"
    if action == "commit" and version != marker["to"]:
        return (
            f"set postgresql_version: {marker['to']} in the inventory's 90-local.yml first, so that no run asks for "
            f"{version}"
        )
    return ""


def major_state(
    looks: Mapping[str, Mapping[str, Any]], given: Mapping[str, Any], cluster: Iterable[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """Return where the upgrade stands: `from`, `to`, `mode`, `phase`, `leader`, `standby`, `marker` and a `problem`.

    looks: what each database host said (`postgresql_major look`). given: as in major_options_problem, with `version`,
    the inventory's. cluster: Patroni's members, as the module patroni_config returns them.
    """
    action = str(given.get("action") or "upgrade")
    target, mode = int(given.get("to") or 0), str(given.get("mode") or "")
    marker = _marker(looks)
    state: dict[str, Any] = {"marker": marker, "phase": marker.get("phase", "none"), "problem": "", "action": action}
    restoring = next(filter(None, (_restore_problem(look.get("marker") or {}) for look in looks.values())), "")
    if restoring:
        return state | {"problem": restoring, "from": 0, "to": target, "mode": mode, "leader": "", "leads": ""}
    leads = next((one["name"] for one in cluster if one.get("role") in ("leader", "standby_leader")), "")
    if marker:
        state |= {key: marker.get(key) for key in ("from", "to", "mode", "leader", "standby", "initdb", "size")}
        state["leads"] = leads or marker.get("leader", "")
        if marker["phase"] == "prepared" and leads:
            # Nothing was stopped yet, so it may have moved since.
            state["leader"] = leads
        state["problem"] = _begun_problem(action, target, mode, marker, int(given["version"]))
        return state
    deployed = {host: int(look.get("deployed") or 0) for host, look in looks.items()}
    state |= {"to": target, "mode": mode or "copy", "leader": leads, "leads": leads, "standby": ""}
    state["from"] = next(iter(deployed.values()), 0)
    problem = _deployed_problem(deployed)
    if not problem and action == "rollback":
        problem = "there is no upgrade to go back from: none was begun, or the last one was committed"
    if not problem and action == "commit":
        problem = "there is no upgrade to commit"
    if not problem and target <= state["from"]:
        problem = f"the database is on version {state['from']} already"
    state["problem"] = problem
    return state


def _room(state: Mapping[str, Any], looks: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the hosts on whose disks there is no room for a second data directory."""
    problems = []
    for host, look in looks.items():
        size = look["clusters"][str(state["from"])]["bytes"]
        shared = host == state["leader"] and state["mode"] in ("link", "clone")
        needed = (0 if shared else size * 1.1) + GIB
        if look["free"] < needed:
            problems.append(
                f"{host} has {look['free'] / GIB:.1f} GiB free below /var/lib/postgresql and needs {needed / GIB:.1f}"
            )
    return problems


def major_problems(
    state: Mapping[str, Any],
    looks: Mapping[str, Mapping[str, Any]],
    survey: Mapping[str, Any],
    supported: Mapping[str, Any] | None,
    lacking: Iterable[str] = (),
) -> list[str]:
    """Return what speaks against beginning, one phrase each.

    survey: what the leader's databases are made of. supported: `minimum` and `maximum` of the release that runs.
    lacking: what keeps the cluster from being whole.
    """
    target = state["to"]
    problems = [f"the cluster is not whole: {'; '.join(lacking)}"] if list(lacking) else []
    if not state["leader"]:
        problems.append("the cluster has no leader")
    if supported and not supported["minimum"] <= target <= supported["maximum"]:
        problems.append(
            f"the release that runs supports PostgreSQL {supported['minimum']} to {supported['maximum']}, not {target}"
        )
    if state["mode"] == "link" and len(looks) < 2:
        problems.append("mode link has no way back without a replica: take -e mode=copy or clone")
    for host, look in looks.items():
        new = look["clusters"].get(str(target), {})
        if not new.get("programs") and not look.get("candidate"):
            problems.append(
                f"{host} has no package postgresql-{target} to install: Debian's own is another version, PostgreSQL's "
                "archive (apt.postgresql.org) has all"
            )
        if not look["clusters"][str(state["from"])]["programs"]:
            problems.append(f"{host} has no programs of PostgreSQL {state['from']}: install postgresql-{state['from']}")
        if new.get("there") and state["phase"] == "none":
            problems.append(
                f"{host} has data in /var/lib/postgresql/{target}/main that no upgrade made: move them away"
            )
        if new.get("programs"):
            absent = sorted(set(survey.get("extensions", ())) - set(new["extensions"]))
            if absent:
                problems.append(f"{host} lacks for PostgreSQL {target} the extensions {', '.join(absent)}")
    if survey.get("tablespaces"):
        problems.append(
            f"there are tablespaces ({', '.join(survey['tablespaces'])}), and replicas cannot copy them beside the old"
        )
    if survey.get("slots"):
        problems.append(
            f"there are logical replication slots ({', '.join(survey['slots'])}), which would be lost: drop them"
        )
    if survey.get("prepared"):
        problems.append(f"{survey['prepared']} prepared transactions wait for their end")
    return problems + _room(state, looks)


def major_estimate(state: Mapping[str, Any], survey: Mapping[str, Any], size: int, rate: float) -> dict[str, Any]:
    """Return the expected `seconds` without service, and `how` they come about."""
    thousands = survey.get("relations", 0) / 1000
    schema = thousands * SECONDS_PER_1000_RELATIONS
    first = thousands * ANALYZE_SECONDS_PER_1000_RELATIONS
    copying = size / (rate or DEFAULT_RATE) if state["mode"] == "copy" else 0.0
    relations = survey.get("relations", 0)
    how = f"{FIXED_SECONDS} s to stop, switch and start, {schema + first:.0f} s for {relations} relations"
    if state["mode"] == "copy":
        source = "measured just now" if rate else "assumed"
        how += f", {copying:.0f} s to copy {size / GIB:.2f} GiB at {(rate or DEFAULT_RATE) / 1e6:.0f} MB/s ({source})"
    else:
        how += f", nothing to copy in mode {state['mode']}"
    return {"seconds": round(FIXED_SECONDS + schema + first + copying), "how": how}


def major_table(state: Mapping[str, Any], estimate: Mapping[str, Any], rehearsed: str) -> list[str]:
    """Return the lines that say what is going to happen."""
    back = {
        "copy": f"the old data directory of {state['leader']}",
        "clone": f"the old data directory of {state['leader']}",
        "link": "the old data directory of a replica",
    }
    return [
        f"versions    {state['from']} -> {state['to']}, mode {state['mode']}, on {state['leader']}",
        f"rehearsal   {rehearsed}",
        f"downtime    about {estimate['seconds']} s: {estimate['how']}",
        f"way back    {back[state['mode']]}, until -e action=commit; what was written since is lost with it",
    ]


def major_stopped(state: Mapping[str, Any], controls: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """Compare what pg_controldata says of the members that were stopped: `problem`, and the `standby` that has all."""
    leader = controls.get(state["leader"], {})
    if leader.get("state") != "shut down":
        return {
            "problem": f"{state['leader']} did not shut down cleanly ({leader.get('state', 'unknown')})",
            "standby": "",
        }
    behind, equal = [], []
    for host, control in controls.items():
        if host == state["leader"]:
            continue
        same = all(control.get(key) == leader.get(key) for key in ("system", "checkpoint", "timeline"))
        if same and control.get("state") == "shut down in recovery":
            equal.append(host)
        else:
            behind.append(
                f"{host} stands at {control.get('checkpoint', 'nothing')} ({control.get('state', 'unknown')})"
            )
    problem = f"{state['leader']} ended at {leader['checkpoint']}, but {', '.join(behind)}" if behind else ""
    return {"problem": problem, "standby": equal[0] if equal else ""}


def major_controls(hostvars: Mapping[str, Any], hosts: Iterable[str], version: int) -> dict[str, dict[str, str]]:
    """Return what pg_controldata said of each host when it was stopped: one task was the leader's."""
    found = {}
    for host in hosts:
        results = (hostvars[host].get(f"__postgresql_major_{name}") or {} for name in ("control", "followed"))
        said = next((result["stdout"] for result in results if result.get("stdout")), "{}")
        found[str(host)] = dict(json.loads(said).get("control", {}).get(str(version), {}))
    return found


def major_reach(state: Mapping[str, Any], phase: str, values: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the state with a phase reached, and the marker that says so. values: more to keep in both."""
    kept = {key: state.get(key) for key in ("from", "to", "mode", "leader", "standby", "initdb", "size")} | dict(
        values or {}
    )
    serial = int(state["marker"].get("serial", 0)) + 1
    reached = {"reached": state["phase"]} if phase in ("rolling_back", "committing") and state["phase"] != phase else {}
    marker = dict(state["marker"]) | kept | reached | {"phase": phase, "serial": serial}
    return dict(state) | kept | {"phase": phase, "marker": marker}


def major_back(state: Mapping[str, Any]) -> str:
    """Return the host that leads after a rollback: in mode link, once files may be shared, the replica that has all."""
    shared = state["mode"] == "link" and _reached(state, "upgraded")
    return str(state["standby"] if shared else state["leader"])


def _reached(state: Mapping[str, Any], phase: str) -> bool:
    """Tell whether a phase was reached; of a run that is being rolled back, before that began."""
    now = state["phase"]
    if now in ("rolling_back", "committing"):
        now = state["marker"].get("reached", "complete")
    return PHASES.index(now) >= PHASES.index(phase)


def major_due(state: Mapping[str, Any], phase: str) -> bool:
    """Tell whether an upgrade that was begun has yet to reach a phase."""
    if state["action"] != "upgrade" or state["phase"] in ("none", "rolling_back", "committing"):
        return False
    return not _reached(state, phase)


def major_users(state: Mapping[str, Any], inside: bool) -> bool:
    """Tell whether users have to be sent away now, or (`inside`) let in."""
    if state["phase"] == "rolling_back":
        # Once the old version serves again, only the rest is due.
        return _reached(state, "stopping") and (inside or not state["marker"].get("back"))
    if state["action"] != "upgrade":
        return False
    return state["phase"] == "serving" if inside else PHASES.index(state["phase"]) in range(2, 6)


def major_words(state: Mapping[str, Any]) -> list[str]:
    """Return where it stands now, and what comes next."""
    marker, source, target = state["marker"], state["from"], state["to"]
    begun, ended = marker.get("down_since"), marker.get("up_at")
    if state["action"] == "commit":
        return [f"the data and the packages of PostgreSQL {source} go; there is no way back from {target} after that"]
    if state["action"] == "rollback" or state["phase"] == "rolling_back":
        return [f"PostgreSQL {source} with its data of before the upgrade; keep postgresql_version: {source}"]
    if state["phase"] != "complete":
        return [f"stands at {state['phase']}"]
    words = [f"PostgreSQL {target} serves; nobody could work for {ended - begun} s"] if begun and ended else []
    return [
        *words,
        f"set postgresql_version: {target} in the inventory's 90-local.yml before the next run of any verb",
        "a stanza-upgrade and a full backup follow, where there are backups: those of before are of the old version",
        f"the way back stays until -e action=commit, and takes the room of {state['size'] / GIB:.2f} GiB on each host",
    ]


def major_guard(found: str, version: int, host: str) -> str:
    """Return why a run with this postgresql_version must not touch the host, or nothing.

    found: lines of `{}` or the marker's JSON, then the version in Patroni's configuration, if its data are there.
    """
    first, _, rest = found.strip().partition("\n--\n")
    try:
        marker = json.loads(first) if first.strip().startswith("{") else {}
    except ValueError:
        marker = {}
    if marker.get("restore"):
        return _restore_problem(marker)
    there = int(rest.strip()) if rest.strip().isdigit() else 0
    if marker and marker.get("phase") not in ("none", "prepared", "complete", "committing"):
        return (
            f"an upgrade of PostgreSQL from {marker['from']} to {marker['to']} is under way, and stands at "
            f"{marker['phase']}: finish it with playbooks/postgresql_upgrade.yml -e to={marker['to']}, or go back with "
            "-e action=rollback"
        )
    if not there or there == int(version):
        return ""
    change = f"set postgresql_version: {there} in the inventory's 90-local.yml"
    if marker.get("to") == there:
        return f"{host} was upgraded to PostgreSQL {there}, and postgresql_version is {version}: {change}"
    if there > int(version):
        return f"{host} has its data in PostgreSQL {there}, and postgresql_version is {version}: {change}"
    return (
        f"{host} has its data in PostgreSQL {there}, and postgresql_version is {version}: {change}, and upgrade with "
        f"playbooks/postgresql_upgrade.yml -e to={version}"
    )


class FilterModule:
    """Filters of major upgrades."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "major_options_problem": major_options_problem,
            "major_state": major_state,
            "major_problems": major_problems,
            "major_estimate": major_estimate,
            "major_table": major_table,
            "major_stopped": major_stopped,
            "major_back": major_back,
            "major_due": major_due,
            "major_users": major_users,
            "major_words": major_words,
            "major_controls": major_controls,
            "major_reach": major_reach,
            "major_reached": _reached,
            "major_guard": major_guard,
        }
