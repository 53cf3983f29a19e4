"""Effective commit times where a server's own cannot be trusted one by one (MariaDB).

Each transaction is looked at among the 21 around it in log order: ten before, itself, ten after, fewer at the
log's ends.  Of these the longest run that never decreases is taken to be the true order (of several, the one whose
times are nearest to the median).  A time stays as it is where it lies in that run, or at most 60 s outside its two
neighbours there, or at most 60 s from the median of the 21 (the lower of two).  Every other one takes the median,
held between those two neighbours.  So a `SET TIMESTAMP` into the future or the past is seen for what it is, while
ordered times, idle hours, a stepped clock and statements that finish a little out of order keep their times.
"""

from __future__ import annotations

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
    low, high = _ordered_neighbours(window, middle, median)
    if low - TOLERANCE_US <= time <= high + TOLERANCE_US:
        return time
    return min(max(median, low), high)


def _ordered_neighbours(window: Sequence[int], middle: int, median: int) -> tuple[int, int]:
    """The times just before and after the middle (or at it) in the longest run that never decreases."""
    run = _longest_ordered(window, median)
    low = [window[place] for place in run if place <= middle]
    high = [window[place] for place in run if place >= middle]
    return (low[-1] if low else min(window)), (high[0] if high else max(window))


def _longest_ordered(window: Sequence[int], median: int) -> list[int]:
    """Places of the longest non-decreasing subsequence, of several the one nearest to the median."""
    best: list[tuple[int, int, int]] = []  # of those that end here: (length, minus the distance, the place before)
    for place, time in enumerate(window):
        ending_below = [
            (best[before][0] + 1, best[before][1], before) for before in range(place) if window[before] <= time
        ]
        length, nearness, before = max(ending_below, default=(1, 0, -1))
        best.append((length, nearness - abs(time - median), before))
    place = max(range(len(window)), key=lambda place: best[place])
    run = []
    while place >= 0:
        run.append(place)
        place = best[place][2]
    return run[::-1]
