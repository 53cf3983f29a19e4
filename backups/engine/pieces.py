"""Bytes that pass in pieces: compressed on the way, and read as a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import zstandard

from backups.engine.types import Piece

LEVEL = 1  # zstd's: the worker shares the machine with others, and faster levels restore faster too
FRAME = 257 << 10  # bytes at least, from which on zstd takes its fast way; by frames it takes 1/8 less than as one


def compressed(raw: Iterable[Piece]) -> Iterator[bytes]:
    zstd = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True)
    yield from map(zstd.compress, _frames(raw))


def _frames(raw: Iterable[Piece]) -> Iterator[Piece]:
    """Small pieces together, large ones as they are: one may have a gigabyte.  The last may be empty."""
    small: list[Piece] = []
    size = 0
    for piece in raw:
        if len(piece) < FRAME:
            small.append(piece)
            size += len(piece)
        if size >= FRAME or (small and len(piece) >= FRAME):
            yield b"".join(small)
            small, size = [], 0
        if len(piece) >= FRAME:
            yield piece
    yield b"".join(small)


class AsFile:
    """Pieces as a file, which is how zstandard likes to be fed."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")

    def read(self, size: int) -> memoryview:
        if not self._rest:
            self._rest = memoryview(next(self._pieces, b""))
        piece, self._rest = self._rest[:size], self._rest[size:]
        return piece
