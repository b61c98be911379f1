"""The playbooks of the verbs refuse what cannot work before any host is contacted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
HOSTS = """\
all:
  hosts: {a1: {ansible_host: 192.0.2.1}}
  children: {app: {hosts: {a1: {}}}}
"""


def play(tmp_path, *arguments):
    inventory = tmp_path / "hosts.yml"
    inventory.write_text(HOSTS)
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "NO_COLOR": "1", "COLUMNS": "400"}
    environment.pop("COMMAND", None)
    program = Path(sys.executable).with_name("ansible-playbook")
    return subprocess.run(
        [program, "-i", inventory, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["playbooks/manage.yml"], "say what to run"),
        (["playbooks/organization.yml", "-e", "organization_name=Lab"], "organization_owner_email is empty"),
        (["playbooks/uploads_to_s3.yml"], "uploads_s3_bucket is empty"),
        (["playbooks/import_backup.yml"], "say which archive"),
        (["playbooks/import_backup.yml", "-e", "archive=setup.cfg"], "there is no file setup.cfg"),
        (["playbooks/import_backup.yml", "-e", "archive=VERSION", "-e", "site_name=chat"], "-e confirm=chat"),
        (["playbooks/import_backup.yml", "-e", "action=forget_old", "--limit", "a1"], "leave --limit away"),
        (["playbooks/uploads_to_s3.yml", "--limit", "a1", "-e", "final=true"], "run site.yml"),
    ],
)
def test_bad_input_is_refused_in_one_line(tmp_path, arguments, says):
    result = play(tmp_path, *arguments)
    assert result.returncode != 0
    errors = [line for line in (result.stdout + result.stderr).splitlines() if line.startswith("[ERROR]")]
    assert [line for line in errors if says in line], errors
    assert "UNREACHABLE" not in result.stdout
    assert "Prechecks" not in result.stdout
