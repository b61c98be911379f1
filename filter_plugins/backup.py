"""Filters for backups: pgBackRest's options out of what the site is, and the age of the last backup."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleFilterError

sys.path.append(str(Path(__file__).resolve().parents[1]))
from plugin_utils.endpoint import endpoint  # noqa: E402

Options = list[list[str]]

STORAGE_OPTIONS = {
    "bucket": "s3-bucket",
    "endpoint": "s3-endpoint",
    "region": "s3-region",
    "key": "s3-key",
    "key_secret": "s3-key-secret",
    "key_type": "s3-key-type",
    "role": "s3-role",
    "uri_style": "s3-uri-style",
    "kms_key_id": "s3-kms-key-id",
    "sse_customer_key": "s3-sse-customer-key",
    "ca_file": "storage-ca-file",
    "port": "storage-port",
}
"""Keys of an S3 repository, and what pgBackRest calls them behind `repoN-`."""
DEFAULT_PATHS = {"posix": "/var/lib/pgbackrest", "s3": "/pgbackrest"}


def _value(value: Any) -> str:
    """Return a value as pgBackRest writes it."""
    if isinstance(value, bool):
        return "y" if value else "n"
    text = str(value)
    if "\n" in text:
        raise AnsibleFilterError("pgbackrest: an option has more than one line")
    return text


def backup_remote(repositories: Iterable[Mapping[str, Any]], keeper: str, members: Iterable[str]) -> bool:
    """Tell whether a database host needs the repository host's TLS server."""
    return any(item["type"] == "posix" for item in repositories) and any(name != keeper for name in members)


def backup_servers(site: Mapping[str, Any]) -> bool:
    """Tell whether this host needs pgBackRest's TLS server."""
    here, keeper = site["here"], site["repository_host"]
    members = [member["name"] for member in site["members"]]
    if here == keeper:
        return backup_remote(site["repositories"], keeper, members)
    return here in members


def _peer(prefix: str, host: str, site: Mapping[str, Any]) -> Options:
    """Return how another host is reached: by its certificate's name, with our own certificate."""
    pki = site["pki"]
    return [
        [f"{prefix}-host", host],
        [f"{prefix}-host-type", "tls"],
        [f"{prefix}-host-port", str(site["port"])],
        [f"{prefix}-host-ca-file", f"{pki}/ca.pem"],
        [f"{prefix}-host-cert-file", f"{pki}/node.pem"],
        [f"{prefix}-host-key-file", f"{pki}/node.key"],
    ]


def _s3(prefix: str, repository: Mapping[str, Any]) -> Options:
    """Return what is said of an S3 repository alone."""
    wanted = {"uri_style": "path", **repository}
    if wanted.get("endpoint"):
        found = endpoint(str(wanted["endpoint"]))
        if not found:
            raise AnsibleFilterError(f"backup_repositories: {wanted['endpoint']} is no endpoint")
        wanted["endpoint"] = found.host
        if found.port:
            wanted.setdefault("port", found.port)
    options = [[f"{prefix}-type", "s3"]]
    options += [
        [f"{prefix}-{option}", _value(wanted[key])]
        for key, option in STORAGE_OPTIONS.items()
        if wanted.get(key) not in (None, "")
    ]
    if not wanted.get("verify", True):
        options.append([f"{prefix}-storage-verify-tls", "n"])
    return options


def _repository(number: int, repository: Mapping[str, Any], site: Mapping[str, Any]) -> Options:
    """Return the options of one repository as this host has to know it."""
    prefix, kind = f"repo{number}", repository["type"]
    keeps = site["here"] == site["repository_host"]
    if kind == "posix" and not keeps:
        # Path, key and retention are the repository host's.
        return _peer(prefix, site["repository_host"], site)
    options = _s3(prefix, repository) if kind == "s3" else []
    options += [
        [f"{prefix}-path", _value(repository.get("path") or DEFAULT_PATHS[kind])],
        [f"{prefix}-cipher-type", "aes-256-cbc"],
        [f"{prefix}-cipher-pass", _value(repository.get("cipher_pass") or site["cipher_pass"])],
    ]
    if keeps:
        options += [
            [f"{prefix}-bundle", "y"],
            [f"{prefix}-retention-full", _value(repository.get("retention_full") or site["retention_full"])],
            [f"{prefix}-retention-diff", _value(repository.get("retention_diff") or site["retention_diff"])],
        ]
    options += [[f"{prefix}-{name}", _value(value)] for name, value in (repository.get("options") or {}).items()]
    return options


