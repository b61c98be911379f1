"""Filters of the role restic and its verb: settings that cannot work, what is expected, the inventory as a tar."""

from __future__ import annotations

import base64
import io
import os
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible import context
from ansible.errors import AnsibleFilterError

REPOSITORY = re.compile(
    r"rest:https://(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?/\S*|s3:https?://[^/\s]+/[^/\s]\S*|s3:[^/\s:]+/\S+"
)
SYSTEM = {"/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/opt", "/proc", "/root", "/run", "/sbin", "/srv"}
SYSTEM |= {"/sys", "/tmp", "/usr", "/var", "/var/lib", "/var/lib/zulip-ha"}
LEFT_OUT = {".git", "__pycache__", ".ansible", ".state"}
SIZE_LIMIT = 64 * 2**20
HEADER = b"$ANSIBLE_VAULT;"
# A value that is neither empty, nor encrypted by itself, nor a reference.
PLAIN = re.compile(
    rb"""^[ \t]*(?:-[ \t]+)?["']?(vault_\w+)["']?[ \t]*[:=][ \t]*"""
    rb"""(?!!vault\b)(?!["']?\{\{)(?!(?:""|''|null|~)[ \t]*(?:\#|$))[^\s#]""",
    re.MULTILINE,
)
KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----")


def restic_problem(settings: Mapping[str, Any]) -> str:
    """Return why the role cannot work with its settings, or nothing."""
    repository, directory = str(settings["repository"]), str(settings["directory"])
    if not REPOSITORY.fullmatch(repository):
        return (
            f"restic_repository '{repository}' is neither rest:https://HOST:PORT/ nor s3:https://ENDPOINT/BUCKET/PATH"
        )
    if not settings["password"]:
        return "restic_password is empty: vault_restic_password is to be filled (playbooks/secrets.yml)"
    if settings["server"] and (not directory.startswith("/") or os.path.normpath(directory) in SYSTEM):
        return f"restic_server_directory '{directory}' is no directory of its own, as /var/lib/restic is"
    if settings["server"] and f"{os.path.normpath(directory)}/".startswith(("/home/", "/root/", "/run/", "/tmp/")):
        return f"restic_server_directory '{directory}' is hidden from the server: not below /home, /root, /run, /tmp"
    for path in settings["paths"]:
        if not str(path).startswith("/"):
            return f"restic_paths has '{path}', which is no absolute path"
    if not settings["paths"]:
        return "restic_paths is empty"
    if settings["uploads"] not in ("none", "local", "s3"):
        return f"restic_uploads_backend '{settings['uploads']}' is none of none, local, s3"
    if settings["uploads"] == "local" and not str(settings["uploads_directory"]).startswith("/"):
        return f"restic_uploads_directory '{settings['uploads_directory']}' is no absolute path"
    if settings["uploads"] == "s3":
        if not all(settings["buckets"]):
            return "with uploads in S3 both buckets have to be named: uploads_s3_bucket and uploads_s3_avatar_bucket"
        if not settings["uploads_command"]:
            return "uploads are in S3, and the application's profile has no command python, which would list them"
    return ""


def restic_expected(
    hosts: Iterable[str], configuration_hours: float, uploads_hours: float = 0, logs: bool = False
) -> list[dict[str, Any]]:
    """Return what the repository must have, and how old it may be. Uploads are the site's, whoever saved them."""
    names = sorted(str(host) for host in hosts)
    found = [{"tag": "configuration", "host": host, "hours": configuration_hours} for host in names]
    if logs:
        found += [{"tag": "logs", "host": host, "hours": configuration_hours} for host in names]
    if uploads_hours:
        found.append({"tag": "uploads", "host": "", "hours": uploads_hours})
    return found


# ---- the inventory ---------------------------------------------------------------------------------------------------


def password_files() -> set[str]:
    """Return the files that this run has vault passwords from. Beside the vault they would make it an open one."""
    arguments = getattr(context, "CLIARGS", {})
    given = list(arguments.get("vault_password_files") or ())
    given += [str(item).split("@", 1)[-1] for item in arguments.get("vault_ids") or ()]
    given += [os.environ.get("ANSIBLE_VAULT_PASSWORD_FILE", "")]
    return {os.path.realpath(item) for item in given if item and item != "prompt"}


