"""Filters of restores: what was typed, where one stands, what speaks against it, and what came of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

# In this order. A phase is named when it has been reached; `stopping` when it begins.
PHASES = ("none", "stopping", "stopped", "recovered", "leading", "serving", "replicated")
WHATS = ("site", "database", "uploads", "table", "organization")
ACTIONS = ("restore", "back", "forget_old", "end_look")
GIB = 1 << 30
# What stays free beside the database, for WAL while it is replayed; postgresql_restore keeps to the same.
KEEP_BYTES = 2 * GIB
# A site that was lost longer ago than this writes no more: there is a canary every 30 s, and WAL is archived after 60.
QUIET_SECONDS = 180
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,62}")
RELATION = re.compile(r"(?:[a-z_][a-z0-9_]*\.)?[a-z_][a-z0-9_]*")
REALM = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?|")


def _moment(text: str) -> datetime | None:
    """Return a time with its zone, or nothing."""
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return moment if moment.tzinfo else None


def restore_target(text: Any) -> str:
    """Return the target as the programs on the hosts take it: latest, a time in UTC, or name:POINT."""
    typed = str(text or "latest").strip()
    moment = _moment(typed)
    return moment.astimezone(UTC).isoformat() if moment else typed


def _target_problem(text: str, now: datetime) -> str:
    """Return why a target is none, or nothing."""
    if text == "latest" or (text.startswith("name:") and NAME.fullmatch(text[5:])):
        return ""
    if text.startswith("name:"):
        return f"to={text} names no restore point: letters, digits, and . _ : - in between"
    moment = _moment(text)
    if moment is None:
        return f"to is latest, a time with its zone such as 2026-01-31T14:05:00Z, or name:RESTOREPOINT, not {text}"
    return f"to={text} is in the future" if moment > now else ""


def _what_problem(given: Mapping[str, Any]) -> str:
    """Return why what was typed cannot be restored, or nothing."""
    what = str(given.get("what") or "")
    if what not in WHATS:
        said = f", not {what}" if what else ""
        return f"say what to restore: what={', '.join(WHATS[:-1])} or {WHATS[-1]}{said}"
    if what == "table" and not RELATION.fullmatch(str(given.get("table") or "")):
        return f"say which table: -e table=zerver_message{', not ' + str(given['table']) if given.get('table') else ''}"
    if what == "organization" and (given.get("realm") is None or not REALM.fullmatch(str(given["realm"]))):
        return "say which organisation: -e realm=<its subdomain>, empty for the one at the root"
    if what == "uploads" and str(given.get("to") or "latest").startswith("name:"):
        return "a restore point is the database's; for uploads, to is latest or a time"
    if what == "uploads" and given.get("uploads_backend") != "local":
        return "uploads are in S3 (uploads_backend), whose own versions bring them back"
    return ""


def restore_options_problem(given: Mapping[str, Any], now: datetime | None = None) -> str:
    """Return why a run cannot begin, or nothing.

    given: `action`, `what`, `to`, `repository`, `confirm`, `limit`, `table` and `realm` as typed; `site`, its name;
    `backup_hosts`, `database_hosts`; `leader`, as typed; `uploads_backend`.
    """
    action = str(given.get("action") or "restore")
    if action not in ACTIONS:
        return f"action is {', '.join(ACTIONS[1:-1])} or {ACTIONS[-1]}, not {action}"
    if given.get("limit"):
        return "a restore is for the whole site; leave --limit away"
    if not given.get("backup_hosts") and action in ("restore", "end_look"):
        return "there is no backup host: the group backup is empty"
    if given.get("confirm") and given["confirm"] != given["site"]:
        return f"confirm={given['confirm']} is not this site: it is -e confirm={given['site']}"
    if action == "back" and given.get("confirm") != given["site"]:
        return f"going back throws away what was written since the restore: -e confirm={given['site']}"
    if action != "restore":
        return ""
    problem = _what_problem(given) or _target_problem(str(given.get("to") or "latest"), now or datetime.now(UTC))
    if problem:
        return problem
    if str(given.get("repository") or "1") not in ("1", "2", "3", "4"):
        return f"repository is the number of a backup repository, 1 to 4, not {given['repository']}"
    if given.get("set") and not re.fullmatch(r"[0-9]{8}-[0-9]{6}F(?:_[0-9]{8}-[0-9]{6}[DI])?", str(given["set"])):
        return f"set is the label of a backup such as 20260131-023000F (`make backups`), not {given['set']}"
    if given.get("leader") and given["leader"] not in given.get("database_hosts", []):
        return f"leader={given['leader']} is no host of the group database"
    return ""


def restore_confirm_problem(typed: Any, site: str, lost: str) -> str:
    """Return why it does not go on without the site's name, or nothing. lost: what is at stake."""
    if str(typed or "").strip() == site:
        return ""
    return f"{lost}: type the site's name when you are asked, or give -e confirm={site}"


