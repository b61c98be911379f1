"""The role's tasks around migrations, run by the real ansible-playbook on this machine, with a release of scripts."""

from __future__ import annotations

import getpass
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.app.paths import ROOT

from .conftest import SETTINGS

PYTHON = ["{python}", "{deployment}/manage.py"]
CONTRACT: dict[str, Any] = {
    "name": "app",
    "user": getpass.getuser(),
    "group": "root",
    "venv_link": ".venv",
    "commands": {
        "python": ["{python}", "{arguments}"],
        "migrate_pending": [*PYTHON, "pending"],
        "migrate": [*PYTHON, "migrate", "--no-input"],
        "migrated": [*PYTHON, "migrated"],
    },
}
# Reads from a file beside it how it ends, one line a call, and notes what it was asked to do.
MANAGE = """
import pathlib, sys
here = pathlib.Path(__file__).parent
with open(here / "calls", "a") as stream:
    print(*sys.argv[1:], file=stream)
if sys.argv[1] == "pending":
    sys.exit(int((here / "pending").read_text()))
if sys.argv[1] == "migrate":
    status, line, *rest = (here / "ends").read_text().splitlines()
    (here / "ends").write_text("\\n".join(rest))
    print("before", file=sys.stderr)
    print(line, file=sys.stderr)
    sys.exit(int(status))
"""


