"""The singleton runner: with sessions that are pipes, and commands that are real."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.unit.app.paths import ROOT, load_program

singleton = load_program("roles/app/files/singleton", "singleton")


class FakeSession:
    """A session that speaks when its pipe is written to, as a connection that was cut does."""

    def __init__(self, takes: bool = True):
        self.takes = takes
        self.lost = False
        self.closed = False
        self.probes = 0
        self.read, self.write = os.pipe()

    def fileno(self) -> int:
        return self.read

    def take(self, key: int) -> bool:
        return self.takes

    def cut(self) -> None:
        self.lost = True
        os.write(self.write, b"x")

    def probe(self) -> None:
        self.probes += 1
        if self.lost:
            raise singleton.LostError("cut")

    def close(self) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
    before = [signal.getsignal(number) for number in numbers]
    yield
    signal.set_wakeup_fd(-1)
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def at(seconds: float, action: Callable[[], object]) -> None:
    """Do something from outside, after a while."""
    import threading

    threading.Timer(seconds, action).start()


def runner(command: list[str], *sessions: FakeSession, skip: bool = False) -> singleton.Runner:
    """A runner that is given these sessions one after the other."""
    supply = iter(sessions)
    return singleton.Runner("test", command, lambda: next(supply), skip)


def test_the_key_is_the_same_everywhere_and_fits() -> None:
    assert singleton.lock_key("deliver_scheduled_emails") == singleton.lock_key("deliver_scheduled_emails")
    assert singleton.lock_key("a") != singleton.lock_key("b")
    assert all(-(2**63) <= singleton.lock_key(str(number)) < 2**63 for number in range(100))


def test_a_password_with_a_percent_sign(tmp_path: Path) -> None:
    secrets = tmp_path / "secrets.conf"
    secrets.write_text("# x\n[secrets]\npostgres_password = a%(b)s#c\n")
    assert singleton.read_password(str(secrets)) == "a%(b)s#c"


@pytest.mark.parametrize(("code", "expected"), [("0", 0), ("3", 3)])
def test_the_commands_status_is_ours(code: str, expected: int) -> None:
    session = FakeSession()
    assert runner([sys.executable, "-c", f"raise SystemExit({code})"], session).run() == expected
    assert session.closed


def test_a_command_that_dies_of_a_signal() -> None:
    code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert runner([sys.executable, "-c", code], FakeSession()).run() == 128 + signal.SIGKILL


def test_it_waits_for_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(singleton, "RETRY_SECONDS", 0.01)
    held, free = FakeSession(takes=False), FakeSession()
    assert runner(["true"], held, free).run() == 0
    assert held.closed


def test_it_goes_away_when_told_to_skip(tmp_path: Path) -> None:
    proof = tmp_path / "ran"
    assert runner(["touch", str(proof)], FakeSession(takes=False), skip=True).run() == 0
    assert not proof.exists()


def test_it_tries_again_while_there_is_no_database(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(singleton, "RETRY_SECONDS", 0.01)
    answers = iter([singleton.LostError("refused"), singleton.LostError("refused"), FakeSession()])

    def connect() -> FakeSession:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert singleton.Runner("test", ["true"], connect).run() == 0
    assert capsys.readouterr().err.count("refused") == 1


def test_a_lost_session_ends_the_command_at_once() -> None:
    session = FakeSession()
    at(0.3, session.cut)
    begun = time.monotonic()
    assert runner(["sleep", "60"], session).run() == singleton.EX_TEMPFAIL
    assert time.monotonic() - begun < 2


def test_what_a_timer_runs_is_begun_again_when_the_lock_was_lost(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Also while the server still counts the session that is gone."""
    monkeypatch.setattr(singleton, "RETRY_SECONDS", 0.01)
    ran = tmp_path / "ran"
    cut, counted, free = FakeSession(), FakeSession(takes=False), FakeSession()
    at(0.3, cut.cut)
    script = f"echo >> {ran}; test $(wc -l < {ran}) = 2 || sleep 60"
    assert runner(["sh", "-c", script], cut, counted, free, skip=True).run() == 0
    assert ran.read_text() == "\n\n"
    assert counted.closed
    assert free.closed


