"""Filters for the database: endpoints, memory, who takes which parameter, and what a cluster still lacks."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

# Patroni passes these on the command line of every member, from its configuration in the DCS: they have to be equal on
# all, and a value in a file is ignored (Patroni's documentation, "Important rules").
DCS_PARAMETERS = frozenset(
    {
        "hot_standby",
        "max_connections",
        "max_locks_per_transaction",
        "max_prepared_transactions",
        "max_replication_slots",
        "max_wal_senders",
        "max_worker_processes",
        "track_commit_timestamp",
        "wal_keep_size",
        "wal_level",
        "wal_log_hints",
    }
)
# What the role and Patroni decide themselves.
RESERVED_PARAMETERS = frozenset(
    {
        "cluster_name",
        "config_file",
        "data_directory",
        "hba_file",
        "ident_file",
        "listen_addresses",
        "port",
        "primary_conninfo",
        "primary_slot_name",
        "recovery_target_timeline",
        "synchronous_standby_names",
        "unix_socket_directories",
    }
)
# A name that pg_hba.conf takes as it stands; in quotes, its words for several databases are names like any other.
HBA_NAME = re.compile(r"(?!(?:all|sameuser|samerole|samegroup|replication)$)[a-z_][a-z0-9_]*")
PARAMETER_NAME = re.compile(r"[a-z_][a-z0-9_.]*")
SCRAM = re.compile(r"SCRAM-SHA-256\$(\d+):([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+):([A-Za-z0-9+/=]+)")


def endpoint(address: str, port: int) -> str:
    """Return `address:port`, with brackets around an IPv6 address."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def endpoints(members: Iterable[Mapping[str, str]], port: int, form: str = "{endpoint}") -> list[str]:
    """Return one text for each `{name, address}`; `form` may hold `{name}` and `{endpoint}`."""
    return [form.format(name=member["name"], endpoint=endpoint(member["address"], port)) for member in members]


def postgresql_memory(memory_mb: int) -> dict[str, str]:
    """Return the parameters that follow from the memory that PostgreSQL may count on.

    Zulip's own shares: shared_buffers a quarter, effective_cache_size three quarters, work_mem 1/256,
    maintenance_work_mem an eighth and at most 2 GB. The size is rounded down first, because a kernel update that takes
    a few pages must not ask for a restart.
    """
    memory = int(memory_mb)
    if memory < 128:
        raise AnsibleFilterError(f"postgresql_memory_mb is {memory}: PostgreSQL needs 128 MB or more")
    memory -= memory % (512 if memory >= 4096 else 64)
    return {
        "shared_buffers": f"{memory // 4}MB",
        "effective_cache_size": f"{memory * 3 // 4}MB",
        "work_mem": f"{max(4, memory // 256)}MB",
        "maintenance_work_mem": f"{min(2048, max(64, memory // 8))}MB",
    }


def postgresql_parameters(parameters: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Split parameters into `dcs` (the cluster's, through Patroni) and `host` (each host's own file)."""
    split: dict[str, dict[str, Any]] = {"dcs": {}, "host": {}}
    for name, value in parameters.items():
        if not PARAMETER_NAME.fullmatch(name):
            raise AnsibleFilterError(f"postgresql_parameters: '{name}' is not the name of a parameter in lower case")
        if name in RESERVED_PARAMETERS:
            raise AnsibleFilterError(
                f"postgresql_parameters: '{name}' is set by the role postgresql and Patroni; remove it from there"
            )
        split["dcs" if name in DCS_PARAMETERS else "host"][name] = value
    return split


def postgresql_value(value: Any) -> str:
    """Return a value as it is written in postgresql.conf."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, int | float):
        return str(value)
    return "'" + str(value).replace("'", "''") + "'"


def postgresql_file(item: Mapping[str, str], directory: str) -> dict[str, str]:
    """Return a `{key: name, value: content}` as a file for managed_files."""
    return {"path": f"{directory}/{item['key']}", "content": item["value"], "variable": "postgresql_tsearch_files"}


def _hba_name(name: str) -> str:
    """Return the name of a database or role as pg_hba.conf takes it."""
    return name if HBA_NAME.fullmatch(name) else '"' + name.replace('"', '""') + '"'


def _hba_address(address: str) -> str:
    """Return an address or network as pg_hba.conf takes it."""
    return address if "/" in address else f"{address}/{128 if ':' in address else 32}"


def postgresql_hba(
    users: Iterable[Mapping[str, Any]], databases: Iterable[Mapping[str, Any]], addresses: Iterable[str]
) -> list[str]:
    """Return the lines of pg_hba.conf by which roles come in, each once, in the order of what was given.

    databases, addresses: for roles that name none of their own.
    """
    usual = {"databases": [database["name"] for database in databases], "addresses": list(addresses)}
    lines: dict[str, None] = {}
    for user in users:
        own = usual | {name: user[name] for name in usual if user.get(name) is not None}
        where = ",".join(map(_hba_name, dict.fromkeys(own["databases"])))
        for address in own["addresses"] if where else ():
            lines[f"hostssl {where} {_hba_name(user['name'])} {_hba_address(address)} scram-sha-256"] = None
    return list(lines)


def scram_matches(verifier: str | None, password: str) -> bool:
    """Tell whether a SCRAM-SHA-256 verifier, as in pg_authid, was made from this password."""
    found = SCRAM.fullmatch(verifier or "")
    if not found:
        return False
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(found[2]), int(found[1]))
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    return hmac.compare_digest(stored, base64.b64decode(found[3]))