def inventory_files(directory: Path) -> Iterator[tuple[Path, str]]:
    """Yield each file and link to keep, and its name in the tar, in order.

    A link to a folder stays one: it leads to the shipped variables, which are in the repository.
    """
    passwords = password_files()
    for folder, folders, names in os.walk(directory):
        kept = sorted(name for name in folders if name not in LEFT_OUT)
        folders[:] = [name for name in kept if not Path(folder, name).is_symlink()]
        for name in sorted([*names, *(name for name in kept if name not in folders)]):
            path = Path(folder, name)
            if os.path.realpath(path) not in passwords and not name.endswith((".retry", "~", ".swp")):
                yield path, str(path.relative_to(directory))


def content_of(path: Path) -> bytes:
    """Return a file's content."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise AnsibleFilterError(f"the inventory's {path} cannot be read: {error.strerror}") from None


def inventory_problem(directory: str) -> str:
    """Return why an inventory is not sent into the backup, or nothing. Secrets leave the controller encrypted."""
    root = Path(os.path.realpath(directory or "."))
    if not directory or not root.is_dir():
        return f"the inventory '{directory}' is no directory on this controller"
    total = count = 0
    for path, name in inventory_files(root):
        if path.is_dir() or not path.exists():
            continue
        if not path.is_file():
            return f"the inventory has {name}, which is no file"
        try:
            content = content_of(path)
        except AnsibleFilterError as error:
            return str(error)
        count, total = count + 1, total + len(content)
        if total > SIZE_LIMIT:
            return f"the inventory {root} holds more than {SIZE_LIMIT // 2**20} MiB, so it is more than an inventory"
        if content.lstrip().startswith(HEADER):
            continue
        plain = PLAIN.search(content)
        found = plain.group(1).decode() if plain else "a private key" if KEY.search(content) else ""
        if found:
            return f"{path} has {found} in plain text: ansible-vault encrypt {path}, then run this again"
    return "" if count else f"the inventory {root} has no files"


def inventory_archive(directory: str) -> str:
    """Return an inventory as a tar in base64. It is made in memory, and the same inventory gives the same tar."""
    problem = inventory_problem(directory)
    if problem:
        raise AnsibleFilterError(problem)
    root, stream = Path(os.path.realpath(directory)), io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for path, name in inventory_files(root):
            member = tarfile.TarInfo(name)
            member.mtime = int(path.lstat().st_mtime)
            if path.is_symlink() and (path.is_dir() or not path.exists()):
                member.type, member.linkname, member.mode = tarfile.SYMTYPE, os.readlink(path), 0o777
                archive.addfile(member)
                continue
            content = content_of(path)
            member.size, member.mode = len(content), path.stat().st_mode & 0o777
            archive.addfile(member, io.BytesIO(content))
    return base64.b64encode(stream.getvalue()).decode()


# ---- the verb --------------------------------------------------------------------------------------------------------


def backup_files_table(hosts: Iterable[str], hostvars: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return what became of each host's backup, a line each."""
    rows = [("HOST", "FILES", "WHAT")]
    for host in hosts:
        found = hostvars[host].get("backup_restic")
        if not found:
            rows.append((host, "none", "does not answer"))
            continue
        problems = "; ".join(f"{tag}: {text}" for tag, text in found["problems"].items())
        rows.append((host, "saved" if found["ok"] else "FAILED", " | ".join(filter(None, [found["line"], problems]))))
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    return [f"{host:<{widths[0]}}  {state:<{widths[1]}}  {what}".rstrip() for host, state, what in rows]


def backup_files_problem(hosts: Iterable[str], hostvars: Mapping[str, Mapping[str, Any]]) -> str:
    """Return which hosts' files were not saved, in one line, or nothing."""
    failed = []
    for host in hosts:
        found = hostvars[host].get("backup_restic")
        if not found:
            failed.append(f"{host} does not answer")
        elif not found["ok"]:
            failed.append(f"{host}: {'; '.join(found['problems'].values()) or 'failed'}")
    return f"files were not saved on all hosts: {' | '.join(failed)}" if failed else ""


class FilterModule:
    """Filters for the playbooks."""

    def filters(self) -> dict[str, Any]:
        """Return them."""
        return {
            "restic_problem": restic_problem,
            "restic_expected": restic_expected,
            "inventory_problem": inventory_problem,
            "inventory_archive": inventory_archive,
            "backup_files_table": backup_files_table,
            "backup_files_problem": backup_files_problem,
        }
