"""Which database cluster there is, and that the repositories are its own: who leads, who streams, and the stanza."""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Callable, Iterable, Mapping
from http.client import HTTPException, HTTPSConnection
from typing import Any, NamedTuple

from postgresql_backup_repository import (
    WARNING,
    BackupError,
    Config,
    backrest,
    broken_repository,
    read,
    repository_file,
    say,
    write,
)

PATRONI_SECONDS = 5.0
LAG_BYTES = 256 << 20
"""A replica that is further behind is not one to take a backup of."""


# ---- the cluster -----------------------------------------------------------------------------------------------------


class Live(NamedTuple):
    """The cluster as Patroni has it now."""

    leader: str = ""
    replicas: tuple[str, ...] = ()
    system_id: str = ""
    version: int = 0


def ask_patroni(address: str, port: int, path: str, context: ssl.SSLContext) -> dict[str, Any] | None:
    """Return what a member's Patroni answers, whatever the status; None without an answer."""
    connection = HTTPSConnection(address, port, timeout=PATRONI_SECONDS, context=context)
    try:
        connection.request("GET", path)
        found = json.loads(connection.getresponse().read())
    except (OSError, HTTPException, ValueError):
        return None
    finally:
        connection.close()
    return found if isinstance(found, dict) else None


def judge(answers: Mapping[str, Mapping[str, Any] | None], cluster: Mapping[str, Any]) -> Live:
    """Return who leads and who streams, out of what each member says of itself and one of all."""
    leader, version, system_id, streaming = "", 0, "", []
    lags = {entry.get("name"): entry.get("lag") for entry in cluster.get("members", ())}
    for name, answer in answers.items():
        if not answer or answer.get("state") not in ("running", "streaming"):
            continue
        if answer.get("role") in ("primary", "master"):
            leader = name
            version = int(answer.get("server_version", 0)) // 10000
            system_id = str(answer.get("database_system_identifier", ""))
        elif answer.get("role") in ("replica", "sync_standby", "quorum_standby"):
            lag = lags.get(name)
            if isinstance(lag, int) and lag <= LAG_BYTES:
                streaming.append(name)
    return Live(leader, tuple(streaming), system_id, version)


def look(config: Config) -> Live:
    """Ask every member."""
    try:
        context = ssl.create_default_context(cafile=f"{config.pki}/ca.pem")
        context.load_cert_chain(f"{config.pki}/node.pem", f"{config.pki}/node.key")
    except OSError as error:
        raise BackupError(f"{config.pki}: {error}") from error
    answers: dict[str, dict[str, Any] | None] = {}
    cluster: dict[str, Any] = {}
    for member in config.members:
        answers[member["name"]] = ask_patroni(member["address"], config.patroni_port, "/patroni", context)
        if answers[member["name"]] and not cluster.get("members"):
            cluster = ask_patroni(member["address"], config.patroni_port, "/cluster", context) or {}
    live = judge(answers, cluster)
    if not live.leader:
        silent = [name for name, answer in answers.items() if not answer]
        why = f"; no answer from {', '.join(silent)}" if silent else ""
        raise BackupError(f"nobody leads the database cluster{why}")
    if not live.system_id or not live.version:
        raise BackupError(f"Patroni on {live.leader} does not say which cluster it has")
    return live


def database_options(config: Config, live: Live) -> list[str]:
    """Return the paths of the data, where they are of another major version than this host was configured for."""
    if live.version in (0, config.version):
        return []
    path = config.data.format(version=live.version)
    return [f"--pg{number}-path={path}" for number in range(1, len(config.members) + 1)]


# ---- the stanza ------------------------------------------------------------------------------------------------------


class Owner(NamedTuple):
    """The cluster that a repository belongs to now."""

    system_id: str
    version: int


def parse_owner(text: str) -> Owner | None:
    """Return the cluster of an archive.info."""
    system_id = re.search(r"^db-system-id=(\d+)", text, re.MULTILINE)
    version = re.search(r'^db-version="(\d+)', text, re.MULTILINE)
    return Owner(system_id[1], int(version[1])) if system_id and version else None


def owner(config: Config, number: int) -> Owner | None:
    """Return the cluster that a repository belongs to; None for an empty one."""
    folder = f"archive/{config.stanza}"
    for name in ("archive.info", "archive.info.copy"):
        text = repository_file(config, number, f"{folder}/{name}")
        if text is not None:
            found = parse_owner(text.decode(errors="replace"))
            if not found:
                raise BackupError(broken_repository(config, number, "FormatError"))
            return found
    return None


def stanza_step(
    owners: Mapping[int, Owner | None], live: Live, known: Iterable[str], places: Callable[[int], str]
) -> str:
    """Return what the repositories need: `` for nothing, stanza-create or stanza-upgrade. Refuse another cluster's.

    known: system identifiers that this site is known to have had.
    """
    ours = {live.system_id, *known}
    upgrade = False
    for number, found in owners.items():
        if found is None or found.system_id == live.system_id:
            continue
        if found.system_id not in ours or found.version == live.version:
            raise BackupError(
                f"repository {number} ({places(number)}) belongs to another cluster: it has system id "
                f"{found.system_id} (PostgreSQL {found.version}), this one {live.system_id} "
                f"(PostgreSQL {live.version}). Restore from it, name another path in backup_repositories, or, "
                f"if it is of this site's past, -e backup_adopt={found.system_id}"
            )
        upgrade = True
    if upgrade:
        return "stanza-upgrade"
    return "stanza-create" if None in owners.values() else ""


def remembered(config: Config) -> list[str]:
    """Return the system identifiers that this site had."""
    found = read(config.state / "systems.json").get("systems") or []
    return [str(number) for number in found]


def ready(config: Config, live: Live, adopt: str = "") -> str:
    """Make the repositories this cluster's; return what was done."""
    known = remembered(config)
    accepted = [number for number in (adopt, config.adopt) if number]
    owners: dict[int, Owner | None] = {}
    for number in config.numbers:
        try:
            owners[number] = owner(config, number)
        except BackupError as error:
            # One that was seen before and does not answer now keeps the others from nothing.
            if live.system_id not in known:
                raise
            say(str(error), WARNING)
    foreign = {found.system_id for found in owners.values() if found} - {live.system_id}
    taken = bool(foreign) and foreign <= set(accepted)
    places = config.place
    step = "stanza-upgrade" if taken else stanza_step(owners, live, known, places)
    if step:
        backrest(config, step, *database_options(config, live))
        say(f"{step} of {config.stanza}, PostgreSQL {live.version}, system id {live.system_id}")
    if live.system_id not in known:
        write(config.state / "systems.json", json.dumps({"systems": [*known, live.system_id]}) + "\n")
    return step