def _identifiers(text: str) -> list[str]:
    """Return the names in a list like `zulip, "public"`."""
    return [part.strip().strip('"') for part in text.split(",")]


def _setting_sql(role: str, name: str, value: Any) -> str:
    """Return the statement that gives a role its own value of a parameter."""
    if name == "search_path":
        text = ", ".join('"' + part.replace('"', '""') + '"' for part in _identifiers(str(value)))
    else:
        text = postgresql_value(value)
    return f'ALTER ROLE "{role}" SET {name} = {text}'


def _quoted(name: str) -> str:
    """Return a name as SQL takes it."""
    return '"' + name.replace('"', '""') + '"'


def _same_setting(name: str, wanted: Any, found: str | None) -> bool:
    """Compare a wanted value with one from pg_db_role_setting."""
    if found is None:
        return False
    if name == "search_path":
        return _identifiers(str(wanted)) == _identifiers(found)
    return postgresql_value(wanted).strip("'") == found


def postgresql_pending(
    state: Iterable[str], users: Iterable[Mapping[str, Any]], databases: Iterable[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return what the cluster lacks, out of what `state.sql` printed: one JSON object a line.

    The first is of the cluster, each further one of a database. Returns `users`, `databases` and `schemas` to create or
    correct, `statements` (SQL) for the settings and memberships of roles, and `errors` of the configuration files.
    """
    cluster, *inside = [json.loads(line) for line in state if line.strip()]
    schemas = {item["database"]: item["schemas"] for item in inside}
    pending: dict[str, Any] = {
        "users": [],
        "statements": [],
        "databases": [],
        "schemas": [],
        "errors": cluster["errors"],
    }
    for user in users:
        role = cluster["roles"].get(user["name"])
        if role is None or not role["login"] or not scram_matches(role["verifier"], user["password"]):
            pending["users"].append(user)
        settings = dict(item.split("=", 1) for item in (role or {}).get("settings") or [])
        pending["statements"] += [
            _setting_sql(user["name"], name, value)
            for name, value in (user.get("settings") or {}).items()
            if not _same_setting(name, value, settings.get(name))
        ]
        member_of = (role or {}).get("member_of") or []
        pending["statements"] += [
            f"GRANT {_quoted(group)} TO {_quoted(user['name'])}"
            for group in dict.fromkeys(user.get("grants") or ())
            if group not in member_of
        ]
    for database in databases:
        if cluster["databases"].get(database["name"]) != database["owner"]:
            pending["databases"].append(database)
        owners = schemas.get(database["name"], {})
        pending["schemas"] += [
            {"database": database["name"], "name": schema, "owner": database["owner"]}
            for schema in database.get("schemas", ())
            if owners.get(schema) != database["owner"]
        ]
    return pending


class FilterModule:
    """Filters for the database."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "endpoint": endpoint,
            "endpoints": endpoints,
            "postgresql_file": postgresql_file,
            "postgresql_hba": postgresql_hba,
            "postgresql_memory": postgresql_memory,
            "postgresql_parameters": postgresql_parameters,
            "postgresql_value": postgresql_value,
            "postgresql_pending": postgresql_pending,
        }
