"""Rows over the wire: text-protocol packets into lines for LOAD DATA, and lines into LOAD DATA LOCAL.

Works on bytes as the server sends them, never decoded: every charset and type goes through untouched, a VECTOR
too, which PyMySQL cannot read.  MySQL Internals: "Text Resultset Row", "LOCAL INFILE Request".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from struct import Struct

import pymysql
from pymysql.constants import COMMAND, CR
from pymysql.protocol import LoadLocalPacketWrapper, OKPacketWrapper

from backups.engine.mysql.server import Connection

LINES = r"FIELDS TERMINATED BY '\t' ESCAPED BY '\\' LINES TERMINATED BY '\n'"
NULL = b"\\N"  # not escaped, as a text \N is

BUFFER = 1 << 19  # bytes of rows at hand: few enough for the processor's cache, enough that a turn costs little beside
SEND = 1 << 18
HEADER = 4  # bytes of a packet's length and number
FULL_PACKET = 0xFFFFFF  # a payload of this length goes on in the next packet
POLL_SECONDS = 2.0

_length = Struct("<I").unpack_from  # of three bytes; the fourth is the packet's number
Column = Callable[[int], list[bytes]]  # one column's fields, by its number
Look = Callable[[bytes, Column], None]


def select(
    connection: Connection, sql: str, poll: Callable[[], None], look: Look | None = None
) -> Iterator[tuple[bytes, int]]:
    """Lines of a query's result and how many they are, in blocks of BUFFER bytes (or one huge row).

    poll: called at least every few seconds, also while the server is silent; what it raises ends the query.
    look: gets each block and the rows in it.  A connection whose generator was not used up must be closed.
    """
    from backups.engine.mysql.textrows import Rows  # here, as numpy is only wanted in processes that read rows

    connection._execute_command(COMMAND.COM_QUERY, sql)
    packets = _Packets(connection, poll)
    columns = packets.skip_header()
    while True:
        starts = packets.rows()
        if packets.over and not starts:
            return
        rows = Rows(packets.data, starts, packets.at, columns) if starts else _LargeRow(packets.payload())
        block = rows.lines()
        if look:
            look(block, rows.column)
        yield block, len(rows)


class _Packets:
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
        return _number(count, 0)[0] or 0

    def rows(self) -> list[int]:
        """Where the packets of the next whole rows begin, which end at `at`.

        None where the next row is larger than the buffer, or the result is over.  Raises the server's error.
        """
        self._move()
        starts: list[int] = []
        while not self.over:
            self.at = self._walk(starts, self.at)
            if starts and self.data[starts[-1] + HEADER] >= 0xFE:  # no row that fits into the buffer begins so
                end, self.at = self.data[starts[-1] + HEADER : self.at], starts.pop()
                self._end(end)
            elif self.end == BUFFER:
                break
            else:
                self._receive()
        return starts

    def _walk(self, starts: list[int], at: int) -> int:
        """Add where whole packets begin; return where the first one that is not whole does."""
        data, add, limit = self.data, starts.append, self.end - HEADER
        while at < limit:
            add(at)
            at += HEADER + (_length(data, at)[0] & FULL_PACKET)
        return at if at <= self.end else starts.pop()

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


def _is_end(payload: bytes) -> bool:
    return payload[:1] == b"\xfe" and len(payload) < 9


def _number(payload: bytes, at: int) -> tuple[int | None, int]:
    """A length-encoded integer, None for NULL, and where what follows it begins."""
    first = payload[at]
    width = {252: 2, 253: 3, 254: 8}.get(first, 0)
    at += 1
    if width:
        return int.from_bytes(payload[at : at + width], "little"), at + width
    return (None if first == 251 else first), at


class _LargeRow:
    """As `Rows`: one row that fits into no buffer."""

    def __init__(self, payload: bytes) -> None:
        self.fields: list[bytes | None] = []
        at = 0
        while at < len(payload):
            size, at = _number(payload, at)
            self.fields.append(None if size is None else payload[at : at + size])
            at += size or 0

    def __len__(self) -> int:
        return 1

    def column(self, number: int) -> list[bytes]:
        return [self.fields[number] or b""]

    def lines(self) -> bytes:
        return b"\t".join([NULL if field is None else escaped(field) for field in self.fields]) + b"\n"


def escaped(field: bytes) -> bytes:
    return field.replace(b"\\", b"\\\\").replace(b"\t", b"\\t").replace(b"\n", b"\\n")


def load(connection: Connection, sql: str | bytes, lines: Iterable[bytes]) -> tuple[int, int]:
    """Run LOAD DATA LOCAL INFILE with `lines` as the file; (rows, warnings) as the server counts them.

    The connection has CLIENT.LOCAL_FILES but not PyMySQL's local_infile: whatever file name a server asks for,
    and whenever it asks, it only ever gets what is given here.  After an exception it must be closed.
    """
    connection._execute_command(COMMAND.COM_QUERY, sql)
    request = connection._read_packet()
    if not request.is_load_local_packet():
        raise pymysql.err.OperationalError(CR.CR_COMMANDS_OUT_OF_SYNC, "the server did not ask for the rows")
    LoadLocalPacketWrapper(request)
    for part in lines:
        for start in range(0, len(part), SEND):
            connection.write_packet(part[start : start + SEND])
    connection.write_packet(b"")
    answer = OKPacketWrapper(connection._read_packet())
    return answer.affected_rows, answer.warning_count
