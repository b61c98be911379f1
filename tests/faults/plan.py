"""What happens when: a seed gives the same faults, to the same roles, with the same pauses."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.faults.catalogue import FAULTS, PAIRS, describe

ROUND = 20
"""Faults under one load: what it saw is read back and judged after each round, while it still fits into memory."""
PAIR_EVERY = 5
QUIET = (2.0, 8.0)
"""Seconds between the moment at which the site is whole and the next fault: what is measured begins undisturbed."""


@dataclass(frozen=True)
class Step:
    """One fault of a plan."""

    name: str
    quiet: float
    dwell: float


def unplanned() -> list[str]:
    """Return the names of what happens without being asked for."""
    return [name for name, fault in FAULTS.items() if not fault.planned]


def steps(seed: int, number: int, names: Sequence[str] = (), pairs: bool = True) -> list[Step]:
    """Draw a plan. Each fault comes once before any comes twice; every fifth step is two at once."""
    dice = random.Random(seed)
    singles, doubles = _forever(dice, list(names) or unplanned()), _forever(dice, list(PAIRS))
    found = []
    for position in range(number):
        name = next(doubles if pairs and not names and position % PAIR_EVERY == PAIR_EVERY - 1 else singles)
        # Longer than needed at times, so that what happens late is seen as well.
        dwell = describe(name)["dwell"] * dice.uniform(1.0, 1.5)
        found.append(Step(name, round(dice.uniform(*QUIET), 1), round(dwell, 1)))
    return found


def rounds(plan: Sequence[Step]) -> Iterator[Sequence[Step]]:
    """Yield a plan in parts."""
    for start in range(0, len(plan), ROUND):
        yield plan[start : start + ROUND]


def _forever(dice: random.Random, names: list[str]) -> Iterator[str]:
    while True:
        drawn = list(names)
        dice.shuffle(drawn)
        yield from drawn
