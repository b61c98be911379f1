"""The decision table, row by row and as a whole, and what makes an observer say that it lost the leader."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

from tests.unit.leader_watch.world import decision

LEADER = decision.Leadership("db1", 40, 7)
NEXT = decision.Leadership("db1", 50, 8)


def says(host: str, sight: str, leadership=LEADER):
    return decision.Observation(host, leadership.name, leadership.revision, sight)


LOST = tuple(says(host, decision.LOST) for host in ("app1", "app2", "db2", "mon1"))
# Every condition holds. Each test below takes one away.
FACTS = decision.Facts(
    leader=LEADER,
    observations=LOST,
    quorum=3,
    lost_seconds=3.0,
    synchronous=True,
    sync_leader="db1",
    sync_standbys=("db2",),
    unrenewed=3.0,
    ready=frozenset({"db2"}),
)


def test_a_leader_that_all_have_lost_is_replaced():
    verdict = decision.decide(FACTS)
    assert verdict.action == decision.REVOKE
    assert verdict.reason == "db1 is lost by app1, app2, db2, mon1, and db2 can replace it"


@pytest.mark.parametrize(
    ("changed", "action", "reason"),
    [
        ({"leader": None}, "watch", "nobody leads"),
        ({"observations": (*LOST, says("db1", "seen"))}, "hold", "and seen by db1"),
        ({"observations": (*LOST, says("db1", "new"))}, "hold", "db1 has never seen it lead"),
        ({"observations": (*LOST, says("db1", "lost", NEXT))}, "hold", "db1 has never seen it lead"),
        ({"observations": (*LOST, says("db1", "seen", NEXT))}, "hold", "db1 has never seen it lead"),
        ({"observations": LOST[:2]}, "hold", "fewer than 3 observers"),
        ({"paused": True}, "hold", "Patroni is paused"),
        ({"moving": True}, "hold", "a planned move is under way"),
        ({"synchronous": False}, "hold", "replication is not synchronous"),
        ({"sync_standbys": ()}, "hold", "no synchronous standby"),
        ({"sync_leader": "db2"}, "hold", "no synchronous standby"),
        ({"incident": True}, "hold", "one revocation in an incident"),
        ({"unrenewed": 2.0}, "hold", "it renews its lease"),
        ({"unrenewed": None}, "hold", "it renews its lease"),
        ({"ready": frozenset()}, "hold", "no synchronous standby answers: db2"),
        ({"ready": frozenset({"db3"})}, "hold", "no synchronous standby answers: db2"),
        ({"disarmed": "it was disarmed: drill"}, "would revoke", "but it was disarmed: drill"),
        ({"observations": tuple(says(host, "seen") for host in ("app1", "db1"))}, "watch", "seen by app1, db1"),
        ({"observations": (says("app1", "seen"), says("app2", "new"))}, "watch", "not yet by app2"),
        ({"observations": ()}, "watch", "seen by nobody"),
        # Any synchronous standby will do; one alone has to be there.
        ({"sync_standbys": ("db2", "db3"), "ready": frozenset({"db3"})}, "revoke", "db3 can replace it"),
        ({"observations": LOST[:3]}, "revoke", "lost by app1, app2, db2"),
    ],
)
def test_row(changed, action, reason):
    verdict = decision.decide(dataclasses.replace(FACTS, **changed))
    assert verdict.action == action
    assert reason in verdict.reason


def test_nothing_is_revoked_unless_every_condition_holds():
    """All combinations, against the conditions as one sentence."""
    choices = {
        "leader": (None, LEADER),
        "observations": (
            (),
            LOST[:1],
            LOST[:2],
            LOST,
            (*LOST, says("db1", "seen")),
            (*LOST, says("db1", "new")),
            (*LOST, says("db1", "lost", NEXT)),
        ),
        "synchronous": (False, True),
        "sync_leader": ("", "db1", "db2"),
        "sync_standbys": ((), ("db2",), ("db3",)),
        "paused": (False, True),
        "moving": (False, True),
        "incident": (False, True),
        "disarmed": ("", "off"),
        "unrenewed": (None, -1.0, 2.0, 3.0, 19.0),
        "ready": (frozenset(), frozenset({"db2"})),
    }
    revoked = 0
    for values in itertools.product(*choices.values()):
        facts = decision.Facts(quorum=3, lost_seconds=3.0, **dict(zip(choices, values, strict=True)))
        wanted = (
            facts.leader is not None
            and facts.observations == LOST
            and facts.synchronous
            and facts.sync_leader == "db1"
            and facts.sync_standbys == ("db2",)
            and not (facts.paused or facts.moving or facts.incident or facts.disarmed)
            and facts.unrenewed is not None
            and facts.unrenewed >= 3.0
            and "db2" in facts.ready
        )
        assert (decision.decide(facts).action == decision.REVOKE) == wanted, facts
        revoked += wanted
    assert revoked == 2  # the two values of `unrenewed`


# --- the observer -----------------------------------------------------------------------------------------------------


class Eyes:
    """An observer whose looks follow one another as in the program."""

    def __init__(self) -> None:
        self.now = 100.0
        self.observer = decision.Observer("app1", lost_seconds=3.0, patience=3.0)
        self.observer.follow(LEADER)

    def look(self, outcome: str, took: float = 0.0, leadership=LEADER, why: str = "") -> str:
        started, self.now = self.now, self.now + took
        self.observer.take(decision.Look(leadership, outcome, started, self.now, why))
        self.now = max(self.now, started + 0.5)
        return self.sight

    def silent(self, times: int = 1) -> list[str]:
        return [self.look(decision.SILENT, took=1.0, why="no answer") for _ in range(times)]

    @property
    def sight(self) -> str:
        return self.observer.observation(self.now).sight


@pytest.fixture
def eyes() -> Eyes:
    eyes = Eyes()
    eyes.look(decision.ANSWERED)
    return eyes


def test_a_leader_is_lost_after_the_whole_time_of_silence(eyes):
    assert eyes.silent(4) == ["seen", "seen", "lost", "lost"]
    assert eyes.observer.observation(eyes.now).why == "no answer"


def test_silence_that_comes_at_once_counts_by_the_clock_and_not_by_the_number(eyes):
    sights = [eyes.look(decision.SILENT) for _ in range(8)]
    assert sights == ["seen"] * 6 + ["lost"] * 2


def test_one_answer_ends_the_silence(eyes):
    eyes.silent(2)
    assert eyes.look(decision.ANSWERED) == "seen"
    assert eyes.silent(3) == ["seen", "seen", "lost"]
    assert eyes.look(decision.ANSWERED) == "seen"


def test_a_host_that_refuses_is_there(eyes):
    eyes.silent(2)
    assert eyes.look(decision.UNCLEAR) == "seen"
    assert eyes.silent(3) == ["seen", "seen", "lost"]
    assert eyes.look(decision.UNCLEAR) == "seen"


def test_refusing_for_ever_is_no_loss(eyes):
    assert {eyes.look(decision.UNCLEAR) for _ in range(50)} == {"seen"}


def test_who_has_never_seen_a_leader_cannot_lose_it():
    eyes = Eyes()
    assert set(eyes.silent(20)) == {"new"}
    assert eyes.look(decision.UNCLEAR) == "new"
    assert eyes.look(decision.ANSWERED) == "seen"


def test_another_leader_key_begins_anew(eyes):
    eyes.silent(3)
    assert eyes.sight == "lost"
    eyes.observer.follow(NEXT)
    assert eyes.sight == "new"
    # A look that was under way speaks of the key before.
    assert eyes.look(decision.ANSWERED) == "new"
    assert eyes.look(decision.ANSWERED, leadership=NEXT) == "seen"


def test_without_a_leader_there_is_nothing_to_say(eyes):
    eyes.observer.follow(None)
    assert eyes.observer.observation(eyes.now) == decision.Observation("app1")


def test_a_process_that_was_frozen_between_two_looks_counts_anew(eyes):
    eyes.silent(2)
    eyes.now += 60
    assert eyes.silent(3) == ["seen", "seen", "seen"]
    assert eyes.silent() == ["lost"]


def test_a_process_that_was_frozen_in_a_look_counts_anew(eyes):
    eyes.silent(1)
    assert eyes.look(decision.SILENT, took=60.0) == "seen"
    assert eyes.silent(3) == ["seen", "seen", "lost"]


def test_a_loss_is_forgotten_after_a_freeze(eyes):
    eyes.silent(3)
    assert eyes.sight == "lost"
    eyes.now += 60
    assert eyes.sight == "seen"  # nothing has looked for a minute
    assert eyes.silent(1) == ["seen"]


def test_standbys_are_those_of_the_last_look(eyes):
    ready = frozenset({"db2"})
    eyes.observer.take(decision.Look(LEADER, decision.SILENT, eyes.now, eyes.now + 1, "", ready))
    assert eyes.observer.ready(eyes.now + 1) == ready
    assert eyes.observer.ready(eyes.now + 10) == frozenset()
    eyes.now += 1
    eyes.look(decision.ANSWERED)
    assert eyes.observer.ready(eyes.now) == frozenset()