def test_what_a_timer_runs_is_given_up_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(singleton, "PROBE_SECONDS", 0.05)
    sessions = [FakeSession() for _ in range(singleton.TURNS)]
    for session in sessions:
        session.lost = True
    assert runner(["sleep", "60"], *sessions, skip=True).run() == singleton.EX_TEMPFAIL


def test_a_command_s_own_failure_is_not_tried_again(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    assert runner(["sh", "-c", f"echo >> {ran}; exit 75"], FakeSession(), skip=True).run() == singleton.EX_TEMPFAIL
    assert ran.read_text() == "\n"


def test_a_lost_session_ends_a_stubborn_command_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(singleton, "LOST_STOP_SECONDS", 0.3)
    ready = tmp_path / "ready"
    code = (
        "import signal, time, pathlib; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        f"pathlib.Path({str(ready)!r}).touch(); time.sleep(60)"
    )
    session = FakeSession()
    started = runner([sys.executable, "-c", code], session)

    def cut() -> None:
        while not ready.exists():
            time.sleep(0.01)
        session.cut()

    at(0, cut)
    assert started.run() == singleton.EX_TEMPFAIL
    assert started.child is not None
    assert started.child.returncode == -signal.SIGKILL


def test_a_silent_demotion_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(singleton, "PROBE_SECONDS", 0.1)
    session = FakeSession()
    session.lost = True
    assert runner(["sleep", "60"], session).run() == singleton.EX_TEMPFAIL


def test_what_the_command_left_behind_ends_with_it(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    assert runner(["sh", "-c", f"sleep 60 & echo $! > {pid_file}"], FakeSession()).run() == 0
    pid = int(pid_file.read_text())
    for _ in range(100):
        state = Path(f"/proc/{pid}/stat")
        if not state.exists() or state.read_text().split()[2] == "Z":
            return
        time.sleep(0.02)
    raise AssertionError("the command's child lives on")


def test_sigterm_is_passed_on_and_ends_well(tmp_path: Path) -> None:
    # In a process of its own: signals are for the main thread.
    proof, ready = tmp_path / "proof", tmp_path / "ready"
    child = (
        "import signal, sys, time, pathlib\n"
        f"def end(*_): pathlib.Path({str(proof)!r}).touch(); sys.exit(0)\n"
        f"signal.signal(signal.SIGTERM, end); pathlib.Path({str(ready)!r}).touch(); time.sleep(60)\n"
    )
    program = textwrap.dedent(f"""
        import sys
        sys.path.insert(0, {str(ROOT)!r})
        from tests.unit.app import test_singleton as here
        session = here.FakeSession()
        code = here.runner([sys.executable, "-c", {child!r}], session).run()
        assert session.closed
        sys.exit(code)
    """)
    with subprocess.Popen([sys.executable, "-c", program]) as process:
        while not ready.exists():
            assert process.poll() is None
            time.sleep(0.02)
        process.terminate()
        assert process.wait(20) == 0
    assert proof.exists()


def test_the_connection_is_not_handed_to_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ZULIP_HA_LOCK_CONNECTION", "host=x")
    proof = tmp_path / "environment"
    runner(["sh", "-c", f"env > {proof}"], FakeSession()).run()
    assert "ZULIP_HA_LOCK_CONNECTION" not in proof.read_text()


def test_without_a_connection_it_says_so() -> None:
    environment = {key: value for key, value in os.environ.items() if key != "ZULIP_HA_LOCK_CONNECTION"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "roles/app/files/singleton"), "x", "--", "true"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "ZULIP_HA_LOCK_CONNECTION is not set" in done.stderr
