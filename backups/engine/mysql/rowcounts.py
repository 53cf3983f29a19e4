"""Rows in many row events at once: `rows.images` is the reference, this steps over all their images side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np

from backups.engine.errors import Corrupt
from backups.engine.mysql import events, rows
from backups.engine.mysql.memory import MASK, Memory, Numbers, Words

WIDEST = 64  # columns: their bits are one word
FEW = 64  # events: so many or fewer are counted sooner one by one
KEPT = 4096  # tables or ways over an image that are remembered, before all are forgotten
T = TypeVar("T")


class _Numbered(Generic[T]):
    """What is made of two numbers each, numbered as it comes."""

    def __init__(self, make: Callable[[int, int], T]) -> None:
        self.made: list[T] = []
        self._make = make
        self._known: dict[tuple[int, int], int] = {}

    def number(self, first: int, second: int) -> int:
        """-1 where it cannot be made."""
        number = self._known.get((first, second))
        if number is None:
            try:
                self.made.append(self._make(first, second))
                number = len(self.made) - 1
            except Corrupt:
                number = -1
            self._known[first, second] = number
        return number

    def numbers(self, firsts: Numbers, seconds: Words) -> Numbers:
        """Of each pair; a single one where all pairs are the same."""
        if not len(firsts) or ((firsts == firsts[0]).all() and (seconds == seconds[0]).all()):
            return np.array([self.number(int(firsts[0]), int(seconds[0]))] if len(firsts) else [], np.int64)
        words, word = np.unique(seconds, return_inverse=True)
        pairs, pair = np.unique(firsts * len(words) + word, return_inverse=True)
        first, second = pairs // len(words), words[pairs % len(words)]
        made = [self.number(*both) for both in zip(first.tolist(), second.tolist(), strict=True)]
        return np.array(made, np.int64)[pair]


class _Learnt(dict[bytes, int]):
    """Numbers that are found out at the first asking."""

    def __init__(self, learn: Callable[[bytes], int]) -> None:
        self._learn = learn

    def __missing__(self, key: bytes) -> int:
        self[key] = number = self._learn(key)
        return number


class RowCounts:
    """Knows tables, and the ways over their rows, by number."""

    def __init__(self) -> None:
        self.tables: list[rows.TableMap] = []
        self._known = _Learnt(self._new_table)
        self._shapes: dict[tuple[bytes, tuple[int, ...]], int] = {}
        self._of_tables: list[tuple[int, int]] = []  # shape and columns of each
        self._walkers = _Numbered(self._walker)
        self._ways = _Numbered(self._way)
        self._laid_out = _LaidOut([])

    def full(self) -> bool:
        return max(map(len, (self._known, self._walkers.made, self._ways.made))) > KEPT

    def numbers_of(self, maps: list[bytes]) -> Numbers:
        """Of the tables that the bodies of table maps are about; -1 for one that cannot be read, or is too wide."""
        return np.fromiter(map(self._known.__getitem__, maps), np.int64, len(maps))

    def _new_table(self, body: bytes) -> int:
        try:
            table = rows.table_of(body)
        except Corrupt:
            return -1
        if len(table.types) > WIDEST:
            return -1
        self.tables.append(table)
        shape = self._shapes.setdefault((table.types, table.metadata), len(self._shapes))
        self._of_tables.append((shape, len(table.types)))
        return len(self.tables) - 1

    def count(
        self,
        memory: Memory,
        event: Callable[[int], bytes],
        places: Numbers,
        starts: Numbers,
        sizes: Numbers,
        tables: Numbers,
    ) -> Numbers:
        """Rows in each event, -1 where that is not known.

        event: gives the bytes of the one at a place; starts, sizes: in memory; tables: the numbers of theirs.
        """
        if not len(places):
            return places
        stops = starts + sizes - events.CHECKSUM_SIZE
        shapes, widths = np.array(self._of_tables, np.int64)[tables].T
        updates = memory.bytes[starts + 4] == events.UPDATE_ROWS
        extra = memory.short(starts + events.HEADER_SIZE + 8)
        head = np.minimum(starts + events.HEADER_SIZE + 8 + extra, stops)
        size = (widths + 7) >> 3
        at = head + 1 + size * np.where(updates, 2, 1)
        known = (extra >= 2) & (memory.byte(head) == widths) & (at <= stops)
        before, after = np.full(len(places), -1), np.full(len(places), -1)
        one, two = np.flatnonzero(known), np.flatnonzero(known & updates)
        before[one] = self._walkers.numbers(shapes[one], memory.word(head[one] + 1) & MASK[size[one]])
        after[two] = self._walkers.numbers(shapes[two], memory.word((head + 1 + size)[two]) & MASK[size[two]])
        counts = np.where(known & (before >= 0) & ((after >= 0) | ~updates), 0, -1)
        for place in self._walk(memory, counts, at, stops, before, after).tolist():
            counts[place] = self._count(event(int(places[place])), self.tables[tables[place]])
        return counts

    def _walk(
        self, memory: Memory, counts: Numbers, at: Numbers, stops: Numbers, before: Numbers, after: Numbers
    ) -> Numbers:
        """Step over one row of every event, again and again; return those that are left when they are few."""
        live = np.flatnonzero((counts == 0) & (at < stops))
        while len(live) > FEW:
            begun, stop, second = at[live], stops[live], after[live]
            there = self._skip(memory, begun, before[live], stop)
            both = np.flatnonzero(second >= 0)
            there[both] = self._skip(memory, there[both], second[both], stop[both])
            good = (there > begun) & (there <= stop)
            counts[live] = np.where(good, counts[live] + 1, -1)
            at[live] = there
            live = live[good & (there < stop)]
        return live

    def _count(self, raw: bytes, table: rows.TableMap) -> int:
        try:
            return rows.count(events.parse(memoryview(raw), events.CHECKSUM_SIZE), table)
        except Corrupt:
            return -1

    def _skip(self, memory: Memory, at: Numbers, walkers: Numbers, stops: Numbers) -> Numbers:
        """Where each image ends; behind its stop where it does not fit."""
        if not len(at):
            return at
        inside = np.minimum(at, stops)
        null_sizes = np.array([walker.null_size for walker in self._walkers.made])[walkers]
        ways = self._ways.numbers(walkers, memory.word(inside) & MASK[null_sizes])
        if len(self._ways.made) != len(self._laid_out.tails):
            self._laid_out = _LaidOut(self._ways.made)
        ends = self._laid_out.follow(memory, inside + null_sizes, ways, stops)
        return np.maximum(ends, at)  # an after image of no columns must not bring back what went too far

    def _walker(self, shape: int, columns: int) -> rows.Walker:
        types, metadata = list(self._shapes)[shape]
        return rows.walker(types, metadata, columns.to_bytes(8, "little"))

    def _way(self, walker: int, nulls: int) -> rows.Way:
        return self._walkers.made[walker].way(nulls.to_bytes(8, "little"))


class _LaidOut:
    """Ways as columns, so that many images can go the same step of different ways at once."""

    def __init__(self, ways: list[rows.Way]) -> None:
        self.lengths = np.array([len(steps) for steps, _ in ways], np.int64)
        self.tails = np.array([tail for _, tail in ways], np.int64)
        self.skips = np.zeros((max(self.lengths, default=0), len(ways)), np.int64)
        self.prefixes = np.zeros_like(self.skips)
        for number, (steps, _) in enumerate(ways):
            for step, (skip, prefix) in enumerate(steps):
                self.skips[step, number], self.prefixes[step, number] = skip, prefix

    def follow(self, memory: Memory, at: Numbers, ways: Numbers, stops: Numbers) -> Numbers:
        for step in range(self.lengths[ways].max()):
            at = at + self.skips[step][ways]
            size = self.prefixes[step][ways]
            at = at + size + memory.number(np.minimum(at, stops), size)
        end: Numbers = at + self.tails[ways]
        return end
