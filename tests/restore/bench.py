"""How fast a restore is, next to a plain copy and to pg_basebackup, in one run on the lab.

Fills a database of its own with at least --gib of rows, makes a full backup, and then brings the same bytes onto the
same disk of a database host in turn, --rounds times:

  restore        `postgresql_restore fetch`, from the repository on the backup host
  plain copy     the files that the restore brings, from the backup host: tar over one connection of TLS (plain_copy.py)
  pg_basebackup  of the leader, over TLS

All end when the files are on the disk (fsync), and begin with cold caches where this machine lets them be dropped.
Exit 1: the restore is slower than --least of the plain copy. What was made is removed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.lab.support import ROOT, Lab

DATABASE = "zulip_ha_bench"
PROGRAMS = "/usr/local/lib/zulip-ha"
TARGET = "/var/lib/postgresql/bench"
# Not below what restic backs up.
SOURCE = "/var/tmp/zulip-ha-bench"
COPY = "/run/zulip-ha-plain-copy.py"
PORT = 8499
GIB = 1 << 30
# Rows a statement: WAL comes in pieces that the archive keeps up with.
ROWS = 150_000
# Hexadecimal words compress to about a half, as text does.
WORDS = " || ".join(f"md5((first + 20 * n + {number})::text)" for number in range(20))
FILL = f"""
with anew as materialized (select (random() * 1e12)::bigint as first)
insert into message (content) select {WORDS} from anew, generate_series(1, {ROWS}) as n
"""
BASEBACKUP = """
import os, sys, yaml
settings = yaml.safe_load(open("/etc/patroni/config.yml"))["postgresql"]["authentication"]["replication"]
os.environ |= {"PGPASSWORD": settings["password"], "PGSSLMODE": "verify-ca"}
os.environ["PGSSLROOTCERT"] = "/etc/zulip-ha/pki/ca.pem"
os.execvp("runuser", ["runuser", "-u", "postgres", "--", "pg_basebackup", "-h", sys.argv[1], "-U", settings["username"],
    "-D", sys.argv[2], "-X", "none", "-c", "fast"])
