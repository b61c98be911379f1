"""Judges the site's health across hosts and draws it as a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

CERTIFICATE_DAYS = 21
"""A node certificate is renewed at 30 days by site.yml; fewer than this means that nobody ran it."""


def _host_problems(host: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with one host by itself."""
    problems = [f"{unit} {state}" for unit, state in sorted(host.get("units", {}).items())]
    days = host.get("certificate_days")
    if days is None:
        problems.append("no node certificate")
    elif days < CERTIFICATE_DAYS:
        problems.append(f"certificate ends in {days} days")
    etcd = host.get("etcd")
    if etcd and not etcd["healthy"]:
        problems.append(f"etcd: {etcd.get('error', 'unhealthy')}")
    patroni = host.get("patroni")
    if patroni:
        if "error" in patroni:
            problems.append(f"patroni: {patroni['error']}")
        else:
            if patroni["state"] not in ("running", "streaming"):
                problems.append(f"postgresql {patroni['state']}")
            if patroni["pending_restart"]:
                problems.append("postgresql restart pending")
            if patroni["paused"]:
                problems.append("patroni paused")
    app = host.get("app")
    if app and app["health"] != 200:
        problems.append(f"/health answers {app['health'] or 'nothing'}: {app['health_reason']}".rstrip(": "))
    return problems


def _job_problems(host: Mapping[str, Any]) -> list[str]:
    """Return what is wrong and keeps nobody from being served."""
    return [f"{unit} failed: see its journal, and `systemctl reset-failed` forgets it" for unit in host.get("jobs", ())]


def _summary(host: Mapping[str, Any]) -> str:
    """Return what a healthy host is doing, in a few words."""
    words = []
    if "app" in host:
        app = host["app"]
        words.append(
            "app " + ("active" if app["lease"] else "spare") + (" with the virtual IP" if app["virtual_ip"] else "")
        )
    patroni = host.get("patroni")
    if patroni and "error" not in patroni:
        words.append(f"postgresql {patroni['role']}")
    if host.get("etcd", {}).get("healthy"):
        words.append("etcd leader" if host["etcd"]["leader"] else "etcd member")
    return "; ".join(words) or "up"


def _site_problems(hosts: Mapping[str, Mapping[str, Any]], virtual_ip: bool) -> list[str]:
    """Return what is wrong between hosts: one leader, a sync standby, one active app host, the virtual IP on it."""
    problems = []
    apps = {name: host["app"] for name, host in hosts.items() if "app" in host}
    active = sorted(name for name, app in apps.items() if app["lease"])
    if apps and len(active) != 1:
        problems.append(f"{len(active)} active app hosts" + (f" ({', '.join(active)})" if active else ""))
    holders = sorted(name for name, app in apps.items() if app["virtual_ip"])
    if apps and virtual_ip and holders != active:
        problems.append(f"virtual IP on {', '.join(holders) or 'no host'}, active is {', '.join(active) or 'none'}")
    members = {
        name: host["patroni"] for name, host in hosts.items() if "error" not in host.get("patroni", {"error": ""})
    }
    leaders = sorted(name for name, member in members.items() if member["role"] == "primary")
    if any("patroni" in host for host in hosts.values()) and len(leaders) != 1:
        problems.append(f"{len(leaders)} PostgreSQL leaders" + (f" ({', '.join(leaders)})" if leaders else ""))
    elif len(members) > 1:
        view = members[leaders[0]]["members"]
        if not any(entry["role"] == "sync_standby" for entry in view):
            problems.append("no synchronous standby")
    if (
        any("etcd" in host for host in hosts.values())
        and sum(1 for host in hosts.values() if host.get("etcd", {}).get("leader")) != 1
    ):
        problems.append("etcd has no single leader")
    return problems


def health_report(
    hostvars: Mapping[str, Mapping[str, Any]], hosts: Iterable[str], virtual_ip: bool = True
) -> dict[str, Any]:
    """Judge the site.

    hostvars: of every host; `health_host` holds what the module `host_health` returned there. hosts: all hosts of the
    site. virtual_ip: whether the site has one. Returns `healthy`, `problems` (one line each), `hosts`
    ({host: {state, problems}}), `table` (lines), and of the problems those on which nothing should be rolled out,
    `blocking`: all but the jobs that failed.
    """
    results: dict[str, Mapping[str, Any]] = {}
    rows: dict[str, dict[str, Any]] = {}
    for name in sorted(hosts):
        result = hostvars[name].get("health_host", {})
        if "units" in result:
            results[name] = result
            rows[name] = {"state": _summary(result), "problems": _host_problems(result)}
        else:
            rows[name] = {"state": "no answer", "problems": [str(result.get("msg", "unreachable")).splitlines()[0]]}
    site = _site_problems(results, virtual_ip)
    blocking = [f"{name}: {problem}" for name, row in rows.items() for problem in row["problems"]] + site
    for name, result in results.items():
        rows[name]["problems"] += _job_problems(result)
    problems = [f"{name}: {problem}" for name, row in rows.items() for problem in row["problems"]] + site
    width = max(len(name) for name in ("HOST", "site", *rows))
    table = [f"{'HOST':<{width}}  {'':<3}  STATE"]
    for name, row in rows.items():
        text = " - ".join([row["state"], *row["problems"]])
        table.append(f"{name:<{width}}  {'BAD' if row['problems'] else 'ok':<3}  {text}")
    verdict = site or ([f"{len(problems)} problems"] if problems else [])
    table += [f"{'site':<{width}}  BAD  {line}" for line in verdict]
    if not verdict:
        table.append(f"{'site':<{width}}  ok   every check passed")
    return {"healthy": not problems, "problems": problems, "blocking": blocking, "hosts": rows, "table": table}


class FilterModule:
    """Health."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"health_report": health_report}
