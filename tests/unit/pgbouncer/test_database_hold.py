"""The program that holds the database's traffic: with a pooler, a database and a clock that are told what to say."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

import pytest

from tests.unit.app.paths import ROOT

loader = SourceFileLoader("database_hold", str(ROOT / "roles/pgbouncer/files/database_hold"))
spec = importlib.util.spec_from_loader("database_hold", loader)
assert spec
hold = importlib.util.module_from_spec(spec)
# Its dataclasses look themselves up.
sys.modules["database_hold"] = hold
sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
loader.exec_module(hold)
sys.dont_write_bytecode = before
ONE, OTHER = hold.Leader("2026-01-01 10:00:00.1"), hold.Leader("2026-01-01 11:00:00.2")


class Site:
    """All that the keeper talks to; what happens is in `events`."""

    def __init__(self, tmp_path: Path, leaders: Iterable[Any] = (), **behaviour: Any) -> None:
        self.events: list[str] = []
        self.time = 100.0
        self.leaders = list(leaders)
        self.stuck: list[dict[str, Any]] = behaviour.get("stuck", [])
        self.resume_errors: list[str] = behaviour.get("resume_errors", [])
        self.promoted_after = behaviour.get("promoted_after", 0)
        self.units_running = behaviour.get("units", ["scheduler.service"])
        self.state = hold.State(str(tmp_path / "run"))
        self.on_sleep: Callable[[], object] = lambda: None

    # the pooler
    def pause(self, seconds: float) -> None:
        self.events.append("pause")
        if self.stuck:
            raise hold.LinkError("no answer in time")

    def resume(self) -> None:
        self.events.append("resume")
        if self.resume_errors:
            raise hold.LinkError(self.resume_errors.pop())

    def waiting(self) -> int:
        return 7

    def busy(self) -> list[dict[str, Any]]:
        return self.stuck

    # the database; the last word stays
    def leader(self, seconds: float) -> Any:
        self.events.append("look")
        return self.leaders.pop(0) if len(self.leaders) > 1 else self.leaders[0]

    def transactions(self, pids: Iterable[int]) -> dict[int, str]:
        return dict.fromkeys(pids, "idle in transaction for 9 s")

    # the candidate
    def connect(self) -> None:
        self.events.append("connect")

    def takes_writes(self) -> bool:
        self.promoted_after -= 1
        return self.promoted_after < 0

    # the units
    def running(self) -> list[str]:
        return self.units_running

    def stop(self, units: list[str]) -> None:
        self.events.append(f"stop {' '.join(units)}")

    def start(self, units: list[str]) -> None:
        self.events.append(f"start {' '.join(units)}")

    # the clock
    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds
        self.on_sleep()

    def keeper(self, **options: Any) -> Any:
        given = {"seconds": 5.0, "pause_seconds": 2.0, **options}
        return hold.Keeper(
            self,
            self,
            self,
            self.state,
            **given,
            ready=lambda: self.events.append("ready"),
            point=lambda: self.events.append("point"),
            now=self.now,
            sleep=self.sleep,
        )


class Patroni:
    """A request that answers at once."""

    def __init__(self, site: Site, answer: str = "", refused: bool = False) -> None:
        self.site, self.answer, self.refused, self.over = site, answer, refused, refused

    def prepare(self) -> None:
        self.site.events.append("prepare")

    def start(self) -> None:
        self.site.events.append("request")


def test_a_plain_hold_ends_after_its_time(tmp_path: Path) -> None:
    site = Site(tmp_path)
    figures = site.keeper().run()
    assert site.events == ["stop scheduler.service", "pause", "ready", "resume"]
    assert figures["outcome"] == "late"
    assert 5.0 <= figures["stall_seconds"] < 5.5
    assert site.state.read()["state"] == "released"
    assert site.state.read()["stopped"] == ["scheduler.service"], "settle has to start it"


def test_it_ends_when_another_leader_takes_writes(tmp_path: Path) -> None:
    site = Site(tmp_path, [ONE, ONE, None, None, OTHER])
    figures = site.keeper(until_moved=True).run()
    assert figures["outcome"] == "moved"
    assert site.events[-1] == "resume"
    assert figures["stall_seconds"] < 2


def test_the_same_server_after_a_restart_is_another_leader(tmp_path: Path) -> None:
    restarted = hold.Leader("2026-01-01 10:30:00.3")
    assert Site(tmp_path, [ONE, None, restarted]).keeper(until_moved=True).run()["outcome"] == "moved"


def test_nothing_is_touched_without_a_leader(tmp_path: Path) -> None:
    site = Site(tmp_path, [None])
    with pytest.raises(hold.HoldError, match="no leader") as error:
        site.keeper(until_moved=True).run()
    assert error.value.status == hold.NO_LEADER
    assert set(site.events) == {"look"}


def test_a_transaction_that_does_not_end_is_named(tmp_path: Path) -> None:
    site = Site(tmp_path, [ONE], stuck=[{"user": "zulip", "database": "zulip", "pid": 42}])
    with pytest.raises(hold.HoldError, match="zulip on zulip, process 42, idle in transaction for 9 s") as error:
        site.keeper(until_moved=True).run()
    assert error.value.status == hold.STUCK
    assert site.events[-2:] == ["pause", "resume"]


def test_what_patroni_refuses_ends_it_at_once(tmp_path: Path) -> None:
    site = Site(tmp_path, [ONE], promoted_after=1000)
    figures = site.keeper(request=Patroni(site, "no good candidates", refused=True), candidate=site).run()
    assert figures["outcome"] == "refused"
    assert figures["patroni"] == "no good candidates"
    assert figures["stall_seconds"] < 0.5
    assert site.events.index("prepare") < site.events.index("connect") < site.events.index("pause")


def test_haproxy_is_told_once_before_the_new_leader_is_looked_at(tmp_path: Path) -> None:
    site = Site(tmp_path, [ONE, None, OTHER], promoted_after=3)
    assert site.keeper(request=Patroni(site), candidate=site).run()["outcome"] == "moved"
    after = site.events[site.events.index("request") :]
    assert after == ["request", "point", "look", "look", "resume"]


def test_another_member_than_the_candidate_is_seen_when_patroni_has_answered(tmp_path: Path) -> None:
    site = Site(tmp_path, [ONE, OTHER], promoted_after=1000)
    patroni = Patroni(site, "Switched over to another")
    patroni.over = True
    assert site.keeper(request=patroni, candidate=site).run()["outcome"] == "moved"


def test_asked_to_stop_it_lets_go(tmp_path: Path) -> None:
    site = Site(tmp_path, [ONE])
    keeper = site.keeper(until_moved=True)
    site.on_sleep = keeper.stop
    assert keeper.run()["outcome"] == "released"
    assert site.events[-1] == "resume"


def test_whatever_breaks_the_traffic_goes_on(tmp_path: Path) -> None:
    site = Site(tmp_path, [ONE])

    def breaks() -> None:
        raise RuntimeError("broken")

    site.on_sleep = breaks
    with pytest.raises(RuntimeError):
        site.keeper(until_moved=True).run()
    assert site.events[-1] == "resume"


def test_settle_resumes_and_starts_the_units_once(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.state.write(state="held", stopped=["a.service", "b.service"], figures={"stall_seconds": 1})
    hold.settle(site, site, hold.State(str(tmp_path / "run")))
    assert site.events == ["resume", "start a.service b.service"]
    assert site.state.read() == {"state": "released", "stopped": [], "figures": {"stall_seconds": 1}}
    hold.settle(site, site, hold.State(str(tmp_path / "run")))
    assert site.events[2:] == ["resume", "start "]


def test_settle_tries_again_and_starts_the_units_whatever_the_console_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hold.time, "sleep", lambda seconds: None)
    site = Site(tmp_path, resume_errors=["refused"])
    hold.settle(site, site, site.state)
    assert site.events == ["resume", "resume", "start "]
    site = Site(tmp_path, resume_errors=["refused"] * 20)
    site.state.write(stopped=["a.service"])
    with pytest.raises(hold.HoldError, match="refused"):
        hold.settle(site, site, site.state)
    assert site.events[-1] == "start a.service"


class Answers:
    """A console's session that gives prepared answers."""

    def __init__(self, *answers: Any) -> None:
        self.answers, self.asked = list(answers), []

    def ask(self, command: str, seconds: float) -> Any:
        self.asked.append(command)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        self.asked.append("close")


