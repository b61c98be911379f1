"""The verb refuses what cannot work before any host is contacted, and its plays keep their order."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
HOSTS = """\
all:
  hosts: {a1: {ansible_host: 192.0.2.1}}
  children: {app: {hosts: {a1: {}}}, database: {hosts: {a1: {}}}, backup: {hosts: {a1: {}}}}
  vars: {site_name: chat}
"""


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "say what to restore"),
        (["-e", "what=database", "-e", "to=yesterday"], "not yesterday"),
        (["-e", "what=database", "-e", "confirm=other"], "-e confirm=chat"),
        (["-e", "what=site", "--limit", "a1"], "--limit"),
        (["-e", "action=back"], "-e confirm=chat"),
    ],
)
def test_bad_input_is_refused_in_one_line(tmp_path: Path, arguments: list[str], says: str) -> None:
    inventory = tmp_path / "hosts.yml"
    inventory.write_text(HOSTS)
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "NO_COLOR": "1", "COLUMNS": "400"}
    program = Path(sys.executable).with_name("ansible-playbook")
    done = subprocess.run(
        [program, "-i", inventory, "playbooks/restore.yml", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    errors = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("[ERROR]")]
    assert [line for line in errors if says in line and "Nothing was changed" in line], errors
    assert "UNREACHABLE" not in done.stdout
    assert "Prechecks" not in done.stdout


def plays(name: str) -> list[str]:
    found = yaml.safe_load((ROOT / "playbooks/restore" / name).read_text())
    return [Path(play["ansible.builtin.import_playbook"]).name for play in found]


def test_a_site_has_its_data_before_patroni_starts_and_its_uploads_before_users_come() -> None:
    order = plays("site.yml")
    assert order.index("empty.yml") == 0
    assert order.index("data.yml") < order.index("database.yml")
    assert order.index("check.yml") < order.index("data.yml") < order.index("application.yml")
    assert order.index("site_files.yml") < order.index("edge.yml") < order.index("replicas.yml")
    assert order[-1] == "finish.yml"


def test_users_are_away_while_the_data_change() -> None:
    order = plays("database.yml")
    assert order == ["check.yml", "users.yml", "data.yml", "application.yml", "users.yml", "replicas.yml", "finish.yml"]


@pytest.mark.parametrize("name", ["site.yml", "database.yml", "old.yml"])
def test_a_check_ends_with_the_plan(name: str) -> None:
    found = yaml.safe_load((ROOT / "playbooks/restore" / name).read_text())
    first = 1
    assert all("not ansible_check_mode" in str(play.get("when", "")) for play in found[first:])
