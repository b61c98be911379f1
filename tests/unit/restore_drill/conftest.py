"""A site for drills, made of programs that answer what a test wants them to."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from tests.unit.app.paths import load_program

drill = load_program("roles/restore_drill/files/restore_drill", "restore_drill")
words = sys.modules["restore_drill_words"]
command = sys.modules["restore_drill_command"]
judgement = sys.modules["restore_drill_judgement"]
database = sys.modules["restore_drill_database"]
peers = sys.modules["restore_drill_peers"]
steps = sys.modules["restore_drill_steps"]
state = sys.modules["restore_drill_state"]
report = sys.modules["restore_drill_report"]

PROGRAM = f"""\
#!{sys.executable} -IB
import json, pathlib, sys
folder = pathlib.Path(__file__).parent
name = pathlib.Path(__file__).name
words = sys.argv[1:]
stdin = "" if sys.stdin.isatty() else sys.stdin.read()
with (folder / "calls").open("a") as stream:
    stream.write(json.dumps([name, *words, stdin]) + "\\n")
world = json.loads((folder / "world.json").read_text())
"""
BACKUP = """
if world.get("choose_error"):
    print("<3>" + world["choose_error"], file=sys.stderr)
    sys.exit(1)
assert words[:3] == ["choose", "--to", "latest"], words
print(json.dumps(world["chosen"]))
"""
RESTORE = """
verb, directory = words[0], pathlib.Path(words[2])
if world.get(verb + "_error"):
    print(world[verb + "_error"], file=sys.stderr)
    sys.exit(1)
if verb == "fetch":
    directory.mkdir(parents=True)
    print("{}")
elif verb == "recover":
    print(json.dumps(world["recovered"]))
elif verb == "remove":
    if directory.exists():
        directory.rmdir()
    print("{}")
"""
PSQL = """
live = not any(word.startswith("--host") for word in words)
if live and world.get("live_error"):
    print("psql: error: " + world["live_error"], file=sys.stderr)
    sys.exit(2)
tables = world["live" if live else "restored"]
for statement in stdin.split(";"):
    if "pg_control_system" in statement:
        print(json.dumps({"system_id": "77"}))
    elif "pg_index" in statement:
        print(json.dumps(sorted(tables)))
    elif "json_build_array('" in statement:
        table = statement.split("'")[1]
        if live:
            print(json.dumps([table, tables[table]]))
        else:
            print(json.dumps([table, *tables[table]]))
    elif "wal_segment_size" in statement:
        print(16 << 20)
    elif "canary" in statement:
        print(world["canary"])
    elif "pg_stat_database" in statement:
        counter = folder / "sessions"
        number = int(counter.read_text()) if counter.exists() else 0
        counter.write_text(str(number + world["sessions"]))
        print(number)
    elif "to_regclass" in statement:
        print("t")
    elif "sha256(" in statement:
        print(world["content"])
    elif "count(*)" in statement:
        print(world["messages"])
    elif "path_id" in statement:
        print("\\n".join(json.dumps([path]) for path in world["attachments"]))
"""
AMCHECK = """
if world.get("amcheck_error"):
    print(world["amcheck_error"])
    sys.exit(2)
"""
SSH = """
host, request = words[-2:]
verb, which = request.split()
if which == "spare" and host == world["active"]:
    print("this host is active", file=sys.stderr)
    sys.exit(1)
if world.get("ssh_error"):
    print(world["ssh_error"], file=sys.stderr)
    sys.exit(255)
if verb == "read-message":
    print(json.dumps(world["message"]))
else:
    print(json.dumps({name: world["uploads"].get(name) for name in json.loads(stdin)}))
"""
RESTIC = """
import json, pathlib, re
FOLDER = pathlib.Path(__file__).parent
class ResticError(Exception): pass
class Done:
    def __init__(self, status, said=""): self.status, self.said = status, said
def load_config(path): return {}
def reason(done, repository): return done.said
class Restic:
    repository = "rest:https://backup/"
    def __init__(self, config): self.world = json.loads((FOLDER / "world.json").read_text())
    def connect(self):
        if self.world.get("restic_error"): raise ResticError(self.world["restic_error"])
    def snapshots(self, tag):
        assert tag == "uploads"
        return self.world["snapshots"]
    def run(self, words, heard=None):
        if words[0] == "ls":
            heard(json.dumps({"struct_type": "snapshot", "paths": ["/home/zulip/uploads"]}))
            for name, text in self.world["files"].items():
                heard(json.dumps({"type": "file", "path": "/" + name, "size": len(text), "struct_type": "node"}))
            return Done(0)
        if self.world.get("restore_error"):
            return Done(1, self.world["restore_error"])
        names = [word for flag, word in zip(words, words[1:]) if flag == "--include"]
        target = pathlib.Path(words[words.index("--target") + 1])
        for name in names:
            name = re.sub(r"\\\\(.)", r"\\1", name).lstrip("/")
            path = target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self.world["files"][name])
        return Done(0)