def console(link: Answers) -> Any:
    made = hold.Console(None)
    made._open = lambda: link
    return made


def test_a_pause_that_is_there_already_is_made_anew() -> None:
    """It may be one that still waits for a transaction, of somebody who died."""
    link = Answers(hold.LinkError("ERROR: already suspended/paused"), [], [])
    console(link).pause(2)
    assert link.asked == ["PAUSE", "close", "RESUME", "PAUSE"]


def test_resuming_what_is_not_paused_is_no_error() -> None:
    console(Answers(hold.LinkError("pooler is not paused/suspended"))).resume()
    with pytest.raises(hold.LinkError):
        console(Answers(hold.LinkError("connection refused"))).resume()


def test_connections_that_clients_use_are_busy() -> None:
    rows = [
        {"state": "active", "user": "zulip", "database": "zulip", "remote_pid": 1},
        {"state": "active_cancel", "user": "zulip", "database": "zulip", "remote_pid": 2},
        {"state": "idle", "user": "zulip", "database": "zulip", "remote_pid": 3},
    ]
    assert [row["pid"] for row in console(Answers(rows)).busy()] == [1, 2]


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Collect the commands instead of running them; no unit is active."""
    made: list[list[str]] = []

    def run(argv: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        made.append(argv)
        return subprocess.CompletedProcess(argv, 3 if "is-active" in argv else 0, "inactive\n", "")

    monkeypatch.setattr(hold.subprocess, "run", run)
    return made


def test_the_unit_resumes_however_it_ends_and_ends_when_it_hangs(commands: list[list[str]]) -> None:
    assert hold.launch(["keep", "--seconds=20"], 20, ["Type=notify"]) == 0
    argv = commands[-1]
    assert argv[0] == "systemd-run"
    properties = dict(word.removeprefix("--property=").split("=", 1) for word in argv if word.startswith("--property="))
    assert properties["ExecStopPost"].endswith("database_hold settle")
    assert 20 < float(properties["RuntimeMaxSec"]) < 60, "less than PgBouncer's query_wait_timeout"


def test_somebody_elses_hold_is_waited_for_and_then_told(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(hold, "running", lambda: True)
    monkeypatch.setattr(hold.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(hold.time, "sleep", lambda seconds: None)
    with pytest.raises(hold.HoldError, match="somebody else") as error:
        hold.launch([], 20, [])
    assert error.value.status == hold.HELD


def config(**values: Any) -> Any:
    given = {"socket_directory": "/run", "port": 1, "user": "u", "connection": "", "password": "", "pause_seconds": 2}
    return hold.Config(**{**given, "units": ("x@*.service",), "target": "active.target", **values})


def test_units_are_not_started_on_a_host_that_lost_them(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[str, ...]] = []
    active = iter([0, 3])

    def systemctl(*words: str, seconds: float = 5) -> subprocess.CompletedProcess[str]:
        said.append(words)
        return subprocess.CompletedProcess(words, next(active) if "is-active" in words else 0, "", "")

    monkeypatch.setattr(hold, "systemctl", systemctl)
    hold.Units(config()).start(["x@1.service"])
    assert [words[0] for words in said] == ["is-active", "start", "is-active", "stop"], "lost between the two looks"
    said.clear()
    active = iter([3])
    hold.Units(config()).start(["x@1.service"])
    assert [words[0] for words in said] == ["is-active"]


def test_the_configuration_is_what_the_role_writes(tmp_path: Path) -> None:
    path = tmp_path / "hold.json"
    way = {"connection": "dbname=zulip", "password": "secret"}
    values = {"socket_directory": "/run", "port": 6432, "user": "postgres", "way": way, "pause_seconds": 2}
    path.write_text(json.dumps({**values, "units": ["a"], "target": "t"}))
    read = hold.Config.load(str(path))
    assert (read.connection, read.password, read.units) == ("dbname=zulip", "secret", ("a",))
