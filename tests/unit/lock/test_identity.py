"""Whose run it is, and whether an earlier one on this controller still lives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from plugin_utils.report import identity

HERE = {"machine": "m", "boot": "b", "namespace": "pid:[1]"}


def stat(tmp_path, pid, start, state="S", name="ansible-play) ( b"):
    folder = tmp_path / str(pid)
    folder.mkdir()
    (folder / "stat").write_text(f"{pid} ({name}) {state} " + " ".join(["0"] * 18) + f" {start} 0 0\n")
    return tmp_path


def test_this_run_is_the_process_that_others_can_find():
    run = identity.this_run()
    assert run["pid"] == os.getpid()
    assert run["start"] == identity.start_time(os.getpid()) > 0
    assert run["boot"]
    assert run["namespace"].startswith("pid:[")
    assert not identity.is_dead(run)


def test_a_worker_names_its_parent():
    code = (
        "import multiprocessing, os\n"
        "from plugin_utils.report.identity import this_run\n"
        "context = multiprocessing.get_context('fork')\n"
        "queue = context.SimpleQueue()\n"
        "worker = context.Process(target=lambda: queue.put(this_run()['pid']))\n"
        "worker.start(); print(queue.get() == os.getpid()); worker.join()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=os.getcwd())
    assert done.stdout.strip() == "True"


def test_a_process_that_ended_is_dead_also_as_a_zombie():
    process = subprocess.Popen(["sleep", "60"])
    record = {**identity.controller(), "pid": process.pid, "start": identity.start_time(process.pid)}
    assert not identity.is_dead(record)
    process.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert identity.is_dead(record)
    process.wait()
    assert identity.is_dead(record)


def test_a_number_that_was_given_again_is_another_process(tmp_path):
    proc = stat(tmp_path, 4711, 900)
    assert not identity.is_dead({**HERE, "pid": 4711, "start": 900}, HERE, proc)
    assert identity.is_dead({**HERE, "pid": 4711, "start": 800}, HERE, proc)


@pytest.mark.parametrize("key", ["machine", "boot", "namespace"])
def test_of_another_controller_nothing_is_known(tmp_path, key):
    record = {**HERE, "pid": 4711, "start": 900}
    assert identity.is_dead(record, HERE, stat(tmp_path, 4711, 1))
    assert not identity.is_dead({**record, key: "other"}, HERE, tmp_path)
    assert not identity.is_dead({name: value for name, value in record.items() if name != key}, HERE, tmp_path)


@pytest.mark.parametrize("record", [{}, {**HERE}, {**HERE, "pid": "x", "start": 1}, {**HERE, "pid": 1, "start": 0}])
def test_a_record_that_says_too_little_is_not_dead(tmp_path, record):
    assert not identity.is_dead(record, HERE, tmp_path)


def test_without_a_boot_of_its_own_a_controller_judges_nobody(tmp_path):
    here = {**HERE, "boot": ""}
    assert not identity.is_dead({**here, "pid": 4711, "start": 900}, here, stat(tmp_path, 4711, 1))


def test_a_hidden_process_lives(tmp_path):
    # Ours, which a signal finds, is not in this /proc.
    assert identity.start_time(os.getpid(), tmp_path) == identity.UNKNOWN
    assert not identity.is_dead({**HERE, "pid": os.getpid(), "start": 5}, HERE, tmp_path)


def test_who(monkeypatch):
    monkeypatch.setenv("SUDO_USER", "iago")
    assert identity.run_by() == f"iago@{os.uname().nodename}"
    monkeypatch.delenv("SUDO_USER")
    assert identity.run_by().endswith(f"@{os.uname().nodename}")
