"""Rows of all tables into objects, read side by side over connections that share one view.

A large table is read in ranges of its key, several at once; small ones share what a table costs besides its rows.
"""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise

import pymysql

from backups.engine.errors import Stopped, raise_first
from backups.engine.manifest import TableEntry
from backups.engine.mysql import instants, sqlfile, tsv, view
from backups.engine.mysql.exact import Look
from backups.engine.mysql.schema import Numbers, Reader, Schema, Table
from backups.engine.mysql.server import Connection, error_code, quote, rows
from backups.engine.mysql.view import View
from backups.engine.types import DataRef, Run

# Bytes of lines in one object, mostly a single part of an upload.  A larger range is several, cut between rows.
OBJECT = 16 << 20
RANGE = 64 << 20  # bytes of a table that one connection reads at a time, where its key is a number
SMALL = 1 << 20  # bytes of tables that are read as one, so that DDL on any of them waits for a moment only
RANGES = 256
NAP = 0.2  # seconds, at most, until a stop is seen
CHANGED = (1412, 1146, 1054, 1049)  # what a view says of a table that DDL has changed, renamed or dropped since
NUMBERS = ("tinyint", "smallint", "mediumint", "int", "bigint")
KEY = re.compile(rb"\n  PRIMARY KEY \((`(?:[^`\n]|``)+`)[,)]")

Put = Callable[[str, str, Iterator[bytes]], DataRef]  # of a name, a kind and the bytes
Place = tuple[int, int]  # numbers of a schema and of a table in it


class Changed(Exception):
    """Definitions changed under the backup: it starts again."""


class Pace:
    """Holds back what reads more than `rate` bytes a second, all threads taken together; 0 lets everything go."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.lock = threading.Lock()
        self.until = 0.0

    def take(self, size: int, poll: Callable[[], None]) -> None:
        """Wait for as long as `size` bytes take, and for those that others took before."""
        if not self.rate:
            return
        with self.lock:
            self.until = until = max(self.until, time.monotonic()) + size / self.rate
        while (left := until - time.monotonic()) > 0:
            poll()
            time.sleep(min(left, NAP))


@dataclass(slots=True)
class _Rows:
    """One table's rows on their way.  left: ranges that are not read yet."""

    schema: Schema
    table: Table
    place: Place
    look: Look
    left: int = 1
    count: int = 0
    objects: dict[int, list[DataRef]] = field(default_factory=dict)  # by range

    @property
    def name(self) -> str:
        return f"{self.schema.name}.{self.table.name}"

    @property
    def source(self) -> str:
        return f"{quote(self.schema.name)}.{quote(self.table.name)}"


@dataclass(frozen=True, slots=True)
class _Part:
    """What one query reads: a table, or a range of its key."""

    rows: _Rows
    number: int = 0
    condition: str = ""

    @property
    def query(self) -> str:
        table = self.rows.table
        columns = ", ".join(column.expression for column in table.columns) or "0"
        history = " FOR SYSTEM_TIME ALL" if table.kind == "SYSTEM VERSIONED" else ""
        return f"SELECT {columns} FROM {self.rows.source}{history}{instants.lasting(table)}{self.condition}"


