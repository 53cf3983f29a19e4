"""A backup's schemas and rows into a prepared, empty target."""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pymysql
from pymysql.constants import CLIENT, COMMAND

from backups.engine.archive import Archive
from backups.engine.errors import Refused, Stopped, raise_first
from backups.engine.manifest import Manifest, TableEntry
from backups.engine.mysql import indexes, sqlfile, tsv
from backups.engine.mysql.indexes import Deferred
from backups.engine.mysql.schema import is_user
from backups.engine.mysql.server import (
    Connection,
    ServerConfig,
    connect,
    error_code,
    error_text,
    explain,
    flavour_of,
    quote,
    rows,
    variables,
)
from backups.engine.types import DataRef, Run

# What a statement says that another, later one will put right: an object of another schema is not there yet.
MISSING = (1146, 1305, 1356, 1049, 1054)
# Warnings that speak of a way of working, not of rows; 6414: InnoDB and MyISAM written by one session.
DEPRECATIONS = (1287, 1681, 6414)
TRUNCATED = 1265  # also of an ENUM's 0, "no element", which is no loss
TABLESPACE_EXISTS = 1813
NAME = rb"`(?:[^`]|``)*`"
VIEW = re.compile(
    rb"CREATE OR REPLACE [^`]*(?:%b@%b )?SQL SECURITY [A-Z]+ (?:JSON RELATIONAL DUALITY )?VIEW (%b(?:\.%b)?)"
    % (NAME, NAME, NAME, NAME)
)


@dataclass(frozen=True, slots=True)
class LoadedCounts:
    """What was put into the target.  broken: sentences about views that were broken at the source already."""

    schemas: int
    tables: int
    rows: int
    broken: tuple[str, ...] = ()


def load(
    config: ServerConfig, archive: Archive, manifest: Manifest, *, threads: int = 4, replace: bool = False, run: Run
) -> LoadedCounts:
    """Make the backup's schemas, fill them, then add views, routines, triggers and events.

    replace: first drop every user schema of the target; otherwise one with a name of the backup's is refused.
    The target's log gets nothing of it (sql_log_bin=0).  Raises Refused, Transient, Corrupt, Stopped; the target
    then holds a part of the backup.
    """
    try:
        with closing(_session(config)) as control:
            _make_room(control, manifest, replace, run)
            _create(control, [(schema.name, schema.create) for schema in manifest.schemas], archive, run)
            waiting = _defer(control, manifest, run)
            _fill(config, archive, manifest, waiting, threads, run)
            finish = [(schema.name, schema.finish) for schema in manifest.schemas if schema.finish]
            broken = _create(control, finish, archive, run)
    except pymysql.MySQLError as error:
        raise explain(error, "Loading the backup") from error
    tables = sum(len(schema.tables) for schema in manifest.schemas)
    return LoadedCounts(len(manifest.schemas), tables, manifest.rows, broken)


def _session(config: ServerConfig) -> Connection:
    """A session that stores what it is given.

    unique_checks stay on: without them InnoDB's change buffer would take duplicates in a unique index silently,
    which a target with another collation version could make of rows that differ at the source.
    """
    connection = connect(config, client_flag=CLIENT.LOCAL_FILES)
    settings = {
        "sql_log_bin": 0,
        "foreign_key_checks": 0,
        "unique_checks": 1,
        "auto_increment_increment": 1,
        "auto_increment_offset": 1,
        "time_zone": "'+00:00'",
        "sql_mode": "'STRICT_ALL_TABLES,NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES'",
        "net_read_timeout": 3600,
        "net_write_timeout": 3600,
        "wait_timeout": 31536000,
        "lock_wait_timeout": 60,
        "innodb_strict_mode": 0,
        **indexes.settings(connection),
    }
    if flavour_of(connection) == "mariadb":
        settings |= {"check_constraint_checks": 0, "max_statement_time": 0}
        if variables(connection, ("system_versioning_insert_history",)):
            settings["system_versioning_insert_history"] = 1
    connection.query("SET SESSION " + ", ".join(f"{name} = {value}" for name, value in settings.items()))
    return connection


