"""Effective commit times where a server's own cannot be trusted one by one (MariaDB).

Each transaction is looked at among the 21 around it in log order: ten before, itself, ten after, fewer at the
log's ends.  Of these the longest run that never decreases is taken to be the true order (of several, the one with
the smallest times).  A time stays as it is where it lies in that run, or at most 60 s outside its two neighbours
there, or at most 60 s from the median of the 21 (the lower of two).  Every other one takes the median, held between
those two neighbours.  So a `SET TIMESTAMP` into the future or the past is seen for what it is, while ordered times,
idle hours, a clock that was stepped and statements that finish a little out of order keep their times.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise

AROUND = 10
TOLERANCE_US = 60_000_000


def effective(before: Sequence[int], times: Sequence[int], after: Sequence[int]) -> list[int]:
    """The effective ones of `times`, microseconds; before, after: the neighbours' recorded times, in log order."""
    every = [*before[-AROUND:], *times, *after[:AROUND]]
    if all(one <= following for one, following in pairwise(every)):
        return list(times)
    first = len(every) - len(times) - len(after[:AROUND])
    return [_settled(every, place) for place in range(first, first + len(times))]


def _settled(every: Sequence[int], place: int) -> int:
    start = max(place - AROUND, 0)
    window, middle, time = every[start : place + AROUND + 1], place - start, every[place]
    median = sorted(window)[(len(window) - 1) // 2]
    if abs(time - median) <= TOLERANCE_US:
        return time
    low, high = _ordered_neighbours(window, middle)
    if low - TOLERANCE_US <= time <= high + TOLERANCE_US:
        return time
    return min(max(median, low), high)


def _ordered_neighbours(window: Sequence[int], middle: int) -> tuple[int, int]:
    """The times just before and after the middle (or at it) in the longest run that never decreases."""
    run = _longest_ordered(window)
    low = [window[place] for place in run if place <= middle]
    high = [window[place] for place in run if place >= middle]
    return (low[-1] if low else min(window)), (high[0] if high else max(window))


def _longest_ordered(window: Sequence[int]) -> list[int]:
    """Places of the longest non-decreasing subsequence with the smallest end (patience sorting)."""
    tails: list[int] = []
    places: list[int] = []
    before: list[int] = []
    for place, time in enumerate(window):
        rank = bisect_right(tails, time)
        before.append(places[rank - 1] if rank else -1)
        tails[rank : rank + 1] = [time]
        places[rank : rank + 1] = [place]
    run = [places[-1]]
    while before[run[-1]] >= 0:
        run.append(before[run[-1]])
    return run[::-1]
