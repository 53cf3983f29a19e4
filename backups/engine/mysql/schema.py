"""What a server's user schemas are made of, read so that two readings can be compared."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pymysql

from backups.engine.mysql import wide
from backups.engine.mysql.server import SYSTEM_SCHEMAS, Connection, Identity, quote

Row = tuple[Any, ...]

# Engines whose tables hold no rows of their own: a definition is all there is to back up.
ROWLESS = ("MRG_MYISAM", "MRG_MyISAM", "FEDERATED", "BLACKHOLE", "SPIDER", "CONNECT", "PERFORMANCE_SCHEMA")
# LOAD DATA in CHARACTER SET binary would take these types' text for their inner form: given as text by CONVERT.
TEXT_TYPES = ("json", "inet4", "inet6", "uuid")
ELEMENT = re.compile("'((?:[^']|'')*)'")  # of an ENUM or SET, as information_schema prints it
ODD = frozenset("?\\")
ALIKE = str.maketrans("jyuw", "iivv")  # letters that are equal to some collation: Roman, Lithuanian, Swedish
COUNTER = re.compile(rb"(\n\) [^\n]*?)AUTO_INCREMENT=(\d+) ?")
ENGINE = re.compile(rb"(\n\) [^\n]*?ENGINE=\w+)")

# Character sets of sessions in which a character may end in the byte of a backtick.
BACKTICKS = frozenset({"big5", "cp932", "gb18030", "gbk", "sjis"})


def _not_preserved(byte: bytes) -> re.Pattern[bytes]:
    """An event's head up to the clause that is the default, and that sql_mode HIGH_NOT_PRECEDENCE does not parse.

    byte: of its text, but for backticks.
    """
    name = rb"`(?:%b|``)*`" % byte
    return re.compile(
        rb"\A(CREATE DEFINER=%b@%b EVENT %b ON SCHEDULE (?:(?! ON COMPLETION)%b)*) ON COMPLETION NOT PRESERVE"
        % (name, name, name, byte)
    )


NOT_PRESERVED = {True: _not_preserved(rb"[ -_a-~]"), False: _not_preserved(rb"[ -_a-~\x80-\xff]")}  # by BACKTICKS
DEFINER = re.compile(rb"CREATE [^`]*?DEFINER=(`(?:[^`]|``)*`(?:@`(?:[^`]|``)*`)?)")

LIBRARIES = (  # MySQL's, from 9.2 on
    "SELECT 'LIBRARY', LIBRARY_NAME, 'utf8mb4' FROM information_schema.LIBRARIES WHERE LIBRARY_SCHEMA = %s ORDER BY 2"
)
PROGRAMS = (
    "SELECT ROUTINE_TYPE, ROUTINE_NAME, CHARACTER_SET_CLIENT FROM information_schema.ROUTINES"
    " WHERE ROUTINE_SCHEMA = %s ORDER BY 1, 2",
    "SELECT 'VIEW', TABLE_NAME, CHARACTER_SET_CLIENT FROM information_schema.VIEWS WHERE TABLE_SCHEMA = %s ORDER BY 2",
    "SELECT 'TRIGGER', TRIGGER_NAME, CHARACTER_SET_CLIENT FROM information_schema.TRIGGERS"
    " WHERE TRIGGER_SCHEMA = %s ORDER BY EVENT_OBJECT_TABLE, ACTION_TIMING, EVENT_MANIPULATION, ACTION_ORDER",
    "SELECT 'EVENT', EVENT_NAME, CHARACTER_SET_CLIENT FROM information_schema.EVENTS"
    " WHERE EVENT_SCHEMA = %s ORDER BY 2",
)


@dataclass(frozen=True, slots=True)
class Column:
    """A column whose values are stored (not generated).  charset: "" where it holds no text.

    numbered: an ENUM or SET whose values are told by number, as their text may stand for several of its elements.
    """

    name: str
    type: str
    charset: str = ""
    numbered: bool = False

    @property
    def expression(self) -> str:
        """Its value as exact text: FLOAT prints six digits only."""
        if self.numbered:
            return f"CAST({quote(self.name)} AS UNSIGNED)"
        return f"CAST({quote(self.name)} AS DOUBLE)" if self.type == "float" else quote(self.name)

    def value(self, text: str) -> str:
        """What is to be stored, given SQL for the bytes of `expression`."""
        if self.numbered:
            return f"CAST({text} AS UNSIGNED)"
        return f"CONVERT({text} USING utf8mb4)" if self.type in TEXT_TYPES else text


@dataclass(frozen=True, slots=True)
class Table:
    """definition: CREATE TABLE without the AUTO_INCREMENT value, which is `counter`.  size: a guess in bytes.

    period: the columns that tell from when until when a row of a system-versioned table was there.
    """

    name: str
    engine: str
    kind: str
    definition: bytes
    columns: tuple[Column, ...]
    counter: int = field(compare=False)
    size: int = field(compare=False)
    period: tuple[str, ...] = ()

    @property
    def in_view(self) -> bool:
        """Whether a consistent snapshot covers it."""
        return self.engine == "InnoDB"

    @property
    def own_numbers(self) -> bool:
        """Whether its history is told in numbers of this server's transactions, which no other server has."""
        return (
            self.kind == "SYSTEM VERSIONED" and b"bigint(20) unsigned GENERATED ALWAYS AS ROW START" in self.definition
        )

    @property
    def has_rows(self) -> bool:
        return self.engine not in ROWLESS and self.kind != "SEQUENCE"


