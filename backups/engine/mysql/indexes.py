"""Secondary indexes that wait until their table's rows are in: sorted and built at once, not row by row.

Only where nothing can come out differently: what SHOW CREATE TABLE prints of the last indexes of a table is taken away
and given back, first on an empty copy.  Where that does not give the very same text, or something else may need the
index, it stays.  MySQL manual: "Online DDL Operations", "SHOW CREATE TABLE".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from select import select

import pymysql
from pymysql.constants import COMMAND

from backups.engine.errors import EngineError, Refused
from backups.engine.mysql.line import Silent
from backups.engine.mysql.server import Connection, ServerConfig, connect, quote, rows, version_of

BIG = 50_000  # rows from which on building an index at once is worth the changes of definition
POLL_SECONDS = 1.0
COPY = "everest_copy"
# Neither a question mark, which may stand for a character that is not printed, nor a line break.
NAME = r"`(?:[^`?\n]|``)+`"
PART = rf"{NAME}(?:\(\d+\))?(?: DESC)?"
KEY = re.compile(
    rf"  ((UNIQUE )?KEY ({NAME}) \(({NAME})(?:\(\d+\))?(?: DESC)?(?:,{PART})*\)(?: USING BTREE)?"
    r"(?: COMMENT '(?:[^'\\?\n]|'')*')?(?: /\*!80000 INVISIBLE \*/)?),?"
)
OWN_COUNTER = re.compile(rf"^  ({NAME}) [^\n]* AUTO_INCREMENT\b", re.MULTILINE)
COUNTER = re.compile(r"(\n\) [^\n]*?)AUTO_INCREMENT=\d+ ?")
# Columns that another may make, tables that keep their own past, or a past in which they had other columns.
LEFT_ALONE = ("GENERATED ALWAYS", "SYSTEM VERSIONING", "PARTITION BY")
FOREIGN = (
    "SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, REFERENCED_TABLE_SCHEMA, REFERENCED_TABLE_NAME,"
    " REFERENCED_COLUMN_NAME FROM information_schema.KEY_COLUMN_USAGE WHERE REFERENCED_TABLE_NAME IS NOT NULL"
)

Place = tuple[str, str, str]  # of a column: schema, table, name, in small letters


@dataclass(frozen=True, slots=True)
class Deferred:
    """Indexes that a table has to get back.  definition: what the table must be then."""

    name: str
    definition: str
    keys: tuple[str, ...]

    def build(self, config: ServerConfig, connection: Connection, poll: Callable[[], None]) -> None:
        """Give them back.  Raises Refused, what the server says (a duplicate in a unique one), what `poll` raises."""
        _patiently(config, connection, _adding(self.name, self.keys), poll)
        if _definition(connection, self.name) != self.definition:
            raise Refused(
                f"{self.name} got its indexes back, and is not defined as it was.",
                meaning="The target does not hold what the backup holds; do not use it.",
                next_step="Report this with the output of SHOW CREATE TABLE of both servers.",
            )


def foreign_columns(connection: Connection) -> set[Place]:
    """Columns that a foreign key begins or ends in: an index on them may be the one that it needs."""
    found = [tuple(str(name).lower() for name in row) for row in rows(connection, FOREIGN)]
    return {(row[at], row[at + 1], row[at + 2]) for row in found for at in (0, 3)}


def defer(connection: Connection, schema: str, table: str, foreign: set[Place]) -> Deferred | None:
    """Take what can be built later from an empty table; None where that is nothing."""
    name = f"{quote(schema)}.{quote(table)}"
    definition = _definition(connection, name)
    kept = {column for owner, owned, column in foreign if (owner, owned) == (schema.lower(), table.lower())}
    keys = _last(definition, kept)
    if not keys or not _comes_back(connection, schema, name, keys):
        return None
    try:
        connection.query(_dropping(name, keys))
    except pymysql.MySQLError:
        return None  # the table is as it was
    return Deferred(name, definition, tuple(line for line, _ in keys))


def _last(definition: str, foreign: set[str]) -> list[tuple[str, str]]:
    """The keys at the end of the list that can wait, as they are printed and by name: so their order stays."""
    if any(text in definition for text in LEFT_ALONE):
        return []
    needed = foreign | {_plain(found) for found in OWN_COUNTER.findall(definition)}
    found: list[tuple[str, str]] = []
    lines = definition.split("\n")
    ends = next(n for n, line in enumerate(lines) if line.startswith(")"))
    for line in reversed(lines[:ends]):
        if line.startswith("  CONSTRAINT "):
            continue
        key = KEY.fullmatch(line)
        if not key or _plain(key[4]) in needed or (key[2] and "\n  PRIMARY KEY (" not in definition):
            break
        found.insert(0, (key[1], key[3]))
    return found


def _plain(name: str) -> str:
    return name[1:-1].replace("``", "`").lower()


def _comes_back(connection: Connection, schema: str, name: str, keys: Sequence[tuple[str, str]]) -> bool:
    """Whether a copy is defined as before once the keys went and came."""
    copy = f"{quote(schema)}.{quote(COPY)}"
    try:
        connection.query(f"CREATE TEMPORARY TABLE {copy} LIKE {name}")
        before = _definition(connection, copy)
        connection.query(_dropping(copy, keys))
        connection.query(_adding(copy, [line for line, _ in keys]))
        return _definition(connection, copy) == before
    except pymysql.MySQLError:
        return False
    finally:
        connection.query(f"DROP TEMPORARY TABLE IF EXISTS {copy}")


def _dropping(name: str, keys: Sequence[tuple[str, str]]) -> str:
    return f"ALTER TABLE {name} " + ", ".join(f"DROP INDEX {key}" for _, key in keys)


def _adding(name: str, keys: Sequence[str]) -> str:
    return f"ALTER TABLE {name} " + ", ".join(f"ADD {key}" for key in keys)


def _definition(connection: Connection, name: str) -> str:
    """CREATE TABLE without the AUTO_INCREMENT value, which rows may raise."""
    return COUNTER.sub(r"\1", str(rows(connection, f"SHOW CREATE TABLE {name}")[0][1]), count=1)


def _patiently(config: ServerConfig, connection: Connection, sql: str, poll: Callable[[], None]) -> None:
    """Run a long statement; where `poll` raises, end it: a server does not notice that nobody waits for it."""
    connection._execute_command(COMMAND.COM_QUERY, sql)
    try:
        while not select([connection._sock], [], [], POLL_SECONDS)[0]:
            connection._sock.waited()
            poll()
    except Silent:
        raise
    except BaseException:
        with suppress(EngineError, pymysql.MySQLError), closing(connect(config)) as other:  # it may be over
            other.query(f"KILL {connection.thread_id()}")
        raise
    connection._read_query_result()


def settings(connection: Connection) -> dict[str, int]:
    """What makes building faster in this session alone: bytes to sort in, a megabyte by default."""
    mysql = "mariadb" not in connection.get_server_info().lower()
    return {"innodb_ddl_buffer_size": 32 << 20} if mysql and version_of(connection) >= (8, 0, 27) else {}
