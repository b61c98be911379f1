"""What is missing is waited for, and nothing is left running behind the main thread."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.app.paths import ROOT

PROGRAM = ROOT / "roles/app/files/app_run"
FILES = {
    "manage.py": """
        import sys
        from django.core.management import execute_from_command_line
        execute_from_command_line(sys.argv)
    """,
    "zproject/settings.py": """
        RABBITMQ_HOST, RABBITMQ_PORT = "127.0.0.1", {port}
        SECRET_KEY = "none"
        INSTALLED_APPS = ["queues"]
    """,
    "queues/management/commands/process_queue.py": """
        print("loaded", flush=True)
        import sys, threading, time
        from django.core.management.base import BaseCommand

        class Command(BaseCommand):
            def add_arguments(self, parser):
                parser.add_argument("--queue_name")

            def handle(self, *args, **options):
                print("working on", options["queue_name"], flush=True)
                # As a worker that has a thread of its own and lost the broker.
                threading.Thread(target=time.sleep, args=[120]).start()
                {end}
    """,
}


@pytest.fixture
def listener():
    """A port that nobody can take, and where nobody listens yet."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        yield one


def start(base: Path, port: int, end: str, *options: str) -> subprocess.Popen[str]:
    for name, text in FILES.items():
        path = base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = text.replace("{port}", str(port)).replace("{end}", end).splitlines()
        path.write_text("\n".join(line[8:] for line in lines) + "\n")
    for folder in ("zproject", "queues", "queues/management", "queues/management/commands"):
        (base / folder / "__init__.py").touch()
    words = [str(base / "manage.py"), "process_queue", "--queue_name", "emails"]
    command = [sys.executable, PROGRAM, *(options or ["--broker"]), *words]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd="/"
    )


@pytest.mark.parametrize(
    ("end", "status", "said"),
    [("sys.exit(3)", 3, ""), ("pass", 0, ""), ("sys.exit('no')", 1, "no\n"), ("raise KeyError('id')", 1, "KeyError")],
)
def test_it_ends_when_its_main_thread_does(tmp_path, listener, end, status, said):
    listener.listen()
    with start(tmp_path, listener.getsockname()[1], end) as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == status
    assert out.splitlines() == ["loaded", "working on emails"]
    assert said in err


def test_it_is_loaded_before_the_broker_is_there(tmp_path, listener):
    with start(tmp_path, listener.getsockname()[1], "sys.exit(3)") as process:
        assert process.stdout.readline() == "loaded\n"
        assert process.stderr.readline().startswith("waiting for the broker at 127.0.0.1:")
        assert process.poll() is None
        listener.listen()
        assert process.communicate(timeout=60) == ("working on emails\n", "")
    assert process.returncode == 3


def test_it_can_be_stopped_while_it_waits(tmp_path, listener):
    with start(tmp_path, listener.getsockname()[1], "pass") as process:
        process.stderr.readline()
        process.terminate()
        assert process.wait(30) != 0


@pytest.mark.parametrize("left_behind", [False, True])
def test_it_waits_for_a_file_to_go(tmp_path, left_behind):
    there = tmp_path / "adopting"
    there.touch()
    if left_behind:
        os.utime(there, (0, 0))
    with start(tmp_path, 1, "sys.exit(0)", f"--gone={there}") as process:
        assert process.stdout.readline() == "loaded\n"
        if not left_behind:
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.5)
            there.unlink()
        # Both lines may have come at once: communicate() would not see what readline() has read ahead.
        assert process.stdout.readline() == "working on emails\n"
        assert process.wait(60) == 0
