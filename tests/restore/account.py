"""What a restored site has of what its users were told: pure functions of a history and of the rows that came back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.load.answers import OK, REFUSED

Line = Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """A message as the database has it after the restore."""

    id: int
    nonce: str
    topic: str
    content: str
    rendered: str
    receivers: int


@dataclass(frozen=True)
class Account:
    """Nonces of what is wrong, and how far the restore reaches."""

    acknowledged: int
    present: int
    lost: tuple[str, ...]
    """Acknowledged, and not there: after the moment that the restore reaches."""
    too_early: tuple[str, ...]
    """Lost although the restore reaches a later moment."""
    half: tuple[str, ...]
    strangers: tuple[str, ...]
    duplicates: tuple[str, ...]
    rpo: float
    """Seconds between the newest message that was acknowledged and the newest of those that are there."""
    reached: datetime | None = field(default=None)
    """A moment of which everything that was acknowledged before it has to be there."""

    @property
    def wrong(self) -> dict[str, tuple[str, ...]]:
        """What no restore may show."""
        kinds = {
            "lost before what the restore reaches": self.too_early,
            "half there": self.half,
            "never sent": self.strangers,
            "there twice": self.duplicates,
        }
        return {name: nonces for name, nonces in kinds.items() if nonces}


def moment(text: str) -> datetime:
    """Return a time as histories and programs write it: in UTC, whether they say so or not."""
    found = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def began(line: Line) -> datetime:
    """Return when a request was made."""
    return moment(line["at"])


def answered(line: Line) -> datetime:
    """Return when its answer was there."""
    return began(line) + timedelta(seconds=line["ended"] - line["began"])


def _is_half(row: Row, sent: Line | None, receivers: int) -> bool:
    """Whether something of a message is missing, or another message's."""
    whole = row.content.startswith(f"{row.nonce} ") and row.nonce in row.rendered and row.receivers == receivers
    if sent is None:
        return not whole
    # Its sender may have got no answer, and then knows no ID.
    return not whole or row.topic != sent["topic"] or row.id != sent.get("id", row.id)


def _in_flight(sends: Iterable[str]) -> set[str]:
    """Return what each writer may have been sending when the load was killed: a line is written when an answer came."""
    last: dict[str, int] = {}
    for nonce in sends:
        writer, _, number = nonce.rpartition("-")
        last[writer] = max(int(number), last.get(writer, 0))
    return {f"{writer}-{number + 1}" for writer, number in last.items()}


def account(lines: Sequence[Line], rows: Iterable[Row], receivers: int, replayed_to: datetime | None = None) -> Account:
    """Compare what writers were told with the rows; `receivers` is how many people get each message.

    A message that is there was committed after its request began, so everything that had been acknowledged by then was
    committed earlier, and write-ahead log is replayed in order: it has to be there as well. The time of the last commit
    that was replayed, where the restore names it, says the same.
    """
    sends = {line["nonce"]: line for line in lines if line["kind"] in ("send", "last") and "outcome" in line}
    run = next((line["data"]["run"] for line in lines if line["kind"] == "mark" and line["name"] == "load begins"), "")
    ours = [row for row in rows if row.nonce.startswith(f"{run}-")]
    there = Counter(row.nonce for row in ours)
    told = {nonce: line for nonce, line in sends.items() if line["outcome"] == OK}
    lost = [nonce for nonce in told if nonce not in there]

    kept = [sends[nonce] for nonce in there if nonce in sends]
    moments = [*map(began, kept), *([replayed_to] if replayed_to else [])]
    reached = max(moments, default=None)
    newest_told = max(map(answered, told.values()), default=None)
    newest_kept = max((answered(line) for line in kept if line["outcome"] == OK), default=None)
    first = min(map(began, sends.values()), default=None)
    rpo = 0.0
    if newest_told and first:
        rpo = max(0.0, (newest_told - (newest_kept or first)).total_seconds())
    # A refused message may not be there; one without an answer may, and nobody waits for it.
    asked = {nonce for nonce, line in sends.items() if line["outcome"] != REFUSED} | _in_flight(sends)
    strangers = [nonce for nonce in there if nonce not in asked]
    return Account(
        acknowledged=len(told),
        present=len(ours),
        lost=tuple(sorted(lost)),
        too_early=tuple(sorted(nonce for nonce in lost if reached and answered(told[nonce]) < reached)),
        half=tuple(sorted(row.nonce for row in ours if _is_half(row, sends.get(row.nonce), receivers))),
        strangers=tuple(sorted(strangers)),
        duplicates=tuple(sorted(nonce for nonce, times in there.items() if times > 1)),
        rpo=round(rpo, 3),
        reached=reached,
    )


def uploads(lines: Sequence[Line], before: datetime) -> dict[str, str]:
    """Return address and SHA-256 of the files whose upload was acknowledged before a moment."""
    return {
        line["url"]: line["sha256"]
        for line in lines
        if line["kind"] == "upload" and line.get("outcome") == OK and answered(line) < before
    }
