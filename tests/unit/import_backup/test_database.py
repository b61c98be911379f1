"""The program on the leader, against a PostgreSQL of its own where this machine has one."""

from __future__ import annotations

import argparse
import json
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.import_backup.conftest import program

database = program("import_database")
BIN = max(Path("/usr/lib/postgresql").glob("*/bin"), default=Path("/nonexistent"))
needs_postgresql = pytest.mark.skipif(not (BIN / "initdb").exists(), reason="this machine has no PostgreSQL")
SHA = "ab" * 32


@pytest.mark.parametrize(
    ("text", "left_out"),
    [
        ("EXTENSION - pgroonga ", True),
        ("COMMENT - EXTENSION plpgsql ", True),
        ("ACL zulip TABLE zerver_message zulip", True),
        ("SCHEMA - public postgres", True),
        ("SCHEMA - zulip zulip", False),
        ("TABLE zulip zerver_message zulip", False),
        ("TEXT SEARCH DICTIONARY zulip english_us_hunspell zulip", False),
    ],
)
def test_what_is_not_restored(text, left_out):
    assert bool(database.SUPERUSERS.match(text)) is left_out


class Cluster:
    """A PostgreSQL for a moment, and a folder with a dump of its database."""

    def __init__(self, base: Path) -> None:
        self.base, self.user = base, "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name

    def run(self, *words: str, text: str = "") -> str:
        become = ["runuser", "-u", self.user, "--"] if os.geteuid() == 0 else []
        environment = {**os.environ, "PGHOST": str(self.base), "PGPORT": "5499", "PGUSER": self.user}
        done = subprocess.run(
            [*become, *words], input=text, env=environment, cwd="/", capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def sql(self, query: str, name: str = "postgres") -> str:
        return self.run("psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-d", name, text=query)

    def program(self, action: str, sha256: str = SHA) -> tuple[int, dict]:
        given = [action, f"--bin={BIN}", f"--folder={self.base}/work", f"--sha256={sha256}", f"--user={self.user}"]
        given += [f"--socket={self.base}", "--port=5499"]
        return database.main(given)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    # Short, as the path of a socket has to be.
    base = Path(tempfile.mkdtemp(prefix="import-", dir="/tmp"))
    one = Cluster(base)
    if os.geteuid() == 0:
        shutil.chown(base, one.user)
    one.run(f"{BIN}/initdb", "-D", f"{base}/data", "-A", "trust", "-U", one.user, "--locale=C.UTF-8", "-E", "UTF8")
    options = f"-p 5499 -c fsync=off -c listen_addresses= -c unix_socket_directories={base}"
    one.run(f"{BIN}/pg_ctl", "-D", f"{base}/data", "-o", options, "-l", f"{base}/log", "-w", "start")
    try:
        one.sql("CREATE ROLE zulip LOGIN; CREATE ROLE nagios")
        one.sql("CREATE DATABASE old")
        one.sql(
            "CREATE SCHEMA zulip; CREATE TABLE zulip.zerver_message (id int, content text);"
            "INSERT INTO zulip.zerver_message SELECT g, 'old ' || g FROM generate_series(1, 5) g;"
            "GRANT SELECT ON zulip.zerver_message TO nagios; CREATE EXTENSION IF NOT EXISTS plpgsql",
            "old",
        )
        one.run("mkdir", "-m", "700", f"{base}/work")
        one.run(f"{BIN}/pg_dump", "-Fd", f"--file={base}/work/database", "old")
        one.sql("DROP DATABASE old")
        one.sql("DROP ROLE nagios")
        yield one
    finally:
        one.run(f"{BIN}/pg_ctl", "-D", f"{base}/data", "-m", "immediate", "stop")
        shutil.rmtree(base)


@pytest.fixture
def site(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster, with a database that serves."""
    cluster.sql("CREATE DATABASE zulip OWNER zulip")
    cluster.sql(
        "CREATE SCHEMA zulip AUTHORIZATION zulip; CREATE TABLE zulip.zerver_message (id int, content text)", "zulip"
    )
    rows(cluster, 5)
    yield cluster
    for name in cluster.sql("SELECT datname FROM pg_database WHERE datname LIKE 'zulip%'").splitlines():
        cluster.sql(f'DROP DATABASE "{name}" WITH (FORCE)')


def rows(cluster: Cluster, count: int) -> None:
    listed = cluster.run(f"{BIN}/pg_restore", "--list", f"{cluster.base}/work/database")
    number = next(line.split(";")[0] for line in listed.splitlines() if "TABLE DATA" in line)
    (cluster.base / "work/rows.json").write_text(json.dumps({number: count}))


def say(capsys) -> dict:
    return json.loads(capsys.readouterr().out)


def messages(cluster: Cluster, name: str = "zulip") -> int:
    return int(cluster.sql("SELECT count(*) FROM zulip.zerver_message", name))


@needs_postgresql
def test_the_way_there_and_back(site, capsys):
    assert site.program("check") == 0
    assert list(say(capsys)["tables"].values()) == ["zulip.zerver_message"]
    assert site.program("restore") == 0
    assert say(capsys) == {"state": "restored", "rows": 5}
    # Nothing was taken from those who work.
    assert messages(site) == 0
    owner = "SELECT tableowner FROM pg_tables WHERE schemaname = 'zulip'"
    assert site.sql(owner, "zulip_import") == "zulip"

    for _ in range(2):
        assert site.program("swap") == 0
        answer = say(capsys)
        assert answer["state"] == "swapped"
        assert len(answer["kept"]) == 1
    assert (messages(site), messages(site, answer["kept"][0])) == (5, 0)
    assert site.sql("SELECT bool_and(datallowconn) FROM pg_database WHERE datname LIKE 'zulip%'") == "t"
    assert site.program("done") == 0
    assert say(capsys) == {"state": "done"}

    assert site.program("back") == 0
    assert messages(site) == 0
    capsys.readouterr()
    assert site.program("forget") == 0
    assert len(say(capsys)["forgotten"]) == 1
    assert site.sql("SELECT datname FROM pg_database WHERE datname LIKE 'zulip%'") == "zulip"
    assert site.program("back") == 1
    assert "nothing to go back to" in capsys.readouterr().err


@needs_postgresql
def test_a_wrong_count_keeps_the_names(site, capsys):
    rows(site, 6)
    assert site.program("restore") == 1
    assert capsys.readouterr().err == "zulip.zerver_message has 5 rows and the dump has 6\n"
    assert site.program("swap") == 1
    assert "is not restored from this archive" in capsys.readouterr().err
    # The next run makes it anew.
    rows(site, 5)
    assert site.program("restore") == 0


@needs_postgresql
def test_another_archive_does_not_take_the_place_of_this_one(site, capsys):
    assert site.program("restore") == 0
    assert site.program("swap", "cd" * 32) == 1


@needs_postgresql
def test_a_swap_that_was_killed_halfway_is_finished(site, capsys):
    assert site.program("restore") == 0
    site.sql("ALTER DATABASE zulip ALLOW_CONNECTIONS false")
    assert site.program("swap") == 0
    assert messages(site) == 5


@needs_postgresql
def test_a_swap_that_fails_lets_users_in_again(site, capsys, monkeypatch):
    assert site.program("restore") == 0
    given = argparse.Namespace(database="zulip", owner="zulip", sha256=SHA, folder=site.base / "work", bin=BIN,
                               port=5499, socket=str(site.base), user=site.user)  # fmt: skip
    with pytest.raises(database.Failed, match="does not exist"):
        database.Import(given).exchange("zulip_nowhere", "zulip_before_20260101000000", "")
    assert messages(site) == 0


@needs_postgresql
def test_somebody_who_is_there_is_sent_away(site, capsys):
    assert site.program("restore") == 0
    words = ["psql", "-Xqc", "SELECT pg_sleep(60)", "-h", str(site.base), "-p", "5499", "-U", site.user, "zulip"]
    sleeper = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert site.program("swap") == 0
        assert sleeper.wait(10) != 0
    finally:
        sleeper.kill()
    assert messages(site) == 5


@needs_postgresql
def test_a_dump_that_is_none_is_told_in_one_line(site, capsys, tmp_path):
    toc = site.base / "work/database/toc.dat"
    before = toc.read_bytes()
    try:
        toc.write_bytes(b"nothing")
        assert site.program("check") == 1
        assert capsys.readouterr().err.count("\n") == 1
    finally:
        toc.write_bytes(before)
