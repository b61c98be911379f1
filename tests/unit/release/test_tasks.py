"""The role's tasks, run by the real ansible-playbook on this machine: what is said, and what is not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import FILES, ROOT, VERSION_FILE, Build, make_tar

SECRET = "s3cr3t-word"
BUILD: dict[str, Any] = {
    "source": "",
    "oldest": "9.0",
    "version": VERSION_FILE,
    "python": {"minimum": "3.8", "below": {"by_version": [{"value": "3.13"}, {"since": "10.0", "value": "3.14"}]}},
    "assets": {"creates": "prod-static/serve", "packages": ["for-assets"]},
}
CONTRACT: dict[str, Any] = {
    "name": "app",
    "venv_link": {"by_version": [{"value": "old-venv"}, {"since": "10.0", "value": ".venv"}]},
    "venv_root": "/srv/venvs",
    "packages": {"all": ["for-all"], "bookworm": ["for-bookworm"], "trixie": ["for-trixie"]},
    "build": BUILD,
}


class Playbook:
    """Runs task files of the role on this machine."""

    def __init__(self, directory: Path):
        self.directory = directory

    def role(self, tasks: str, **variables: Any) -> dict[str, Any]:
        """Return the task that includes a file of tasks."""
        include = {"name": "release", "tasks_from": tasks, "public": True}
        return {
            "name": f"Test | Include {tasks}",
            "ansible.builtin.include_role": include,
            "vars": {"release_contract": CONTRACT, **variables},
        }

    def run(self, tasks: list[dict[str, Any]], **variables: Any) -> subprocess.CompletedProcess[str]:
        """Run tasks, as loud as anybody ever will."""
        facts = {"distribution_release": "trixie", "architecture": "x86_64", "cacheable": True}
        first = {"name": "Test | Have facts", "ansible.builtin.set_fact": facts}
        play = {"name": "Test", "hosts": "localhost", "gather_facts": False, "tasks": [first, *tasks]}
        (self.directory / "playbook.yml").write_text(yaml.safe_dump([play]))
        shelf = str(self.directory / "shelf")
        values = {"release_directory": shelf, **variables}
        (self.directory / "values.json").write_text(json.dumps(values))
        return subprocess.run(
            [
                *(Path(sys.executable).with_name("ansible-playbook"), "-vvv", "-i", "localhost,", "-c", "local"),
                *("-e", f"@{self.directory}/values.json", self.directory / "playbook.yml"),
            ],
            cwd=ROOT,
            env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
            capture_output=True,
            text=True,
        )


@pytest.fixture
def playbook(tmp_path: Path) -> Playbook:
    """A playbook with a shelf of its own."""
    return Playbook(tmp_path)


@pytest.fixture
def seen(playbook: Playbook, tmp_path: Path) -> Callable[[dict[str, dict[str, Any]]], dict[str, dict[str, Any]]]:
    """Returns, for each variation of the operator's input, what would be built."""

    def look(variations: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        values = "'id': __release_build_id, 'spec': __release_build_specification, 'packages': __release_build_packages"
        content = "{{ {" + values + "} | to_json }}"
        tasks = []
        for name, variables in variations.items():
            tasks.append(playbook.role("source.yml", **variables))
            copy = {"content": content, "dest": str(tmp_path / f"{name}.json"), "mode": "0600"}
            # In the same scope, as the role's own tasks are.
            tasks.append(
                {
                    "name": "Test | Look",
                    "ansible.builtin.copy": copy,
                    "vars": {"release_contract": CONTRACT, **variables},
                }
            )
        done = playbook.run(tasks)
        assert done.returncode == 0, done.stdout[-3000:]
        return {name: json.loads((tmp_path / f"{name}.json").read_text()) for name in variations}

    return look


def test_the_id_covers_what_changes_the_result(seen: Any, tarball: Callable[..., Path], tmp_path: Path) -> None:
    one, ten = str(tarball()), str(tarball("app-10.tar.gz", version="10.2", assets=True))
    venv = str(make_tar(tmp_path / "venv.tar.gz", {"x": ""}))
    more = {**CONTRACT, "build": {**BUILD, "extra_requirements": ["more"]}}
    variations = {
        "plain": {"release_source": one},
        "ten": {"release_source": ten},
        "replaced": {"release_source": one, "release_requirement_replacements": {"x": "y"}},
        "venv": {"release_source": one, "release_venv_archive": venv},
        "packages": {"release_source": one, "release_builder_packages": ["libx"]},
        "contract": {"release_source": one, "release_contract": more},
        # Where it is downloaded from changes nothing.
        "index": {"release_source": one, "release_pip_environment": {"PIP_INDEX_URL": "https://h/"}},
    }
    found = seen(variations)
    ids = {name: each["id"] for name, each in found.items()}
    assert ids["index"] == ids["plain"]
    assert len(set(ids.values())) == len(ids) - 1
    plain, tenth = found["plain"]["spec"], found["ten"]["spec"]
    assert (plain["version"], plain["python_below"], plain["venv_link"]) == ("9.1", "3.13", "old-venv")
    assert (tenth["version"], tenth["python_below"], tenth["venv_link"]) == ("10.2", "3.14", ".venv")
    assert plain["source_info"]["kind"] == "tarball"
    assert set(plain["source_info"]) == {"kind", "digest", "origin", "commit"}
    assert plain["venv_archive"] == ""
    assert found["venv"]["spec"]["venv_archive"].endswith(".venv")
    # A source that brings its assets needs nothing that makes them.
    assert "for-assets" in found["plain"]["packages"]
    assert {"for-all", "for-trixie"} <= set(found["plain"]["packages"])
    assert "for-bookworm" not in found["plain"]["packages"]
    assert "for-assets" not in found["ten"]["packages"]


def test_a_source_is_refused_in_one_line_without_credentials(playbook: Playbook) -> None:
    url = f"http://me:{SECRET}@127.0.0.1:9/app.tar.gz"
    done = playbook.run([playbook.role("source.yml")], release_source=url)
    assert done.returncode != 0
    assert "http://127.0.0.1:9/app.tar.gz cannot be had: [Errno 111] Connection refused" in done.stdout + done.stderr
    assert SECRET not in done.stdout + done.stderr


def test_a_failing_build_can_be_read_and_shows_no_credentials(playbook: Playbook, build: Build, tmp_path: Path) -> None:
    source = make_tar(tmp_path / "app.tar.gz", {"version.py": ""})
    script = "echo looking at $PIP_INDEX_URL; echo the index said no; exit 3"
    environment = {"PIP_INDEX_URL": f"https://me:{SECRET}@pypi.test/simple"}
    folder = tmp_path / "host"
    folder.mkdir()
    for name in ("release-build", "release_build"):
        (folder / name).symlink_to(FILES / name)
    spec = build.spec(source, steps=[["sh", "-c", script]], environment=environment)
    venv = Path(spec["venv"])
    venv.mkdir(parents=True)
    (venv / ".zulip-ha.json").write_text("{}")
    done = playbook.run(
        [playbook.role("run.yml")],
        __release_build_specification=spec,
        __release_build_directory=str(folder),
        __release_python=sys.executable,
    )
    output = done.stdout + done.stderr
    assert done.returncode != 0
    assert "failed with 3: the index said no" in output
    assert "looking at https://***@pypi.test/simple" in output
    assert SECRET not in output
    assert not (folder / "build.json").exists()