"""


class Stopped(Exception):
    """Why there are no figures, in one line."""


class Bench(Lab):
    """The lab, and what the bench makes in it."""

    def __init__(self, state: Path, gib: float) -> None:
        super().__init__(state)
        self.bytes_wanted = int(gib * GIB)
        self.backup_host = self.in_group("backup")[0]
        self.leader = next(node for node in self.in_group("database") if self.ask(node, "pg_is_in_recovery()") == "f")
        others = [node for node in self.in_group("database") if node != self.leader]
        self.target = others[0] if others else self.leader
        self.cold = True

    def at(self, node: str, script: str, check: bool = True) -> str:
        """Run a script on a node, however long it takes."""
        container = self.state["nodes"][node]["container"]
        done = subprocess.run(
            ["docker", "exec", container, "bash", "-euo", "pipefail", "-c", script],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if check and done.returncode:
            words = (done.stderr or done.stdout).strip().splitlines()
            raise Stopped(f"{node}: {words[-1] if words else f'status {done.returncode}'}")
        return done.stdout.strip()

    def psql(self, node: str, statement: str, database: str = "postgres") -> str:
        """Tell a node's database something, as the superuser."""
        return self.at(
            node, f"runuser -u postgres -- psql -X -qAt -v ON_ERROR_STOP=1 -d {database} <<'Q'\n{statement}\nQ"
        )

    def ask(self, node: str, expression: str) -> str:
        """Ask a node's database."""
        return self.psql(node, f"select {expression}")

    def fill(self) -> int:
        """Make the database, and wait for the archive between its pieces: the spool's limit would drop WAL."""
        self.psql(self.leader, f"drop database if exists {DATABASE} with (force)")
        self.psql(self.leader, f"create database {DATABASE}")
        self.psql(self.leader, "create table message (id bigserial primary key, content text)", DATABASE)
        ready = "count(*) from pg_ls_archive_statusdir() where name like '%.ready'"
        while (size := int(self.ask(self.leader, f"pg_database_size('{DATABASE}')"))) < self.bytes_wanted:
            say(f"filling: {size / GIB:.2f} of {self.bytes_wanted / GIB:.2f} GiB")
            self.psql(self.leader, FILL, DATABASE)
            while int(self.ask(self.leader, ready)) > 8:
                time.sleep(1)
        self.psql(self.leader, "checkpoint")
        return size

    def back_up(self) -> dict[str, str]:
        """Make a full backup, and return which one a restore would take."""
        self.at(self.backup_host, f"{PROGRAMS}/postgresql_backup run full")
        chosen = json.loads(self.at(self.backup_host, f"{PROGRAMS}/postgresql_backup choose --to latest --json"))
        return {"repo": str(chosen["repo"]), "set": str(chosen["set"])}

    def fetch(self, node: str, directory: str, backup: dict[str, str]) -> None:
        """Restore the files of a backup."""
        words = f"--directory {directory} --repo {backup['repo']} --set {backup['set']}"
        place = f"install -d -o postgres -g postgres -m 0700 $(dirname {directory})"
        self.at(node, f"{place}\n{PROGRAMS}/postgresql_restore fetch {words}")

    def remove(self, node: str, directory: str) -> None:
        """Remove what a round made. The program refuses what it did not bring itself."""
        words = f"{PROGRAMS}/postgresql_restore remove --directory {directory} || true\nrm -rf $(dirname {directory})"
        self.at(node, words, check=False)

    def copy(self) -> None:
        """Copy the staged files."""
        container = self.state["nodes"][self.backup_host]["container"]
        sender = subprocess.Popen(
            ["docker", "exec", container, "python3", COPY, "send", f"{SOURCE}/data", str(PORT)],
            stdin=subprocess.DEVNULL,
        )
        received = f"python3 {COPY} receive {self.backup_host} {PORT} {TARGET}/data"
        try:
            self.at(self.target, f"install -d {TARGET}/data\n{received}")
            if sender.wait(60):
                raise Stopped("the plain copy's sender failed")
        finally:
            # Killing `docker exec` would leave the program on the node.
            self.at(self.backup_host, f"pkill -f '^python3 {COPY} send ' || true")
            sender.wait(60)

    def basebackup(self) -> None:
        """Copy the leader as a new replica does."""
        place = f"install -d -o postgres -g postgres -m 0700 {TARGET}"
        self.at(self.target, f"{place}\npython3 - {self.leader} {TARGET}/data <<'P'\n{BASEBACKUP}\nP")

    def prepare_copy(self, backup: dict[str, str]) -> int:
        """Put the restored files beside the repository, and open a port for the plain copy. Returns their bytes."""
        program = (Path(__file__).with_name("plain_copy.py")).read_text()
        for node in {self.backup_host, self.target}:
            self.at(node, f"cat >{COPY} <<'P'\n{program}\nP")
        self.remove(self.backup_host, f"{SOURCE}/data")
        self.fetch(self.backup_host, f"{SOURCE}/data", backup)
        address = self.state["nodes"][self.target]["address"]
        family = "ip6" if ":" in address else "ip"
        self.at(
            self.backup_host, f"nft insert rule inet zulip_ha input {family} saddr {address} tcp dport {PORT} accept"
        )
        return int(self.at(self.backup_host, f"du -sb {SOURCE}/data").split()[0])

    def clean(self, backup: dict[str, str] | None) -> None:
        """Remove everything that the bench made, also after a failure."""
        with contextlib.suppress(Stopped):
            self.psql(self.leader, f"drop database if exists {DATABASE} with (force)")
        self.remove(self.target, f"{TARGET}/data")
        self.remove(self.backup_host, f"{SOURCE}/data")
        for node in {self.backup_host, self.target}:
            self.at(node, f"rm -f {COPY}", check=False)
        self.at(self.backup_host, "nft -f /etc/nftables.d/zulip-ha.nft", check=False)
        if backup:
            say("a full backup without the bench's rows, in the place of the one with them")
            self.at(self.backup_host, f"{PROGRAMS}/postgresql_backup run full", check=False)
            expire = f"pgbackrest --repo={backup['repo']} --set={backup['set']} expire"
            stanza = r"sed -nE 's/^\[([^]:]+)\]$/\1/p' /etc/pgbackrest/pgbackrest.conf | grep -vx global | head -n 1"
            self.at(self.backup_host, f"runuser -u postgres -- {expire} --stanza=$({stanza})", check=False)

    def drop_caches(self) -> None:
        """Forget what was read, so that every round reads from the disk; not every machine lets us."""
        subprocess.run(["sync"], check=False)
        try:
            Path("/proc/sys/vm/drop_caches").write_text("3\n")
        except OSError:
            self.cold = False