# ---- where it stands -------------------------------------------------------------------------------------------------


def _marker(looks: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the marker that is furthest: a run that was killed while it wrote leaves some hosts one step behind."""
    markers = [look["major"].get("marker", {}).get("restore") or {} for look in looks.values()]
    return dict(max(markers, key=lambda marker: int(marker.get("serial", 0)), default={}))


def _upgrade_problem(looks: Mapping[str, Mapping[str, Any]]) -> str:
    """Return why an upgrade of PostgreSQL is in the way, or nothing."""
    for look in looks.values():
        marker = look["major"].get("marker") or {}
        if marker.get("phase", "none") not in ("none", "prepared"):
            return (
                f"an upgrade of PostgreSQL from {marker.get('from')} to {marker.get('to')} is at {marker['phase']}: "
                "end it first with playbooks/postgresql_upgrade.yml -e action=commit or rollback"
            )
    return ""


def _begun_problem(marker: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """Return why this is not what can be done about a restore that was begun, or nothing."""
    if marker.get("what") == "back":
        return f"going back to the data of before stands at {marker.get('phase')}: finish it with -e action=back"
    begun = f"a restore with what={marker.get('what')} to={marker.get('to')} stands at {marker.get('phase')}"
    finish = f"finish it with -e what={marker.get('what')} -e to={marker.get('to')}, or go back with -e action=back"
    if given["what"] != marker.get("what"):
        return f"{begun}: {finish}"
    if given["to"] != marker.get("to") and restore_reached(marker, "recovered"):
        return f"{begun}: {finish}"
    return ""


def _host_problem(looks: Mapping[str, Mapping[str, Any]], given: Mapping[str, Any]) -> str:
    """Return why the hosts are not those of such a restore, or nothing."""
    deployed = {host: int(look["major"].get("deployed") or 0) for host, look in looks.items()}
    version = int(given["version"])
    if given["what"] == "site":
        # Data that no restore brought are somebody's.
        full = [host for host, look in looks.items() if look["restore"]["there"] and not look["restore"]["marker"]]
        if full:
            return (
                f"{', '.join(full)} has a database already, and what=site is for empty hosts: take what=database, and "
                "what=uploads"
            )
        return ""
    if not any(deployed.values()):
        return "no host has a database of this repository yet: for empty hosts it is what=site"
    others = {host: found for host, found in deployed.items() if found not in (0, version)}
    if others:
        said = ", ".join(f"{host} runs PostgreSQL {found}" for host, found in sorted(others.items()))
        return f"{said}, and postgresql_version is {version}: a backup of another major version cannot be restored"
    return ""


def restore_state(
    looks: Mapping[str, Mapping[str, Any]], given: Mapping[str, Any], cluster: Iterable[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """Return where a restore stands: `phase`, `leader`, `system_id`, `free`, `marker`, and a `problem`.

    looks: of each database host what `postgresql_major look` (major) and `postgresql_restore look` (restore) said.
    given: `action`, `what`, `to`, `version`, `leader`, `repository` and `set`. cluster: Patroni's members.
    """
    action, marker = str(given.get("action") or "restore"), _marker(looks)
    leads = next((one["name"] for one in cluster if one.get("role") in ("leader", "standby_leader")), "")
    leader = str(marker.get("leader") or given.get("leader") or leads or next(iter(looks)))
    system_id = next(
        (
            look["restore"]["system_id"]
            for host, look in sorted(looks.items(), key=lambda item: item[0] != leader)
            if look["restore"]["system_id"] and not look["restore"]["marker"]
        ),
        "",
    )
    problem = _upgrade_problem(looks)
    if not problem and action == "restore":
        problem = _begun_problem(marker, given) if marker else _host_problem(looks, given)
    if not problem and action != "restore" and marker and action == "forget_old":
        problem = _begun_problem(marker, {"what": "", "to": ""})
    archived = restore_reached(marker, "leading") or not marker
    if action == "back":
        if marker.get("what") == "back":
            archived = bool(marker.get("archived"))
        else:
            owners = [host for host, look in looks.items() if look["restore"]["aside"]]
            if not problem and not owners and not (marker and not restore_reached(marker, "stopped")):
                problem = "no host has a data directory of before a restore: there is nothing to go back to"
            leader = leader if leader in owners else next(iter(owners), leader)
            # It begins anew; what was begun ends with it.
            marker = {key: value for key, value in marker.items() if key in ("serial", "down_since")}
    again = marker.get("chosen") and all(
        marker.get(key, "") == given.get(key, "") for key in ("to", "repository", "set")
    )
    return {
        "action": action,
        "what": "back" if action == "back" else str(marker.get("what") or given.get("what") or ""),
        "to": given.get("to", ""),
        "phase": marker.get("phase", "none"),
        "leader": leader,
        "leads": leads,
        "system_id": marker.get("system_id") or system_id,
        "free": looks[leader]["restore"]["free"],
        "archived": archived,
        "chosen": marker["chosen"] if again or restore_reached(marker, "recovered") else {},
        "marker": marker,
        "problem": problem,
    }


def restore_reached(state: Mapping[str, Any], phase: str) -> bool:
    """Tell whether a phase was reached."""
    return PHASES.index(state.get("phase") or "none") >= PHASES.index(phase)


def restore_due(state: Mapping[str, Any], phase: str) -> bool:
    """Tell whether a restore that was begun has yet to reach a phase."""
    return state.get("phase", "none") != "none" and not restore_reached(state, phase)


def restore_reach(
    state: Mapping[str, Any],
    phase: str,
    values: Mapping[str, Any] | None = None,
    given: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the state with a phase reached, and the marker that says so. values, given: more to keep there."""
    serial = int(state["marker"].get("serial", 0)) + 1
    kept = {key: state[key] for key in ("what", "to", "leader", "system_id", "chosen", "archived")}
    marker = dict(state["marker"]) | kept | dict(given or {}) | dict(values or {}) | {"phase": phase, "serial": serial}
    return dict(state) | {"phase": phase, "marker": marker}


def restore_choose_words(state: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """Return the options of `postgresql_backup choose`."""
    words = ["--json", f"--to={given['to']}", f"--version={given['version']}"]
    if given.get("repository"):
        words.append(f"--repo={given['repository']}")
    if given.get("set"):
        words.append(f"--set={given['set']}")
    if state.get("system_id") and not given.get("other_cluster"):
        words.append(f"--system-id={state['system_id']}")
    return words


# ---- what speaks against it ------------------------------------------------------------------------------------------


def _release_numbers(version: str) -> tuple[int, ...]:
    """Return the numbers of a release, those of `12.1-beta2` being 12 and 1."""
    found = re.match(r"[^0-9]*(\d+(?:\.\d+)*)", version)
    return tuple(int(number) for number in found[1].split(".")) if found else ()


def restore_problems(
    state: Mapping[str, Any], chosen: Mapping[str, Any], given: Mapping[str, Any], release: str
) -> list[str]:
    """Return what speaks against beginning, one phrase each.

    chosen: what `postgresql_backup choose` said. given: `factor`, how many times the size of the database has to be
    free, `any_release` and `version`. release: the version that will work with it.
    """
    problems = []
    needed = chosen["database_bytes"] * float(given.get("factor") or 1.1) + KEEP_BYTES
    # Later it has room in use itself, and the program that fetches counts that.
    if state["phase"] in ("none", "stopping") and state["free"] < needed:
        problems.append(
            f"{state['leader']} has {state['free'] / GIB:.1f} GiB free beside its data and needs {needed / GIB:.1f}"
        )
    if str(chosen["version"]) != str(given["version"]):
        problems.append(f"the backup is of PostgreSQL {chosen['version']}, not {given['version']}")
    made = str((chosen.get("annotations") or {}).get("release") or "")
    newer = _release_numbers(made) > _release_numbers(release)
    if made and release and newer and not given.get("any_release"):
        problems.append(
            f"the backup is of release {made}, whose schema {release} does not know: deploy {made} (or go on with "
            "-e any_release=true)"
        )
    return problems


def restore_age(text: str | None, now: str | None = None) -> float:
    """Return the seconds since a time; many when it is unknown."""
    moment = _moment(text or "")
    return ((_moment(now or "") or datetime.now(UTC)) - moment).total_seconds() if moment else 1e9


def restore_seems_alive(chosen: Mapping[str, Any], now: str | None = None) -> bool:
    """Tell whether the site that made a backup may still write: the end of its archive is that young."""
    return restore_age(chosen.get("reaches"), now) < QUIET_SECONDS


def _size(count: float) -> str:
    """Return a number of bytes for a person."""
    return f"{count / GIB:.2f} GiB" if count >= GIB else f"{count / (1 << 20):.1f} MiB"


def restore_table(state: Mapping[str, Any], chosen: Mapping[str, Any], directory: str, site: str) -> list[str]:
    """Return the lines that say what is going to happen."""
    target = "the latest moment" if state["to"] == "latest" else state["to"]
    repository = f"repository {chosen['repo']}" + (f" ({chosen['place']})" if chosen.get("place") else "")
    lines = [
        f"site        {site}, what={state['what']}, to {target}",
        f"backup      {chosen['set']} in {repository}, of {chosen.get('stop') or '?'}, "
        f"{_size(chosen['database_bytes'])}",
        f"archive     from {chosen.get('earliest') or '?'} to {chosen.get('reaches') or '?'}",
    ]
    if state["what"] == "site":
        return [*lines, f"data        in {directory} on {state['leader']}, which is empty; the others copy it"]
    lost = (
        "nothing but what is not archived yet" if state["to"] == "latest" else f"what was written since {state['to']}"
    )
    return [
        *lines,
        f"data        in {directory} on {state['leader']}; what is there is kept beside it, the others copy it anew",
        f"users       the maintenance page meanwhile; lost is {lost}",
        "way back    the old data directory (-e action=back), until -e action=forget_old",
    ]


# ---- what came of it -------------------------------------------------------------------------------------------------


def restore_figures(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the figures of the report."""
    marker = state["marker"]
    fetched, recovered = marker.get("fetched") or {}, marker.get("recovered") or {}
    down = marker.get("down_since")
    found: dict[str, Any] = {
        "bytes": fetched.get("bytes", 0),
        "fetch_seconds": fetched.get("seconds", 0),
        "bytes_per_second": fetched.get("bytes_per_second", 0),
        "replay_seconds": recovered.get("seconds", 0),
        "replay_bytes": recovered.get("bytes", 0),
        "last_commit": recovered.get("last_time", ""),
        "timeline": recovered.get("timeline", 0),
    }
    if down and marker.get("up_at"):
        found["seconds_without_service"] = int(marker["up_at"]) - int(down)
    if down and state["to"] == "latest" and found["last_commit"]:
        since = datetime.fromtimestamp(int(down), UTC).isoformat()
        found["rpo_seconds"] = round(max(restore_age(found["last_commit"], since), 0), 1)
    return found


def restore_words(state: Mapping[str, Any], counts: str = "", unknown: Iterable[str] = ()) -> list[str]:
    """Return what came of it, and what comes next. counts: messages in the database; unknown: migrations."""
    figures, marker = restore_figures(state), state["marker"]
    if state["what"] == "back":
        return [
            f"database    that of before the restore, on {state['leader']}; what was written since is gone",
            *([f"messages    {counts}"] if counts else []),
            "backup      a full one has begun; until it ends a restore goes by the one before",
        ]
    rate = f", {figures['bytes_per_second'] / 1e6:.0f} MB/s" if figures["bytes_per_second"] else ""
    lines = [
        f"database    {state['what']} to {state['to']}: timeline {figures['timeline']}, last commit "
        f"{figures['last_commit'] or '?'}",
        f"fetched     {_size(figures['bytes'])} in {figures['fetch_seconds']} s{rate}",
        f"replayed    {_size(figures['replay_bytes'])} of WAL in {figures['replay_seconds']} s",
    ]
    if counts:
        lines.append(f"messages    {counts}")
    if "rpo_seconds" in figures and state["what"] == "database":
        lines.append(f"RPO         {figures['rpo_seconds']} s: what was written in them is lost")
    elif figures["last_commit"]:
        lines.append(f"lost        what was written after {figures['last_commit']}")
    if "seconds_without_service" in figures:
        lines.append(f"down        {figures['seconds_without_service']} s")
    if list(unknown):
        lines.append(f"release     does not know the migrations {', '.join(unknown)}: the maintenance page stays")
    if marker.get("aside"):
        lines.append(f"old data    {marker['aside']} on {state['leader']}, until -e action=forget_old")
    lines.append("backup      a full one has begun; until it ends a restore goes by the one before")
    return lines


def restore_purged(listed: Iterable[Mapping[str, Any]], events: Iterable[str], work: Iterable[str]) -> list[str]:
    """Return the queues that have something in them of a database that is no more."""
    doomed = {*map(str, events), *map(str, work)}
    return sorted(str(queue["name"]) for queue in listed if queue["name"] in doomed and int(queue.get("messages") or 0))


def restore_networks(addresses: Iterable[str]) -> list[str]:
    """Return addresses as networks of one host each."""
    return [f"{address}/{128 if ':' in address else 32}" for address in map(str, addresses)]


def restore_refusal(stderr: Any, message: Any = "") -> str:
    """Return the last line that a program said."""
    lines = [line.strip() for line in str(stderr or "").splitlines() if line.strip()]
    return re.sub(r"^<\d>", "", lines[-1]) if lines else str(message or "it did not say why")


class FilterModule:
    """Filters of restores."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "restore_options_problem": restore_options_problem,
            "restore_target": restore_target,
            "restore_confirm_problem": restore_confirm_problem,
            "restore_state": restore_state,
            "restore_reached": restore_reached,
            "restore_due": restore_due,
            "restore_reach": restore_reach,
            "restore_choose_words": restore_choose_words,
            "restore_problems": restore_problems,
            "restore_seems_alive": restore_seems_alive,
            "restore_table": restore_table,
            "restore_figures": restore_figures,
            "restore_words": restore_words,
            "restore_purged": restore_purged,
            "restore_networks": restore_networks,
            "restore_refusal": restore_refusal,
        }
