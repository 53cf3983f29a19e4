"""Columns cut out of row images as they are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from backups.engine.errors import Corrupt
from backups.engine.mysql.memory import MASK, Memory, Numbers
from backups.engine.mysql.rows import TableMap, Walker, Width

# A wanted column in an image: the way to the length in front of it, offset behind that value, and its own width.
Place = tuple[list[Width], int, int, int]


class _Way(NamedTuple):
    """Over an image with certain NULLs.  together: offset and end of the wanted columns where these lie side by side
    and at the same place in all such images."""

    steps: list[Width]
    tail: int
    places: list[Place]
    together: tuple[int, int] | None


class Finder(Walker):
    """Steps over images and cuts some columns out of them."""

    def __init__(self, table: TableMap, columns: bytes, wanted: Iterable[int]) -> None:
        super().__init__(table.types, table.metadata, columns)
        present = [n for n in range(len(table.types)) if columns[n >> 3] >> (n & 7) & 1]
        self.wanted = frozenset(present.index(n) for n in wanted)
        self.found: dict[bytes, _Way] = {}

    def find(self, body: bytes, at: int) -> tuple[bytes, int]:
        """The wanted columns of the image that begins at `at`, as one, and where it ends (which may be beyond the
        body: the caller's count will not fit)."""
        start = at + self.null_size
        nulls = body[at:start]
        steps, tail, places, together = self.found.get(nulls) or self._find(nulls)
        if together is None:
            return self._gather(body, start, places), self._end(body, start, steps) + tail
        first, end = together
        return body[start + first : start + end], self._end(body, start, steps) + tail

    def find_all(self, body: bytes, memory: Memory, at: Numbers, stops: Numbers) -> tuple[list[bytes], Numbers]:
        """As `find`, of images that begin at or before their stops.  memory: holds the body, and some bytes to spare.

        Keys of images that end behind their stops are anything.
        """
        if self.null_size > 8:
            return self._one_by_one(body, at)
        nulls = memory.word(at) & MASK[self.null_size]
        keys, ends = [b""] * len(at), at.copy()
        for pattern in np.unique(nulls):
            those = np.flatnonzero(nulls == pattern)
            bits = int(pattern).to_bytes(8, "little")[: self.null_size]
            steps, tail, places, together = self.found.get(bits) or self._find(bits)
            begins = at[those] + self.null_size
            ends[those] = _ends(memory, begins, stops[those], steps) + tail
            found: Iterable[bytes] = (self._gather(body, begin, places) for begin in begins.tolist())
            if together is not None:
                first, end = together
                found = (body[begin + first : begin + end] for begin in begins.tolist())
            for place, key in zip(those.tolist(), found, strict=True):
                keys[place] = key
        return keys, ends

    def _one_by_one(self, body: bytes, at: Numbers) -> tuple[list[bytes], Numbers]:
        found = [self.find(body, begin) for begin in at.tolist()]
        return [key for key, _ in found], np.array([end for _, end in found], np.int64)

    @staticmethod
    def _end(body: bytes, at: int, steps: list[Width]) -> int:
        for fixed, prefix in steps:
            at += fixed
            at += prefix + int.from_bytes(body[at : at + prefix], "little")
        return at

    def _gather(self, body: bytes, start: int, places: list[Place]) -> bytes:
        """Each with its length in front, where it has one."""
        parts = []
        for steps, offset, fixed, prefix in places:
            at = self._end(body, start, steps) + offset
            size = fixed if not prefix else prefix + int.from_bytes(body[at : at + prefix], "little")
            parts.append(body[at : at + size])
        return b"".join(parts)

    def _find(self, nulls: bytes) -> _Way:
        if len(nulls) < self.null_size:
            raise Corrupt("A row event ends inside a row.")
        steps: list[Width] = []
        places: list[Place] = []
        run = 0
        for number, (fixed, prefix) in enumerate(self.widths):
            if nulls[number >> 3] >> (number & 7) & 1:
                continue
            if number in self.wanted:
                places.append((steps[:], run, fixed, prefix))
            run += fixed
            if prefix:
                steps.append((run, prefix))
                run = 0
        if len(self.found) >= self.KEPT:
            self.found.clear()
        way = self.found[nulls] = _Way(steps, run, places, _side_by_side(places))
        return way


def _ends(memory: Memory, at: Numbers, stops: Numbers, steps: list[Width]) -> Numbers:
    for fixed, prefix in steps:
        at = at + fixed
        at = at + prefix + memory.number(np.minimum(at, stops), prefix)
    return at


def _side_by_side(places: list[Place]) -> tuple[int, int] | None:
    end = first = places[0][1] if places else 0
    for steps, offset, fixed, prefix in places:
        if steps or prefix or offset != end:
            return None
        end = offset + fixed
    return first, end
