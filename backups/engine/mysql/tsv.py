"""Rows over the wire: text-protocol packets into lines for LOAD DATA, and lines into LOAD DATA LOCAL.

Works on bytes as the server sends them, never decoded: every charset and type goes through untouched, a VECTOR
too, which PyMySQL cannot read.  MySQL Internals: "Text Resultset Row", "LOCAL INFILE Request".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import pymysql
from pymysql.constants import COMMAND, CR
from pymysql.protocol import LoadLocalPacketWrapper, OKPacketWrapper

from backups.engine.mysql.server import Connection

LINES = r"FIELDS TERMINATED BY '\t' ESCAPED BY '\\' LINES TERMINATED BY '\n'"
NULL = b"\\N"  # not escaped, as a text \N is

SEND = 1 << 18

Column = Callable[[int], list[bytes]]  # one column's fields, by its number
Look = Callable[[bytes, Column], None]


def select(
    connection: Connection, sql: str, poll: Callable[[], None], look: Look | None = None
) -> Iterator[tuple[bytes, int]]:
    """Lines of a query's result and how many they are, in blocks of half a megabyte (or one huge row).

    poll: called at least every few seconds, also while the server is silent; what it raises ends the query.
    look: gets each block and the rows in it.  A connection whose generator was not used up must be closed.
    """
    from backups.engine.mysql.packets import Packets  # here, as numpy is only wanted in processes that read rows
    from backups.engine.mysql.textrows import Rows

    connection._execute_command(COMMAND.COM_QUERY, sql)
    packets = Packets(connection, poll)
    columns = packets.skip_header()
    while True:
        starts = packets.rows()
        if packets.over and not len(starts):
            return
        rows = Rows(packets.data, starts, packets.at, columns) if len(starts) else _LargeRow(packets.payload())
        block = rows.lines()
        if look:
            look(block, rows.column)
        yield block, len(rows)


def number(payload: bytes, at: int) -> tuple[int | None, int]:
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
            size, at = number(payload, at)
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
