"""The schedule keeps its rate, and says what it had to leave out."""

from __future__ import annotations

import threading
import time

import pytest

from tests.load.clients import Caller, Scheduled
from tests.load.history import History, read
from tests.load.schedule import Schedule, Slot
from tests.load.server import Server


def test_slots_come_at_fixed_distances_however_long_a_request_took():
    schedule = Schedule(10.0, 1.0)
    assert [schedule.next(now) for now in (9.5, 10.1, 11.9, 12.0)] == [Slot(due, 0, due) for due in (10, 11, 12, 13)]


def test_a_late_slot_is_taken_and_counts_from_when_it_was_due():
    schedule = Schedule(10.0, 1.0)
    schedule.next(10.0)
    assert schedule.next(11.8) == Slot(11.0, 0, 11.0)


def test_slots_that_went_by_are_reported_and_not_made_up_for():
    schedule = Schedule(10.0, 1.0)
    schedule.next(10.0)
    assert schedule.next(14.5) == Slot(14.0, 3, 11.0)
    assert schedule.next(14.6) == Slot(15.0, 0, 15.0)


def test_a_client_that_waits_writes_down_what_it_missed(zulip_server, state, tmp_path):
    server, stop = Server(state), threading.Event()

    class Slow(Scheduled):
        kind = "read"

        def turn(self, due: float) -> None:
            time.sleep(0.35)
            stop.set()

    history = History(tmp_path / "h", new=True)
    client = Slow(Caller("slow", server.client(server.users[0]), history), stop, 0.1)
    client.begin = time.monotonic()
    client.run()
    (line,) = read(tmp_path / "h")
    assert (line["kind"], line["of"], line["client"], line["interval"]) == ("missed", "read", "slow", 0.1)
    # How many went by depends on the machine; the first of them stands on the schedule (the history has four decimals).
    assert line["slots"] >= 2
    position = (line["began"] - client.begin) / 0.1
    assert position == pytest.approx(round(position), abs=0.01)
    assert not client.died


def test_a_client_that_dies_says_so(zulip_server, state, tmp_path, capsys):
    class Broken(Scheduled):
        def turn(self, due: float) -> None:
            raise KeyError("id")

    server = Server(state)
    client = Broken(Caller("broken", server.client(server.users[0]), History(tmp_path / "h")), threading.Event(), 0.1)
    client.begin = time.monotonic()
    client.run()
    assert client.died
    assert read(tmp_path / "h")[0]["name"] == "client died"
