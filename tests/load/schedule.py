"""When a client's requests are due, however long the last one took."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Slot:
    """One turn: when it was due, and which turns went by before it while the client was still waiting for an answer."""

    due: float
    missed: int = 0
    first_missed: float = 0.0


class Schedule:
    """Slots at fixed distances from a fixed beginning.

    A server that stalls must not slow the schedule down, or it would be asked least when it is worst. Slots that went
    by are reported, not made up for: a burst after each stall would be a load of its own.
    """

    def __init__(self, begin: float, interval: float) -> None:
        self.interval = interval
        self._due = begin

    def next(self, now: float) -> Slot:
        """Return the next slot: in the future, or the last one that is due."""
        first = self._due
        missed = max(0, int((now - first) // self.interval))
        due = first + missed * self.interval
        self._due = due + self.interval
        return Slot(due, missed, first)
