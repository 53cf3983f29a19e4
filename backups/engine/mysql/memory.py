"""Little-endian numbers in bytes, many at once, with numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]
Words = NDArray[np.uint64]
Flags = NDArray[np.bool_]

MASK = np.array([(1 << 8 * size) - 1 for size in range(9)], np.uint64)  # of a word's first so many bytes


class Memory:
    """Little-endian numbers anywhere in a buffer, many at once.  The buffer is to have some bytes to spare."""

    def __init__(self, buffer: memoryview) -> None:
        self._buffer = buffer
        self.bytes = np.frombuffer(buffer, np.uint8)
        self._shorts, self._longs, self._words = (_overlapping(buffer, size) for size in (2, 4, 8))

    def byte(self, at: Numbers) -> Numbers:
        return self.bytes[at].astype(np.int64)

    def short(self, at: Numbers) -> Numbers:
        return self._shorts[at].astype(np.int64)

    def long(self, at: Numbers) -> Numbers:
        return self._longs[at].astype(np.int64)

    def word(self, at: Numbers) -> Words:
        found: Words = self._words[at]
        return found

    def number(self, at: Numbers, size: int | Numbers) -> Numbers:
        """Of up to 7 bytes."""
        return (self.word(at) & MASK[size]).astype(np.int64)

    def alike(self, at: Numbers, sizes: Numbers) -> bool:
        """Whether there are the same bytes at each of these places, and as many."""
        size = int(sizes[0])
        pieces = np.ndarray((len(self._buffer) - size + 1,), f"V{size}", self._buffer, 0, (1,))[at]
        return bool((sizes == size).all()) and pieces.tobytes() == pieces[0].tobytes() * len(at)


def _overlapping(buffer: memoryview, size: int) -> NDArray[np.unsignedinteger]:
    """The number of so many bytes that begins at each byte."""
    return np.ndarray((len(buffer) - size + 1,), f"<u{size}", buffer, 0, (1,))


def these(*kinds: int) -> Flags:
    """Which bytes are among these."""
    return np.isin(np.arange(256), kinds)