@dataclass(frozen=True, slots=True)
class Program:
    """A view, routine, library, trigger or event: its statement in its own character set, and the session it needs."""

    kind: str
    name: str
    definition: bytes
    charset: str
    collation: str
    sql_mode: str = ""
    time_zone: str = ""
    database_collation: str = ""
    columns: tuple[str, ...] = ()

    @property
    def definer(self) -> str:
        """The account it runs as, quoted as SQL; "" for what has none."""
        found = DEFINER.match(self.definition)
        return found[1].decode() if found else ""


@dataclass(frozen=True, slots=True)
class Schema:
    name: str
    definition: bytes
    collation: str
    tables: tuple[Table, ...]
    programs: tuple[Program, ...]


class Reader:
    """Reads definitions over a connection of its own, as bytes in the charset they were written in."""

    def __init__(self, connection: Connection, identity: Identity) -> None:
        self.connection = connection
        self.identity = identity
        connection.use_unicode, connection.decoders = False, {}
        # Unconverted: MySQL prints a definition's expressions as they were written, and says it was all utf8mb3.
        self._charset("NULL")

    def schemas(self) -> tuple[Schema, ...]:
        """All user schemas, in order of name.  Raises Refused where a definition cannot be read exactly."""
        wide.require_readable(self._ask)
        found = self._ask("SELECT SCHEMA_NAME, DEFAULT_COLLATION_NAME FROM information_schema.SCHEMATA ORDER BY 1")
        return tuple(self._schema(_text(name), _text(collation)) for name, collation in found if is_user(_text(name)))

    def table_ids(self) -> dict[str, int]:
        """InnoDB's own number for each table and partition: a rebuilt, truncated or swapped one has another."""
        view = "INNODB_TABLES" if self.identity.flavour == "mysql" else "INNODB_SYS_TABLES"
        found = self._ask(f"SELECT NAME, TABLE_ID FROM information_schema.{view} WHERE NAME LIKE '%/%'")
        system = tuple(f"{name}/" for name in SYSTEM_SCHEMAS)
        return {_text(name): int(number) for name, number in found if not _text(name).startswith(system)}

    def counters(self) -> dict[str, int]:
        """InnoDB's next AUTO_INCREMENT value of each table it has open, by InnoDB's name for it."""
        view = "INNODB_TABLESTATS" if self.identity.flavour == "mysql" else "INNODB_SYS_TABLESTATS"
        found = self._ask(f"SELECT NAME, AUTOINC FROM information_schema.{view} WHERE AUTOINC > 1")
        return {_text(name): int(number) for name, number in found}

    def tablespaces(self) -> list[bytes]:
        """CREATE TABLESPACE for each of MySQL's general tablespaces; where its file lies is left to the target."""
        if self.identity.flavour != "mysql":
            return []
        found = self._ask(
            "SELECT NAME, ZIP_PAGE_SIZE, ENCRYPTION FROM information_schema.INNODB_TABLESPACES"
            " WHERE SPACE_TYPE = 'General' AND NAME <> 'mysql' ORDER BY 1"
        )
        return [self._tablespace(_text(name), int(block), encrypted == b"Y") for name, block, encrypted in found]

    def _tablespace(self, name: str, block: int, encrypted: bool) -> bytes:
        size = f" FILE_BLOCK_SIZE = {block}" if block else ""
        cipher = " ENCRYPTION = 'Y'" if encrypted else ""
        return f"CREATE TABLESPACE {quote(name)}{size}{cipher}".encode()

    def sequence(self, schema: str, name: str) -> tuple[int, int]:
        """A sequence's next value that is not cached, and its cycle count."""
        (row,) = self._ask(f"SELECT next_not_cached_value, cycle_count FROM {quote(schema)}.{quote(name)}")
        return int(row[0]), int(row[1])

    def table(self, schema: str, name: str) -> bytes:
        """CREATE TABLE as it is now, without the AUTO_INCREMENT value."""
        return COUNTER.sub(rb"\1", self._definition("TABLE", schema, name), count=1)

    def _definition(self, noun: str, schema: str, name: str) -> bytes:
        text: bytes = self._ask(f"SHOW CREATE {noun} {quote(schema)}.{quote(name)}")[0][1]
        return wide.mended(self._ask, self.identity, schema, name, text) if b"?" in text else text

    def _schema(self, name: str, collation: str) -> Schema:
        definition = self._ask(f"SHOW CREATE DATABASE {quote(name)}")[0][1]
        tables = tuple(self._tables(name))
        return Schema(name, definition, collation, tables, tuple(self._programs(name)))

    def _tables(self, schema: str) -> Iterator[Table]:
        columns = self._columns(schema)
        found = self._ask(
            "SELECT TABLE_NAME, ENGINE, TABLE_TYPE, COALESCE(DATA_LENGTH, 0) FROM information_schema.TABLES"
            " WHERE TABLE_SCHEMA = %s AND TABLE_TYPE NOT IN ('VIEW', 'SYSTEM VIEW', 'TEMPORARY') ORDER BY 1",
            schema,
        )
        for name, engine, kind, size in found:
            yield self._table(schema, _text(name), _text(engine), _text(kind), int(size), columns)

    def _table(self, schema: str, name: str, engine: str, kind: str, size: int, columns: Columns) -> Table:
        noun = "SEQUENCE" if kind == "SEQUENCE" else "TABLE"
        text = self._definition(noun, schema, name)
        counter = COUNTER.search(text)
        stored = columns.get(name, [])
        if kind == "SYSTEM VERSIONED" and not {"ROW START", "ROW END"} & {expression for _, expression in stored}:
            # Without columns of its own for the period the table has two that only their names reveal.
            stored = [*stored, *((Column(f"row_{end}", "timestamp"), f"ROW {end.upper()}") for end in ("start", "end"))]
        kept = tuple(column for column, expression in stored if expression in ("", "ROW START", "ROW END"))
        period = tuple(column.name for end in ("START", "END") for column, what in stored if what == f"ROW {end}")
        definition = COUNTER.sub(rb"\1", text, count=1)
        return Table(name, engine, kind, definition, kept, int(counter[2]) if counter else 0, size, period)

    def _columns(self, schema: str) -> Columns:
        found = self._ask(
            "SELECT TABLE_NAME, COLUMN_NAME, DATA_TYPE, COALESCE(GENERATION_EXPRESSION, ''), CHARACTER_SET_NAME,"
            " IF(DATA_TYPE IN ('enum', 'set'), COLUMN_TYPE, '')"
            " FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = %s ORDER BY TABLE_NAME, ORDINAL_POSITION",
            schema,
        )
        columns: Columns = {}
        for table, name, kind, expression, charset, elements in found:
            column = Column(_text(name), _text(kind).lower(), _text(charset), ambiguous(_text(elements)))
            columns.setdefault(_text(table), []).append((column, _text(expression)))
        return columns

    def _programs(self, schema: str) -> Iterator[Program]:
        """In an order in which they can be made: libraries, routines, views, triggers in their order, events."""
        columns = self._columns(schema)
        libraries = self.identity.flavour == "mysql" and self.identity.version >= (9, 2)
        for query in (LIBRARIES, *PROGRAMS) if libraries else PROGRAMS:
            found = []
            for kind, name, charset in self._ask(query, schema):
                names = tuple(column.name for column, _ in columns.get(_text(name), [])) if kind == b"VIEW" else ()
                found.append(self._program(_text(kind), schema, _text(name), _text(charset), names))
            yield from _in_order(found, schema)

    def _program(self, kind: str, schema: str, name: str, charset: str, columns: tuple[str, ...]) -> Program:
        """SHOW CREATE, answered in the charset that the text was written in.

        sql_mode comes from here too: information_schema of MySQL 9.7 prints ALLOW_INVALID_DATES as INVALID_DATES.
        """
        self._charset(charset)
        row = self._ask(f"SHOW CREATE {kind} {quote(schema)}.{quote(name)}")[0]
        self._charset("NULL")
        if kind == "LIBRARY":
            return Program(kind, name, row[2], charset, "utf8mb4_bin", _text(row[1]))
        place = {"VIEW": 1, "EVENT": 3}.get(kind, 2)
        if row[place] is None:
            raise pymysql.err.OperationalError(1142, f"SHOW CREATE {kind} of {schema}.{name} shows no definition")
        client, collation = _text(row[place + 1]), _text(row[place + 2])  # only these: a name need not be UTF-8 here
        mode, database = ("", "") if kind == "VIEW" else (_text(row[1]), _text(row[place + 3]))
        zone = _text(row[2]) if kind == "EVENT" else ""
        definition = row[place]
        if kind == "EVENT":
            definition = NOT_PRESERVED[charset in BACKTICKS].sub(rb"\1", definition, count=1)
        return Program(kind, name, definition, client, collation, mode, zone, database, columns)

    def _charset(self, name: str) -> None:
        self._ask(f"SET character_set_results = {name}")

    def _ask(self, sql: str, *values: str) -> tuple[Row, ...]:
        with self.connection.cursor() as cursor:
            cursor.execute(sql, values or None)
            return tuple(cursor.fetchall())


