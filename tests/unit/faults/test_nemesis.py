"""Faults happen one after the other, are healed however a run ends, and a recovery that needed hands is none."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.faults import actions, catalogue, nemesis
from tests.faults.actions import Absent, Action
from tests.faults.catalogue import FAULTS, Fault
from tests.faults.nemesis import Nemesis, NotWhole, Stopped
from tests.faults.nodes import NodeError, Nodes
from tests.faults.plan import Step
from tests.unit.faults.conftest import CAST


class Site:
    """A site whose health is what the tests say, and which remembers what happened to it."""

    def __init__(self) -> None:
        self.units: dict[str, list[str]] = {}
        self.broken: list[str] = []
        self.events: list[str] = []
        self.heals_itself = True
        self.rescued = ""

    def problems(self) -> list[str]:
        return list(self.broken)

    def cast(self) -> Any:
        return CAST

    def remember(self) -> None:
        self.events.append("remembered")

    def mark(self, name: str, /, **_: Any) -> None:
        self.events.append(f"mark {name}")


class Break(Action):
    """Breaks the site, and heals it if it may."""

    def __init__(self, nodes: Nodes, site: Site, during: Callable[[], None] = lambda: None) -> None:
        super().__init__(nodes, "app1")
        self.site, self.during = site, during

    def prepare(self) -> None:
        self.site.events.append("prepared")

    def inject(self) -> None:
        self.site.events.append("injected")
        self.site.broken = ["app1: broken"]
        self.during()

    def heal(self) -> None:
        self.site.events.append("healed")
        if self.site.heals_itself:
            self.site.broken = []


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """The site; hands mend it unless it says otherwise."""
    made = Site()

    def rescue(nodes: Nodes, units: dict[str, list[str]]) -> None:
        made.events.append("rescued")
        made.broken = [made.rescued] if made.rescued else []

    def sweep(nodes: Nodes) -> list[str]:
        made.events.append("swept")
        return []

    monkeypatch.setattr(actions, "rescue", rescue)
    monkeypatch.setattr(actions, "sweep", sweep)
    monkeypatch.setattr(nemesis, "POLL", 0.01)
    monkeypatch.setattr(nemesis, "HANDS_SECONDS", 0.1)
    monkeypatch.setattr(nemesis, "BEGIN_SECONDS", 0.1)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield made
    assert {number: signal.getsignal(number) for number in before} == before


@pytest.fixture
def make(site: Site, nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Nemesis]:
    """Makes a nemesis with a fault `break`."""

    def made(during: Callable[[], None] = lambda: None, build: Any = None, **more: Any) -> Nemesis:
        build = build or (lambda stage: Break(nodes, site, during))
        monkeypatch.setitem(FAULTS, "break", Fault("break", "", build, recovery=0.1))
        return Nemesis(nodes, site, lambda verb: None, site, **more)  # type: ignore[arg-type]

    return made


STEP = Step("break", 0.0, 0.02)


def test_a_fault_that_the_site_takes_by_itself(make: Callable[..., Nemesis], site: Site):
    after: list[str] = []
    with make(after=lambda: after.append("whole")) as one:
        one.prepare()
        (found,) = one.run([STEP])
    assert site.events == [
        "swept", "remembered", "prepared", "mark fault break", "injected",
        "mark healed", "healed", "mark whole", "swept",
    ]  # fmt: skip
    assert found["began"] <= found["injected"] < found["healed"] <= found["whole"]
    assert found["healed"] - found["injected"] >= 0.02
    assert (found["hands"], found["error"], found["survived"], found["hits"]) == (False, "", True, ["app1"])
    assert found["cast"]["leader"] == "db1"
    assert after == ["whole"]


def test_a_site_that_needs_hands_is_mended_and_it_is_written_down(make: Callable[..., Nemesis], site: Site):
    site.heals_itself = False
    with make() as one:
        first, second = one.run([STEP, STEP])
    assert first["hands"]
    assert "not whole within 0.1 s: app1: broken" in first["problems"][0]
    assert second["whole"]
    assert site.events.count("rescued") == 2


def test_a_site_that_hands_cannot_mend_ends_the_run(make: Callable[..., Nemesis], site: Site):
    site.heals_itself, site.rescued = False, "app1: in ruins"
    with make() as one, pytest.raises(NotWhole, match="after break"):
        one.run([STEP, STEP])
    assert len(one.done) == 1
    assert one.done[0]["whole"] is None
    assert "app1: in ruins" in one.done[0]["problems"][-1]


def test_a_fault_that_did_not_happen_is_healed_and_written_down(make: Callable[..., Nemesis], site: Site):
    def fail() -> None:
        raise NodeError("the postmaster survived")

    with make(fail) as one:
        (found,) = one.run([STEP])
    assert found["error"] == "the postmaster survived"
    assert "healed" in site.events
    assert found["whole"]


def test_a_fault_for_which_there_is_nobody_is_left_out(make: Callable[..., Nemesis], site: Site):
    def nobody(stage: Any) -> Action:
        raise Absent("nobody is spare now")

    with make(build=nobody) as one:
        (found,) = one.run([STEP])
    assert found["absent"] == "nobody is spare now"
    assert "injected" not in site.events


def test_a_fault_that_cannot_be_prepared_here_is_left_out(make: Callable[..., Nemesis], site: Site, nodes: Nodes):
    class Unprepared(Break):
        def prepare(self) -> None:
            raise Absent("no library")

    with make(build=lambda stage: Unprepared(nodes, site)) as one:
        (found,) = one.run([STEP])
    assert (found["absent"], found["error"]) == ("no library", "")
    assert "injected" not in site.events
    # Half of what it needed may be there.
    assert "healed" in site.events


def test_a_heal_that_fails_twice_takes_hands(make: Callable[..., Nemesis], site: Site, nodes: Nodes, monkeypatch):
    class Stuck(Break):
        def heal(self) -> None:
            super().heal()
            raise NodeError("the engine is busy")

    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with make(build=lambda stage: Stuck(nodes, site)) as one:
        (found,) = one.run([STEP])
    assert found["hands"]
    assert site.events.count("healed") == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_run_and_heals(make: Callable[..., Nemesis], site: Site, number: signal.Signals):
    one = make(lambda: os.kill(os.getpid(), number))
    with pytest.raises(Stopped, match=number.name), one:
        one.run([Step("break", 0.0, 30.0)])
    assert site.events[-2:] == ["healed", "swept"]
    assert site.broken == []


def test_a_signal_while_it_heals_waits_until_it_has_healed(make: Callable[..., Nemesis], site: Site, nodes: Nodes):
    class Slow(Break):
        def heal(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)
            super().heal()

    one = make(build=lambda stage: Slow(nodes, site))
    with pytest.raises(Stopped, match="while it healed"), one:
        one.run([STEP, STEP])
    assert site.broken == []
    assert site.events.count("injected") == 1


def test_an_exception_of_ours_heals_too(make: Callable[..., Nemesis], site: Site):
    def defect() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), make(defect) as one:
        one.run([STEP])
    assert site.events[-2:] == ["healed", "swept"]


def test_what_is_seen_while_it_lasts_is_kept(make: Callable[..., Nemesis]):
    with make(before_heal=lambda action, stage: {"jobs_waiting": 3}) as one:
        assert one.run([STEP])[0]["jobs_waiting"] == 3


def test_a_site_that_is_not_whole_is_not_broken_further(make: Callable[..., Nemesis], site: Site):
    site.broken = ["db2: down"]
    with pytest.raises(NotWhole, match="db2: down"):
        make().prepare()
    assert "injected" not in site.events


def test_what_cannot_be_undone_of_an_earlier_run_is_said(make: Callable[..., Nemesis], monkeypatch):
    monkeypatch.setattr(actions, "sweep", lambda nodes: ["app1 is paused"])
    with pytest.raises(NotWhole, match="earlier run left cannot be undone: app1 is paused"):
        make().prepare()


def test_pairs_are_granted_more_time_than_one():
    assert catalogue.describe("kill-postgres + etcd-minority")["recovery"] == 180
    assert catalogue.describe("kill-postgres + etcd-minority")["dwell"] == 20
