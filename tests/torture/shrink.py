"""Delta debugging: the shortest history that still restores wrongly, as far as the time allows."""

from __future__ import annotations

import time
from collections.abc import Iterator

from tests.torture.history import History, without
from tests.torture.stand import OracleFailed, Outcome, Stand


def shrink(stand: Stand, history: History, seconds: float) -> tuple[History, Outcome | None]:
    """Drop ever smaller parts while a difference stays; None where it does not even show a second time."""
    deadline = time.monotonic() + seconds
    best: Outcome | None = None
    for one_by_one in (True, False):
        best = _wrong(stand, history, one_by_one)
        if best:
            break
    while best and time.monotonic() < deadline:
        for shorter in _shorter(history):
            if time.monotonic() > deadline:
                break
            if found := _wrong(stand, shorter, one_by_one):
                history, best = shorter, found
                break
        else:
            break
    return history, best


def _wrong(stand: Stand, history: History, one_by_one: bool) -> Outcome | None:
    try:
        outcome = stand.run(history, one_by_one)
    except OracleFailed:
        return None
    return outcome if outcome.differences else None


def _shorter(history: History) -> Iterator[History]:
    count = len(history.units)
    size = count // 2
    while size:
        for start in range(0, count, size):
            yield without(history, set(range(start, min(start + size, count))))
        size //= 2
