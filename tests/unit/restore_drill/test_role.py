"""The playbook refuses before it contacts anybody, and the role's names are those that other programs use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.unit.app.paths import ROOT, load_program

ROLE = ROOT / "roles/restore_drill"
HOSTS = """\
all:
  hosts: {a1: {ansible_host: 192.0.2.1}}
  children: {app: {hosts: {a1: {}}}, backup: {hosts: {BACKUP}}}
"""


def play(tmp_path: Path, backup: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    inventory = tmp_path / "hosts.yml"
    inventory.write_text(HOSTS.replace("BACKUP", backup))
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "NO_COLOR": "1", "COLUMNS": "400"}
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    words = [program, "-i", str(inventory), "playbooks/restore_drill.yml", *arguments]
    return subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("backup", "arguments", "says"),
    [
        ("", [], "There is no restore drill"),
        ("a1: {}", ["-e", "restore_drill_enabled=false"], "There is no restore drill"),
        ("a1: {}", ["-e", "keep=maybe"], "keep=maybe is neither true nor false"),
    ],
)
def test_bad_input_is_refused_in_one_line(tmp_path: Path, backup: str, arguments: list[str], says: str) -> None:
    result = play(tmp_path, backup, *arguments)
    assert result.returncode != 0
    errors = [line for line in (result.stdout + result.stderr).splitlines() if line.startswith("[ERROR]")]
    assert [line for line in errors if says in line], errors
    assert "UNREACHABLE" not in result.stdout
    assert "Prechecks" not in result.stdout


def test_the_bounds_are_those_of_the_unit_that_the_scratch_instance_runs_in() -> None:
    load_program("roles/pgbackrest/files/postgresql_restore", "postgresql_restore")
    server = sys.modules["postgresql_restore_server"]
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
    name = yaml.safe_load((ROLE / "vars/main.yml").read_text())["__restore_drill_scratch_unit"]
    program = str(Path(sys.executable).with_name("ansible"))
    words = [program, "-i", "localhost,", "-c", "local", "localhost", "-m", "debug", "-a", f"msg='{name}'"]
    words += ["-e", json.dumps({"restore_drill_directory": defaults["restore_drill_directory"]})]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "NO_COLOR": "1"}
    said = subprocess.run(words, env=environment, capture_output=True, text=True, check=False).stdout
    assert server.unit_name(Path(defaults["restore_drill_directory"], "data")) in said


def test_the_programs_are_called_as_they_want_to_be() -> None:
    """The command lines are made here and read there."""
    restore = load_program("roles/pgbackrest/files/postgresql_restore", "postgresql_restore")
    backup = load_program("roles/pgbackrest/files/postgresql_backup", "postgresql_backup")
    load_program("roles/restore_drill/files/restore_drill", "restore_drill")
    programs = sys.modules["restore_drill_backups"].Programs(
        {
            "programs": {}, "directory": "/var/lib/zulip-ha/drill", "port": 5433, "address": "192.0.2.1",
            "allow": ["192.0.2.2/32", "2001:db8::1/128"], "memory_mb": 2048, "timeout": 60, "jobs": 2,
            "reserve_mb": 2048, "version": "15",
        }
    )  # fmt: skip
    asked: list[list[str]] = []
    programs.restore = lambda verb, *words: asked.append([verb, "--directory", "/var/lib/zulip-ha/drill/data", *words])
    programs.fetch({"repo": 1, "set": "F"})
    programs.recover({"repo": 1})
    programs.stop()
    programs.remove()
    parsed = [restore.parser().parse_args(words) for words in asked]
    assert [one.step for one in parsed] == ["fetch", "recover", "stop", "remove"]
    assert parsed[1].allow == ["192.0.2.2/32", "2001:db8::1/128"]
    assert parsed[1].keep_running
    programs.backup = lambda *words: backup.arguments().parse_args([*words, "--json"])
    chosen = programs.choose("77")
    assert (chosen.to, chosen.version, chosen.system_id) == ("latest", 15, "77")
