"""The checksums of many events at once.

An event ends with the CRC-32 of what is before it, so that the CRC-32 of a whole one is the same for all: RESIDUE.
And the CRC-32 of two things, one behind the other, is the first one's, moved by the length of the second, and the
second's (zlib's crc32_combine).  So the CRC-32 of a run of events follows from their lengths, and one look at its
bytes proves them all.
"""

from __future__ import annotations

from functools import cache
from itertools import accumulate, pairwise, repeat

import numpy as np
from isal.isal_zlib import crc32
from numpy.typing import NDArray

from backups.engine.mysql.memory import Numbers

RESIDUE = 0x2144DF1C
RUN = 1 << 14  # bytes: events that end within the same so many are proven together


def right(data: memoryview, ends: Numbers) -> int:
    """How many events, one behind the other in `data`, have right checksums before the first that has not."""
    runs = (ends - 1) // RUN
    firsts = np.flatnonzero(np.append(True, runs[1:] != runs[:-1])[: len(ends)])
    lasts = np.append(firsts[1:], len(ends))[: len(firsts)]
    stops = ends[lasts - 1]
    wanted = np.bitwise_xor.reduceat(_moved()[np.repeat(stops, lasts - firsts) - ends], firsts) if len(ends) else ends
    start = 0
    for first, last, stop, crc in zip(firsts.tolist(), lasts.tolist(), stops.tolist(), wanted.tolist(), strict=True):
        if crc32(data[start:stop]) != crc:
            return int(first) + _right(data, [start, *ends[first:last].tolist()])
        start = stop
    return len(ends)


def _right(data: memoryview, bounds: list[int]) -> int:
    """The same, one by one."""
    crcs = [crc32(data[start:end]) for start, end in pairwise(bounds)]
    return next((place for place, crc in enumerate(crcs) if crc != RESIDUE), len(crcs))


@cache
def _moved() -> NDArray[np.uint32]:
    """RESIDUE, moved by each number of bytes below RUN: what zeros make of it, without what they are by themselves."""
    with_it, alone = (accumulate(repeat(b"\0", RUN - 1), _feed, initial=crc) for crc in (RESIDUE, 0))
    return np.fromiter(with_it, np.uint32, RUN) ^ np.fromiter(alone, np.uint32, RUN)


def _feed(crc: int, data: bytes) -> int:
    return crc32(data, crc)
