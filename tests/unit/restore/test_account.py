"""The account of a restore sees each thing that can be wrong, and passes what is right."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.restore.account import Row, account, uploads

BEGIN = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
RUN, RECEIVERS, MESSAGES = "load00000000", 5, 20
EVERY, TAKES = 1.0, 0.1


def at(seconds: float) -> str:
    return (BEGIN + timedelta(seconds=seconds)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Disaster:
    """Twenty messages, one a second, each answered after a tenth; and what came back, which tests then spoil."""

    def __init__(self, restored: int = MESSAGES) -> None:
        self.lines: list[dict[str, Any]] = [
            {"kind": "mark", "name": "load begins", "began": 0.0, "at": at(0), "data": {"run": RUN}}
        ]
        for n in range(MESSAGES):
            self.request("send", n * EVERY, nonce=self.nonce(n), seq=n + 1, topic="a topic", id=100 + n)
        self.rows = {n: self.row(n) for n in range(restored)}

    @staticmethod
    def nonce(n: int) -> str:
        return f"{RUN}-writer1-{n + 1}"

    def request(self, kind: str, began: float, outcome: str = "ok", **more: Any) -> None:
        self.lines.append(
            {"kind": kind, "began": began, "ended": began + TAKES, "at": at(began), "outcome": outcome, **more}
        )

    def row(self, n: int, **changes: Any) -> Row:
        nonce = changes.pop("nonce", self.nonce(n))
        whole = {"id": 100 + n, "topic": "a topic", "content": f"{nonce} says hello", "receivers": RECEIVERS}
        return Row(**{**whole, "nonce": nonce, "rendered": f"<p>{nonce} says hello</p>", **changes})

    def account(self, **options: Any) -> Any:
        return account(self.lines, list(self.rows.values()), RECEIVERS, **options)


def test_everything_came_back():
    found = Disaster().account()
    assert found.wrong == {}
    assert (found.acknowledged, found.present, found.lost, found.rpo) == (MESSAGES, MESSAGES, (), 0.0)


def test_the_end_is_missing():
    found = Disaster(restored=15).account()
    assert found.wrong == {}
    assert len(found.lost) == 5
    assert found.rpo == 5.0


def test_nothing_came_back():
    found = Disaster(restored=0).account()
    assert len(found.lost) == MESSAGES
    assert found.rpo == pytest.approx((MESSAGES - 1) * EVERY + TAKES)


def test_a_hole_is_no_end():
    disaster = Disaster(restored=15)
    del disaster.rows[7]
    assert disaster.account().wrong == {"lost before what the restore reaches": (disaster.nonce(7),)}


def test_a_message_that_was_answered_while_the_newest_one_was_sent_may_be_missing():
    disaster = Disaster(restored=15)
    del disaster.rows[13]
    disaster.lines[14]["ended"] += EVERY
    assert disaster.account().wrong == {}


def test_the_time_that_the_restore_names_counts():
    disaster = Disaster(restored=10)
    assert disaster.account(replayed_to=BEGIN + timedelta(seconds=9.5)).wrong == {}
    late = disaster.account(replayed_to=BEGIN + timedelta(seconds=11.5))
    assert late.wrong == {"lost before what the restore reaches": tuple(sorted(map(disaster.nonce, (10, 11))))}


@pytest.mark.parametrize(
    "changes", [{"receivers": 4}, {"content": "says hello"}, {"rendered": ""}, {"topic": "another"}, {"id": 999}]
)
def test_half_a_message(changes: dict[str, Any]):
    disaster = Disaster()
    disaster.rows[3] = disaster.row(3, **changes)
    assert disaster.account().wrong == {"half there": (disaster.nonce(3),)}


def test_a_message_that_is_there_twice():
    disaster = Disaster()
    disaster.rows[99] = disaster.row(3)
    assert disaster.account().wrong == {"there twice": (disaster.nonce(3),)}


def test_a_message_that_nobody_sent():
    disaster = Disaster()
    disaster.rows[99] = disaster.row(3, nonce=f"{RUN}-writer7-1")
    assert disaster.account().wrong == {"never sent": (f"{RUN}-writer7-1",)}


def test_a_message_that_was_refused():
    disaster = Disaster()
    disaster.lines[4]["outcome"] = "refused"
    assert disaster.account().wrong == {"never sent": (disaster.nonce(3),)}


def test_a_message_that_was_being_sent_when_the_load_was_killed_may_be_there():
    disaster = Disaster()
    disaster.rows[MESSAGES] = disaster.row(MESSAGES)
    assert disaster.account().wrong == {}


def test_messages_of_another_run_are_not_looked_at():
    disaster = Disaster()
    disaster.rows[99] = disaster.row(3, nonce="load11111111-writer1-1")
    assert disaster.account().wrong == {}


def test_uploads_before_a_moment():
    disaster = Disaster()
    disaster.request("upload", 2.0, url="/early", sha256="aa")
    disaster.request("upload", 3.0, "unknown", sha256="bb")
    disaster.request("upload", 4.95, url="/late", sha256="cc")
    assert uploads(disaster.lines, BEGIN + timedelta(seconds=5)) == {"/early": "aa"}
