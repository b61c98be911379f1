"""What a site's inventory makes of the role, and that hosts get all that the program needs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.unit.app.installed import installed, see_that_imports_come_first, see_that_they_start
from tests.unit.app.paths import ROOT
from tests.unit.leader_watch.world import agent

ROLE = ROOT / "roles/leader_watch"
VARIABLES = yaml.safe_load((ROLE / "vars/main.yml").read_text())
NAMES = installed(VARIABLES["__leader_watch_files"], "{{ __leader_watch_programs }}")


def test_the_program_starts_with_what_its_host_gets(tmp_path: Path) -> None:
    see_that_they_start(["leader_watch"], NAMES, ROLE / "files", tmp_path)


def test_what_is_imported_comes_before_who_imports_it() -> None:
    see_that_imports_come_first(NAMES, ROLE / "files")


def configurations(tmp_path: Path, inventory: str, *extra: str) -> dict[str, dict]:
    """The file of each host, by the inventory's and the role's variables; nobody is contacted."""
    # The role without its tasks, so that its defaults lie below the inventory.
    role = tmp_path / "roles/settings"
    for folder in ("defaults", "vars"):
        (role / folder).mkdir(parents=True)
        shutil.copy(ROLE / folder / "main.yml", role / folder)
    write = {
        "content": "{{ __leader_watch_config | combine({'enabled': leader_watch_enabled}) | to_json }}",
        "dest": f"{tmp_path}/{{{{ inventory_hostname }}}}.json",
    }
    task = {"copy": write, "delegate_to": "localhost", "vars": {"ansible_become": False}}
    play = {"hosts": "quorum:app", "gather_facts": False, "roles": ["settings"], "tasks": [task]}
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "NO_COLOR": "1"}
    words = [program, "-i", f"inventories/{inventory}", str(tmp_path / "play.yml"), *extra]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}


def test_the_observers_of_the_lab(tmp_path: Path) -> None:
    said = configurations(tmp_path, "lab")
    assert sorted(said) == ["app1", "app2", "db1", "db2", "mon1"]
    for name, settings in said.items():
        assert settings.pop("enabled") is True
        path = tmp_path / "checked"
        path.write_text(json.dumps(settings))
        config = agent.Config.load(str(path))
        assert config.host == name
        assert config.quorum == 3
        assert config.members == {"db1": "https://172.29.77.21:8008", "db2": "https://172.29.77.22:8008"}
        assert (config.cluster, config.prefix) == ("/service/zulip-ha", "/zulip-ha/zulip-ha/leader-watch")
        # The voter that is lost along with no leader is asked first.
        assert config.endpoints[0] == "https://172.29.77.31:2379"
        assert len(config.endpoints) == 3
        assert (config.lost_seconds, config.ttl, config.dry_run) == (3.0, 3, False)


@pytest.mark.parametrize(
    ("inventory", "extra"), [("single", []), ("lab", ["-e", '{"postgresql_synchronous_mode": false}'])]
)
def test_without_a_synchronous_standby_there_is_no_watch(tmp_path: Path, inventory: str, extra: list[str]) -> None:
    assert {settings["enabled"] for settings in configurations(tmp_path, inventory, *extra).values()} == {False}
