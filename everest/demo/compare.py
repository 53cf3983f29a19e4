"""Everything that user schemas of a server hold, in a form that can be compared byte for byte."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pymysql import Connection

SYSTEM = ("mysql", "information_schema", "performance_schema", "sys")
COUNTER = re.compile(rb" AUTO_INCREMENT=(\d+)")
Dump = dict[str, Any]


def dump_all(connection: Connection[Any]) -> dict[str, Dump]:
    """Of every user schema: {"definition", "tables": {name: {"definition", "counter", "rows"}}, "views", ...}.

    Definitions and values are bytes as the server keeps them; rows are sorted.  Nobody may write meanwhile.
    """
    with _binary(connection) as ask:
        return {name: _schema(ask, name) for name in user_schemas(ask)}


def compare(a: Any, b: Any, place: str = "") -> list[str]:
    """The differences between two dumps, one line each; empty where they are equal."""
    if isinstance(a, dict) and isinstance(b, dict):
        lines = []
        for key in sorted(a.keys() | b.keys(), key=str):
            here = f"{place}/{key}".lstrip("/")
            if key not in a or key not in b:
                lines.append(f"{here}: only in the {'second' if key not in a else 'first'}")
            else:
                lines += compare(a[key], b[key], here)
        return lines
    if a == b:
        return []
    if isinstance(a, list):
        return _row_differences(a, b, place)
    return [f"{place}: {a!r} is not {b!r}"]


def user_schemas(ask: Ask) -> list[str]:
    return [name for (name,) in ask("SHOW DATABASES", text=True) if name not in SYSTEM]


def quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


class Ask:
    """Runs a query and returns its rows, as bytes or, for names, as text."""

    def __init__(self, connection: Connection[Any]) -> None:
        self.connection = connection

    def __call__(self, query: str, *values: str, text: bool = False) -> list[tuple[Any, ...]]:
        with self.connection.cursor() as cursor:
            cursor.execute(query, values or None)
            rows = [tuple(row) for row in cursor.fetchall()]
        return [tuple(_text(value) for value in row) for row in rows] if text else rows

    def definition(self, kind: str, schema: str, name: str) -> tuple[bytes, ...]:
        """The columns of SHOW CREATE, without the time of creation."""
        with self.connection.cursor() as cursor:
            cursor.execute(f"SHOW CREATE {kind} {quoted(schema)}.{quoted(name)}")
            row, columns = cursor.fetchone(), [column[0] for column in cursor.description or ()]
        return tuple(value for column, value in zip(columns, row, strict=True) if column != "Created")


@contextmanager
def _binary(connection: Connection[Any]) -> Iterator[Ask]:
    """The connection without any conversion: values as stored, times in UTC, definitions in plain sql_mode."""
    ask = Ask(connection)
    names = ("time_zone", "sql_mode", "character_set_results", "sql_quote_show_create")
    (before,) = ask("SELECT " + ", ".join(f"@@SESSION.{name}" for name in names))
    decoders, use_unicode = connection.decoders, connection.use_unicode
    try:
        ask("SET time_zone = '+00:00', sql_mode = '', character_set_results = binary, sql_quote_show_create = 1")
        connection.decoders, connection.use_unicode = {}, False
        yield ask
    finally:
        connection.decoders, connection.use_unicode = decoders, use_unicode
        assignments = ", ".join(f"{name} = %s" for name in names)
        ask(f"SET {assignments}", *before)


def _schema(ask: Ask, schema: str) -> Dump:
    kinds = dict(
        ask("SELECT table_name, table_type FROM information_schema.tables WHERE table_schema = %s", schema, text=True)
    )
    routines = ask(
        "SELECT routine_type, routine_name FROM information_schema.routines WHERE routine_schema = %s",
        schema,
        text=True,
    )
    triggers = ask(
        "SELECT trigger_name, action_order FROM information_schema.triggers WHERE trigger_schema = %s",
        schema,
        text=True,
    )
    libraries = _libraries(ask, schema)
    events = ask("SELECT event_name FROM information_schema.events WHERE event_schema = %s", schema, text=True)
    return {
        "definition": ask(f"SHOW CREATE DATABASE {quoted(schema)}")[0],
        "tables": {name: _table(ask, schema, name, kind) for name, kind in kinds.items() if kind != "VIEW"},
        "views": {name: ask.definition("VIEW", schema, name) for name, kind in kinds.items() if kind == "VIEW"},
        "routines": {f"{kind} {name}": ask.definition(kind, schema, name) for kind, name in routines},
        "libraries": {name: ask.definition("LIBRARY", schema, name) for (name,) in libraries},
        "triggers": {name: (order, *ask.definition("TRIGGER", schema, name)) for name, order in triggers},
        "events": {name: ask.definition("EVENT", schema, name) for (name,) in events},
    }


def _libraries(ask: Ask, schema: str) -> list[tuple[Any, ...]]:
    """MySQL's, from 9.2 on."""
    if not ask(
        "SELECT 1 FROM information_schema.tables WHERE table_name = 'LIBRARIES' AND table_schema = %s", SYSTEM[1]
    ):
        return []
    return ask("SELECT library_name FROM information_schema.libraries WHERE library_schema = %s", schema, text=True)


def _table(ask: Ask, schema: str, table: str, kind: str) -> Dump:
    definition = ask.definition("TABLE", schema, table)[1]
    counter = COUNTER.search(definition)
    columns = ask(
        "SELECT column_name, data_type FROM information_schema.columns"
        " WHERE table_schema = %s AND table_name = %s ORDER BY ordinal_position",
        schema,
        table,
        text=True,
    )
    wanted = ", ".join(_exact(quoted(name), data_type) for name, data_type in columns)
    history = " FOR SYSTEM_TIME ALL" if kind == "SYSTEM VERSIONED" else ""
    rows = ask(f"SELECT {wanted} FROM {quoted(schema)}.{quoted(table)}{history}")
    return {
        "definition": COUNTER.sub(b"", definition, count=1),
        "counter": counter[1] if counter else None,
        "rows": sorted(rows, key=lambda row: [(value is not None, value) for value in row]),
    }


def _exact(column: str, data_type: str) -> str:
    """An expression whose text tells any two values apart: FLOAT prints only six digits, VECTOR not at all."""
    if data_type == "float":
        return f"CAST({column} AS DOUBLE)"
    return f"HEX({column})" if data_type in ("vector", "bit") else column


def _row_differences(a: list[Any], b: list[Any], place: str) -> list[str]:
    first, second = set(a), set(b)
    lines = [f"{place}: only in the first: {row!r}" for row in a if row not in second]
    lines += [f"{place}: only in the second: {row!r}" for row in b if row not in first]
    return lines or [f"{place}: the same rows, but {len(a)} and {len(b)} of them"]


def _text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value
