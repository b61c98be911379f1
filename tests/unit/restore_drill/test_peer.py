"""What the backup host's key may do on an app host, and no more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.app.paths import ROOT, load_program
from tests.unit.restore_drill.conftest import digest

peer = load_program("roles/restore_drill/files/drill_peer", "drill_peer")


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    uploads = tmp_path / "uploads"
    (uploads / "files/2/ab").mkdir(parents=True)
    (uploads / "files/2/ab/a b;$(id).txt").write_text("content")
    (tmp_path / "secret").write_text("secret")
    (uploads / "files/link").symlink_to(tmp_path / "secret")
    (uploads / "folder").symlink_to(tmp_path)
    os.mkfifo(uploads / "pipe")
    program = (
        "import json, os; print('noise'); print(json.dumps({'messages': 3, 'id': 7, 'sha256': 'ab', 'content': 'x', "
    )
    program += "'where': os.environ['ZULIP_HA_DATABASE_HOST']}))"
    return {
        "command": [sys.executable, "-c", program],
        "deployment": str(tmp_path),
        "timeout": 20,
        "uploads_directory": str(uploads),
        "active": str(tmp_path / "active"),
        "environment": {"ZULIP_HA_DATABASE_HOST": "192.0.2.31"},
    }


@pytest.mark.parametrize(
    "text",
    [
        "",
        "id",
        "sha256",
        "sha256 all",
        "read-message",
        "read-message spare extra",
        "read-message  spare",
        "read-message spare; id",
        "read-message\nspare",
        "rsync --server . /",
    ],
)
def test_what_is_not_allowed(config: dict[str, Any], text: str) -> None:
    with pytest.raises(peer.RefusedError, match="not allowed"):
        peer.answer(text, config, "[]")


def test_a_message_and_nothing_of_its_content(config: dict[str, Any]) -> None:
    assert peer.answer("read-message spare", config, "") == {"messages": 3, "id": 7, "sha256": "ab"}


def test_the_environment_is_ours_alone(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONSTARTUP", "/tmp/evil")
    config["command"] = [
        sys.executable, "-c",
        "import json, os; print(json.dumps({'messages': 1, 'id': 1, 'sha256': ' '.join(sorted(os.environ))}))",
    ]  # fmt: skip
    names = set(peer.answer("read-message any", config, "")["sha256"].split())
    assert {"PATH", "ZULIP_HA_DATABASE_HOST"} <= names
    assert not {"PYTHONSTARTUP", "SSH_ORIGINAL_COMMAND", "HOME"} & names


@pytest.mark.parametrize(
    ("program", "part"),
    [
        ("raise SystemExit('no such table')", "no such table"),
        ("print('[]')", "something else"),
        ("print('x')", "something else"),
        ("", "something else"),
        ("import time; time.sleep(9)", "longer than"),
    ],
)
def test_an_application_that_fails(config: dict[str, Any], program: str, part: str) -> None:
    config |= {"command": [sys.executable, "-c", program], "timeout": 2}
    with pytest.raises(peer.RefusedError, match=part):
        peer.answer("read-message any", config, "")


def test_an_application_without_the_command(config: dict[str, Any]) -> None:
    config["command"] = []
    with pytest.raises(peer.RefusedError, match="no command read_message"):
        peer.answer("read-message any", config, "")


@pytest.mark.parametrize("request_text", ["read-message", "sha256"])
def test_the_active_host_is_no_spare(config: dict[str, Any], request_text: str) -> None:
    Path(config["active"]).touch()
    with pytest.raises(peer.RefusedError, match="active"):
        peer.answer(f"{request_text} spare", config, "[]")
    peer.answer(f"{request_text} any", config, "[]")


def test_hashes(config: dict[str, Any]) -> None:
    name = "files/2/ab/a b;$(id).txt"
    answer = peer.answer("sha256 any", config, json.dumps([name, "files/none", "files/2", "files/2/ab/x/y"]))
    assert (answer[name]["sha256"], answer[name]["size"]) == (digest("content"), 7)
    assert [answer[other] for other in ("files/none", "files/2", "files/2/ab/x/y")] == [None] * 3


@pytest.mark.parametrize("name", ["files/link", "folder/secret", "folder/uploads/files/2/ab/a b;$(id).txt", "pipe"])
def test_no_link_leads_out_and_no_pipe_is_waited_for(config: dict[str, Any], name: str) -> None:
    assert peer.answer("sha256 any", config, json.dumps([name])) == {name: None}


@pytest.mark.parametrize(
    "names",
    [
        '["../secret"]',
        '["/etc/passwd"]',
        '["files/../../secret"]',
        '["files//a"]',
        '["."]',
        '[""]',
        '["a\\u0000b"]',
        '["files/a\\u0000b/c"]',
        "[1]",
        "[null]",
        '{"a": 1}',
        '"files"',
        "files",
        json.dumps(["a"] * 201),
        json.dumps(["a" * 1025]),
    ],
)
def test_what_is_no_name(config: dict[str, Any], names: str) -> None:
    with pytest.raises(peer.RefusedError):
        peer.answer("sha256 any", config, names)


def test_the_program_refuses_in_one_line() -> None:
    environment = {"SSH_ORIGINAL_COMMAND": "id"}
    program = str(ROOT / "roles/restore_drill/files/drill_peer")
    words = [sys.executable, "-IB", program]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, input="", check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
