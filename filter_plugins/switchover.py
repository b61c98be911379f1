"""Filters of planned moves of the database: who is to lead, what speaks against it, and how it went."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

RUNNING = ("running", "streaming")
LEADS = ("leader", "standby_leader")
SYNCHRONOUS = ("sync_standby", "quorum_standby")
LIBPQ = ("host", "port", "dbname", "user")


def pgbouncer_way(
    databases: Mapping[str, str], users: Mapping[str, str], settings: Mapping[str, Any]
) -> dict[str, str]:
    """Return the way that PgBouncer's connections to the first database take: libpq's `connection`, and `password`."""
    name = next((name for name in databases if name != "*"), "")
    given = dict(re.findall(r"(\w+)\s*=\s*('[^']*'|\S+)", databases.get(name, "")))
    user = next(iter(users), "")
    values = {"dbname": name or "postgres", "user": user, **{key: given[key] for key in LIBPQ if key in given}}
    values["sslmode"] = str(settings.get("server_tls_sslmode") or "prefer")
    if settings.get("server_tls_ca_file"):
        values["sslrootcert"] = str(settings["server_tls_ca_file"])
    password = given.get("password", users.get(values["user"].strip("'"), users.get(user, "")))
    return {"connection": " ".join(f"{key}={value}" for key, value in values.items()), "password": password.strip("'")}


def _fit(members: Iterable[Mapping[str, Any]], synchronous: bool) -> list[Mapping[str, Any]]:
    """Return the members that may lead next, the one with the least lag first."""
    fit = [
        member
        for member in members
        if member["role"] not in LEADS
        and member.get("state") in RUNNING
        and not (member.get("tags") or {}).get("nofailover")
        and (not synchronous or member["role"] in SYNCHRONOUS)
    ]
    return sorted(fit, key=lambda one: (one["lag"] if isinstance(one.get("lag"), int) else 2**62, one["name"]))


def restart_heir(members: Iterable[Mapping[str, Any]], synchronous: bool = True) -> str:
    """Return the member that can lead while a leader that waits for a restart gets it, or nothing.

    One that still waits for a restart itself is none: it had its turn, so it waits for the leader, as with a lower
    max_connections, which a standby must not have before its leader.
    """
    return next((one["name"] for one in _fit(members, synchronous) if not one.get("pending_restart")), "")


def switchover_plan(cluster: Mapping[str, Any], target: str = "", synchronous: bool = True) -> dict[str, Any]:
    """Return who leads, the `candidate` to lead, the `timeline`, and a `problem` that forbids a move, or nothing.

    cluster: Patroni's answer to GET /cluster, with `lacking`, what keeps it from being whole, one phrase each.
    target: the member that is to lead; empty chooses the synchronous standby with the least lag.
    synchronous: whether only a synchronous standby may lead.
    Without candidate and without problem there is nothing to do: the target leads already.
    """
    members = list(cluster.get("members", ()))
    names = sorted(member["name"] for member in members)
    leader = next((member for member in members if member["role"] in LEADS), None)
    plan: dict[str, Any] = {"leader": leader["name"] if leader else "", "candidate": "", "timeline": 0, "problem": ""}
    if not leader or leader.get("state") not in RUNNING:
        return {**plan, "problem": "the cluster has no leader that runs: see `make health`"}
    plan["timeline"] = int(leader.get("timeline") or 0)
    if target and target not in names:
        return {**plan, "problem": f"{target} is no member of the cluster; those are {', '.join(names)}"}
    if target == leader["name"]:
        return plan
    fit = _fit(members, synchronous)
    chosen = target or (fit[0]["name"] if fit else "")
    if len(members) == 1:
        problem = f"{leader['name']} is the only member of the cluster: there is nowhere to move to"
    elif cluster.get("pause"):
        problem = "Patroni is paused, by hand or by another run: `patronictl resume` on a database host ends that"
    elif cluster.get("scheduled_switchover"):
        problem = "somebody scheduled a switchover: `patronictl flush` on a database host removes it"
    elif cluster.get("lacking"):
        problem = f"the cluster is not whole: {'; '.join(cluster['lacking'])}"
    elif chosen not in [member["name"] for member in fit]:
        kind = "synchronous standby" if synchronous else "standby that may lead"
        others = ", ".join(member["name"] for member in fit)
        problem = f"{target} is no {kind}" if target else f"there is no {kind}"
        problem += f"; those are: {others}" if others else ""
    else:
        return {**plan, "candidate": chosen}
    return {**plan, "problem": problem}


def switchover_blockers(answer: str) -> list[str]:
    """Return what a move would break off, one phrase each, out of what `sessions.sql` printed."""
    found = json.loads(answer)
    shown = [
        f"a transaction of {item['user']} on {item['database']} (process {item['pid']}, {item['client'] or 'local'}"
        f"{', ' + item['application'] if item['application'] else ''}) is {item['state']} for {item['seconds']} s"
        for item in found["transactions"]
    ]
    shown += [f"{item['application']} runs on {item['client'] or 'the leader'}" for item in found["runs"]]
    return shown


def hold_hosts(results: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return the app hosts as `active`, `spare` and `without` (away, or without the program), out of a loop's results.

    Each result's standard output is what the host says of itself. With nobody active one of the spares takes its place.
    """
    hosts: dict[str, list[str]] = {"active": [], "spare": [], "without": []}
    for result in results:
        word = str(result.get("stdout") or "").strip() if not result.get("unreachable") else ""
        hosts[word if word in ("active", "spare") else "without"].append(str(result["item"]))
    if not hosts["active"]:
        hosts["active"], hosts["spare"] = hosts["spare"][:1], hosts["spare"][1:]
    return hosts


def hold_problem(results: Iterable[Mapping[str, Any]]) -> str:
    """Return why the traffic could not be held, or nothing. A host that is away is not one of the reasons."""
    said = []
    for result in results:
        if result.get("unreachable") or result.get("skipped") or not result.get("rc"):
            continue
        lines = str(result.get("stderr") or result.get("msg") or f"status {result['rc']}").strip().splitlines()
        where = f"{result['item']}: " if result.get("item") else ""
        said.append(where + lines[-1].removeprefix("database_hold: "))
    return "; ".join(said)


def hold_unmoved(results: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the hosts whose way did not lead to the new leader by itself, out of what `release` said."""
    return [
        str(result["item"])
        for result in results
        if result.get("stdout") and json.loads(result["stdout"]).get("figures", {}).get("outcome") != "moved"
    ]


class FilterModule:
    """Filters of planned moves of the database."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "pgbouncer_way": pgbouncer_way,
            "restart_heir": restart_heir,
            "switchover_plan": switchover_plan,
            "switchover_blockers": switchover_blockers,
            "hold_hosts": hold_hosts,
            "hold_problem": hold_problem,
            "hold_unmoved": hold_unmoved,
        }
