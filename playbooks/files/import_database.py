"""Restores a dump into a database beside the one that serves, and swaps their names. Runs on the leader, as root.

  import_database.py look     what there is of this import and of earlier ones, and what this host can restore
  import_database.py check    whether pg_restore reads the dump, and what it needs that is not here
  import_database.py restore  into NAME_import; FOLDER/rows.json has the rows that are expected, as {"dump id": rows}
  import_database.py swap     NAME_import becomes NAME, and NAME becomes NAME_before_TIME
  import_database.py done     the import is complete: users are back
  import_database.py back     the newest NAME_before_TIME becomes NAME again
  import_database.py forget   deletes what `swap` and `back` left

How far an import is, is a comment on its database, which moves with it to whoever leads. Every action may be killed,
and run again.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

COMMENT = "zulip-ha import "
ENTRY = re.compile(r"^(\d+); \d+ \d+ (.+)$")
TABLE = re.compile(r"^TABLE DATA (\S+) (\S+) \S+$")
EXTENSION = re.compile(r"^EXTENSION - (\S+)")
# What only a superuser may do, or what is not the dump's business here.
SUPERUSERS = re.compile(
    r"^(SCHEMA - public|EXTENSION|COMMENT|ACL|SECURITY LABEL|DATABASE|PUBLICATION|SUBSCRIPTION|EVENT TRIGGER)\b"
)
# Part of every database.
BUILT_IN = {"plpgsql"}


class Failed(Exception):
    """Says in one line what is wrong."""


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def name(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


class Import:
    """The database, by its name, and what lies beside it."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.database, self.owner, self.sha256 = given.database, given.owner, given.sha256
        self.folder, self.bin = given.folder, given.bin
        self.port, self.socket, self.user = given.port, given.socket, given.user
        self.new = f"{self.database}_import"

    # ---- programs of PostgreSQL

    def run(self, words: list[str], text: str = "", environment: dict[str, str] | None = None) -> str:
        """Run a program as the superuser of the database; return what it printed."""
        become = ["runuser", "--user", self.user, "--"] if os.geteuid() == 0 else []
        settings = {"PGHOST": self.socket, "PGPORT": str(self.port), "LC_ALL": "C.UTF-8", **(environment or {})}
        done = subprocess.run(
            [*become, *words], input=text, env={**os.environ, **settings}, cwd="/", capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.strip()]
            wrong = [line for line in said if "error" in line.lower()]
            raise Failed((wrong or said or [f"{words[0]} ended with status {done.returncode}"])[0].strip())
        return done.stdout

    def sql(self, query: str, database: str = "postgres") -> str:
        psql = ["psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-d", database]
        return self.run(psql, query).strip()

    # ---- where it stands

    def databases(self) -> dict[str, dict[str, Any]]:
        """Return each database that is of ours, with what its comment says."""
        found = self.sql(
            "SELECT coalesce(json_object_agg(datname, coalesce(shobj_description(oid, 'pg_database'), '')), '{}') "
            "FROM pg_database"
        )
        states = {}
        for database, comment in json.loads(found).items():
            if database == self.database or database.startswith((self.new, f"{self.database}_before_")):
                text = comment.removeprefix(COMMENT)
                states[database] = json.loads(text) if comment.startswith(COMMENT) else {}
        return states

    def note(self, database: str, **state: Any) -> str:
        """Return the statement that notes how far an import is."""
        text = COMMENT + json.dumps({"sha256": self.sha256, **state}, sort_keys=True)
        return f"COMMENT ON DATABASE {name(database)} IS {literal(text)};"

    def state(self) -> str:
        """Return how far this archive is: nothing, restoring, restored, swapped or done."""
        states = self.databases()
        for database in (self.database, self.new):
            found = states.get(database, {})
            if found.get("sha256") == self.sha256:
                return str(found["state"])
        return "nothing"

    def kept(self) -> list[str]:
        """Return what lies beside the database, the newest last."""
        own = re.compile(rf"{re.escape(self.database)}_before_\d{{14}}|{re.escape(self.new)}_\d{{14}}")
        return sorted((one for one in self.databases() if own.fullmatch(one)), key=lambda one: one[-14:])

    def look(self) -> dict[str, Any]:
        states = self.databases()
        version = self.run([f"{self.bin}/pg_restore", "--version"])
        directory = self.sql("SHOW data_directory")
        extensions = self.sql("SELECT json_agg(name) FROM pg_available_extensions")
        return {
            "state": self.state(),
            "there": self.database in states,
            "kept": self.kept(),
            "begun": self.new in states,
            "bytes": int(self.sql(f"SELECT coalesce(sum(pg_database_size(oid)), 0) FROM pg_database "
                                  f"WHERE datname = {literal(self.database)}")),
            "pg_restore": int(re.findall(r"(\d+)[.\d]*", version)[0]),
            "extensions": json.loads(extensions),
            "free": shutil.disk_usage(directory).free,
        }  # fmt: skip

    # ---- the dump

    def entries(self) -> list[tuple[str, str]]:
        """Return the entries of the dump: number, and what it is."""
        listed = self.run([f"{self.bin}/pg_restore", "--list", f"{self.folder}/database"])
        return [(found[1], found[2]) for line in listed.splitlines() if (found := ENTRY.match(line))]

    def check(self) -> dict[str, Any]:
        entries = self.entries()
        wanted = {found[1] for _id, text in entries if (found := EXTENSION.match(text))} - BUILT_IN
        tables = {number: f"{found[1]}.{found[2]}" for number, text in entries if (found := TABLE.match(text))}
        return {"entries": len(entries), "extensions": sorted(wanted), "tables": tables}

    def restore(self) -> dict[str, Any]:
        """Make the new database and fill it, anew unless it was restored to its end."""
        rows: dict[str, int | None] = json.loads((self.folder / "rows.json").read_text())
        states = self.databases()
        found = states.get(self.new, {})
        if self.state() in ("swapped", "done", "restored"):
            return {"state": self.state(), "rows": found.get("rows", 0)}
        checked = self.check()
        self.sql(f"DROP DATABASE IF EXISTS {name(self.new)} WITH (FORCE)")
        self.sql(
            f"CREATE DATABASE {name(self.new)} OWNER {name(self.owner)} TEMPLATE template0 ENCODING 'UTF8' "
            "LC_COLLATE 'C.UTF-8' LC_CTYPE 'C.UTF-8'"
        )
        self.sql(self.note(self.new, state="restoring"))
        for extension in checked["extensions"]:
            self.sql(f"CREATE EXTENSION IF NOT EXISTS {name(extension)} CASCADE", self.new)
        self.pg_restore()
        self.sql("ANALYZE", self.new)
        counted = self.count(checked["tables"], rows)
        self.sql(self.note(self.new, state="restored", rows=counted))
        return {"state": "restored", "rows": counted}

    def pg_restore(self) -> None:
        """Fill the new database. All becomes the application's role's, whoever had it there."""
        with tempfile.NamedTemporaryFile("w", dir=self.folder, prefix="entries-") as stream:
            stream.write("".join(f"{number}; 0 0 {text}\n" for number, text in self.entries()
                                 if not SUPERUSERS.match(text)))  # fmt: skip
            stream.flush()
            os.chmod(stream.name, 0o644)
            # A crash before the swap loses this database, and it is made anew; the swap itself is flushed.
            options = {"PGOPTIONS": "-c synchronous_commit=off -c maintenance_work_mem=512MB"}
            self.run(
                [f"{self.bin}/pg_restore", "--exit-on-error", "--no-owner", f"--role={self.owner}", "--no-privileges",
                 "--no-comments", f"--use-list={stream.name}", f"--jobs={min(os.cpu_count() or 1, 8)}",
                 f"--dbname={self.new}", f"{self.folder}/database"],
                environment=options,
            )  # fmt: skip

    def count(self, tables: dict[str, str], rows: dict[str, int | None]) -> int:
        """Compare each table with what the dump has of it; return all rows."""
        queries = []
        for number, table in tables.items():
            schema, _, relation = table.partition(".")
            queries.append(f"SELECT {literal(number)}, count(*) FROM {name(schema)}.{name(relation)};")
        found = dict(line.split("|") for line in self.sql("\n".join(queries), self.new).splitlines())
        wrong = [
            f"{table} has {found[number]} rows and the dump has {rows[number]}"
            for number, table in tables.items()
            if rows.get(number) is not None and int(found[number]) != rows[number]
        ]
        if wrong:
            raise Failed("; ".join(wrong[:5]))
        return sum(map(int, found.values()))

    # ---- names

    def exchange(self, come: str, go: str, comment: str) -> None:
        """Give the database's name to another, in one transaction, once nobody is in either."""
        both = f"{literal(self.database)}, {literal(come)}"
        try:
            self.sql(f"ALTER DATABASE {name(self.database)} ALLOW_CONNECTIONS false")
            self.sql(f"SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname IN ({both})")
            self.sql(
                "BEGIN;"
                f"ALTER DATABASE {name(self.database)} RENAME TO {name(go)};"
                f"ALTER DATABASE {name(come)} RENAME TO {name(self.database)};"
                f"ALTER DATABASE {name(go)} ALLOW_CONNECTIONS true;"
                f"ALTER DATABASE {name(self.database)} ALLOW_CONNECTIONS true;"
                f"{comment} COMMIT;"
            )
        finally:
            # Whichever has the name.
            self.sql(f"ALTER DATABASE {name(self.database)} ALLOW_CONNECTIONS true")

    def swap(self) -> dict[str, Any]:
        state = self.state()
        if state not in ("swapped", "done"):
            if state != "restored":
                raise Failed(f"{self.new} is not restored from this archive")
            if self.database not in self.databases():
                raise Failed(f"there is no database {self.database}: run site.yml first")
            found = self.databases()[self.new]
            time = datetime.now(UTC).strftime("%Y%m%d%H%M%S")
            go = f"{self.database}_before_{time}"
            self.exchange(self.new, go, self.note(self.database, state="swapped", rows=found["rows"]))
        return {"state": self.state(), "kept": self.kept()}

    def done(self) -> dict[str, Any]:
        if self.state() == "swapped":
            self.sql(self.note(self.database, state="done"))
        return {"state": self.state()}

    def back(self) -> dict[str, Any]:
        kept = [one for one in self.kept() if one.startswith(f"{self.database}_before_")]
        if not kept:
            raise Failed("there is nothing to go back to: no import was made, or what was before it was forgotten")
        go = f"{self.new}_{datetime.now(UTC).strftime('%Y%m%d%H%M%S')}"
        self.exchange(kept[-1], go, f"COMMENT ON DATABASE {name(go)} IS NULL;")
        return {"back": kept[-1], "kept": self.kept()}

    def forget(self) -> dict[str, Any]:
        gone = self.kept() + ([self.new] if self.new in self.databases() else [])
        for database in gone:
            self.sql(f"DROP DATABASE IF EXISTS {name(database)} WITH (FORCE)")
        if self.folder and self.folder.name == "zulip-ha-import":
            shutil.rmtree(self.folder, ignore_errors=True)
        return {"forgotten": gone}


def main(arguments: list[str] | None = None) -> int:
    """Do what was asked; return the exit status."""
    parser = argparse.ArgumentParser(prog="import_database.py")
    parser.add_argument("action", choices=["look", "check", "restore", "swap", "done", "back", "forget"])
    parser.add_argument("--database", default="zulip")
    parser.add_argument("--owner", default="zulip")
    parser.add_argument("--port", type=int, default=5432)
    parser.add_argument("--socket", default="/var/run/postgresql")
    parser.add_argument("--user", default="postgres", help="user of the system and of the database")
    parser.add_argument("--bin", type=Path, required=True, help="folder of this version's programs")
    parser.add_argument("--folder", type=Path, help="where the dump was unpacked to")
    parser.add_argument("--sha256", default="")
    given = parser.parse_args(arguments)
    work = Import(given)
    try:
        answer = getattr(work, given.action)()
    except (Failed, OSError, ValueError) as error:
        print(str(error).strip() or type(error).__name__, file=sys.stderr)
        return 1
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
