"""What compaction has to know of the target's tables, asked when the first change of one is met."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from backups.engine.mysql.batch import How, Name
from backups.engine.mysql.compaction import Shape
from backups.engine.mysql.server import Connection, flavour_of, rows

MANY = 16  # tables that are asked for one by one; then all of a schema at once
_INTEGER = re.compile(r"(tiny|small|medium|big)?int\b")
_PLAIN_NAME = re.compile(r"\w+/\w+", re.ASCII)

RELATIONS = (
    "SELECT CONSTRAINT_SCHEMA, TABLE_NAME, UNIQUE_CONSTRAINT_SCHEMA, REFERENCED_TABLE_NAME"
    " FROM information_schema.REFERENTIAL_CONSTRAINTS"
)

Row = tuple[Any, ...]


class Shapes:
    """Is right until a definition changes: then `forget` must be called."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.flavour = flavour_of(connection)
        self.forget()

    def forget(self) -> None:
        self._known: dict[Name, Shape | How] = {}
        self._asked = 0
        self._whole: set[str] = set()
        self._related: set[str] | None = None

    def __call__(self, schema: str, table: str) -> Shape | How:
        if (schema, table) not in self._known and schema not in self._whole:
            self._asked += 1
            if self._asked > MANY:
                self._whole.add(schema)
                self._read("TABLE_SCHEMA = %s", schema)
            else:
                self._read("TABLE_SCHEMA = %s AND TABLE_NAME = %s", schema, table)
        return self._known.setdefault((schema, table), How.ALONE)

    def _read(self, where: str, schema: str, *table: str) -> None:
        found = self._rows("TABLES", "TABLE_NAME, ENGINE, TABLE_TYPE", where, schema, *table)
        order = f"{where} ORDER BY TABLE_NAME, ORDINAL_POSITION"
        columns = _by_table(self._rows("COLUMNS", "TABLE_NAME, COLUMN_NAME, COLUMN_TYPE, EXTRA", order, schema, *table))
        order = f"{where} AND NON_UNIQUE = 0 ORDER BY TABLE_NAME, INDEX_NAME, SEQ_IN_INDEX"
        keys = _by_table(self._rows("STATISTICS", "TABLE_NAME, INDEX_NAME, COLUMN_NAME", order, schema, *table))
        for name, engine, kind in found:
            how = self._how(schema, str(name), str(engine), str(kind))
            self._known[schema, str(name)] = how or shape(columns.get(name, []), keys.get(name, []))

    def _rows(self, view: str, columns: str, where: str, *values: str) -> tuple[Row, ...]:
        return rows(self.connection, f"SELECT {columns} FROM information_schema.{view} WHERE {where}", values)

    def _how(self, schema: str, table: str, engine: str, kind: str) -> How | None:
        """Why a table is not compacted whatever its columns are; None where nothing is known against it."""
        if engine.lower() != "innodb" or kind == "SEQUENCE":
            return How.ALONE
        if kind != "BASE TABLE" or self._is_related(schema, table):
            return How.IN_ORDER
        return None

    def _is_related(self, schema: str, table: str) -> bool:
        """Whether it is a parent or child of a foreign key."""
        if self._related is None:
            self._related = set(self._relations())
        name = f"{schema}/{table}".lower()
        if self.flavour == "mysql" or _PLAIN_NAME.fullmatch(name):
            return name in self._related
        # MariaDB writes other names in a way of InnoDB's own: then any such one may be meant.
        return any(not _PLAIN_NAME.fullmatch(other) for other in self._related)

    def _relations(self) -> Iterator[str]:
        if self.flavour == "mysql":
            for child, name, parent, other in rows(self.connection, RELATIONS):
                yield from (f"{child}/{name}".lower(), f"{parent}/{other}".lower())
        else:  # REFERENTIAL_CONSTRAINTS opens every table
            for found in rows(self.connection, "SELECT FOR_NAME, REF_NAME FROM information_schema.INNODB_SYS_FOREIGN"):
                yield from (str(name).lower() for name in found)


def _by_table(found: Iterable[Row]) -> dict[str, list[Row]]:
    tables: dict[str, list[Row]] = {}
    for name, *rest in found:
        tables.setdefault(name, []).append(tuple(rest))
    return tables


def shape(columns: list[Row], keys: list[Row]) -> Shape | How:
    """columns: name, type, extra.  keys: name of a unique key, and of its column, None for an expression."""
    places = {name: n for n, (name, _, _) in enumerate(columns)}
    key = tuple(places[column] for index, column in keys if index == "PRIMARY")
    if not key:
        return How.IN_ORDER
    others = [column for index, column in keys if index != "PRIMARY"]
    counters = [n for n, (_, _, extra) in enumerate(columns) if "auto_increment" in extra.lower()]
    kind = str(columns[counters[0]][1]).lower() if counters else "int"
    if not _INTEGER.match(kind):
        return How.IN_ORDER
    return Shape(
        width=len(columns),
        key=key,
        unique=tuple(sorted({places[column] for column in others if column is not None})),
        expressions=None in others,
        counter=counters[0] if counters else -1,
        signed="unsigned" not in kind,
        virtual=frozenset(n for n, (_, _, extra) in enumerate(columns) if "virtual" in extra.lower()),
    )