def _make_room(control: Connection, manifest: Manifest, replace: bool, run: Run) -> None:
    found = [name for (name,) in rows(control, "SHOW DATABASES") if is_user(name)]
    taken = {name.lower() for name in found} & {schema.name.lower() for schema in manifest.schemas}
    if taken and not replace:
        raise Refused(
            f"The target holds schemas of the backup already: {', '.join(sorted(taken))}.",
            meaning="They were not touched.",
            next_step="Confirm that they are to be replaced, or choose an empty target.",
        )
    for name in found if replace else ():
        _stop_if_asked(run)
        run.log(f"Dropping schema {name} on the target.")
        control.query(f"DROP DATABASE {quote(name)}")


def is_there(statement: bytes, error: Exception) -> bool:
    """A tablespace outlives the schemas that were dropped, and there is no IF NOT EXISTS for it."""
    return error_code(error) == TABLESPACE_EXISTS and statement.lstrip()[:17].upper() == b"CREATE TABLESPACE"


def _execute(control: Connection, statement: bytes) -> None:
    """Bytes as they are: a routine's text is in its own character set."""
    control._execute_command(COMMAND.COM_QUERY, statement)
    control._affected_rows = control._read_query_result()


def _named(statement: bytes) -> str:
    """What a statement makes, short enough for a sentence."""
    return re.sub(r"\s+", " ", statement[:120].decode("utf-8", "replace"))


def _create(control: Connection, files: Sequence[tuple[str, DataRef]], archive: Archive, run: Run) -> tuple[str, ...]:
    """Everything in these files of schemas.  What fails for want of another is tried again after the others."""
    made = [_File(schema, list(sqlfile.parse(archive.read_data(ref)))) for schema, ref in files]
    waiting = -1
    while waiting != sum(len(file.left) for file in made):
        waiting = sum(len(file.left) for file in made)
        for file in made:
            file.make(control, run)
    control.query("SET SESSION timestamp = DEFAULT")
    return tuple(sentence for file in made for sentence in file.give_up(control, run))


class _File:
    """One schema's file of statements, run until nothing more of it succeeds."""

    def __init__(self, schema: str, statements: list[bytes]) -> None:
        self.schema = schema
        self.statements = statements
        self.left = {number for number, statement in enumerate(statements) if statement.startswith(b"CREATE ")}
        self.errors: dict[int, Exception] = {}

    def make(self, control: Connection, run: Run) -> None:
        """Settings are set again each time; a CREATE that succeeded is not run twice."""
        if not self.left:
            return
        for number, statement in enumerate(self.statements):
            _stop_if_asked(run)
            create = statement.startswith(b"CREATE ")
            if create and number not in self.left:
                continue
            try:
                _execute(control, statement)
                self.left.discard(number)
            except pymysql.MySQLError as error:
                if is_there(statement, error):
                    self.left.discard(number)
                    continue
                if not create or error_code(error) not in MISSING:
                    raise explain(error, f"Creating in schema {self.schema} ({_named(statement)})") from error
                self.errors[number] = error

    def give_up(self, control: Connection, run: Run) -> Iterator[str]:
        """A view that nothing helps was broken at the source: its placeholder goes, a person is told."""
        for number in sorted(self.left):
            statement, error = self.statements[number], self.errors[number]
            view = VIEW.match(statement)
            if not view:
                raise explain(error, f"Creating in schema {self.schema} ({_named(statement)})") from error
            _execute(control, b"DROP VIEW IF EXISTS " + view[1])
            name = view[1].decode("utf-8", "replace")
            sentence = f"View {name} was broken at the source and is left out: {error_text(error)}."
            run.log(sentence)
            yield sentence


