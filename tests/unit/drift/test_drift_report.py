"""The daily report of hand edits: the same as the module's, one line, nothing repaired."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from module_utils import managed_ledger
from tests.unit.app.paths import load_program

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = ROOT / "roles/base/files/drift_report"
report = load_program("roles/base/files/drift_report", "drift_report")


def add(state: Path, role: str, path: Path, content: bytes, **more: Any) -> None:
    """Write a file as managed_files would, and note it in the ledger."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(0o644)
    ledger = managed_ledger.Ledger(str(state), role)
    entry = managed_ledger.Entry(managed_ledger.digest(content), str(os.geteuid()), str(os.getegid()), "0644", **more)
    ledger.files[str(path)] = entry
    ledger.remember(content, entry.sensitive)
    ledger.save()


def run(state: Path) -> tuple[int, str, dict[str, Any]]:
    """Run the program as the timer does."""
    command = [sys.executable, "-I", "-B", PROGRAM, "--state-dir", state, "--programs", ROOT / "module_utils"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout, json.loads((state / "drift.json").read_text())


def module(state: Path) -> dict[str, Any]:
    """Run Ansible's module on the same ledgers."""
    environment = {
        **os.environ,
        "ANSIBLE_LIBRARY": str(ROOT / "library"),
        "ANSIBLE_MODULE_UTILS": str(ROOT / "module_utils"),
        "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
        "ANSIBLE_LOCALHOST_WARNING": "false",
        "ANSIBLE_CONFIG": str(state / "none.cfg"),
    }
    (state / "none.cfg").touch()
    ansible = Path(sys.executable).with_name("ansible")
    command = [ansible, "localhost", "-c", "local", "-o", "-m", "managed_drift", "-a", f"state_dir={state}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout.partition("=> ")[2])
    return answer


@pytest.fixture
def state(tmp_path: Path) -> Path:
    state = tmp_path / "state"
    etc = tmp_path / "etc"
    add(state, "nginx", etc / "nginx.conf", b"a\n", variable="nginx_settings")
    add(state, "nginx", etc / "same.conf", b"a\n")
    add(state, "redis", etc / "secret.conf", b"requirepass x\n", sensitive=True)
    add(state, "redis", etc / "gone.conf", b"a\n")
    add(state, "base", etc / "mode.conf", b"a\n")
    add(state, "base", etc / "link.conf", b"a\n")
    return state


def test_without_edits_it_says_so(state):
    code, said, written = run(state)
    assert code == 0
    assert said == "<6>drift: none of 6 managed files was changed by hand\n"
    assert (written["drift"], written["files"], written["owed"], written["error"]) == ([], 6, {}, "")


def test_it_finds_what_the_module_finds_and_repairs_nothing(state, tmp_path):
    etc = tmp_path / "etc"
    (etc / "nginx.conf").write_text("b\n")
    (etc / "secret.conf").write_text("requirepass CANARY-4711\n")
    (etc / "gone.conf").unlink()
    (etc / "mode.conf").chmod(0o600)
    (etc / "link.conf").unlink()
    (etc / "link.conf").symlink_to("/dev/null")
    ledger = managed_ledger.Ledger(str(state), "redis")
    ledger.owe(["restart:redis-server.service"])
    ledger.save()

    code, said, written = run(state)
    assert code == 0
    assert said.startswith("<4>drift: 5 managed files were changed by hand: ")
    assert said.count("\n") == 1
    expected = module(state)
    without_diff = [{key: value for key, value in item.items() if key != "diff"} for item in expected["drift"]]
    # The differences are for `make drift`; without them nothing secret can be in the report.
    assert sorted(written["drift"], key=str) == sorted(without_diff, key=str)
    assert len(written["drift"]) == 5
    assert (written["owed"], written["files"]) == (expected["owed"], expected["files"])
    assert "CANARY" not in said + json.dumps(written)
    assert (etc / "nginx.conf").read_text() == "b\n"
    assert not (etc / "gone.conf").exists()


def test_the_report_is_roots_and_is_replaced_as_a_whole(state):
    run(state)
    run(state)
    assert (state / "drift.json").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in state.iterdir()) == ["drift.json", "managed"]


def test_a_ledger_that_cannot_be_read_is_a_failure(state):
    (state / "managed/nginx.json").write_text("{")
    code, said, written = run(state)
    assert code == 1
    assert said.startswith("<3>drift: The ledger ")
    assert "nginx.json" in written["error"]


def test_a_host_without_ledgers_has_no_drift(tmp_path):
    code, said, _written = run(tmp_path)
    assert (code, said[:3]) == (0, "<6>")


def test_a_long_list_is_cut_in_the_journal():
    item = {"path": "/etc/x", "reason": "edited"}
    priority, text = report.line({"error": "", "files": 9, "drift": [item] * 7})
    assert priority == report.WARNING
    assert "and 2 more" in text
    assert report.line({"error": "", "files": 9, "drift": [item]})[1].startswith("drift: 1 managed file was changed")
