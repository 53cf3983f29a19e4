"""What a target is to do, one thing after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import IO

from backups.engine.mysql.batch import Batch
from backups.engine.mysql.events import Event
from backups.engine.mysql.statements import Query


@dataclass(frozen=True, slots=True)
class Format:
    """A format description that the row events from here on are written by."""

    raw: bytes


@dataclass(frozen=True, slots=True)
class Control:
    """START TRANSACTION (in sql_mode ORACLE a BEGIN opens a block), COMMIT or ROLLBACK."""

    sql: bytes
    place: str


@dataclass(frozen=True, slots=True)
class Rows:
    """Whole row statements for one BINLOG statement."""

    raw: bytes
    place: str


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement with its context.

    use: whether it needs its schema selected.  before: INTVAR, RAND and USER_VAR events in front of it.
    file: what LOAD DATA reads, `sql` then says LOCAL.
    """

    query: Query
    timestamp: int
    use: bool
    before: tuple[Event, ...]
    place: str
    file: IO[bytes] | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """So many more source transactions are done, `last` being the newest."""

    count: int
    last: str


@dataclass(frozen=True, slots=True)
class Gathered:
    """A compacted batch, a target transaction of its own.  format: what its events are written by."""

    batch: Batch
    format: bytes
    place: str


Step = Format | Control | Rows | Statement | Gathered | Done
