"""Loads the role's programs, which find their shared module beside them, and a restic that is made up."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.app.paths import ROOT, load_program

FILES = ROOT / "roles/restic/files"
sys.modules.setdefault("restic_client", load_program("roles/restic/files/restic_client.py", "restic_client"))

FAKE = """#!/usr/bin/python3
import json, os, sys
words = sys.argv[1:]
with open({log!r}, "a") as stream:
    stream.write(json.dumps(words) + "\\n")
script = json.load(open({script!r}))
for name, answers in script.items():
    if name in words:
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        json.dump(script, open({script!r}, "w"))
        sys.stdout.write(answer.get("out", ""))
        sys.stderr.write(answer.get("err", ""))
        sys.exit(answer.get("rc", 0))
"""


@pytest.fixture
def fake(tmp_path: Path) -> Callable[[dict[str, list[dict[str, Any]]]], dict[str, Any]]:
    """Return what makes a restic that answers as it is told, and the settings that use it."""

    def make(script: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
        binary, log, plan = tmp_path / "restic", tmp_path / "calls", tmp_path / "script"
        plan.write_text(json.dumps(script), encoding="utf-8")
        binary.write_text(FAKE.format(log=str(log), script=str(plan)), encoding="utf-8")
        binary.chmod(0o755)
        repository = tmp_path / "repository"
        (repository / "locks").mkdir(parents=True, exist_ok=True)
        folder = tmp_path / "etc"
        folder.mkdir(exist_ok=True)
        (folder / "file").write_text("x", encoding="utf-8")
        return {
            "binary": str(binary),
            "repository": str(repository),
            "password": "secret-word",
            "environment": {},
            "options": {},
            "ca": "",
            "cache": str(tmp_path),
            "host": "app_1",
            "lock_wait": 0,
            "paths": [str(folder)],
            "exclude": [],
            "logs": "",
            "state_directory": str(tmp_path),
            "textfile_directory": str(tmp_path),
            "uploads": {"backend": "none", "active_file": "/nonexistent"},
            "tags": ["configuration", "uploads", "logs", "inventory"],
            "keep": {"within": "7d", "hourly": 48, "daily": 0},
            "max_unused": "10%",
            "check_subset": "5%",
            "expected": [],
        }

    return make


@pytest.fixture
def calls(tmp_path: Path) -> Callable[[], list[list[str]]]:
    """Return what reads the calls of that restic."""

    def read() -> list[list[str]]:
        path = tmp_path / "calls"
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []

    return read
