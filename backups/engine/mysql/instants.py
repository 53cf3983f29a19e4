"""MariaDB: rows of history that ended in the very microsecond they began in.

LOAD DATA refuses them (1525, "Incorrect row_start value"). A session whose clock stands still makes them again: it
inserts the row and deletes it. That is done while the table is still empty, right after it was made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from backups.engine.errors import Refused
from backups.engine.mysql import tsv
from backups.engine.mysql.schema import Column, Table
from backups.engine.mysql.server import Connection, quote

MOST = 64 << 20  # bytes of such statements that a backup holds in memory


def lasting(table: Table) -> str:
    """The condition that leaves them to `statements`."""
    return f" WHERE {quote(table.period[0])} < {quote(table.period[1])}" if table.period else ""


def statements(connection: Connection, schema: str, table: Table, poll: Callable[[], None]) -> list[bytes]:
    """What makes them again, may be run twice, and leaves the table empty but for them.  Raises Refused."""
    if not table.period:
        return []
    begin, end = map(quote, table.period)
    columns = [column for column in table.columns if column.name not in table.period]
    wanted = ", ".join([f"UNIX_TIMESTAMP({begin})", *(column.expression for column in columns)])
    name = f"{quote(schema)}.{quote(table.name)}"
    query = f"SELECT {wanted} FROM {name} FOR SYSTEM_TIME ALL WHERE {begin} >= {end}"
    made = [each for block, _ in tsv.select(connection, query, poll) for each in _made(block, name, columns)]
    if sum(map(len, made)) > MOST:
        raise Refused(
            f"{schema}.{table.name} holds too many rows that were deleted in the microsecond they were made in.",
            meaning="They can only be restored one by one, so no backup is taken.",
            next_step=f"DELETE HISTORY FROM {name}, or part of it with BEFORE SYSTEM_TIME.",
        )
    if not made:
        return []
    first = b"SET SESSION check_constraint_checks = 0", f"DELETE HISTORY FROM {name}".encode()
    return [*first, *made, b"SET SESSION timestamp = DEFAULT"]


def _made(block: bytes, name: str, columns: list[Column]) -> Iterator[bytes]:
    for line in block.removesuffix(b"\n").split(b"\n"):
        moment, *fields = line.split(b"\t")
        yield b"SET SESSION timestamp = " + moment
        places = ", ".join(quote(column.name) for column in columns)
        values = b", ".join(map(_literal, columns, fields))
        yield f"INSERT INTO {name} ({places}) VALUES (".encode() + values + b")"
        yield f"DELETE FROM {name}".encode()


def _literal(column: Column, field: bytes) -> bytes:
    """The value of a field as `tsv` writes it, for a statement of any character set."""
    if field == tsv.NULL:
        return b"NULL"
    value = b"\\".join(part.replace(b"\\t", b"\t").replace(b"\\n", b"\n") for part in field.split(b"\\\\"))
    return column.value(f"_binary X'{value.hex()}'").encode()