class Release:
    """A release of scripts, and the role that is told of it."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.deployment = directory / "deployment"

    def make(self, pending: int, *ends: str) -> None:
        """Write the release: how it ends when it migrates, status and line by turns."""
        self.deployment.mkdir()
        (self.deployment / ".venv").symlink_to(sys.prefix)
        (self.deployment / "manage.py").write_text(MANAGE)
        (self.deployment / "pending").write_text(str(pending))
        (self.deployment / "ends").write_text("\n".join(ends))
        (self.deployment / "settings_of_test.py").write_text(SETTINGS.format(name=str(self.directory / "database")))

    def run(self, tasks: str, *words: str, look: str = "", **variables: Any) -> subprocess.CompletedProcess[str]:
        """Run a file of tasks, and write what an expression is then."""
        values = {"app_contract": CONTRACT, "app_deployment": str(self.deployment), "app_database_name": "none"}
        values |= {"app_migration_lock_timeout": "3s", "app_migration_attempts": 3, "app_migration_pause": 0}
        values |= {"app_migration_describe": [], "app_migrations_rolling": [], **variables}
        content = "{{ (" + (look or "{}") + ") | to_json }}"
        copy = {"content": content, "dest": str(self.directory / "seen.json"), "mode": "0600"}
        play = {
            "name": "Test",
            "hosts": "all",
            "gather_facts": False,
            "tasks": [
                {"name": "Test | Role", "ansible.builtin.include_role": {"name": "app", "tasks_from": tasks}},
                {"name": "Test | Look", "ansible.builtin.copy": copy, "check_mode": False, "run_once": True},
            ],
        }
        (self.directory / "playbook.yml").write_text(yaml.safe_dump([play]))
        (self.directory / "values.json").write_text(json.dumps(values))
        program = Path(sys.executable).with_name("ansible-playbook")
        environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "NO_COLOR": "1"}
        # What the release's Python finds besides its own.
        environment |= {"PYTHONPATH": str(self.deployment), "DJANGO_SETTINGS_MODULE": "settings_of_test"}
        return subprocess.run(
            [
                *(program, "-i", "a1,a2,", "-c", "local", "-e", f"@{self.directory}/values.json", *words),
                self.directory / "playbook.yml",
            ],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
        )

    def calls(self) -> list[str]:
        """Return what the release was asked to do."""
        path = self.deployment / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def seen(self) -> Any:
        """Return what the expression was."""
        return json.loads((self.directory / "seen.json").read_text())


@pytest.fixture
def release(tmp_path: Path) -> Release:
    """A release that is still to be made."""
    return Release(tmp_path)


def test_nothing_that_is_pending_is_nothing_to_do(release: Release) -> None:
    release.make(0)
    done = release.run("migrations.yml")
    assert done.returncode == 0, done.stdout
    assert release.calls() == ["pending"]
    assert "changed=0" in done.stdout


def test_a_missing_lock_is_tried_again_on_one_host(release: Release) -> None:
    release.make(1, "75", "in the way: pid 1", "0", "done")
    done = release.run("migrations.yml")
    assert done.returncode == 0, done.stdout
    assert release.calls() == ["pending", "migrate --no-input", "migrate --no-input", "migrated"]


@pytest.mark.parametrize("attempts", [1, 3])
def test_it_gives_up_with_the_line_that_says_who_is_in_the_way(release: Release, attempts: int) -> None:
    release.make(1, *("75", "in the way: pid 1") * attempts)
    done = release.run("migrations.yml", app_migration_attempts=attempts)
    assert done.returncode != 0
    assert release.calls().count("migrate --no-input") == attempts
    assert "in the way: pid 1" in done.stdout + done.stderr
    assert "migrated" not in release.calls()
    assert "before" not in done.stdout + done.stderr


def test_another_failure_is_not_tried_again_and_its_last_line_comes_first(release: Release) -> None:
    release.make(1, "1", "the reason")
    # As -e hands it over.
    done = release.run("migrations.yml", app_migration_attempts="5")
    assert done.returncode != 0
    assert release.calls() == ["pending", "migrate --no-input"]
    said = done.stdout + done.stderr
    assert said.index("the reason") < said.index("before")


@pytest.mark.parametrize("tasks", ["migrations.yml", "migration_plan.yml"])
def test_check_mode_works_before_there_is_a_release(release: Release, tasks: str) -> None:
    look = "__app_migration_judgement.text" if tasks == "migration_plan.yml" else ""
    done = release.run(tasks, "--check", look=look)
    assert done.returncode == 0, done.stdout + done.stderr
    if look:
        assert "not on the host yet" in release.seen()


def test_check_mode_applies_nothing(release: Release) -> None:
    release.make(1, "0", "done")
    done = release.run("migrations.yml", "--check")
    assert done.returncode == 0, done.stdout + done.stderr
    assert release.calls() == ["pending"]


LOOK = (
    "{'plan': __app_migration_plan, 'judged': __app_migration_judgement, 'other': hostvars['a2'].__app_migration_plan}"
)
DJANGO = "INSTALLED_APPS = ['django.contrib.contenttypes', 'django.contrib.auth']\nUSE_TZ = True\n"


def test_the_plan_is_asked_once_and_judged_for_each_host(release: Release) -> None:
    release.make(1)
    settings = release.deployment / "settings_of_test.py"
    settings.write_text(settings.read_text() + DJANGO)
    done = release.run("migration_plan.yml", look=LOOK)
    assert done.returncode == 0, done.stdout + done.stderr
    seen = release.seen()
    assert seen["other"] == seen["plan"]
    assert "contenttypes.0001_initial" in seen["judged"]["migrations"]
    assert seen["judged"]["unknown"] == ["auth.0011_update_proxy_permissions"]

    described = ["auth.0011_update_proxy_permissions", "auth.0099_x"]
    allowed = "app_migrations_rolling=auth.0011_*,else.0001_x"
    done = release.run("migration_plan.yml", "-e", allowed, look=LOOK, app_migration_describe=described)
    assert done.returncode == 0, done.stdout + done.stderr
    seen = release.seen()
    assert [about["name"] for about in seen["plan"]["pending"]] == ["0011_update_proxy_permissions"]
    assert seen["judged"]["unknown"] == ["auth.0099_x"]


def test_a_release_that_does_not_answer_is_refused_in_a_line(release: Release) -> None:
    release.make(1)
    (release.deployment / "settings_of_test.py").write_text("raise RuntimeError('no settings')\n")
    done = release.run("migration_plan.yml")
    assert done.returncode != 0
    assert "does not say what its migrations are: RuntimeError: no settings" in done.stdout + done.stderr
