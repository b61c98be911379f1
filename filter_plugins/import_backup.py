"""Filters of playbooks/import_backup.yml: what was typed, whether an archive fits, which secrets come along."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))
from plugin_utils.application.versions import release_number  # noqa: E402
from plugin_utils.report.space import size  # noqa: E402

ACTIONS = ("import", "back", "forget_old")
SECRETS = ("", "vault", "show", "keep")
CARRIED = {
    "avatar_salt": "files of avatars are named with it, so that without it nobody has one",
    "camo_key": "links to pictures in old messages are signed with it",
    "secret_key": "sessions and links in mails are signed with it, so that without it everybody logs in again",
    "zulip_org_id": "the service for mobile notifications knows the server by it",
    "zulip_org_key": "it is the password for that service",
}
"""Secrets that what is in the database depends on. The others (passwords of services, shared_secret) are between
processes of a site, and the site has its own; what an operator added is the operator's to bring (zulip_secrets)."""

GROWTH = 2.5
"""A database, with its indexes, next to the text of its rows."""


def import_options_problem(given: Mapping[str, Any]) -> str:
    """Return why a run cannot begin, or nothing.

    given: `action`, `archive`, `confirm`, `secrets` and `limit` as typed, and `site`, the site's name.
    """
    action = str(given.get("action") or "import")
    archive = str(given.get("archive") or "")
    if action not in ACTIONS:
        return f"action is {', '.join(ACTIONS[:-1])} or {ACTIONS[-1]}, not {action}"
    if given.get("limit"):
        return "it is for all app and database hosts at once; leave --limit away"
    if action == "import" and not archive:
        return "say which archive: -e archive=/path/of/zulip-backup.tar.gz, as `manage.py backup` made it"
    if action == "import" and not Path(archive).expanduser().is_file():
        return f"there is no file {archive} on this machine"
    if str(given.get("secrets") or "") not in SECRETS:
        return f"secrets is {', '.join(SECRETS[1:-1])} or {SECRETS[-1]}, not {given['secrets']}"
    if not given.get("confirm") or given["confirm"] != given["site"]:
        loses = {
            "import": "an import puts the archive in the place of all that the site has now",
            "back": "what was written since the import goes away with it",
            "forget_old": "what was there before the import is deleted",
        }[action]
        return f"{loses}; if that is wanted, run it with -e confirm={given['site']}"
    return ""


def import_version(found: Mapping[str, Any]) -> str:
    """Return the release of an archive."""
    return str(found.get("zulip-version") or "").split("\n")[0].strip()


def import_major(found: Mapping[str, Any]) -> int:
    """Return the major version of PostgreSQL of an archive, 0 when it does not say."""
    text = str(found.get("postgres-version") or "")
    return int(text) // 10000 if text.isdigit() else 0


def _release_problem(version: str, running: str) -> str:
    """Return why an archive's release is none for what is deployed, or nothing."""
    if not version:
        return "it does not say which release made it (zulip-version)"
    try:
        newer = release_number(version) > release_number(running)
    except Exception:
        return f"it is of the release {version!r}, which is no version"
    return f"it is of {version} and the site runs {running}: upgrade the site first" if newer else ""


def import_archive_problem(
    found: Mapping[str, Any], running: str, look: Mapping[str, Any], uploads_backend: str = "local"
) -> str:
    """Return all that speaks against an archive as one line, or nothing.

    found: of `import_archive.py inspect`. running: the version of the release that is deployed. look: of
    `import_database.py look`.
    """
    problems = [_release_problem(import_version(found), running)]
    dump, major = found["dump"], import_major(found)
    if not dump["toc"] or not dump["rows"]:
        problems.append("there is no dump of the database in it (made with --skip-db?)")
    if any(rows is None for rows in dump["rows"].values()):
        problems.append("a table in its dump has no end")
    if major > look["pg_restore"]:
        problems.append(f"its database is of PostgreSQL {major} and this site has {look['pg_restore']}")
    if not look["there"]:
        problems.append("the site has no database yet: run site.yml first")
    if found["uploads"]["files"] and uploads_backend != "local":
        problems.append(
            f"it has {found['uploads']['files']} uploaded files and this site keeps uploads in S3: import with "
            "uploads_backend: local, then move them (uploads_to_s3.yml)"
        )
    return "; ".join(problem for problem in problems if problem)


