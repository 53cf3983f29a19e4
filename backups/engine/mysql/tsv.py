"""Rows over the wire: text-protocol packets into lines for LOAD DATA, and lines into LOAD DATA LOCAL.

Works on bytes as the server sends them, never decoded: every charset and type goes through untouched, a VECTOR
too, which PyMySQL cannot read.  MySQL Internals: "Text Resultset Row", "LOCAL INFILE Request".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import pymysql
from pymysql.constants import COMMAND, CR
from pymysql.protocol import LoadLocalPacketWrapper, OKPacketWrapper

from backups.engine.mysql.server import Connection

LINES = r"FIELDS TERMINATED BY '\t' ESCAPED BY '\\' LINES TERMINATED BY '\n'"
NULL = b"\\N"  # this very object marks a NULL; a text \N is another object and gets escaped

RECEIVE = 1 << 20
SEND = 1 << 18
FULL_PACKET = 0xFFFFFF  # a payload of this length goes on in the next packet
POLL_SECONDS = 2.0


Look = Callable[[bytes, Sequence[Sequence[bytes]]], None]


def select(
    connection: Connection, sql: str, poll: Callable[[], None], look: Look | None = None
) -> Iterator[tuple[bytes, int]]:
    """Lines of a query's result and how many they are, in blocks of about a megabyte (or one huge row).

    poll: called at least every few seconds, also while the server is silent; what it raises ends the query.
    look: gets each block and the rows in it.  A connection whose generator was not used up must be closed.
    """
    connection._execute_command(COMMAND.COM_QUERY, sql)
    packets = _Packets(connection, poll)
    packets.skip_header()
    while True:
        rows, nulls, done = packets.rows()
        if rows:
            block = _lines(rows, nulls)
            if look:
                look(block, rows)
            yield block, len(rows)
        if done:
            return


class _Packets:
    """The bytes of one result, received in large pieces and walked in place."""

    def __init__(self, connection: Connection, poll: Callable[[], None]) -> None:
        self.sock = connection._sock
        self.sock.settimeout(POLL_SECONDS)
        connection._current_timeout = POLL_SECONDS  # so that PyMySQL sets its own again
        self.poll = poll
        self.data = b""
        self.at = 0

    def skip_header(self) -> None:
        """Past the column count, the columns and their end; raises the server's error."""
        count = self._payload()
        if count[0] == 0xFF:
            pymysql.err.raise_mysql_exception(count)
        while not _is_end(self._payload()):
            pass

    def rows(self) -> tuple[list[list[bytes]], int, bool]:
        """All whole rows at hand (at least one, or the end) as lists of fields, how many are NULL, and if it ended."""
        found: list[list[bytes]] = []
        nulls = 0
        self._need(4)
        data, at, end = self.data, self.at, len(self.data)
        while at + 4 <= end:
            length = data[at] | data[at + 1] << 8 | data[at + 2] << 16
            start, stop = at + 4, at + 4 + length
            if stop > end or length == FULL_PACKET:
                break
            first = data[start]
            if first >= 0xFE and (first == 0xFF or length < 9):
                self.at = stop
                if first == 0xFF:
                    pymysql.err.raise_mysql_exception(data[start:stop])
                return found, nulls, True
            # The hot loop: in line, since a call per row would cost as much as the row.
            fields: list[bytes] = []
            at = start
            while at < stop:
                size = data[at]
                at += 1
                if size < 251:
                    fields.append(data[at : at + size])
                    at += size
                elif size == 251:
                    fields.append(NULL)
                    nulls += 1
                else:
                    width = 2 if size == 252 else 3 if size == 253 else 8
                    size = int.from_bytes(data[at : at + width], "little")
                    at += width
                    fields.append(data[at : at + size])
                    at += size
            found.append(fields)
        self.at = at
        # Nothing whole at hand: one large row, or one that is cut by the end of what was received.
        return (found, nulls, False) if found else self._one_row()

    def _one_row(self) -> tuple[list[list[bytes]], int, bool]:
        payload = self._payload()
        if payload[0] == 0xFF:
            pymysql.err.raise_mysql_exception(payload)
        if _is_end(payload):
            return [], 0, True
        row = _fields(payload)
        return [row], sum(field is NULL for field in row), False

    def _payload(self) -> bytes:
        """One payload, of as many packets as it takes."""
        parts = []
        while True:
            self._need(4)
            length = int.from_bytes(self.data[self.at : self.at + 3], "little")
            self._need(4 + length)
            parts.append(self.data[self.at + 4 : self.at + 4 + length])
            self.at += 4 + length
            if length < FULL_PACKET:
                return b"".join(parts)

    def _need(self, size: int) -> None:
        """Have at least `size` bytes at hand; linear in their number also where they come in small pieces."""
        self.poll()
        missing = size - (len(self.data) - self.at)
        if missing <= 0:
            return
        parts = [self.data[self.at :]]
        while missing > 0:
            parts.append(self._receive())
            missing -= len(parts[-1])
        self.data, self.at = b"".join(parts), 0

    def _receive(self) -> bytes:
        while True:
            try:
                data = bytes(self.sock.recv(RECEIVE))
            except TimeoutError:
                self.poll()
                continue
            except OSError as error:
                raise pymysql.err.OperationalError(CR.CR_SERVER_LOST, str(error)) from error
            if not data:
                raise pymysql.err.OperationalError(CR.CR_SERVER_LOST, "the server closed the connection")
            return data


def _is_end(payload: bytes) -> bool:
    return payload[:1] == b"\xfe" and len(payload) < 9


def _fields(payload: bytes) -> list[bytes]:
    """One row's fields, for rows too large for the hot loop."""
    fields, at = [], 0
    while at < len(payload):
        size, at = payload[at], at + 1
        if size == 251:
            fields.append(NULL)
            continue
        width = {252: 2, 253: 3, 254: 8}.get(size, 0)
        if width:
            size = int.from_bytes(payload[at : at + width], "little")
        at += width
        fields.append(payload[at : at + size])
        at += size
    return fields


def _lines(rows: Sequence[Sequence[bytes]], nulls: int) -> bytes:
    """Rows as lines.  Joined first and looked at as a whole: most blocks hold nothing to escape."""
    block = b"\n".join(map(b"\t".join, rows)) + b"\n"
    tabs = (len(rows[0]) - 1) * len(rows)
    if block.count(b"\\") == nulls and block.count(b"\t") == tabs and block.count(b"\n") == len(rows):
        return block
    return b"\n".join(map(b"\t".join, zip(*map(_escaped, zip(*rows, strict=True)), strict=True))) + b"\n"


def _escaped(column: tuple[bytes, ...]) -> Sequence[bytes]:
    """One column's fields, escaped where the column needs it at all."""
    joined = b"".join(column)
    if b"\\" not in joined and b"\t" not in joined and b"\n" not in joined:
        return column
    return [field if field is NULL else escape(field) for field in column]


def escape(field: bytes) -> bytes:
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
