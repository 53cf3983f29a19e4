"""Whether two servers hold the same: every definition, every counter, and every row as a checksummed stream."""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
from collections.abc import Iterator
from typing import Any

from everest.demo.compare import COUNTER, Ask, compare, quoted, user_schemas
from everest.demo.servers import Server

MARK = b"\x01 "  # begins the line before a table's rows; the client writes no such byte in front of a row
# Every column as text that tells any two values apart.
HEXED = ("bit", "vector", "geometry", "binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob")


class Wrong(Exception):
    """A restored server does not hold what its source holds."""


class Unreadable(Exception):
    """A server could not be looked at."""


def prove(what: str, wanted: dict[str, Any], server: Server) -> None:
    """Raise Wrong where a server does not hold what `digest` said of its source."""
    differences = compare(wanted, digest(server))
    if differences:
        shown = "\n  ".join(line[:400] for line in differences[:10])
        raise Wrong(f"WRONG RESULT: after {what}, {len(differences)} differences from the source:\n  {shown}")


def digest(server: Server) -> dict[str, Any]:
    """Of every table: its definition, its AUTO_INCREMENT, its number of rows and the SHA-256 of all of them."""
    with server.connect() as connection:
        ask = Ask(connection)
        schemas = user_schemas(ask)
        tables = [(schema, name) for schema in schemas for name in _tables(ask, schema)]
        found = {f"{schema}.{name}": _definition(ask, schema, name) for schema, name in tables}
        queries = [_rows(ask, schema, name) for schema, name in tables]
    for name, (rows, checksum) in _streams(server, queries):
        found[name] |= {"rows": rows, "checksum": checksum}
    return {"schemas": schemas, "tables": found}


def _tables(ask: Ask, schema: str) -> list[str]:
    sql = "SELECT table_name FROM information_schema.tables WHERE table_schema = %s AND table_type <> 'VIEW' ORDER BY 1"
    return [name for (name,) in ask(sql, schema, text=True)]


def _definition(ask: Ask, schema: str, name: str) -> dict[str, Any]:
    text = ask.definition("TABLE", schema, name)[1].encode()
    counter = COUNTER.search(text)
    return {"definition": COUNTER.sub(b"", text, count=1), "counter": counter[1] if counter else None}


def _rows(ask: Ask, schema: str, name: str) -> str:
    """All rows by primary key, else by all columns; NULL and the text NULL print alike, so each says which it is."""
    columns = ask(
        "SELECT column_name, data_type, is_nullable, column_key FROM information_schema.columns"
        " WHERE table_schema = %s AND table_name = %s ORDER BY ordinal_position", schema, name, text=True,
    )  # fmt: skip
    shown = [_text(quoted(column), kind) for column, kind, *_ in columns]
    shown += [f"{quoted(column)} IS NULL" for column, _, nullable, _ in columns if nullable == "YES"]
    keyed = any(key == "PRI" for *_, key in columns)
    order = _primary(ask, schema, name) if keyed else ", ".join(str(number + 1) for number in range(len(shown)))
    mark = f"SELECT CONCAT(CHAR(1), ' {schema}.{name}');\n"
    return f"{mark}SELECT {', '.join(shown)} FROM {quoted(schema)}.{quoted(name)} ORDER BY {order};\n"


def _primary(ask: Ask, schema: str, name: str) -> str:
    sql = (
        "SELECT column_name FROM information_schema.statistics WHERE table_schema = %s AND table_name = %s"
        " AND index_name = 'PRIMARY' ORDER BY seq_in_index"
    )
    return ", ".join(quoted(column) for (column,) in ask(sql, schema, name, text=True))


def _text(column: str, kind: str) -> str:
    if kind == "float":
        return f"CAST({column} AS DOUBLE)"
    return f"HEX({column})" if kind in HEXED else column


def _streams(server: Server, queries: list[str]) -> Iterator[tuple[str, tuple[int, str]]]:
    """By the server's own client, which escapes line ends inside of values: a line is a row."""
    argv = [*server.installation.command("mysql"), "--no-defaults", f"--socket={server.socket}", "--user=root",
            "--batch", "--quick", "--skip-column-names", "--default-character-set=utf8mb4"]  # fmt: skip
    name, rows, checksum = "", 0, hashlib.sha256()
    with tempfile.TemporaryFile() as asked:
        asked.write("".join(["SET time_zone = '+00:00', sql_mode = '';\n", *queries]).encode())
        asked.seek(0)
        with subprocess.Popen(argv, stdin=asked, stdout=subprocess.PIPE) as client:
            assert client.stdout
            for line in client.stdout:
                if line.startswith(MARK):
                    if name:
                        yield name, (rows, checksum.hexdigest())
                    name, rows, checksum = line[len(MARK) : -1].decode(), 0, hashlib.sha256()
                else:
                    rows += 1
                    checksum.update(line)
    if client.returncode:
        raise Unreadable(f"The rows of the server in {server.folder} could not be read.")
    if name:
        yield name, (rows, checksum.hexdigest())
