"""Bytes that pass in pieces: compressed on the way, and read as a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import zstandard

LEVEL = 1  # zstd's: the worker shares the machine with others, and faster levels restore faster too


def compressed(raw: Iterable[bytes]) -> Iterator[bytes]:
    zstd = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).compressobj()
    for piece in raw:
        if packed := zstd.compress(piece):
            yield packed
    yield zstd.flush()


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