def ambiguous(elements: str) -> bool:
    """Whether an ENUM's or SET's text may stand for another of its elements, or for none: then "" does, too.

    Outside of strict mode elements may be equal, in bytes or to a collation, and "?" is what a server could not print.
    Told apart are other printable ASCII texts whose letters no collation takes for one another.
    """
    found = [element.rstrip().casefold().translate(ALIKE) for element in ELEMENT.findall(elements)]
    odd = not elements.isascii() or not elements.isprintable() or not ODD.isdisjoint(elements)
    return odd or "" in found or len(set(found)) < len(found)


Columns = dict[str, list[tuple[Column, str]]]  # by table; with the expression of a generated one


def _in_order(programs: list[Program], schema: str) -> Iterator[Program]:
    """Views after the views they name.  A placeholder does that too, but MariaDB does not tell an account without
    EXECUTE the columns of a view that calls a function."""
    waiting = list(programs)
    while waiting:
        names = {program.name: f"{quote(schema)}.{quote(program.name)}".encode() for program in waiting}
        ready = [
            program
            for program in waiting
            if program.kind != "VIEW"
            or not any(text in program.definition.partition(b" AS ")[2] for text in names.values())
        ]
        yield from ready or waiting
        waiting = [program for program in waiting if program not in ready] if ready else []