def _defer(control: Connection, manifest: Manifest, run: Run) -> dict[tuple[str, str], Deferred]:
    """Indexes of large tables that are built once the rows are in, by schema and table."""
    large = [
        (schema.name, table.name)
        for schema in manifest.schemas
        for table in schema.tables
        if table.engine == "InnoDB" and table.rows >= indexes.BIG
    ]
    foreign = indexes.foreign_columns(control) if large else set()
    found = {}
    for place in large:
        _stop_if_asked(run)
        if deferred := indexes.defer(control, *place, foreign):
            found[place] = deferred
    return found


def _fill(
    config: ServerConfig,
    archive: Archive,
    manifest: Manifest,
    waiting: Mapping[tuple[str, str], Deferred],
    threads: int,
    run: Run,
) -> None:
    """All objects side by side, the largest tables first; the first failure ends the others."""
    work = _Work(config, archive, manifest, waiting, run)
    busy = min(threads, sum(len(table.waiting) for table in work.tables))
    if busy:
        with ThreadPoolExecutor(busy, thread_name_prefix="load") as pool:
            outcomes = [pool.submit(work.run_all) for _ in range(busy)]
        raise_first([outcome.exception() for outcome in outcomes])
    for table in work.tables:
        table.compare()


class _Table:
    """A table on its way in: its rows are counted over all of its objects.

    waiting: objects that nobody has begun.  left: how many are not in yet.
    """

    def __init__(self, schema: str, entry: TableEntry, deferred: Deferred | None) -> None:
        self.name = f"{schema}.{entry.name}"
        self.place = schema, entry.name
        self.sql = f"LOAD DATA LOCAL INFILE 'rows' INTO TABLE {quote(schema)}.{quote(entry.name)} {entry.load}"
        self.entry = entry
        self.deferred = deferred
        self.size = sum(ref.size for ref in entry.objects)
        self.waiting = deque(entry.objects)
        self.left = len(entry.objects)
        self.rows = 0
        self.truncated = 0  # values that the server says it shortened

    def compare(self) -> None:
        if self.rows != self.entry.rows:
            raise Refused(
                f"{self.name} took {self.rows} of its {self.entry.rows} rows.",
                meaning="The target does not hold what the backup holds; do not use it.",
                next_step="Look for a unique key or a setting of the target that the source does not have.",
            )


class _Work:
    """What the threads share.

    Each keeps to a table of its own while there is one: rows that come in the order of the key cost a server least.
    """

    def __init__(
        self,
        config: ServerConfig,
        archive: Archive,
        manifest: Manifest,
        waiting: Mapping[tuple[str, str], Deferred],
        run: Run,
    ) -> None:
        self.config = config
        self.archive = archive
        self.run = run
        self.tables = [
            _Table(schema.name, entry, waiting.get((schema.name, entry.name)))
            for schema in manifest.schemas
            for entry in schema.tables
        ]
        self.fresh = deque(sorted((table for table in self.tables if table.waiting), key=lambda table: -table.size))
        self.begun: list[_Table] = []
        self.lock = threading.Lock()
        self.failed = threading.Event()
        self.total = manifest.rows
        self.done = 0

    def run_all(self) -> None:
        try:
            with closing(_session(self.config)) as connection:
                table: _Table | None = None
                while not self.failed.is_set():
                    table, ref = self._next(table)
                    if table is None or ref is None:
                        return
                    self._load(connection, table, ref)
        except BaseException:
            self.failed.set()
            raise

    def _next(self, mine: _Table | None) -> tuple[_Table, DataRef] | tuple[None, None]:
        """The next object: of one's own table, of one that nobody has begun, or of the one with the most left."""
        with self.lock:
            if mine is None or not mine.waiting:
                if self.fresh:
                    mine = self.fresh.popleft()
                    self.begun.append(mine)
                else:
                    self.begun = [table for table in self.begun if table.waiting]
                    mine = max(self.begun, key=lambda table: len(table.waiting), default=None)
            return (mine, mine.waiting.popleft()) if mine else (None, None)

    def _load(self, connection: Connection, table: _Table, ref: DataRef) -> None:
        try:
            loaded, warnings = tsv.load(connection, table.sql, self._watched(self.archive.read_data(ref)))
            truncated, told = _warnings(connection) if warnings else (0, [])
        except pymysql.MySQLError as error:
            raise explain(error, f"Loading {table.name}") from error
        if told:
            raise _altered(table, told)
        with self.lock:
            table.rows += loaded
            table.truncated += truncated
            self.done += loaded
            self.run.progress("load", self.done, self.total, "rows")
            table.left -= 1
            complete = table.left == 0
        if complete and table.truncated:
            _prove_truncated(connection, table)
        if complete and table.deferred:
            self._build(connection, table, table.deferred)

    def _build(self, connection: Connection, table: _Table, deferred: Deferred) -> None:
        self.run.log(f"Building {len(deferred.keys)} indexes of {table.name}.")
        try:
            deferred.build(self.config, connection, self._poll)
        except pymysql.MySQLError as error:
            raise explain(error, f"Building the indexes of {table.name}") from error

    def _watched(self, parts: Iterator[bytes]) -> Iterator[bytes]:
        for part in parts:
            self._poll()
            yield part

    def _poll(self) -> None:
        _stop_if_asked(self.run)
        if self.failed.is_set():
            raise Stopped("Another part of the restore failed.")


