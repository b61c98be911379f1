"""The restored database and the live one, and what both are asked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from restore_drill_command import run
from restore_drill_words import DrillError

# ---- SQL -------------------------------------------------------------------------------------------------------------


def identifier(name: str) -> str:
    """Quote a name for SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Quote a text for SQL."""
    return "'" + text.replace("'", "''") + "'"


def tables_query(schema: str) -> str:
    """Return SQL for the tables whose primary key is a whole number named id."""
    return f"""
        SELECT coalesce(json_agg(c.relname::text ORDER BY c.relname), '[]')
        FROM pg_class c
        JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary AND i.indnkeyatts = 1
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]
        WHERE c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = {literal(schema)})
          AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND a.attname = 'id'
          AND a.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype);"""


def restored_query(schema: str, table: str) -> str:
    """Return SQL for the greatest id of a table and the number of its rows."""
    place = f"{identifier(schema)}.{identifier(table)}"
    return f"SELECT json_build_array({literal(table)}, max(id), count(*)) FROM {place};"


def live_query(schema: str, table: str, greatest: int | None, rows: int) -> str:
    """Return SQL for the number of rows that the restored table has to have.

    Of one that was restored empty there is no greatest id; rows are counted until there are too many.
    """
    place = f"{identifier(schema)}.{identifier(table)}"
    rest = f"WHERE id <= {int(greatest)}" if greatest is not None else f"LIMIT {int(rows) + 1}"
    return f"SELECT json_build_array({literal(table)}, (SELECT count(*) FROM (SELECT 1 FROM {place} {rest}) AS found));"


# ---- who is asked ----------------------------------------------------------------------------------------------------


class Scratch:
    """The restored instance, asked over its own socket."""

    def __init__(self, config: Mapping[str, Any], socket: Path) -> None:
        self.config, self.socket = config, socket

    def command(self, program: str, *words: str) -> list[str]:
        """Return a command of PostgreSQL's as its owner."""
        connection = ["--host", str(self.socket), "--port", str(self.config["port"])]
        return [*self.config["as_postgres"], str(Path(self.config["bin"], program)), *connection, *words]

    def sql(self, database: str, script: str) -> list[str]:
        """Run statements and return the lines they give."""
        words = ["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"]
        text = run(self.command("psql", *words, f"--dbname={database}"), script)
        return [line for line in text.splitlines() if line.strip()]

    def amcheck(self) -> None:
        """Check every table and index of every database."""
        words = ["--all", "--install-missing", *self.config["amcheck_options"]]
        run(self.command("pg_amcheck", *words))


class Live:
    """The site's database, asked as a user that may only read."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config

    def environment(self) -> dict[str, str]:
        """Return libpq's settings: any of the hosts, over TLS that is verified; the password is in a file."""
        live = self.config["live"]
        return {
            "PGHOST": ",".join(live["hosts"]),
            "PGPORT": str(live["port"]),
            "PGUSER": live["user"],
            "PGDATABASE": self.config["database"],
            "PGPASSFILE": live["passfile"],
            "PGSSLMODE": "verify-full",
            "PGSSLROOTCERT": live["ca"],
            "PGTARGETSESSIONATTRS": "any",
            "PGCONNECT_TIMEOUT": "10",
            "PGAPPNAME": "restore-drill",
            "PGOPTIONS": f"-c default_transaction_read_only=on -c statement_timeout={int(live['timeout'])}s",
        }

    def sql(self, script: str) -> list[str]:
        """Run statements and return the lines they give."""
        if not self.config["live"]["hosts"]:
            raise DrillError("no database host is named to compare with")
        words = ["--no-psqlrc", "--quiet", "--no-password", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"]
        try:
            text = run([str(Path(self.config["bin"], "psql")), *words], script, self.environment())
        except DrillError as error:
            raise DrillError(f"the live database: {error}") from error
        return [line for line in text.splitlines() if line.strip()]