def import_dump_problem(checked: Mapping[str, Any], look: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """Return why a dump that pg_restore reads cannot be restored here, or nothing."""
    lacking = sorted(set(checked["extensions"]) - set(look["extensions"]))
    if lacking:
        return (
            f"the dump needs the extension {', '.join(lacking)}, which is not installed on the database hosts: install "
            "its package on all of them, or drop it on the old server and make the archive anew"
        )
    without = sorted(table for number, table in checked["tables"].items() if number not in found["dump"]["rows"])
    return f"the dump has no data of {', '.join(without[:5])}" if without else ""


def import_needs(
    found: Mapping[str, Any], is_leader: bool, in_database: bool, in_app: bool, uploads: str
) -> list[dict[str, Any]]:
    """Return what an import needs on a host, for the filter `disk_problems`. uploads: their folder, if kept there."""
    dump, files = found["dump"], found["uploads"]
    new = int(dump["raw"] * GROWTH) + (1 << 30)
    takes_uploads = in_app and bool(uploads) and bool(files["files"])
    needs: list[dict[str, Any]] = []
    if in_database:
        whole = new + (dump["bytes"] + found["bytes"] if is_leader else 0)
        needs.append({"path": "/var/lib/postgresql", "bytes": whole, "why": "a second database"})
    if is_leader or takes_uploads:
        needs.append({"path": "/var/lib/zulip-ha", "bytes": found["bytes"] + (1 << 28), "why": "the archive"})
    if takes_uploads:
        needs.append({"path": uploads, "bytes": files["bytes"] + found["bytes"], "why": "the uploaded files"})
    return needs


def import_secrets(archive: Mapping[str, str], ours: Mapping[str, str]) -> dict[str, str]:
    """Return the secrets of an archive that have to come along and are others here, by name."""
    return {name: str(archive[name]) for name in CARRIED if archive.get(name) and archive[name] != ours.get(name)}


def import_secrets_problem(due: Mapping[str, str], choice: str, own: Iterable[str]) -> str:
    """Return why an import cannot go on as far as secrets go, or nothing. own: names that zulip_secrets sets."""
    if not due or choice == "keep":
        return ""
    wired = sorted(set(due) & set(own))
    if choice == "vault" and wired:
        return (
            f"{', '.join(wired)} of the archive would have to go where zulip_secrets gets it from: put it there first"
        )
    if choice == "vault":
        return ""
    why = "; ".join(f"{name}: {CARRIED[name]}" for name in due)
    return (
        f"the archive has other values of {', '.join(due)} than this site ({why}). -e secrets=vault writes them into "
        "the vault and to the hosts, -e secrets=show shows them, -e secrets=keep goes on with the site's own"
    )


def import_vault(due: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of the vault that these secrets are in."""
    return {f"vault_zulip_{name.removeprefix('zulip_')}": value for name, value in due.items()}


def import_plan(found: Mapping[str, Any], look: Mapping[str, Any], running: str) -> list[str]:
    """Return what an import would do, in words."""
    dump, files = found["dump"], found["uploads"]
    rows = sum(count or 0 for count in dump["rows"].values())
    lines = [
        f"archive   Zulip {import_version(found)}, PostgreSQL {import_major(found)}, {found['os-version'] or '?'}",
        f"database  {rows} rows, {size(dump['raw'])} of text; here now {size(look['bytes'])}",
        f"uploads   {files['files']} files, {size(files['bytes'])}",
    ]
    if files["skipped"]:
        lines.append(f"          {files['skipped']} links and the like among them are left out")
    if import_version(found) != running:
        lines.append(f"release   the migrations up to {running} follow")
    if look["kept"]:
        lines.append(f"kept      {', '.join(look['kept'])} of earlier imports (-e action=forget_old)")
    return lines


class FilterModule:
    """Filters of imports."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "import_options_problem": import_options_problem,
            "import_archive_problem": import_archive_problem,
            "import_dump_problem": import_dump_problem,
            "import_needs": import_needs,
            "import_secrets": import_secrets,
            "import_secrets_problem": import_secrets_problem,
            "import_vault": import_vault,
            "import_version": import_version,
            "import_plan": import_plan,
        }