class Reading:
    """What the threads share, and what they found.

    inexact: sentences.  instants: statements for rows, by their table's place.
    """

    def __init__(self, reader: Reader, put: Put, run: Run, rate: int = 0) -> None:
        self.reader = reader
        self.put = put
        self.run = run
        self.pace = Pace(rate)
        self.lock = threading.Lock()
        self.failed = threading.Event()
        self.entries: dict[Place, TableEntry] = {}
        self.inexact: list[str] = []
        self.instants: dict[Place, list[bytes]] = {}
        self.done = self.total = 0

    def read(
        self, connections: Sequence[Connection], schemas: Sequence[Schema], places: Sequence[Place], seen: View
    ) -> None:
        """Read tables side by side, the largest first; the first failure ends the others.  Raises Changed."""
        waiting = deque(self._units(connections[0], schemas, places))

        def work(connection: Connection) -> None:
            try:
                while not self.failed.is_set():
                    try:
                        parts = waiting.popleft()
                    except IndexError:
                        return
                    self._read(connection, parts, seen)
            except BaseException:
                self.failed.set()
                raise

        busy = connections[: len(waiting)]
        if busy:
            with ThreadPoolExecutor(len(busy), thread_name_prefix="snapshot") as pool:
                outcomes = [pool.submit(work, connection) for connection in busy]
            raise_first([outcome.exception() for outcome in outcomes])

    def poll(self) -> None:
        if self.run.should_stop():
            raise Stopped("The backup was stopped.", meaning="Nothing of it is kept.")
        if self.failed.is_set():
            raise Stopped("Another part of the backup failed.")

    def _units(
        self, connection: Connection, schemas: Sequence[Schema], places: Sequence[Place]
    ) -> Iterator[list[_Part]]:
        """What a connection reads at a time: a range of a large table, or some small tables."""
        small: list[_Part] = []
        size = 0
        for s, t in sorted(places, key=lambda place: -schemas[place[0]].tables[place[1]].size):
            schema, table = schemas[s], schemas[s].tables[t]
            one = _Rows(schema, table, (s, t), Look(schema.name, table, self.reader.identity))
            if table.size > SMALL:
                yield from ([part] for part in _ranges(connection, one))
                continue
            if size + table.size > SMALL and small:
                yield small
                small, size = [], 0
            small.append(_Part(one))
            size += table.size
        if small:
            yield small

    def _read(self, connection: Connection, parts: Sequence[_Part], seen: View) -> None:
        # The savepoint lets go of the tables' metadata locks: DDL need not wait for the rest of the backup.
        view.run(connection, "SAVEPOINT everest")
        for part in parts:
            with _changes_told(part.rows.name):
                self._part(connection, part)
        self._check([part.rows for part in parts], seen)
        view.run(connection, "ROLLBACK TO SAVEPOINT everest")

    def _part(self, connection: Connection, part: _Part) -> None:
        one, (s, t) = part.rows, part.rows.place
        lines = _Lines(tsv.select(connection, part.query, self.poll, one.look), self._count)
        objects: list[DataRef] = []
        while lines.more:
            name = f"rows-{s}-{t}-{part.number}-{len(objects)}"
            objects.append(self.put(name, "tsv", lines.next_object()))
        with self.lock:
            one.objects[part.number] = objects
            one.count += lines.rows
            one.left -= 1
            last = one.left == 0
        if last:
            self._complete(connection, one)

    def _complete(self, connection: Connection, one: _Rows) -> None:
        one.look.require_text(connection)
        self.inexact += one.look.inexact(connection)
        self.instants[one.place] = instants.statements(connection, one.schema.name, one.table, self.poll)
        objects = tuple(ref for number in sorted(one.objects) for ref in one.objects[number])
        table = one.table
        self.entries[one.place] = TableEntry(table.name, table.engine, one.count, sqlfile.load_clause(table), objects)

    def _check(self, found: Sequence[_Rows], seen: View) -> None:
        """That they are still the tables of the view; asked while the reading transaction keeps DDL away from them."""
        looked_at = [one for one in found if one.table.in_view]
        if seen.definitions_wait or not looked_at:
            return
        with self.lock:
            before, now = Numbers(seen.ids), Numbers(self.reader.table_ids())
            for one in looked_at:
                schema, table = one.schema.name, one.table.name
                with _changes_told(one.name):
                    definition = self.reader.table(schema, table)
                if definition != one.table.definition or before.of(schema, table) != now.of(schema, table):
                    raise Changed(f"{one.name} was changed or exchanged by DDL.")

    def _count(self, size: int) -> None:
        with self.lock:
            self.done += size
            self.total = max(self.total, self.done)
            self.run.progress("rows", self.done, self.total, "bytes")
        self.pace.take(size, self.poll)


@contextmanager
def _changes_told(name: str) -> Iterator[None]:
    try:
        yield
    except pymysql.MySQLError as error:
        if error_code(error) in CHANGED:
            raise Changed(f"{name} was changed by DDL.") from error
        raise


def _ranges(connection: Connection, one: _Rows) -> list[_Part]:
    """A table in ranges of the number that its primary key begins with; whole where there is none.

    Where the numbers lie unevenly the ranges differ in size, no more: the first and the last are open.
    """
    number = min(RANGES, one.table.size // RANGE)
    key = KEY.search(one.table.definition)
    column = next((c for c in one.table.columns if key and quote(c.name).encode() == key[1]), None)
    if number < 2 or column is None or column.type not in NUMBERS or not one.table.in_view or one.table.period:
        return [_Part(one)]
    name = quote(column.name)
    view.run(connection, "SAVEPOINT everest")
    with _changes_told(one.name):
        ((low, high),) = rows(connection, f"SELECT MIN({name}), MAX({name}) FROM {one.source}")
    view.run(connection, "ROLLBACK TO SAVEPOINT everest")
    if low is None or high - low < number:
        return [_Part(one)]
    ends = [low + (high - low) * n // number for n in range(1, number)]
    asked = f" FORCE INDEX (PRIMARY) WHERE {name}"
    between = [f"{asked} >= {begin} AND {name} < {end}" for begin, end in pairwise(ends)]
    conditions = [f"{asked} < {ends[0]}", *between, f"{asked} >= {ends[-1]}"]
    one.left = number
    return [_Part(one, n, condition) for n, condition in enumerate(conditions)]


class _Lines:
    """A query's lines, handed out as objects of OBJECT bytes, cut between rows."""

    def __init__(self, blocks: Iterator[tuple[bytes, int]], count: Callable[[int], None]) -> None:
        self.blocks = blocks
        self.count = count
        self.rows = 0
        self.ahead: bytes | None = None
        self._advance()

    @property
    def more(self) -> bool:
        return self.ahead is not None

    def next_object(self) -> Iterator[bytes]:
        size = 0
        while self.ahead is not None and size < OBJECT:
            block = self.ahead
            size += len(block)
            yield block
            self.count(len(block))
            self._advance()

    def _advance(self) -> None:
        self.ahead, rows = next(self.blocks, (None, 0))
        self.rows += rows
