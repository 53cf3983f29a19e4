"""SQL files that both the `mysql` client and `load` run: a DELIMITER line, then statements, each ended by its token.

A statement is bytes: a routine's text is in the character set it was written in, named by the SET before it.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator

from backups.engine.errors import Corrupt
from backups.engine.mysql.schema import Program, Schema, Table, with_counter
from backups.engine.mysql.server import Identity, quote
from backups.engine.mysql.tsv import LINES

Statement = bytes
# A column's COLLATE without CHARACTER SET is the table's own, only printed: given back as it stands, MySQL would take
# it for the column's explicit choice and print CHARACTER SET too from then on.
INHERITED = re.compile(
    rb"^(  `(?:[^`]|``)+` (?:(?:var)?char\(\d+\)|(?:tiny|medium|long)?text|(?:enum|set)\('(?:[^']|'')*'"
    rb"(?:,'(?:[^']|'')*')*\))) COLLATE \w+",
    re.MULTILINE,
)

# A JSON RELATIONAL DUALITY VIEW, which replaces no view of the other kind.
DUALITY = re.compile(rb"CREATE [^`]*(?:`(?:[^`]|``)*`@`(?:[^`]|``)*`)? SQL SECURITY \w+ JSON ")


def render(statements: Iterable[Statement]) -> Iterator[bytes]:
    token = f"$${secrets.token_hex(5)}$$".encode()  # the mysql client takes at most 15 characters
    yield b"DELIMITER " + token + b"\n"
    for statement in statements:
        yield statement + b"\n" + token + b"\n"


def parse(chunks: Iterable[bytes]) -> Iterator[Statement]:
    """The statements of a file; raise Corrupt where it is not one."""
    head, _, rest = b"".join(chunks).partition(b"\n")
    token = head.removeprefix(b"DELIMITER ")
    statements = rest.split(b"\n" + token + b"\n")
    if token == head or not token or statements.pop():
        raise Corrupt("A file of SQL statements does not begin or end as one.")
    yield from statements


def create(
    schema: Schema,
    identity: Identity,
    counters: dict[str, int],
    sequences: dict[str, tuple[int, int]],
    tablespaces: Iterable[Statement],
) -> Iterator[Statement]:
    """The schema, its sequences and tables, and a placeholder for each view: whatever other schemas may refer to.

    tablespaces: of the server, made in front of its first schema.
    """
    yield from _session(identity)
    yield from tablespaces
    yield schema.definition
    yield _use(schema)
    for table in schema.tables:
        if table.kind == "SEQUENCE":
            yield table.definition
            following, cycles = sequences[table.name]
            yield f"DO SETVAL({quote(table.name)}, {following}, 0, {cycles})".encode()
    for table in schema.tables:
        if table.kind != "SEQUENCE":
            definition = with_counter(table.definition, counters.get(table.name, table.counter))
            yield INHERITED.sub(rb"\1", definition) if identity.flavour == "mysql" else definition
    yield from (
        _placeholder(program)
        for program in schema.programs
        if program.columns and not DUALITY.match(program.definition)
    )


def finish(schema: Schema, identity: Identity, view_us: int) -> Iterator[Statement]:
    """Its routines, views, triggers and events.

    Events are made with the clock at the backup's moment, or one that was due since would be gone at once.
    """
    if not schema.programs:
        return
    yield from _session(identity)
    yield _use(schema)
    yield f"SET SESSION timestamp = {view_us // 1_000_000}".encode()
    collation = schema.collation
    for program in schema.programs:
        if program.database_collation and program.database_collation != collation:
            collation = program.database_collation
            yield f"ALTER DATABASE COLLATE = {collation}".encode()
        yield _context(program)
        yield _statement(program)
    if collation != schema.collation:
        yield f"ALTER DATABASE COLLATE = {schema.collation}".encode()


def load_clause(table: Table) -> str:
    """What follows INTO TABLE name.  Bytes go in unconverted; what needs text is told that it is utf8mb4."""
    places, sets = [], []
    for number, column in enumerate(table.columns):
        stored = column.value(f"@c{number}")
        if stored != f"@c{number}":
            places.append(f"@c{number}")
            sets.append(f"{quote(column.name)} = {stored}")
        else:
            places.append(quote(column.name))
    ending = f" SET {', '.join(sets)}" if sets else ""
    return f"CHARACTER SET binary {LINES} ({', '.join(places) or '@none'}){ending}"


def _session(identity: Identity) -> Iterator[Statement]:
    """Nothing of the target's settings may change what a definition means, or refuse one the source had."""
    yield b"SET NAMES utf8mb4"
    yield (
        b"SET SESSION foreign_key_checks = 0, unique_checks = 0, time_zone = '+00:00', innodb_strict_mode = 0,"
        b" sql_mode = 'NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES,NO_ENGINE_SUBSTITUTION'"
    )
    if identity.flavour == "mysql":
        settings = {
            (8, 0, 0): "explicit_defaults_for_timestamp = 1",
            (8, 0, 13): "sql_require_primary_key = 0",
            (8, 0, 30): "sql_generate_invisible_primary_key = 0",
            (8, 4, 0): "restrict_fk_on_non_standard_key = 0",
        }
        names = [setting for since, setting in settings.items() if identity.version >= since]
        yield f"SET SESSION {', '.join(names)}".encode()


def _use(schema: Schema) -> Statement:
    return f"USE {quote(schema.name)}".encode()


def _placeholder(view: Program) -> Statement:
    columns = ", ".join(f"1 AS {quote(name)}" for name in view.columns)
    return f"CREATE OR REPLACE VIEW {quote(view.name)} AS SELECT {columns}".encode()


def _context(program: Program) -> Statement:
    zone = f", time_zone = '{program.time_zone}'" if program.time_zone else ""
    return (
        f"SET SESSION sql_mode = '{program.sql_mode}', character_set_client = {program.charset},"
        f" collation_connection = {program.collation}{zone}"
    ).encode()


def _statement(program: Program) -> Statement:
    if program.kind == "VIEW":
        return program.definition.replace(b"CREATE ", b"CREATE OR REPLACE ", 1)
    return program.definition
