"""migration_run: what is added to Django's command, and what is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

# Django wants settings: those that the stand-in's tests have, because a process has one.
import tests.unit.standin.conftest  # noqa: F401
from tests.unit.app.paths import load_program

from .conftest import Site

run = load_program("roles/app/files/migration_run", "migration_run")


class DatabaseError(Exception):
    """One of a driver's, with PostgreSQL's code."""

    def __init__(self, **codes: str):
        super().__init__("no")
        for name, code in codes.items():
            setattr(self, name, code)


class Cursor:
    """Notes what is executed, and answers from a list."""

    def __init__(self, answers: list[list[tuple[Any, ...]]]):
        self.answers, self.said = answers, []  # type: ignore[var-annotated]

    def __enter__(self) -> Cursor:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def execute(self, query: str, values: Any = None) -> None:
        self.said.append((query, values))

    def fetchone(self) -> Any:
        rows = self.answers.pop(0)
        return rows[0] if rows else None

    def fetchall(self) -> Any:
        return self.answers.pop(0)


class Connection:
    pg_version = 150000

    def __init__(self, *answers: list[tuple[Any, ...]]):
        self.made = Cursor(list(answers))

    def cursor(self) -> Cursor:
        return self.made


def migration(atomic: bool = True) -> Any:
    from django.db.migrations import Migration

    made = Migration("0004_x", "zerver")
    made.atomic = atomic
    return made


def careful(blocking: list[str] | None = None, atomic: bool = True) -> Any:
    made = run.Careful("3s", run.Watch())
    made.before(migration(atomic), Connection([("", 4711)]))
    made.watch.blocking = blocking or []
    return made


def wrapped(error: Exception) -> Exception:
    """As Django hands on a driver's error."""
    try:
        raise RuntimeError("django's own") from error
    except RuntimeError as found:
        return found


@pytest.mark.parametrize(("atomic", "timeout"), [(True, "3s"), (False, "0")])
def test_only_what_can_be_taken_back_gives_up(atomic: bool, timeout: str) -> None:
    made, connection = run.Careful("3s", run.Watch()), Connection([("", 4711)])
    made.before(migration(atomic), connection)
    query, values = connection.made.said[-1]
    assert "lock_timeout" in query
    assert values == [timeout]
    assert (made.current, made.watch.backend) == ("zerver.0004_x", 4711)


@pytest.mark.parametrize("codes", [{"sqlstate": "55P03"}, {"pgcode": "55P03"}, {"sqlstate": "40P01"}])
def test_a_lock_that_was_missing_is_told_in_a_line_with_who_had_it(codes: dict[str, str]) -> None:
    line = careful(["pid 1", "pid 2", "pid 3", "pid 4"]).missing_lock(wrapped(DatabaseError(**codes)))
    assert line.startswith("zerver.0004_x did not get its locks within 3s")
    assert "pid 1, pid 2, pid 3 and 1 more" in line
    assert "\n" not in line


def test_whoever_has_ended_is_not_named() -> None:
    assert "sessions that have ended since" in careful().missing_lock(DatabaseError(sqlstate="55P03"))


@pytest.mark.parametrize(
    ("error", "atomic"), [(DatabaseError(sqlstate="42701"), True), (DatabaseError(sqlstate="55P03"), False)]
)
def test_other_errors_are_not_a_missing_lock(error: Exception, atomic: bool) -> None:
    assert careful(atomic=atomic).missing_lock(wrapped(error)) == ""


def test_a_session_is_described_without_what_it_asks() -> None:
    row = (4711, "zulip", "uwsgi", "192.0.2.1", "idle in transaction", 93)
    assert run.described(row) == "pid 4711 (user zulip, uwsgi, from 192.0.2.1, idle in transaction, 93 s)"
    assert run.described((7, None, "", None, None, None)) == "pid 7 (a process of the server's)"


def test_the_watch_looks_only_while_somebody_waits() -> None:
    watch, cursor = run.Watch(), Cursor([[], [(1,)], [(7, None, "", None, None, None)]])
    watch.look(cursor)
    assert cursor.said == []
    watch.backend = 4711
    watch.look(cursor)
    assert (watch.blocking, len(cursor.said)) == ([], 1)
    watch.look(cursor)
    assert watch.blocking == ["pid 7 (a process of the server's)"]


def test_an_index_that_is_there_before_it_is_built_is_dropped(capsys: pytest.CaptureFixture[str]) -> None:
    connection = Connection([("zulip.an_index", False)])
    careful().drop_left_index(connection, "an_index")
    assert connection.made.said[-1][0] == "DROP INDEX CONCURRENTLY IF EXISTS zulip.an_index"
    assert "INVALID" in capsys.readouterr().err


def test_what_is_added_is_taken_away_again() -> None:
    from django.db.migrations import Migration

    before = Migration.apply
    with careful().added():
        assert Migration.apply is not before
    assert Migration.apply is before


def test_the_command_is_the_release_s_own(site: Site) -> None:
    """The database of this test takes no locks that anybody waits for, so nothing is added."""
    done = site.migrate("expand", "--verbosity=1")
    assert done.returncode == 0
    assert "Applying zerver.0003_stream_created_in... OK" in done.stdout
    assert site.migrate("expand", "--check").returncode == 0
    assert site.migrate("breaks", "--check").returncode == 1


def test_a_failure_stays_one(make_site: Callable[[], Site]) -> None:
    site = make_site()
    done = site.migrate("", "--no-such-option")
    assert done.returncode == 2
    assert "no-such-option" in done.stderr.splitlines()[-1]
