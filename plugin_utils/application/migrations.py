"""Migrations of a release: whether older code can live with them, and how they are run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from ansible.errors import AnsibleFilterError

SHOWN = 5


def _patterns(value: str | Iterable[str] | None, name: str) -> list[str]:
    """Return patterns of migrations, also when they come as one text with commas, as -e hands them over."""
    words = value.split(",") if isinstance(value, str) else list(value or ())
    patterns = [str(word).strip() for word in words if str(word).strip()]
    for pattern in patterns:
        app, _, migration = pattern.partition(".")
        if not app or not migration:
            raise AnsibleFilterError(f"{name}: {pattern!r} names no migration, which is APP.NAME as zerver.0003_color")
    return patterns


def migrations_known(
    contract: Mapping[str, Any] | None = None, operator: str | Iterable[str] | None = None
) -> dict[str, list[str]]:
    """Return what is known of migrations: by the contract, and by the operator, who has the last word.

    contract: `rolling` and `offline`, patterns of migrations that older code can and cannot live with.
    """
    contract = contract or {}
    return {
        "operator": _patterns(operator, "app_migrations_rolling"),
        "rolling": _patterns(contract.get("rolling"), "the contract's migrations.rolling"),
        "offline": _patterns(contract.get("offline"), "the contract's migrations.offline"),
    }


def _verdict(name: str, about: Mapping[str, Any], known: Mapping[str, Sequence[str]]) -> str:
    """Return what counts of one migration."""

    def listed(key: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in known.get(key) or ())

    if listed("operator"):
        return "expand"
    if listed("offline"):
        return "breaks"
    return "expand" if listed("rolling") else str(about["verdict"])


def _why(about: Mapping[str, Any], verdict: str) -> str:
    """Return the first reason of a verdict."""
    fitting = [one["why"] for one in about["operations"] if one["verdict"] == verdict]
    return str(fitting[0]) if fitting else "the contract says so"


def _some(names: Sequence[str]) -> str:
    """Return names in a line that can be read."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def migrations_judgement(plan: Mapping[str, Any], known: Mapping[str, Sequence[str]] | None = None) -> dict[str, Any]:
    """Judge whether older code may run beside, or after, the migrations of a plan.

    plan: what the program migration_plan prints; empty where it could not be asked. known: see migrations_known.
    Returns `rolling`, the names of the `migrations`, those that are `breaking` and `unknown`, `why` by name, what users
    wait for (`locks`), a line for people (`text`), what allows those that are in the way (`allow`), and the line with
    which an upgrade refuses (`refusal`, empty if it need not).
    """
    known = known or {}
    names: list[str] = []
    found: dict[str, list[str]] = {"breaks": [], "unknown": []}
    why: dict[str, str] = {}
    locks: list[str] = []
    for about in plan.get("pending") or ():
        name = f"{about['app']}.{about['name']}"
        names.append(name)
        locks += [f"{name}: {one['locks']}" for one in about["operations"] if one.get("locks")]
        verdict = _verdict(name, about, known)
        if verdict in found:
            found[verdict].append(name)
            why[name] = _why(about, verdict)
    for name in plan.get("missing") or ():
        names.append(name)
        verdict = _verdict(name, {"verdict": "unknown"}, known)
        if verdict in found:
            found[verdict].append(name)
            why[name] = "the release does not have it" if verdict == "unknown" else "the contract says so"
    in_the_way = [name for name in names if name in why]
    said = {kind: _some([f"{name} ({why[name]})" for name in those]) for kind, those in found.items()}
    parts = [
        f"older code cannot live with {said['breaks']}" if said["breaks"] else "",
        f"nobody knows whether older code can live with {said['unknown']}" if said["unknown"] else "",
    ]
    text = "; ".join(filter(None, parts))
    if not text and "pending" not in plan:
        text = "the release is not on the host yet, so that its migrations are not known"
    elif not text:
        text = f"older code can live with {_some(names)}" if names else "no migrations"
    # In double quotes, which stay as they are in all that Ansible prints.
    allow = f'"{{app_migrations_rolling: [{", ".join(in_the_way)}]}}"' if in_the_way else ""
    advice = (
        f"{text}. Upgrade with strategy=offline, or, where you know that the code that runs now does no harm and takes "
        f"none, with -e {allow}"
    )
    return {
        "rolling": not in_the_way,
        "migrations": names,
        "breaking": found["breaks"],
        "unknown": found["unknown"],
        "why": why,
        "locks": locks,
        "text": text,
        "allow": allow,
        "refusal": advice if in_the_way else "",
    }


def careful_migrate(command: Sequence[str], lock_timeout: str) -> list[str]:
    """Return the contract's command that migrates, run by the program migration_run that comes on standard input."""
    if len(command) < 2 or command[0] != "{python}":
        raise AnsibleFilterError(
            f"the contract's command migrate has to be {{python}} and a script, not {' '.join(command)!r}"
        )
    return ["{python}", "-", f"--lock-timeout={lock_timeout}", "--", *command[1:]]
