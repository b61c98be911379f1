"""The playbook refuses bad input before any host is contacted, and does its steps in the right order."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
HOSTS = """\
all:
  hosts: {a1: {ansible_host: 192.0.2.1}}
  children: {app: {hosts: {a1: {}}}}
"""


def play(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    inventory = tmp_path / "hosts.yml"
    inventory.write_text(HOSTS)
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "NO_COLOR": "1", "COLUMNS": "400"}
    command = [
        str(Path(sys.executable).with_name("ansible-playbook")),
        "-i",
        str(inventory),
        "playbooks/os_updates.yml",
    ]
    return subprocess.run(
        [*command, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-e", "os_updates_mode=everything"], "os_updates_mode cannot be everything"),
        (["-e", "os_updates_reboot=maybe"], "os_updates_reboot cannot be maybe"),
        (["-e", "os_updates_hosts=a1,a9"], "no such host in the inventory: a9"),
        (["--limit", "a1"], "-e os_updates_hosts=a1"),
    ],
)
def test_bad_input_is_refused_in_one_line(tmp_path, arguments, says):
    result = play(tmp_path, *arguments)
    assert result.returncode != 0
    errors = [line for line in (result.stdout + result.stderr).splitlines() if line.startswith("[ERROR]")]
    assert [line for line in errors if says in line], errors
    assert "UNREACHABLE" not in result.stdout
    assert "Prechecks" not in result.stdout


def tasks(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load((ROOT / f"playbooks/tasks/{name}.yml").read_text())
    return found


def test_the_holds_come_back_however_the_upgrade_ends():
    (block,) = tasks("update_packages")
    (again,) = block["always"]
    assert again["ansible.builtin.systemd_service"] == {"name": "zulip-ha-holds.service", "state": "started"}
    assert block["block"][0]["ansible.builtin.systemd_service"]["state"] == "stopped"


def test_a_host_carries_nothing_when_its_packages_are_upgraded():
    names = [task["name"] for task in tasks("update_host")]
    upgrade = next(place for place, name in enumerate(names) if "Upgrade its packages" in name)
    before = " ".join(names[:upgrade])
    for step in ("Move the database's leader", "Move the application", "Stop unless another host carries"):
        assert step in before
    assert "Wait until the site has the host back" in names[-1]


def test_one_host_at_a_time_and_none_after_a_failure():
    plays = yaml.safe_load((ROOT / "playbooks/os_updates.yml").read_text())
    (turns,) = [play for play in plays if "serial" in play]
    assert (turns["serial"], turns["any_errors_fatal"], turns["max_fail_percentage"]) == (1, True, 0)


def test_what_one_host_reads_of_the_others_can_be_read():
    """A variable that is read as `hostvars[...]` may not use `hostvars` itself: it is undefined there."""
    looked = yaml.safe_load((ROOT / "playbooks/tasks/update_look.yml").read_text())[0]["host_health"]
    read = "{{ groups['all'] | map('extract', hostvars) | map(attribute='site_units') | map('to_json') }}"
    assert "hostvars[item].site_units" in looked["units"]
    command = [str(Path(sys.executable).with_name("ansible")), "localhost", "-i", "inventories/production"]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "NO_COLOR": "1"}
    done = subprocess.run(
        [*command, "-m", "ansible.builtin.debug", "-a", f'msg="{read}"'],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