"""


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class World:
    """What the programs know; change it, and drill."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now, self.drills = time.time(), 0
        bin_folder = folder / "bin"
        bin_folder.mkdir()
        programs = {"backup": BACKUP, "restore": RESTORE, "psql": PSQL, "pg_amcheck": AMCHECK, "ssh": SSH}
        for name, text in programs.items():
            path = bin_folder / name
            path.write_text(PROGRAM + textwrap.dedent(text))
            path.chmod(path.stat().st_mode | stat.S_IXUSR)
        (bin_folder / "restic_client.py").write_text(RESTIC)
        (folder / "scratch").mkdir()
        (folder / "textfiles").mkdir()
        self.bin = bin_folder
        self.config: dict[str, Any] = {
            "directory": str(folder / "scratch"),
            "address": "192.0.2.31",
            "port": 5433,
            "allow": ["192.0.2.11/32", "2001:db8::12/128"],
            "version": "15",
            "bin": str(bin_folder),
            "as_postgres": [],
            "programs": {"backup": str(bin_folder / "backup"), "restore": str(bin_folder / "restore")},
            "timeout": 600,
            "memory_mb": 2048,
            "jobs": 2,
            "reserve_mb": 1,
            "backup_max_age": 30,
            "max_age": 900,
            "canary_age": 120,
            "amcheck_options": [],
            "database": "zulip",
            "schema": "zulip",
            "live": {
                "hosts": ["192.0.2.21", "192.0.2.22"],
                "port": 5432,
                "user": "monitor",
                "passfile": "/nonexistent",
                "ca": "/nonexistent/ca.pem",
                "timeout": 60,
            },
            "counts": {"percent": 1, "rows": 100, "volatile": ["fts_update_log"]},
            "app_hosts": [{"name": "app1", "address": "192.0.2.11"}, {"name": "app2", "address": "192.0.2.12"}],
            "ssh": [str(bin_folder / "ssh"), "-F", "/nonexistent"],
            "uploads": {
                "backend": "local",
                "directory": "/home/zulip/uploads",
                "client": str(bin_folder / "restic_client.py"),
                "settings": "/nonexistent/restic.json",
                "sample": 20,
                "max_age": 6,
            },
            "state": str(folder / "state/drill.json"),
            "lock": str(folder / "state/drill.lock"),
            "keep_mark": str(folder / "state/drill.keep"),
            "textfile_directory": str(folder / "textfiles"),
        }
        files = {f"files/2/ab/{number}.txt": f"content {number}" for number in range(30)}
        self.data: dict[str, Any] = {
            "active": "192.0.2.11",
            "chosen": {
                "repo": 1,
                "set": "20260101-000000F",
                "stop": words.iso(self.now - 7200),
                "database_bytes": 30_000_000,
                "repo_bytes": 5_000_000,
                "reaches": words.iso(self.now - 60),
                "newest_wal": "000000010000000000000007",
            },
            "recovered": {
                "timeline": 2,
                "last_lsn": "0/7000128",
                "last_time": words.iso(self.now - 60),
                "newest_segment": "000000010000000000000007",
                "target_reached": True,
                "bytes": 1 << 25,
            },
            "canary": self.now - 80,
            "sessions": 1,
            "live": {"zerver_message": 1000, "zerver_realm": 1, "fts_update_log": 5000},
            "restored": {"zerver_message": [1200, 1003], "zerver_realm": [1, 1], "fts_update_log": [9, 9]},
            "messages": 1003,
            "message": {"messages": 1003, "id": 1200, "sha256": "ab" * 32},
            "content": "ab" * 32,
            "snapshots": [
                {"id": "aaaa" * 16, "time": words.iso(self.now - 9000)},
                {"id": "bbbb" * 16, "time": words.iso(self.now - 1800)},
            ],
            "files": files,
            "attachments": ["2/ab/1.txt", "2/ab/29.txt"],
            "uploads": {
                name: {"sha256": digest(text), "size": len(text), "modified": self.now - 86400}
                for name, text in files.items()
            },
        }

    def drill(self, keep: bool = False) -> dict[str, Any]:
        """Do a drill and return what is remembered of it."""
        (self.bin / "world.json").write_text(json.dumps(self.data))
        # No two begin in the same second.
        self.drills += 1
        entry: dict[str, Any] = drill.drill(self.config, keep, lambda: time.time() + self.drills)
        return entry

    def calls(self, program: str) -> list[list[str]]:
        """Return how a program was called."""
        lines = (self.bin / "calls").read_text().splitlines()
        return [call[1:] for call in map(json.loads, lines) if call[0] == program]

    @property
    def state(self) -> dict[str, Any]:
        """Return the state file."""
        found: dict[str, Any] = json.loads(Path(self.config["state"]).read_text())
        return found


class Here:
    """Stands for the module subprocess: runs the programs of a world in this process, which is far faster."""

    @staticmethod
    def run(command: list[str], **more: Any) -> subprocess.CompletedProcess[str]:
        path = Path(command[0])
        code = path.read_text().replace("sys.argv[1:]", "WORDS").replace("sys.stdin.isatty()", "False")
        out, errors = io.StringIO(), io.StringIO()
        names = {"__file__": str(path), "__name__": "__main__", "WORDS": command[1:]}
        status = 0
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors), pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdin", io.StringIO(more["input"]))
            try:
                exec(compile(code, str(path), "exec"), names)
            except SystemExit as error:
                status = int(str(error.code or 0))
        return subprocess.CompletedProcess(command, status, out.getvalue(), errors.getvalue())


@pytest.fixture
def site(tmp_path: Path) -> World:
    """A site on which all is well, whose programs are started as programs."""
    return World(tmp_path)


@pytest.fixture
def world(site: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A site on which all is well."""
    monkeypatch.setattr(time, "sleep", lambda _: None)
    monkeypatch.setattr(command, "subprocess", Here)
    return site


def outcome(entry: dict[str, Any]) -> dict[str, Any]:
    """Return by step whether it went well; nothing for one that was left out."""
    return {step["name"]: None if step["skipped"] else step["ok"] for step in entry["steps"]}


def red(entry: dict[str, Any], step: str) -> str:
    """See that a drill failed at one step; return the words."""
    assert not entry["ok"]
    assert entry["error"].startswith(f"{step}: "), entry["error"]
    assert "\n" not in entry["error"]
    return str(entry["error"])
