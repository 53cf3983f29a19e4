"""The packets of a query's result, received into one buffer and walked in place.

MySQL Internals: "Protocol Basics", "Text Resultset".
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import TypeAlias

import numpy as np
import pymysql
from numpy.typing import NDArray
from pymysql.constants import CR

from backups.engine.mysql.server import Connection
from backups.engine.mysql.tsv import number

Places: TypeAlias = "NDArray[np.intp]"

BUFFER = 1 << 19  # bytes of rows at hand: few enough for the processor's cache, enough that a turn costs little beside
HEADER = 4  # bytes of a packet's length and number
SPARSE = 64  # bytes for each zero at least, where headers are searched: a header has two
FULL_PACKET = 0xFFFFFF  # a payload of this length goes on in the next packet
POLL_SECONDS = 2.0

_length = Struct("<I").unpack_from  # of three bytes; the fourth is the packet's number


class Packets:
    """The bytes of one result, received into one buffer and walked in place.  over: the result has ended."""

    def __init__(self, connection: Connection, poll: Callable[[], None]) -> None:
        self.sock = connection._sock
        self.sock.settimeout(POLL_SECONDS)
        connection._current_timeout = POLL_SECONDS  # so that PyMySQL sets its own again
        self.poll = poll
        self.data = bytearray(BUFFER + 1)  # `Rows` wants a byte behind the last row
        self.at = self.end = 0
        self.over = False

    def skip_header(self) -> int:
        """Past the columns and their end; how many they are.  Raises the server's error."""
        count = self.payload()
        if count[0] == 0xFF:
            pymysql.err.raise_mysql_exception(count)
        while not _is_end(self.payload()):
            pass
        return number(count, 0)[0] or 0

    def rows(self) -> Places:
        """Where the packets of the next whole rows begin, which end at `at`.

        Empty where the next row is larger than the buffer, or the result is over.  Raises the server's error.
        """
        self._move()
        found = [np.zeros(0, np.intp)]
        while not self.over:
            starts, self.at = walked(self.data, self.at, self.end)
            if len(starts) and self.data[starts[-1] + HEADER] >= 0xFE:  # no row that fits into the buffer begins so
                last = int(starts[-1])
                end, self.at, starts = self.data[last + HEADER : self.at], last, starts[:-1]
                self._end(end)
            found.append(starts)
            if self.end == BUFFER:
                break
            if not self.over:
                self._receive()
        return np.concatenate(found)

    def _end(self, payload: bytearray) -> None:
        if payload[0] == 0xFF:
            pymysql.err.raise_mysql_exception(bytes(payload))
        self.over = True

    def payload(self) -> bytes:
        """One payload, of as many packets as it takes."""
        parts = []
        while True:
            length = int.from_bytes(self._take(HEADER)[:3], "little")
            parts.append(self._take(length))
            if length < FULL_PACKET:
                return b"".join(parts)

    def _take(self, size: int) -> bytes:
        """The next bytes, however many."""
        parts = []
        while size:
            if self.at == self.end:
                self.at = self.end = 0
                self._receive()
            parts.append(bytes(self.data[self.at : min(self.at + size, self.end)]))
            self.at += len(parts[-1])
            size -= len(parts[-1])
        return b"".join(parts)

    def _move(self) -> None:
        """What is left to the buffer's front."""
        rest = self.end - self.at
        self.data[:rest] = self.data[self.at : self.end]
        self.at, self.end = 0, rest

    def _receive(self) -> None:
        """Some more bytes behind those at hand."""
        while True:
            self.poll()
            try:
                size = self.sock.recv_into(memoryview(self.data)[self.end : BUFFER])
            except TimeoutError:
                continue
            except OSError as error:
                raise pymysql.err.OperationalError(CR.CR_SERVER_LOST, str(error)) from error
            if not size:
                raise pymysql.err.OperationalError(CR.CR_SERVER_LOST, "the server closed the connection")
            self.end += size
            return


def walked(data: bytearray, at: int, end: int) -> tuple[Places, int]:
    """Where whole packets begin from `at` on, and where the first one that is not whole does."""
    many = _chain(data, at, end)
    rest: list[int] = []
    at, limit = int(many[-1]) if len(many) else at, end - HEADER
    while at < limit:
        rest.append(at)
        at += HEADER + (_length(data, at)[0] & FULL_PACKET)
    if at > end:
        at = rest.pop()
    return np.concatenate((many[:-1], np.array(rest, np.intp))), at


def _chain(data: bytearray, at: int, end: int) -> Places:
    """The first of these packets, each beginning where the one before ends: found by what a header looks like.

    The third byte of a length below 64 KiB is 0, and the next packet's is, too, with the number that follows behind it.
    What only looks so breaks the chain, and it ends there.  Empty where zeros are so many that a walk is done sooner.
    """
    here = np.frombuffer(data, np.uint8)[at:end]
    pairs = np.ndarray(max(len(here) - 1, 0), "<u2", here, strides=(1,))  # at even and odd places
    zeros = here[2:-1] == 0
    if np.count_nonzero(zeros) * SPARSE > len(here):
        return np.zeros(0, np.intp)
    starts: Places = np.flatnonzero(zeros)
    nexts = starts + pairs[starts] + HEADER
    seen = nexts + HEADER <= len(here)
    starts, nexts = starts[seen], nexts[seen]
    right = pairs[nexts + 2] == pairs[starts + 2] + np.uint16(256)
    starts, nexts = starts[right], nexts[right]
    broken = np.flatnonzero(np.concatenate(([0], nexts[:-1])) != starts)
    chain: Places = starts[: broken[0]] if len(broken) else starts
    return chain + at


def _is_end(payload: bytes) -> bool:
    return payload[:1] == b"\xfe" and len(payload) < 9
