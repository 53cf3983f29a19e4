"""The events in a receive buffer, all at once, with numpy."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from backups.engine.mysql import checksums, events
from backups.engine.mysql.memory import Flags, Memory, Numbers, these

OVERHEAD = 5  # bytes of a packet before its event: size, number, and that it is an event
SMALLEST = events.HEADER_SIZE + events.CHECKSUM_SIZE  # bytes of an event
LARGEST = 1 << 24  # bytes of a transaction
STEP = 1 << 16  # bytes looked at in one go: memory that is used again is cheaper than new
SLAB = 4 << 20  # bytes, from which on numpy asks the system for large pages
_SIZE = OVERHEAD + 9  # where a packet has its event's size
_LEFT = these(*events.STRUCTURE, events.INCIDENT, events.TAGGED_GTID, events.MARIA_GTID)


class Slab:
    """Memory for what is kept a while.  The system gives much of it at once, where page by page is dear."""

    def __init__(self) -> None:
        self._left = np.empty(0, np.uint8)

    def take(self, size: int) -> NDArray[np.uint8]:
        if size < SLAB // 16:  # most servers say little most of the time
            self._left = np.empty(0, np.uint8)
        if not SLAB // 16 <= size <= SLAB // 2:  # a slab stays as long as any part of it: little is to be left over
            return np.empty(size, np.uint8)
        if size > len(self._left):
            self._left = np.empty(SLAB, np.uint8)
        part, self._left = self._left[:size], self._left[size:]
        return part


class Log:
    """The events of a buffer from `at` on, up to the first that is not plainly right, each proven by its checksum.

    starts: where they begin in memory; places: where they end in the log file; data: their bytes, one behind the
    other; ends: where they do in it.
    """

    def __init__(self, buffer: memoryview, at: int, end: int, pos: int, slab: Slab) -> None:
        self.memory = memory = Memory(buffer)
        self.starts, self.sizes = framed(memory, at, end)
        self.kinds = memory.bytes[self.starts + 4]
        self.places = memory.long(self.starts + 13)
        self._keep(leading(self._plain(pos)))
        self.data = _bare(memory, self.starts, self.sizes, slab)
        self._keep(checksums.right(self.data, np.cumsum(self.sizes)))
        self.ends = np.cumsum(self.sizes)
        self.reach = int(self.starts[-1] + self.sizes[-1]) if len(self) else at

    def __len__(self) -> int:
        return len(self.starts)

    def event(self, number: int) -> bytes:
        end = int(self.ends[number])
        return bytes(self.data[end - int(self.sizes[number]) : end])

    def bodies(self, numbers: Numbers) -> list[bytes]:
        """What several events have between header and checksum."""
        starts = (self.ends - self.sizes)[numbers] + events.HEADER_SIZE
        ends = self.ends[numbers] - events.CHECKSUM_SIZE
        return [bytes(self.data[start:end]) for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]

    def _plain(self, pos: int) -> Flags:
        memory, starts = self.memory, self.starts
        before = np.append(pos & 0xFFFFFFFF, self.places[:-1])
        plain: Flags = (
            (self.sizes < LARGEST)
            & (memory.bytes[starts + 17] & events.FLAG_ARTIFICIAL == 0)
            & ~_LEFT[self.kinds]
            & (self.places > before)
        )
        return plain

    def _keep(self, count: int) -> None:
        self.starts, self.sizes = self.starts[:count], self.sizes[:count]
        self.kinds, self.places = self.kinds[:count], self.places[:count]


def framed(memory: Memory, at: int, end: int) -> tuple[Numbers, Numbers]:
    """Where the events in the whole packets from `at` on begin, and their sizes, up to the first that is no event.

    Not by going from packet to packet: a packet is where one size is told twice, and the one before it ends.
    """
    found = _likely(memory.bytes[at:end]) + at
    sizes = memory.long(found + _SIZE)
    ends = found + OVERHEAD + sizes
    good = (memory.long(found) & 0xFFFFFF == sizes + 1) & (sizes >= SMALLEST) & (ends <= end)
    found, sizes, ends = found[good], sizes[good], ends[good]
    chain = _chain(at, found, ends)
    return found[chain] + OVERHEAD, sizes[chain]


def _likely(data: NDArray[np.uint8]) -> Numbers:
    """Places that could be a packet's: an event's, less than 16 MB, and so far of the size that the event tells."""
    behind = _SIZE + 3
    return np.concatenate([_likely_in(data[at : at + STEP + behind]) + at for at in range(0, len(data) or 1, STEP)])


def _likely_in(data: NDArray[np.uint8]) -> Numbers:
    count = max(len(data) - _SIZE - 3, 0)
    zeros = data[:count] - data[_SIZE:][:count] - np.uint8(1)
    zeros |= data[OVERHEAD - 1 :][:count]  # 0: an event
    zeros |= data[_SIZE + 3 :][:count]
    return np.flatnonzero(zeros == 0)


def _chain(at: int, starts: Numbers, ends: Numbers) -> Numbers:
    """Which of these begin where the one before ends: what only looks like a packet lies inside of one."""
    nexts = np.append(at, ends)
    if (starts == nexts[:-1]).all():
        return np.arange(len(starts))
    follow = np.searchsorted(starts, nexts)
    there = np.append(starts, -1)[follow] == nexts
    chain, after, exists = [], follow.tolist(), there.tolist()
    number = 0
    while exists[number]:
        chain.append(after[number])
        number = after[number] + 1
    return np.array(chain, np.int64)


def _bare(memory: Memory, starts: Numbers, sizes: Numbers, slab: Slab) -> memoryview:
    """Events without the packets around them."""
    packets, ends = starts - OVERHEAD, starts + sizes
    steps = np.flatnonzero(np.diff(packets // STEP)) + 1
    bare, at = slab.take(int(sizes.sum())), 0
    for first, last in pairwise([0, *steps.tolist(), len(starts)] if len(starts) else []):
        part = _without_heads(memory.bytes[packets[first] : ends[last - 1]], packets[first:last] - packets[first])
        bare[at : at + len(part)] = part
        at += len(part)
    return bare.data


def _without_heads(data: NDArray[np.uint8], packets: Numbers) -> NDArray[np.uint8]:
    kept = np.ones(len(data), np.bool_)
    for byte in range(OVERHEAD):
        kept[packets + byte] = False
    return data[kept]


def leading(flags: Flags) -> int:
    """How many are true before the first that is not."""
    return len(flags) if flags.all() else int(flags.argmin())
