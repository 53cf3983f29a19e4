"""Merging: slices that follow one another become one larger slice, proven before it is committed.

Nothing is given up here.  The small ones stay until `retention` lets them go, so a run that ends anywhere leaves
what was there, and at most a data object that no index names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Protocol

from backups.engine import layout
from backups.engine.archive import Archive
from backups.engine.errors import Corrupt, LeaseLost, Stopped
from backups.engine.levels import Group
from backups.engine.types import DataRef, Run, SliceIndex, SlicePoint, Transaction


class Engine(Protocol):
    """What merging asks of an engine's module."""

    def split_head(self, chunks: Iterable[bytes], /) -> tuple[bytes, Iterator[bytes]]: ...

    def may_follow(self, first: SliceIndex, head: bytes, index: SliceIndex, other: bytes, /) -> bool: ...

    def prove(self, index: SliceIndex, chunks: Iterable[bytes], /) -> None: ...


def merge(archive: Archive, group: Group, engine: Engine, run: Run) -> SliceIndex | None:
    """Commit one slice that holds what the group's slices hold, or the one that an earlier run committed there.

    It ends before the first slice that cannot be read under the format description of the first one; None where
    that is the second.  Raises Corrupt where a slice is damaged, Stopped, Transient, Refused.
    """
    first = group.parts[0]
    key = layout.index(archive.database, first.timeline, group.level, first.sequence)
    return archive.find_slice(key) or _write(archive, key, group, engine, run)


def _write(archive: Archive, key: str, group: Group, engine: Engine, run: Run) -> SliceIndex | None:
    joint = Joint(archive, list(_indexes(archive, group.parts)), engine, run)
    if not joint.possible():
        return None
    first = group.parts[0]
    data = archive.put_data(layout.slice_data(archive.database, first.timeline, group.level, first.sequence), joint)
    made = joint.index(key, group.level, data)
    try:
        engine.prove(made, archive.read_data(data))
        archive.write_slice(made)
    except Corrupt:
        archive.give_up(orphans=[data.key])
        raise
    except LeaseLost:
        made = archive.read_slice(key)
        if made.data.key != data.key:
            archive.give_up(orphans=[data.key])
    return made


def _indexes(archive: Archive, parts: Iterable[SlicePoint]) -> Iterator[SliceIndex]:
    """The parts' indexes, which must be as the catalogue has them."""
    parts = list(parts)
    for point, index in zip(parts, archive.read_slices(point.key for point in parts), strict=True):
        same(point, index)
        yield index


def same(point: SlicePoint, index: SliceIndex) -> None:
    """Raise Corrupt where an index is not the one that is known under its key."""
    if (index.holds, dict(index.start), dict(index.end)) != (point.holds, dict(point.start), dict(point.end)):
        raise Corrupt(
            f"Slice {point.key} is another one than the catalogue has.",
            next_step="Rebuild the catalogue from the storage.",
        )


class Joint:
    """The bytes of slices as one slice, and once these have passed, its transactions."""

    def __init__(self, archive: Archive, indexes: list[SliceIndex], engine: Engine, run: Run) -> None:
        self._archive = archive
        self._indexes = indexes
        self._engine = engine
        self._run = run
        self._held: list[SliceIndex] = []
        self._transactions: list[Transaction] = []
        self._size = 0

    def possible(self) -> bool:
        one, two = self._indexes[:2]
        return self._engine.may_follow(one, self._split(one)[0], two, self._split(two)[0])

    def __iter__(self) -> Iterator[bytes]:
        head = b""
        for index in self._indexes:
            other, rest = self._split(index)
            if not head:
                head = other
                self._size = len(head)
                yield head
            elif not self._engine.may_follow(self._indexes[0], head, index, other):
                return
            shift = self._size - len(other)
            for piece in rest:
                if self._run.should_stop():
                    raise Stopped("Merging goes on later.")
                self._size += len(piece)
                yield piece
            if self._size - shift != index.raw_size:
                raise Corrupt(f"{index.data.key} holds {self._size - shift} bytes, its index says {index.raw_size}.")
            self._transactions += (replace(one, offset=one.offset + shift) for one in index.transactions)
            self._held.append(index)

    def _split(self, index: SliceIndex) -> tuple[bytes, Iterator[bytes]]:
        return self._engine.split_head(self._archive.read_data(index.data))

    def index(self, key: str, level: int, data: DataRef) -> SliceIndex:
        return replace(
            self._held[0],
            key=key,
            level=level,
            end=self._held[-1].end,
            data=data,
            raw_size=self._size,
            written_us=self._held[-1].written_us,
            transactions=tuple(self._transactions),
            holds=self._held[-1].last - self._held[0].sequence + 1,
        )


def prove_again(archive: Archive, point: SlicePoint) -> None:
    """Read a merged slice whole before the ones that it holds may go; raise Corrupt where it is not what it was.

    What its hashes prove is what was proven event by event before it was committed.
    """
    index = archive.read_slice(point.key)
    same(point, index)
    read = sum(len(piece) for piece in archive.read_data(index.data))
    if read != index.raw_size:
        raise Corrupt(f"{index.data.key} holds {read} bytes, its index says {index.raw_size}.")
