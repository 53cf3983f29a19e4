"""What one connection reads at a time: a range of a large table, or some small tables."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import pymysql

from backups.engine.manifest import TableEntry
from backups.engine.mysql import instants, sqlfile, view
from backups.engine.mysql.exact import Look
from backups.engine.mysql.schema import Schema, Table
from backups.engine.mysql.server import Connection, Identity, error_code, quote, rows
from backups.engine.types import DataRef

RANGE = 64 << 20  # bytes of a table that one connection reads at a time, where its key is a number
SMALL = 1 << 20  # bytes of tables that are read as one, so that DDL on any of them waits for a moment only
RANGES = 256
CHANGED = (1412, 1146, 1054, 1049)  # what a view says of a table that DDL has changed, renamed or dropped since
NUMBERS = ("tinyint", "smallint", "mediumint", "int", "bigint")
KEY = re.compile(rb"\n  PRIMARY KEY \((`(?:[^`\n]|``)+`)[,)]")

Place = tuple[int, int]  # numbers of a schema and of a table in it


class Changed(Exception):
    """Definitions changed under the backup: it starts again."""


class Found(NamedTuple):
    """What became of one range of a table."""

    place: Place
    number: int
    objects: list[DataRef]
    rows: int
    decimals: bool


@dataclass(slots=True)
class Rows:
    """One table's rows on their way.  ranges: how many it is read in."""

    schema: Schema
    table: Table
    place: Place
    look: Look
    ranges: int = 1
    found: list[Found] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{self.schema.name}.{self.table.name}"

    @property
    def source(self) -> str:
        return f"{quote(self.schema.name)}.{quote(self.table.name)}"

    def entry(self) -> TableEntry:
        """Raise RuntimeError where a range was not read, or read twice."""
        found = sorted(self.found, key=lambda one: one.number)
        if [one.number for one in found] != list(range(self.ranges)):
            raise RuntimeError(f"{self.name} was read in other ranges than it has.")
        objects = tuple(ref for one in found for ref in one.objects)
        count, table = sum(one.rows for one in found), self.table
        return TableEntry(table.name, table.engine, count, sqlfile.load_clause(table), objects)


@dataclass(frozen=True, slots=True)
class Part:
    """What one query reads: a table, or a range of its key."""

    rows: Rows
    number: int = 0
    condition: str = ""

    @property
    def query(self) -> str:
        table = self.rows.table
        columns = ", ".join(column.expression for column in table.columns) or "0"
        history = " FOR SYSTEM_TIME ALL" if table.kind == "SYSTEM VERSIONED" else ""
        return f"SELECT {columns} FROM {self.rows.source}{history}{instants.lasting(table)}{self.condition}"


def units(
    connection: Connection, schemas: Sequence[Schema], places: Sequence[Place], identity: Identity
) -> Iterator[list[Part]]:
    """These tables, the largest first."""
    small: list[Part] = []
    size = 0
    for s, t in sorted(places, key=lambda place: -schemas[place[0]].tables[place[1]].size):
        schema, table = schemas[s], schemas[s].tables[t]
        one = Rows(schema, table, (s, t), Look(schema.name, table, identity))
        if table.size > SMALL:
            yield from ([part] for part in _ranges(connection, one))
            continue
        if size + table.size > SMALL and small:
            yield small
            small, size = [], 0
        small.append(Part(one))
        size += table.size
    if small:
        yield small


def _ranges(connection: Connection, one: Rows) -> list[Part]:
    """A table in ranges of the number that its primary key begins with; whole where there is none.

    Where the numbers lie unevenly the ranges differ in size, no more: the first and the last are open.
    """
    number = min(RANGES, one.table.size // RANGE)
    key = KEY.search(one.table.definition)
    column = next((c for c in one.table.columns if key and quote(c.name).encode() == key[1]), None)
    if number < 2 or column is None or column.type not in NUMBERS or not one.table.in_view or one.table.period:
        return [Part(one)]
    name = quote(column.name)
    with let_go(connection), changes_told(one.name):
        ((low, high),) = rows(connection, f"SELECT MIN({name}), MAX({name}) FROM {one.source}")
    if low is None or high - low < number:
        return [Part(one)]
    ends = [low + (high - low) * n // number for n in range(1, number)]
    asked = f" FORCE INDEX (PRIMARY) WHERE {name}"
    between = [f"{asked} >= {begin} AND {name} < {end}" for begin, end in pairwise(ends)]
    conditions = [f"{asked} < {ends[0]}", *between, f"{asked} >= {ends[-1]}"]
    one.ranges = number
    return [Part(one, n, condition) for n, condition in enumerate(conditions)]


@contextmanager
def let_go(connection: Connection) -> Iterator[None]:
    """The savepoint lets go of the tables' metadata locks: DDL need not wait for the rest of the backup."""
    view.run(connection, "SAVEPOINT everest")
    yield
    view.run(connection, "ROLLBACK TO SAVEPOINT everest")


@contextmanager
def changes_told(name: str) -> Iterator[None]:
    try:
        yield
    except pymysql.MySQLError as error:
        if error_code(error) in CHANGED:
            raise Changed(f"{name} was changed by DDL.") from error
        raise