def is_user(schema: str) -> bool:
    """`#mysql50#...` is a folder in the data directory that is no schema."""
    return schema.lower() not in SYSTEM_SCHEMAS and not schema.startswith("#mysql50#")


def with_counter(definition: bytes, counter: int) -> bytes:
    """CREATE TABLE with its AUTO_INCREMENT value back in its place."""
    if not counter:
        return definition
    return ENGINE.sub(rb"\1 AUTO_INCREMENT=%d" % counter, definition, count=1)


def innodb_name(schema: str, table: str) -> tuple[str, bool]:
    """InnoDB's name for a table, and whether that is all of it: it ends before the first character beyond ASCII."""
    known: list[str] = []
    for character in f"{schema}\0{table}":
        if not character.isascii():
            return "".join(known), False
        known.append("/" if character == "\0" else _file_character(character))
    return "".join(known).lower(), True


def _file_character(character: str) -> str:
    return character if character.isalnum() or character == "_" else f"@{ord(character):04x}"


class Numbers:
    """InnoDB's numbers of tables and their partitions, to be looked up by table."""

    def __init__(self, ids: Mapping[str, int]) -> None:
        self.sorted = sorted((name.lower(), number) for name, number in ids.items())

    def of(self, schema: str, table: str) -> list[tuple[str, int]]:
        """A table's and its partitions' (and, for names beyond ASCII, those of all that begin alike)."""
        name, whole = innodb_name(schema, table)
        if not whole:
            return self._between(name.lower(), name.lower() + "\x7f")
        return self._between(name, name + "\0") + self._between(f"{name}#", f"{name}$")

    def _between(self, first: str, end: str) -> list[tuple[str, int]]:
        return self.sorted[bisect_left(self.sorted, (first,)) : bisect_left(self.sorted, (end,))]


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value or "")
