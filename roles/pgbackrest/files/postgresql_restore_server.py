"""The server that recovers: its settings, its start and stop, and what it and its log say.

It is nobody's but this program's: its settings, its socket and its list of who may connect are not the site's, and it
archives nothing.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import pwd
import re
import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from postgresql_restore_host import StepError, as_postgres, identity, last_words, own, run, write_private
from postgresql_restore_wal import segment_number

PROGRAMS = Path("/usr/lib/postgresql")
PKI = Path("/etc/zulip-ha/pki")
SYSTEMD = Path("/run/systemd/system")
NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,62}$")
TARGETS = (
    "recovery_target",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_xid",
    "recovery_target_lsn",
)
STATE = """SELECT json_build_object('recovering', pg_is_in_recovery(), 'lsn', pg_last_wal_replay_lsn()::text,
 'time', to_char(pg_last_xact_replay_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"'),
 'timeline', (SELECT timeline_id FROM pg_control_checkpoint()), 'current', pg_walfile_name(pg_current_wal_lsn()))"""
RESTORED = re.compile(r'restored log file "([0-9A-F]{24})" from archive')
LAST_TIME = re.compile(r"last completed transaction was at log time (\S+ \S+)")
STOPPING = re.compile(r"recovery stopping (?:before|after|at) ")


# ---- settings --------------------------------------------------------------------------------------------------------


def parse_target(text: str) -> dict[str, str]:
    """Return the settings of PostgreSQL for a target."""
    if text == "latest":
        return {}
    if text.startswith("name:"):
        if not NAME.match(text[5:]):
            raise StepError(f"{text[5:]!r} is no name of a restore point")
        return {"recovery_target_name": text[5:]}
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise StepError(
            f"{text!r} is neither latest, nor a time such as 2026-01-31T12:00:00+00:00, nor name:POINT"
        ) from None
    if moment.tzinfo is None:
        raise StepError(f"{text!r} has no time zone: add Z for UTC, or +02:00")
    return {
        "recovery_target_time": moment.astimezone(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S.%f+00"),
    }


def restore_command(command: Sequence[str]) -> str:
    """Return a command that ends the recovery where the archive ends, and stops the server where it cannot be read.

    PostgreSQL takes every status up to 125 for the end of the archive; pgBackRest's is 1, and its errors are others.
    """
    return f'{shlex.join(command)} archive-get %f "%p" || {{ s=$?; [ "$s" -eq 1 ] && exit 1; exit 255; }}'


def server_settings(options: argparse.Namespace, place: Path, command: str) -> dict[str, str]:
    """Return every setting that matters. On the command line they beat what the backup has in postgresql.auto.conf."""
    memory = max(int(options.memory_mb), 256)
    settings = {
        "config_file": str(place / "postgresql.conf"),
        "hba_file": str(place / "pg_hba.conf"),
        "ident_file": str(place / "pg_ident.conf"),
        "port": str(options.port),
        "unix_socket_directories": str(options.socket),
        "listen_addresses": options.listen or "",
        "cluster_name": "restore",
        "restore_command": command,
        "recovery_target_action": "promote",
        "recovery_target_inclusive": "on",
        "recovery_target_timeline": options.timeline,
        "primary_conninfo": "",
        "primary_slot_name": "",
        "synchronous_standby_names": "",
        "hot_standby": "off",
        # Of a database that is to serve it is noted what the archive lacks, above all the history of its new timeline:
        # whoever starts it next archives that.
        "archive_mode": "off" if options.keep_running else "on",
        "archive_command": "",
        "wal_level": "replica",
        "shared_preload_libraries": "",
        "shared_buffers": f"{memory // 4}MB",
        "max_connections": "50",
        "max_wal_size": "1GB",
        "checkpoint_timeout": "15min",
        "autovacuum": "off",
        "restart_after_crash": "off",
        "logging_collector": "off",
        "log_destination": "stderr",
        "log_line_prefix": "%m [%p] ",
        "log_min_messages": "info",
        "log_timezone": "UTC",
        "timezone": "UTC",
        "lc_messages": "C",
        "ssl": "off",
    }
    # In this order: a target that is emptied after another was set counts as a second one.
    target = parse_target(options.to)
    settings |= {name: "" for name in TARGETS if name not in target} | target
    if options.tls:
        settings |= {
            "ssl": "on",
            "ssl_cert_file": str(PKI / "node.pem"),
            "ssl_key_file": str(PKI / "node.key"),
            "ssl_ca_file": str(PKI / "ca.pem"),
            "ssl_crl_file": "",
            "ssl_min_protocol_version": "TLSv1.3",
        }
    return settings


def hba(options: argparse.Namespace) -> str:
    """Return the list of who may connect."""
    kind = "hostssl" if options.tls else "host"
    lines = ["local all postgres peer map=restore"]
    lines += [
        f"{kind} {options.allow_database} {options.allow_user} {address} scram-sha-256" for address in options.allow
    ]
    return "\n".join(lines) + "\n"


def write_server_files(options: argparse.Namespace, place: Path) -> None:
    """Write the files that the settings name."""
    write_private(place / "postgresql.conf", "# All is on the command line.\n")
    write_private(place / "pg_hba.conf", hba(options))
    write_private(place / "pg_ident.conf", "restore postgres postgres\nrestore root postgres\n")


# ---- a directory's programs ------------------------------------------------------------------------------------------


def program(version: str, name: str) -> str:
    """Return the path of one of PostgreSQL's programs."""
    return str(PROGRAMS / version / "bin" / name)


def directory_version(directory: Path) -> str:
    """Return the major version of a database."""
    try:
        return (directory / "PG_VERSION").read_text(encoding="ascii").strip()
    except OSError:
        raise StepError(f"{directory} holds no database") from None


def running(directory: Path) -> bool:
    """Return whether a server runs on a directory."""
    if not (directory / "PG_VERSION").exists() or not (directory / "postmaster.pid").exists():
        return False
    pg_ctl = program(directory_version(directory), "pg_ctl")
    return as_postgres([pg_ctl, "status", "-D", str(directory)], check=False).returncode == 0


def control(directory: Path) -> dict[str, str]:
    """Return what pg_controldata says of a database."""
    done = run([program(directory_version(directory), "pg_controldata"), str(directory)], env={"LC_ALL": "C"})
    pairs = (line.split(":", 1) for line in done.stdout.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


# ---- its log ---------------------------------------------------------------------------------------------------------


def log_file(directory: Path) -> Path:
    """Return where the server's log is: beside the data."""
    return directory.parent / "restore.log"


def read_server_log(directory: Path) -> str:
    """Return the server's log; nothing where there is none."""
    try:
        return log_file(directory).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def make_log(directory: Path) -> None:
    """Make the server's log, which it could not make itself in a place of root's."""
    user = pwd.getpwnam("postgres")
    handle = os.open(log_file(directory), os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o640)
    os.fchown(handle, user.pw_uid, user.pw_gid)
    os.close(handle)


def utc(text: str) -> str:
    """Return a time as PostgreSQL writes it in UTC as ISO."""
    found = datetime.datetime.fromisoformat(text if re.search(r"[+-]\d\d(:?\d\d)?$|Z$", text) else text + "+00")
    return found.astimezone(datetime.UTC).isoformat()


def read_log(text: str) -> dict[str, Any]:
    """Return what the server's log says: `segment`, the last from the archive, `last_time`, `stopped`, `why`."""
    segments = RESTORED.findall(text)
    times = LAST_TIME.findall(text)
    fatal = [line for line in text.splitlines() if re.search(r"\b(FATAL|PANIC):", line) and "starting up" not in line]
    fatal = [line for line in fatal if "not yet accepting" not in line and "not accepting connections" not in line]
    errors = [line for line in text.splitlines() if re.search(r"\bERROR: \[\d+\]:", line)]
    last_time = times[-1].removesuffix(" UTC").replace(" UTC", "") if times else ""
    return {
        "segment": segments[-1] if segments else "",
        "last_time": utc(last_time) if last_time else "",
        "stopped": bool(STOPPING.search(text)),
        "why": last_words("\n".join((fatal or errors)[-1:])) if fatal or errors else "",
        "archive": last_words(errors[-1]) if errors else "",
    }


def failure(seen: Mapping[str, Any], target: str, newest: str, size: int) -> str:
    """Return in one line why a server ended before it was promoted."""
    if "before configured recovery target was reached" in seen["why"]:
        segment = seen["segment"]
        if segment and newest and segment_number(segment, size) < segment_number(newest, size):
            return (
                f"{target} was not reached: recovery ended after segment {segment}, which is damaged, or the next is "
                f"missing, and the archive goes on to {newest}"
            )
        end = f", and its last change is of {seen['last_time']}" if seen["last_time"] else ""
        return f"{target} was not reached: the archive ends with {newest or segment}{end}"
    if "from archive" in seen["why"] and seen["archive"]:
        return f"the archive could not be read: {seen['archive']}; run it again when that is mended"
    return f"PostgreSQL ended: {seen['why'] or 'its log says nothing'}"


# ---- start and stop --------------------------------------------------------------------------------------------------


def unit_name(directory: Path) -> str:
    """Return the name of the unit that a directory's server runs in."""
    return f"zulip-ha-restored-{identity(directory)}.service"


def start_server(directory: Path, settings: Mapping[str, str]) -> None:
    """Start it detached from whoever asked, in a unit of its own where there is systemd."""
    version = directory_version(directory)
    arguments = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    own(Path(settings["unix_socket_directories"]), 0o755)
    # A server that was killed leaves it, and it is known by now that none runs.
    (directory / "postmaster.pid").unlink(missing_ok=True)
    make_log(directory)
    if not SYSTEMD.exists():
        pg_ctl = [program(version, "pg_ctl"), "start", "-W", "-s", "-D", str(directory), "-l", str(log_file(directory))]
        as_postgres([*pg_ctl, "-o", shlex.join(arguments)])
        return
    run(["systemctl", "reset-failed", unit_name(directory)], check=False)
    output = f"append:{log_file(directory)}"
    properties = {
        "User": "postgres",
        "SupplementaryGroups": "ssl-cert",
        "StandardOutput": output,
        "StandardError": output,
        "KillMode": "mixed",
        "KillSignal": "SIGINT",
        "TimeoutStopSec": "600",
        "OOMScoreAdjust": "200",
        "UnsetEnvironment": "NOTIFY_SOCKET",
    }
    words = [f"--property={name}={value}" for name, value in properties.items()]
    unit = ["systemd-run", "--quiet", "--collect", f"--unit={unit_name(directory)}", "--setenv=LC_ALL=C.UTF-8", *words]
    # A dollar would be a variable to systemd.
    run(
        [
            *unit,
            "--",
            program(version, "postgres"),
            "-D",
            str(directory),
            *(word.replace("$", "$$") for word in arguments),
        ]
    )


def stop_server(directory: Path) -> bool:
    """Stop the server; return whether one ran."""
    if not running(directory):
        return False
    pg_ctl = program(directory_version(directory), "pg_ctl")
    as_postgres([pg_ctl, "stop", "-D", str(directory), "-m", "fast", "-w", "-t", "3600"])
    return True


def query(directory: Path, options: argparse.Namespace, text: str) -> str:
    """Return the answer of the server to a statement."""
    psql = [program(directory_version(directory), "psql"), "--no-psqlrc", "--quiet", "--tuples-only", "--no-align"]
    words = [f"--host={options.socket}", f"--port={options.port}", "--username=postgres", "--dbname=postgres"]
    return as_postgres([*psql, *words, f"--command={text}"]).stdout.strip()


def server_state(directory: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Return what the server says once it was promoted; before that it takes no connections, and this is empty."""
    try:
        found = json.loads(query(directory, options, STATE))
    except (StepError, ValueError):
        return {}
    return {} if found["recovering"] else dict(found)


def wait_for_promotion(directory: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Return what the server says once it was promoted; nothing when it ended before."""
    end = time.monotonic() + options.timeout
    # A server needs a moment to write its own mark.
    patience = time.monotonic() + 4
    pause = 0.5
    while True:
        found = server_state(directory, options)
        if found or time.monotonic() > patience and not running(directory):
            return found
        if time.monotonic() >= end:
            raise StepError(f"it did not come to an end within {options.timeout} s, and goes on")
        time.sleep(pause)
        pause = min(pause * 1.2, 3)
