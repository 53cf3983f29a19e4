"""Delta debugging: the shortest history that still restores wrongly, as far as the time allows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

from tests.torture.history import History, without
from tests.torture.stand import OracleFailed, Outcome, Stand

# One by one?  With which cuts, and replayed verbatim or compacted at each; None: its own.
WAYS = (
    (True, ((1.0,), (False,))),
    (True, ((1.0,), (True,))),
    (True, ((0.0, 1.0), (False, True))),
    (False, None),
)


def shrink(stand: Stand, history: History, seconds: float) -> tuple[History, Outcome | None]:
    """Drop ever smaller parts while a difference stays; None where it does not even show a second time."""
    deadline = time.monotonic() + seconds
    for one_by_one, places in WAYS if seconds else ():
        cuts, verbatim = places or (history.cuts, history.verbatim)
        tried = replace(history, cuts=cuts, verbatim=verbatim)
        best = _wrong(stand, tried, one_by_one)
        if best:
            return _shrunk(stand, tried, best, one_by_one, deadline)
    return history, None


def _shrunk(
    stand: Stand, history: History, best: Outcome, one_by_one: bool, deadline: float
) -> tuple[History, Outcome]:
    size = len(history.units) // 2
    while size:
        place = len(history.units)
        while place > 0:
            if time.monotonic() > deadline:
                return history, best
            place -= size
            dropped = set(_droppable(history, place, place + size))
            shorter = without(history, dropped)
            if dropped and (found := _wrong(stand, shorter, one_by_one)):
                history, best = shorter, found
        size //= 2
    return history, best


def _droppable(history: History, first: int, end: int) -> Iterator[int]:
    """Nothing goes without the schemas it is in."""
    for number in range(max(first, 0), end):
        if history.units[number].features[0] != "schemas":
            yield number


def _wrong(stand: Stand, history: History, one_by_one: bool) -> Outcome | None:
    try:
        outcome = stand.run(history, one_by_one)
    except OracleFailed:
        return None
    return outcome if outcome.differences else None