def say(text: str) -> None:
    """Show progress."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def measure(bench: Bench, backup: dict[str, str], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each way, in turn, so that a machine that is slow for a while is slow for all of them."""
    ways: dict[str, Callable[[], None]] = {
        "restore": lambda: bench.fetch(bench.target, f"{TARGET}/data", backup),
        "plain copy": bench.copy,
        "pg_basebackup": bench.basebackup,
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        order = list(ways)
        for name in order[number % 3 :] + order[: number % 3]:
            bench.remove(bench.target, f"{TARGET}/data")
            bench.drop_caches()
            began = time.monotonic()
            ways[name]()
            seconds[name].append(time.monotonic() - began)
            say(f"round {number + 1}, {name}: {seconds[name][-1]:.1f} s")
    return seconds


def table(seconds: dict[str, list[float]], size: int) -> list[str]:
    """Return the lines of the table."""
    middle = {name: statistics.median(found) for name, found in seconds.items()}
    rows = [
        "| what | seconds of each round | median | MB/s | speed, plain copy = 1 |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, found in seconds.items():
        each = ", ".join(f"{one:.1f}" for one in found)
        ratio = middle["plain copy"] / middle[name]
        rows.append(f"| {name} | {each} | {middle[name]:.1f} s | {size / middle[name] / 1e6:.0f} | {ratio:.2f} |")
    return rows


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="tests/bench-restore", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--state", type=Path, default=ROOT / "lab/state.json", help="the lab's state file")
    parser.add_argument("--gib", type=float, default=2.1, help="size of the database to fill")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--least", type=float, default=0.8, help="the share of a plain copy's speed that is enough")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Fill, back up, measure, clean."""
    options = parse(arguments)
    free = shutil.disk_usage("/").free
    if free < 7 * options.gib * GIB:
        print(f"bench: {free / GIB:.0f} GiB are free here, and {7 * options.gib:.0f} are needed", file=sys.stderr)
        return 2
    backup: dict[str, str] | None = None
    bench = Bench(options.state, options.gib)
    try:
        rows = bench.fill()
        say("full backup")
        backup = bench.back_up()
        size = bench.prepare_copy(backup)
        seconds = measure(bench, backup, options.rounds)
    except Stopped as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    finally:
        bench.clean(backup)
    ratio = statistics.median(seconds["plain copy"]) / statistics.median(seconds["restore"])
    good = ratio >= options.least
    lines = [
        f"{size / GIB:.2f} GiB in files, {rows / GIB:.2f} GiB of them the bench's database. From {bench.backup_host} "
        f"to {bench.target}, pg_basebackup from {bench.leader}. "
        f"Caches were {'' if bench.cold else 'not '}dropped before each round.",
        "",
        *table(seconds, size),
        "",
        f"The restore has {ratio:.2f} of a plain copy's speed, {options.least:g} are wanted: {'yes' if good else 'NO'}",
    ]
    text = "\n".join(lines) + "\n"
    out = ROOT / ".cache/bench-restore.md"
    out.parent.mkdir(exist_ok=True)
    out.write_text(text)
    print(text)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
