"""Characters beyond the BMP that SHOW CREATE TABLE prints as "?": asked for in other ways, and put back.

Both servers convert the elements of an ENUM or SET to their three-byte inner character set when they print them,
MariaDB a column's DEFAULT too.  The values themselves are known to the server: the column of a recursive query has
the type of its first part, so that a number stored there by the second part becomes the element's text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from backups.engine.errors import Refused
from backups.engine.mysql.server import Identity, quote

Ask = Callable[..., tuple[tuple[Any, ...], ...]]
WIDE = ("utf8mb4", "utf16", "utf16le", "utf32", "gb18030")  # the character sets that have such characters
UNREADABLE = (
    "SELECT ROUTINE_SCHEMA, ROUTINE_NAME FROM information_schema.ROUTINES"
    f" WHERE DATA_TYPE IN ('enum', 'set') AND DTD_IDENTIFIER LIKE '%?%' AND CHARACTER_SET_NAME IN {WIDE}"
)
ELEMENT = re.compile(rb"'(?:[^'\\]|''|\\.)*'", re.DOTALL)
DEFAULT = re.compile(rb"([^'`]* DEFAULT )('(?:[^'\\]|''|\\.)*')", re.DOTALL)  # a literal, in what follows the type
MOST = 65_535  # elements of an ENUM
LIMIT = {"mysql": "cte_max_recursion_depth", "mariadb": "max_recursive_iterations"}


def mended(ask: Ask, identity: Identity, schema: str, table: str, definition: bytes) -> bytes:
    """CREATE TABLE with the characters that it means.  `ask` answers in bytes, unconverted (or in utf8mb4)."""
    found = ask(
        "SELECT COLUMN_NAME, DATA_TYPE, COLUMN_TYPE FROM information_schema.COLUMNS"
        f" WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s AND CHARACTER_SET_NAME IN {WIDE}",
        schema,
        table,
    )
    for name, kind, printed in found:
        source = quote(name.decode())
        before, column, rest = definition.partition(b"\n  " + source.encode() + b" " + printed)
        if not column:
            raise Refused(
                f"The definition of {schema}.{table} cannot be read exactly, for column {name.decode()}.",
                meaning="It may hold characters that the server prints as '?', so the backup could alter it.",
                next_step="Write it without characters beyond U+FFFF and without '?'.",
            )
        line, end, after = rest.partition(b"\n")
        if identity.flavour == "mariadb" and (default := DEFAULT.match(line)) and b"?" in default[2]:
            value = ask(f"SELECT CONVERT(DEFAULT({source}) USING utf8mb4) {_no_row(schema, table)}")
            line = default[1] + _literal(value[0][0]) + line[default.end() :]
        if kind in (b"enum", b"set") and b"?" in printed:
            exact = kind + b"(" + b",".join(_elements(ask, identity, schema, table, source, printed)) + b")"
            column = column.replace(printed, exact)
        definition = before + column + line + end + after
    return definition


def require_readable(ask: Ask) -> None:
    """Raise Refused for a function that returns such an ENUM: nothing tells its elements."""
    found = ask(UNREADABLE)
    if found:
        names = ", ".join(f"{schema.decode()}.{name.decode()}" for schema, name in found)
        raise Refused(
            f"The type that these functions return cannot be read exactly: {names}.",
            meaning="An ENUM or SET in it holds '?', which may stand for a character beyond U+FFFF that a backup would"
            " alter, so none is taken.",
            next_step="Have them return VARCHAR instead.",
        )


def _no_row(schema: str, table: str) -> str:
    """A FROM that gives one row, with a column of the table in it though the table may be empty."""
    return f"FROM (SELECT 1) one LEFT JOIN {quote(schema)}.{quote(table)} origin ON FALSE"


def _elements(ask: Ask, identity: Identity, schema: str, table: str, source: str, printed: bytes) -> Iterator[bytes]:
    """The column's elements as SQL, in their order."""
    count = len(ELEMENT.findall(printed))
    number = "n + 1" if printed.startswith(b"enum") else "1 << n"
    ask(f"SET SESSION {LIMIT[identity.flavour]} = {MOST + 1}")
    found = ask(
        f"WITH RECURSIVE known (element, n) AS (SELECT origin.{source}, 0 {_no_row(schema, table)}"
        f" UNION ALL SELECT {number}, n + 1 FROM known WHERE n < {count})"
        " SELECT CONVERT(element USING utf8mb4) FROM known WHERE n > 0 ORDER BY n"
    )
    return (_literal(element) for (element,) in found)


def _literal(value: bytes) -> bytes:
    return b"'" + value.replace(b"\\", b"\\\\").replace(b"'", b"''") + b"'"