def _stanza(site: Mapping[str, Any]) -> Options:
    """Return the databases: on the repository host all, the one that is here first, as archive-push wants it."""
    here = site["here"]
    names = [member["name"] for member in site["members"]]
    if here != site["repository_host"]:
        names = [here]
    options: Options = []
    for number, name in enumerate(sorted(names, key=lambda name: name != here), 1):
        prefix = f"pg{number}"
        if name != here:
            options += _peer(prefix, name, site)
        options += [
            [f"{prefix}-path", site["data_directory"]],
            [f"{prefix}-port", str(site["postgresql_port"])],
            [f"{prefix}-socket-path", "/var/run/postgresql"],
        ]
    return options


def pgbackrest_configuration(site: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the sections of pgbackrest.conf of one host, `[{name, options: [[name, value]]}]`.

    site: here, repository_host (names in the inventory), members ([{name}] of the databases), repositories, stanza,
      cipher_pass, retention_full, retention_diff, pki, port, ipv6, data_directory, postgresql_port, queue_max,
      process_max, archive_process_max, compress_type, compress_level, settings (more options of [global]).
    """
    pki, here = site["pki"], site["here"]
    options: Options = [
        # Nothing goes to files: the journal has it, and PostgreSQL's log what archiving says.
        ["log-level-file", "off"],
        ["log-level-console", "off"],
        ["log-level-stderr", "warn"],
        ["lock-path", f"{site['spool']}/lock"],
        ["spool-path", site["spool"]],
        ["archive-async", "y"],
        ["archive-push-queue-max", _value(site["queue_max"])],
        ["compress-type", _value(site["compress_type"])],
        ["compress-level", _value(site["compress_level"])],
        ["process-max", _value(site["process_max"])],
        ["start-fast", "y"],
        ["stop-auto", "y"],
        # A segment may have to wait for its turn behind others.
        ["archive-timeout", "300"],
    ]
    for number, repository in enumerate(site["repositories"], 1):
        options += _repository(number, repository, site)
    if backup_servers(site):
        keeper = site["repository_host"]
        members = [member["name"] for member in site["members"]]
        clients = [name for name in members if name != here] if here == keeper else [keeper]
        options += [
            ["tls-server-address", "::" if site["ipv6"] else "*"],
            ["tls-server-port", str(site["port"])],
            ["tls-server-ca-file", f"{pki}/ca.pem"],
            ["tls-server-cert-file", f"{pki}/node.pem"],
            ["tls-server-key-file", f"{pki}/node.key"],
            *[["tls-server-auth", f"{name}={site['stanza']}"] for name in clients],
        ]
    given = {name: _value(value) for name, value in (site.get("settings") or {}).items()}
    options = [option for option in options if option[0] not in given] + [[name, given[name]] for name in sorted(given)]
    sections = [
        {"name": "global", "options": options},
        {
            "name": "global:archive-push",
            "options": [
                ["process-max", _value(site["archive_process_max"])],
                # PostgreSQL asks again; but while it stops it waits for what it asked (files/pgbackrest_push).
                ["archive-timeout", "5"],
                ["io-timeout", "15"],
            ],
        },
        {"name": "global:archive-get", "options": [["process-max", _value(site["archive_process_max"])]]},
        {"name": site["stanza"], "options": _stanza(site)},
    ]
    return sections


def backup_places(repositories: Iterable[Mapping[str, Any]], keeper: str) -> list[dict[str, Any]]:
    """Return number, type and place in words of each repository, without any secret."""
    places = []
    for number, item in enumerate(repositories, 1):
        path = item.get("path") or DEFAULT_PATHS[item["type"]]
        where = f"{keeper}:{path}" if item["type"] == "posix" else f"s3://{item.get('bucket', '')}{path}"
        places.append({"number": number, "type": item["type"], "place": where})
    return places


def backup_age_problem(said: Mapping[str, Any], hours: float, now: datetime | None = None) -> str:
    """Return why the backups are no ground to change a site on, in one line; nothing when they are.

    said: what the command that lists them answered, as a task registered it. hours: the age that is still good.
    """
    if said.get("unreachable"):
        return "the backup host does not answer, so nobody knows how old the last backup is"
    if said.get("rc", 1) != 0:
        lines = str(said.get("stderr") or said.get("msg") or "no answer").strip().splitlines()
        return f"the backups cannot be listed: {lines[-1] if lines else 'no answer'}"
    listing = json.loads(said["stdout"])
    stops = [backup["stop"] for repository in listing["repositories"] for backup in repository["backups"]]
    stops = [stop for stop in stops if stop]
    if not stops:
        return "there is no backup of the database yet"
    newest = datetime.fromisoformat(max(stops).replace("Z", "+00:00"))
    age = ((now or datetime.now(UTC)) - newest).total_seconds() / 3600
    if age > float(hours):
        limit = f"{float(hours):g} (backup_max_age_hours)"
        return f"the last backup of the database is {age:.0f} hours old, more than {limit}"
    return ""


def backup_lacking(listing: str) -> bool:
    """Tell whether a repository that can be read has no backup of the cluster that it belongs to now."""
    return any(
        not repository["error"]
        and not any(backup["system_id"] == repository["system_id"] for backup in repository["backups"])
        for repository in json.loads(listing)["repositories"]
    )


def cluster_system_id(answers: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return `{system_id, version}` that the database hosts hold; empty for a site without data.

    answers: what `pg_controldata` printed on each, as tasks registered it, with PG_VERSION in front.
    """
    found: dict[str, str] = {}
    for answer in answers:
        text = str(answer.get("stdout") or "")
        number = re.search(r"^Database system identifier:\s*(\d+)", text, re.MULTILINE)
        version = re.match(r"\s*(\d+)", text)
        if number and version and not found:
            found = {"system_id": number[1], "version": version[1]}
    return found or {"system_id": "", "version": ""}


def backup_progress(said: str) -> str:
    """Return in words how far a backup is, out of what tasks/backup_progress.yml read."""
    seen = json.loads(said)["progress"]
    if not seen:
        return "waiting for its turn, or making ready"
    return f"repository {seen['repository']}: {seen['type']} backup since {seen['since']}, {seen['percent']:.0f} %"


def backup_directory(path: str) -> dict[str, str]:
    """Return a repository's directory for managed_files."""
    return {"path": path, "owner": "postgres", "group": "postgres", "mode": "0750"}


def _owners(text: str) -> dict[int, dict[str, str]]:
    """Return `{repository: {system_id, version, error}}` of what guard.sh printed."""
    owners: dict[int, dict[str, str]] = {}
    number = 0
    for line in text.splitlines():
        begin = re.fullmatch(r"repository (\d+)", line)
        if begin:
            number = int(begin[1])
            owners[number] = {"system_id": "", "version": "", "error": ""}
        elif number:
            name, _, value = line.partition("=")
            if name == "db-system-id":
                owners[number]["system_id"] = value.strip()
            elif name == "db-version":
                owners[number]["version"] = value.strip(' "').partition(".")[0]
            elif "ERROR" in line and not owners[number]["error"]:
                owners[number]["error"] = "".join(letter for letter in line if letter.isprintable())[:200]
    return owners


def repository_problem(
    text: str,
    cluster: Mapping[str, str],
    places: Iterable[Mapping[str, Any]],
    adopt: str = "",
) -> str:
    """Return why a repository cannot be this site's, in one line; nothing when they all can.

    text: what guard.sh printed. cluster: system_id and version of what the database hosts hold (cluster_system_id).
    places: as backup_places returned it. adopt: a system id that the operator says is of this site's past.
    An unreachable repository is no problem here: a site is converged without it.
    """
    where = {place["number"]: place["place"] for place in places}
    past = re.search(r'"systems": *\[(.*?)\]', text)
    known = {adopt, *re.findall(r"\d+", past[1] if past else "")}
    for number, owner in _owners(text).items():
        named = f"repository {number} ({where.get(number, '')})"
        if any(word in owner["error"] for word in ("flush", "FormatError", "CryptoError", "outside of section")):
            return f"{named} does not open with this key (vault_pgbackrest_cipher_pass)"
        found = owner["system_id"]
        if not found or found == cluster["system_id"] or found == adopt:
            continue
        holds = f"system id {found}, PostgreSQL {owner['version']}"
        if not cluster["system_id"]:
            return (
                f"{named} holds the backups of a cluster ({holds}), and this site has no data yet: restore it "
                "(docs/runbooks/restore.md), or name another path in backup_repositories"
            )
        if found in known and owner["version"] != cluster["version"]:
            continue  # a major upgrade: the next backup goes on with it
        return (
            f"{named} belongs to another cluster ({holds}); this one is {cluster['system_id']}, "
            f"PostgreSQL {cluster['version']}. Restore from it, name another path in backup_repositories, or, if it is "
            f"of this site's past, -e backup_adopt={found}"
        )
    return ""


class FilterModule:
    """Filters for backups."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "backup_age_problem": backup_age_problem,
            "backup_directory": backup_directory,
            "backup_lacking": backup_lacking,
            "backup_places": backup_places,
            "backup_progress": backup_progress,
            "backup_servers": backup_servers,
            "cluster_system_id": cluster_system_id,
            "pgbackrest_configuration": pgbackrest_configuration,
            "repository_problem": repository_problem,
        }
