"""The whole way through ansible-playbook: rendering, one execution, drift, secrets, the drift report."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
CANARY = "CANARY-4711"


class Controller:
    def __init__(self, base: Path) -> None:
        self.base, self.etc, self.state = base, base / "etc", base / "state"
        (base / "roles/demo/templates").mkdir(parents=True)
        (base / "roles/demo/files").mkdir()
        (base / "roles/demo/tasks").mkdir()
        (base / "inventory.yml").write_text(
            yaml.safe_dump({"all": {"hosts": {name: {"ansible_connection": "local"} for name in ("app1",)}}})
        )

    def task(self, **args: Any) -> None:
        args = {"role": "demo", "state_dir": str(self.state), **args}
        tasks = [{"name": "Files", "managed_files": args, "register": "files"}]
        (self.base / "roles/demo/tasks/main.yml").write_text(yaml.safe_dump(tasks))
        (self.base / "play.yml").write_text(
            yaml.safe_dump(
                [{"hosts": "all", "gather_facts": False, "roles": ["demo"], "vars": {"inner": "{{ 40 + 2 }}"}}]
            )
        )

    def run(self, *args: str, book: str = "play.yml") -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "ANSIBLE_CONFIG": str(self.base / "none.cfg"),
            "ANSIBLE_LIBRARY": str(ROOT / "library"),
            "ANSIBLE_MODULE_UTILS": str(ROOT / "module_utils"),
            "ANSIBLE_ACTION_PLUGINS": str(ROOT / "action_plugins"),
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
            "ANSIBLE_NOCOLOR": "true",
            "PYTHONWARNINGS": "ignore",
        }
        (self.base / "none.cfg").write_text("[defaults]\ncallback_result_format = yaml\n")
        command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "inventory.yml", book, *args]
        return subprocess.run(
            command, cwd=self.base, env=environment, capture_output=True, text=True, check=False, timeout=120
        )


@pytest.fixture
def controller(tmp_path: Path) -> Controller:
    return Controller(tmp_path)


def own(path: Path, **more: Any) -> dict[str, Any]:
    return {"path": str(path), "owner": str(os.geteuid()), "group": str(os.getegid()), **more}


def test_render_drift_and_report(controller: Controller) -> None:
    role = controller.base / "roles/demo"
    (role / "templates/a.j2").write_text(
        "# {{ ansible_managed }}\n{% for n in [1, 2] %}\n{{ n }} {{ inner }} {{ word }}\n{% endfor %}\n"
        '{% include "part.j2" %}\n\n'
    )
    (role / "templates/part.j2").write_text("part of {{ inventory_hostname }} \\1")
    (role / "files/raw").write_bytes(b"{{ raw }}\0\xff")
    controller.task(
        files=[
            own(controller.etc / "a.conf", template="a.j2", vars={"word": "w{{ inner }}"}, variable="demo_settings"),
            own(controller.etc / "raw", source="raw"),
            own(controller.etc / "s.conf", content=f"{CANARY}\n", sensitive=True, mode="0600"),
        ]
    )
    outputs = [controller.run("--check", "--diff", "-vvv")]
    assert outputs[-1].returncode == 0, outputs[-1].stdout
    assert not controller.etc.exists()
    outputs.append(controller.run("--diff", "-vvv"))
    assert (controller.etc / "a.conf").read_text() == ("# Ansible managed\n1 42 w42\n2 42 w42\npart of app1 \\1\n\n")
    assert (controller.etc / "raw").read_bytes() == b"{{ raw }}\0\xff"
    assert (controller.etc / "s.conf").read_text() == f"{CANARY}\n"
    outputs.append(controller.run("-vvv"))
    assert "changed=0" in outputs[-1].stdout

    with (controller.etc / "a.conf").open("a") as handle:
        handle.write("by hand\n")
    (controller.etc / "s.conf").write_text(f"{CANARY} by hand\n")
    outputs.append(controller.run("-vvv"))
    assert outputs[-1].returncode == 2
    for words in ("+by hand", "s.conf (edited)", "demo_settings in the inventory's 90-local.yml", "local_edits=keep"):
        assert words in outputs[-1].stdout + outputs[-1].stderr
    outputs.append(controller.run("-e", "local_edits={{ 'ke' ~ 'ep' }}", "-vvv"))
    assert outputs[-1].returncode == 0, outputs[-1].stdout
    assert "changed=0" in outputs[-1].stdout

    report = yaml.safe_load((ROOT / "playbooks/drift.yml").read_text())
    report[0]["tasks"][0]["managed_drift"] = {"state_dir": str(controller.state)}
    (controller.base / "drift.yml").write_text(yaml.safe_dump(report, sort_keys=False))
    (controller.etc / "raw").chmod(0o600)
    outputs.append(controller.run(book="drift.yml"))
    assert outputs[-1].returncode == 0, outputs[-1].stdout
    rows = [line.split() for line in outputs[-1].stdout.splitlines() if line.strip().startswith("app1 ")]
    assert [(row[2].rsplit("/", 1)[1], row[3]) for row in rows[:3]] == [
        ("a.conf", "edited"),
        ("raw", "mode"),
        ("s.conf", "edited"),
    ]
    assert "3 changed files on 1 host" in outputs[-1].stdout
    assert controller.run("-e", "drift_fail=true", book="drift.yml").returncode == 2

    outputs.append(controller.run("-e", "local_edits=overwrite", "-vvv"))
    assert "is overwritten; the copy is" in outputs[-1].stdout + outputs[-1].stderr
    assert CANARY not in json.dumps([(done.stdout, done.stderr) for done in outputs])


def test_missing_template_and_wrong_choice(controller: Controller) -> None:
    controller.task(files=[own(controller.etc / "a.conf", template="no-such.j2")])
    done = controller.run()
    assert done.returncode == 2
    assert f"{controller.etc}/a.conf: Could not find or access 'no-such.j2'" in done.stdout + done.stderr
    controller.task(files=[])
    done = controller.run("-e", "local_edits=merge")
    assert "local_edits is 'merge', and can be stop, keep or overwrite" in done.stdout + done.stderr