def _warnings(connection: Connection) -> tuple[int, list[str]]:
    """How many values were truncated, and what else the server says about the rows, which LOCAL makes warnings of:
    each is a row that it left out or altered."""
    ((count,),) = rows(connection, "SHOW COUNT(*) WARNINGS")  # of all; only some are kept
    others = [one for one in rows(connection, "SHOW WARNINGS") if one[1] != TRUNCATED]
    told = [f"{text} ({code})" for level, code, text in others if level != "Note" and code not in DEPRECATIONS]
    return int(count) - len(others), told


def _prove_truncated(connection: Connection, table: _Table) -> None:
    """An ENUM's 0, "no element", always counts as truncated, though it is what the source holds: nothing else may."""
    try:
        ((count,),) = rows(connection, _zeros(connection, table))
    except pymysql.MySQLError as error:
        raise explain(error, f"Looking at what was loaded into {table.name}") from error
    if int(count) != table.truncated:
        raise _altered(table, [f"{table.truncated - int(count):,} values were truncated."])


def _zeros(connection: Connection, table: _Table) -> str:
    """The query that counts them, in the rows that LOAD DATA makes.

    Of an element with "?" a backup may tell a text that the target does not know, which gives 0, too: by number only.
    """
    wanted = "COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, COALESCE(GENERATION_EXPRESSION, '')"
    query = f"SELECT {wanted} FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s"
    found = rows(connection, query, table.place)
    counted = [
        f"COALESCE(SUM({quote(name)} = 0), 0)"
        for name, kind, elements, expression in found
        if kind == "enum" and not expression
        and ("?" not in elements or f"{quote(name)} = CAST(" in table.entry.load)
    ]  # fmt: skip
    source = ".".join(map(quote, table.place)) + _loaded(connection, table, found)
    return f"SELECT {' + '.join(['0', *counted])} FROM {source}"


def _loaded(connection: Connection, table: _Table, columns: Sequence[tuple[Any, ...]]) -> str:
    """History, too, but for the rows of one instant, which statements make (instants.py)."""
    kinds = "SELECT TABLE_TYPE FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s"
    if rows(connection, kinds, table.place) != (("SYSTEM VERSIONED",),):
        return ""
    period = {expression: name for name, _, _, expression in columns}
    begin, end = period.get("ROW START", "row_start"), period.get("ROW END", "row_end")
    return f" FOR SYSTEM_TIME ALL WHERE {quote(begin)} < {quote(end)}"


def _altered(table: _Table, told: list[str]) -> Refused:
    return Refused(
        f"The target would not take rows of {table.name} as they are: {'; '.join(told[:3])}",
        meaning="The target does not hold what the backup holds; do not use it.",
        next_step="Look for what differs in the target's version and settings.",
    )


def _stop_if_asked(run: Run) -> None:
    if run.should_stop():
        raise Stopped("The restore was stopped.", meaning="The target holds a part of the backup: do not use it.")
