"""Which slices are to be merged into larger ones: pure functions over the slices of one timeline.

A busy server's slices come every few seconds.  Those of ten minutes become one slice of level 1, those of two hours
one of level 2, those of a day one of level 3, as long as it stays within bounds: a year is thousands of objects
whatever the interval, and each byte is written again three times at most.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from backups.engine.plan import cover
from backups.engine.types import SlicePoint

SPANS_US = {1: 600_000_000, 2: 7_200_000_000, 3: 86_400_000_000}  # of each level; the windows of one lie in the next's
MOST_BYTES = 128 << 20  # of a merged slice, decompressed: to read one transaction is to read what is before it
MOST_TRANSACTIONS = 50_000  # of a merged slice: its index is in memory as a whole
MOST_PARTS = 10_000


@dataclass(frozen=True, slots=True)
class Group:
    """Slices, each beginning where the one before it ends, that are to become one of a level."""

    level: int
    parts: tuple[SlicePoint, ...]


def due(slices: Iterable[SlicePoint], now_us: int, apart: Collection[str] = ()) -> Iterator[Group]:
    """What is to be merged now.

    slices: of one timeline, in order (`plan.order`); they may come from anywhere and are not kept.
    apart: keys of slices that cannot be joined to what is before them.
    A slice goes into the highest level whose window is over, so a long history is not written level by level.
    """
    group = _Growing(now_us)
    for point in cover(slices):
        if point.key in apart or not group.takes(point):
            yield from group.whole()
            group = _Growing(now_us)
        group.add(point)
    yield from group.whole()


class _Growing:
    """Slices that fit together so far."""

    def __init__(self, now_us: int) -> None:
        self._now_us = now_us
        self._parts: list[SlicePoint] = []
        self._window = (0, 0)
        self._bytes = self._transactions = 0

    def add(self, point: SlicePoint) -> None:
        self._window = _window(point, self._now_us)
        self._parts.append(point)
        self._bytes += point.raw_size
        self._transactions += point.count

    def takes(self, point: SlicePoint) -> bool:
        """Whether the slice goes on where the last one ends, into the same window, and stays within bounds."""
        if not self._parts:
            return True
        before = self._parts[-1]
        return (
            (point.sequence, dict(point.start)) == (before.last + 1, dict(before.end))
            and (point.storage, point.exact_times) == (before.storage, before.exact_times)
            and _window(point, self._now_us) == self._window
            and self._window[0] > max(point.level, before.level)
            and len(self._parts) < MOST_PARTS
            and self._bytes + point.raw_size <= MOST_BYTES
            and self._transactions + point.count <= MOST_TRANSACTIONS
        )

    def whole(self) -> Iterator[Group]:
        if len(self._parts) > 1:
            yield Group(self._window[0], tuple(self._parts))


def _window(point: SlicePoint, now_us: int) -> tuple[int, int]:
    """The highest level that the slice may be merged into, and the number of its window there; (0, 0) for none."""
    over = [(level, point.written_us // span) for level, span in SPANS_US.items()]
    return max((one for one in over if (one[1] + 1) * SPANS_US[one[0]] <= now_us), default=(0, 0))


def held(slices: Iterable[SlicePoint]) -> Iterator[tuple[SlicePoint, list[SlicePoint]]]:
    """Each slice that no larger one holds, of slices in order, with those that it holds and that are still there."""
    holder: SlicePoint | None = None
    parts: list[SlicePoint] = []
    for point in slices:
        if holder and point.last <= holder.last:
            parts.append(point)
            continue
        if holder and parts:
            yield holder, parts
        holder, parts = point, []
    if holder and parts:
        yield holder, parts


def makes_up(parts: Iterable[SlicePoint], holder: SlicePoint) -> bool:
    """Whether slices in order hold everything between them that a larger one does."""
    end, last = holder.start, holder.sequence - 1
    for point in parts:
        if point.sequence == last + 1 and dict(point.start) == dict(end):
            end, last = point.end, point.last
    return (last, dict(end)) == (holder.last, dict(holder.end))


def next_us(newest: SlicePoint, now_us: int) -> int | None:
    """When a window of the newest slice will be over next, which may make it due; None where all are."""
    ends = ((newest.written_us // span + 1) * span for span in SPANS_US.values())
    return min((end for end in ends if end > now_us), default=None)
