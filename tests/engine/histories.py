"""Small made-up histories: positions are {"at": n}, just after transaction n, whose identity is "gtid:n"."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain
from types import SimpleNamespace
from typing import Any

from backups.engine import layout
from backups.engine.slices import point
from backups.engine.types import BackupPoint, DataRef, Position, SliceIndex, SlicePoint, Transaction

DATABASE = "00000000-0000-4000-8000-00000000000d"
TIMELINE = "00000000-0000-4000-8000-00000000000a"
OTHER_TIMELINE = "00000000-0000-4000-8000-00000000000b"
SECOND = 1_000_000


def number(transaction: Transaction) -> int:
    return int(transaction.identity.removeprefix("gtid:"))


engine: Any = SimpleNamespace(
    at_or_before=lambda a, b: a["at"] <= b["at"],
    contains=lambda position, transaction: number(transaction) <= position["at"],
    position_after=lambda index, transaction: at(number(transaction)),
)


def at(place: int) -> Position:
    return {"at": place}


def backup(id: str, place: int, view_us: int | None = None, timeline: str = TIMELINE, **more: Any) -> BackupPoint:
    return BackupPoint(id, timeline, at(place), place * SECOND if view_us is None else view_us, **more)


def index(
    sequence: int, times: Sequence[int], start: int, *, exact: bool = True, level: int = 0, timeline: str = TIMELINE
) -> SliceIndex:
    """A slice of the transactions start+1, start+2, ... with these commit times."""
    data = DataRef(layout.slice_data(DATABASE, timeline, level, sequence), 1, "0" * 64)
    made = [Transaction(time, f"gtid:{start + 1 + place}", place * 10, 10) for place, time in enumerate(times)]
    previous = layout.index(DATABASE, timeline, level, sequence - 1) if sequence else ""
    return SliceIndex(
        layout.index(DATABASE, timeline, level, sequence), timeline, level, sequence, previous, at(start),
        at(start + len(times)), data, 10 * len(made), exact, 0, tuple(made),
    )  # fmt: skip


def history(slices: Iterable[Sequence[int]], **how: Any) -> list[SliceIndex]:
    """One index for each list of commit times, one after the other from the start of the log."""
    made: list[SliceIndex] = []
    start = 0
    for sequence, times in enumerate(slices):
        made.append(index(sequence, times, start, **how))
        start += len(times)
    return made


def merged(level: int, parts: Sequence[SliceIndex]) -> SliceIndex:
    """One slice in place of several that follow one another."""
    first, last = parts[0], parts[-1]
    every = list(chain.from_iterable(one.transactions for one in parts))
    return replace(
        first,
        key=layout.index(DATABASE, first.timeline, level, first.sequence),
        level=level,
        end=last.end,
        data=replace(first.data, key=layout.slice_data(DATABASE, first.timeline, level, first.sequence)),
        raw_size=sum(one.raw_size for one in parts),
        written_us=last.written_us,
        transactions=tuple(replace(one, offset=place * 10) for place, one in enumerate(every)),
        holds=last.last - first.sequence + 1,
    )


def points(indexes: Iterable[SliceIndex]) -> list[SlicePoint]:
    return [point(one, "store") for one in indexes]


class Loader:
    """Reads indexes and remembers which."""

    def __init__(self, indexes: Iterable[SliceIndex]) -> None:
        self._indexes = {one.key: one for one in indexes}
        self.read: list[int] = []

    def __call__(self, point: SlicePoint) -> SliceIndex:
        self.read.append(point.sequence)
        return self._indexes[point.key]
