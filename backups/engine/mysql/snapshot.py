"""A backup: every user schema as of one exact place in the binlog, streamed into the bucket."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace

import pymysql

from backups.engine import layout
from backups.engine.archive import Archive
from backups.engine.errors import Forked, Gap, Refused, Stopped, Transient, raise_first
from backups.engine.manifest import Manifest, SchemaEntry, TableEntry
from backups.engine.mysql import accounts, instants, sqlfile, tsv, view
from backups.engine.mysql.dump import prove_same
from backups.engine.mysql.exact import Look
from backups.engine.mysql.grants import require_sight
from backups.engine.mysql.schema import Reader, Schema, Table, innodb_name, numbers_of
from backups.engine.mysql.server import (
    DENIED,
    Connection,
    Identity,
    ServerConfig,
    connect,
    error_code,
    error_text,
    explain,
    identify,
    quote,
)
from backups.engine.mysql.view import View
from backups.engine.types import DataRef, Position, Run

OBJECT = 32 << 20  # bytes of lines in one object: a table larger than that is several, cut between rows
TRIES = 5
CHANGED = (1412, 1146, 1054, 1049)  # what a view says of a table that DDL has changed, renamed or dropped since

# What SHOW CREATE says of what was dropped after it was listed: table, view, schema, routine, trigger, event, sequence.
GONE = (1146, 1347, 1049, 1305, 1360, 1539, 4091)


class _Changed(Exception):
    """Definitions changed under the backup: it starts again."""


def snapshot(
    config: ServerConfig,
    archive: Archive,
    *,
    timeline: str,
    backup: str,
    name: str,
    schedule: str,
    threads: int = 4,
    run: Run,
    since: Position | None = None,
) -> Manifest:
    """Back up all user schemas; the manifest is written last and is what makes the objects a backup.

    since: a place on the timeline.  Raises Forked where the log was begun anew after it: the backup is of another
    history, and no manifest is written.
    Memory: about a megabyte a thread besides what the store's upload keeps, or the largest single row.
    Raises Refused, Transient, Stopped; what was put so far is then unreferenced and given up by retention.
    """
    started = _now_us()
    for _ in range(TRIES):
        try:
            with ExitStack() as stack:
                job = _Job(config, archive, timeline, backup, threads, run, stack)
                manifest = job.manifest(name, schedule, started)
        except _Changed as change:
            reason = str(change)
            run.log(f"{reason} The backup starts again.")
            _stop_if_asked(run)
            time.sleep(view.PAUSE)
            continue
        except pymysql.MySQLError as error:
            raise explain(error, "Reading from the server") from error
        if since is not None:
            _prove_same_history(config, since)
        archive.write_manifest(manifest)
        return manifest
    raise Transient(
        f"Definitions changed during each of {TRIES} tries. {reason}",
        meaning="Nothing was backed up.",
        next_step="Run the backup while no table is altered, or grant BACKUP_ADMIN (MySQL) so that changes wait.",
    )


def _prove_same_history(config: ServerConfig, since: Position) -> None:
    try:
        prove_same(config, since)
    except Forked:
        raise
    except Gap:
        pass  # purged since, which is shipping's affair: the view needs no log before it


@dataclass
class _Job:
    """One try: its connections, and what its threads share."""

    config: ServerConfig
    archive: Archive
    timeline: str
    backup: str
    threads: int
    run: Run
    stack: ExitStack
    failed: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    inexact: list[str] = field(default_factory=list)  # sentences
    instants: dict[str, list[bytes]] = field(default_factory=dict)  # statements for rows, by their table's place
    done: int = 0
    total: int = 0

    def manifest(self, name: str, schedule: str, started: int) -> Manifest:
        control = self._session()
        identity = identify(control)
        require_sight(control)
        view.prepare(control, identity)
        self.reader = Reader(self._session(identity), identity)
        readers = [self._session(identity) for _ in range(self.threads)]
        for connection in readers:
            view.run(connection, "SET SESSION character_set_results = NULL")
        with view.definitions_held(control, identity):
            schemas, ids = self._schemas(), self.reader.table_ids()
        self._refuse_own_numbers(schemas)
        tables = _with_rows(schemas)
        self.total = sum(schemas[s].tables[t].size for s, t in tables)
        entries: dict[tuple[int, int], TableEntry] = {}
        with view.locked_view(control, readers, self.reader, schemas, self.run) as seen:
            self._read(readers, schemas, _outside(schemas), seen, entries)
        self.run.log(f"The read view is open; the lock was held for {seen.held_us / 1000:.1f} ms.")
        now = self._schemas()
        changed = now != schemas or seen.ids != ids
        if changed and (not seen.definitions_wait or _outside(schemas) or _outside(now)):
            raise _Changed("A definition changed while the view was opened.")
        # As they have been since the view was opened, with counters that are not behind its rows.
        schemas, tables = now, _with_rows(now)
        self._read(readers, schemas, [place for place in tables if place not in entries], seen, entries)
        self.tablespaces = self.reader.tablespaces()
        written = tuple(self._schema(s, schema, identity, seen, entries) for s, schema in enumerate(schemas))
        made = self._accounts(control, identity)
        manifest = self._manifest(identity, seen, name, schedule, started, written)
        definers = {program.definer for schema in schemas for program in schema.programs if program.definer}
        manifest = replace(manifest, inexact=tuple(sorted(self.inexact)), definers=tuple(sorted(definers)))
        return _with_size(replace(manifest, accounts=made))

    def _accounts(self, control: Connection, identity: Identity) -> DataRef | None:
        try:
            statements = accounts.read(control, identity)
        except pymysql.MySQLError as error:
            if error_code(error) not in DENIED:
                raise
            self.run.log("The account may not read the mysql schema: accounts and grants are not part of this backup.")
            return None
        return self._put("accounts", "sql", sqlfile.render(statements))

    def _schemas(self) -> tuple[Schema, ...]:
        try:
            return self.reader.schemas()
        except pymysql.MySQLError as error:
            if error_code(error) in GONE:
                raise _Changed(f"Something was dropped while definitions were read: {error_text(error)}.") from error
            raise

    def _session(self, identity: Identity | None = None) -> Connection:
        connection = self.stack.enter_context(closing(connect(self.config)))
        if identity:
            view.prepare(connection, identity)
        return connection

    def _read(
        self,
        readers: Sequence[Connection],
        schemas: Sequence[Schema],
        places: Sequence[tuple[int, int]],
        seen: View,
        entries: dict[tuple[int, int], TableEntry],
    ) -> None:
        """Read tables side by side, the largest first; the first failure ends the others."""
        waiting = deque(sorted(places, key=lambda place: -schemas[place[0]].tables[place[1]].size))

        def work(connection: Connection) -> None:
            try:
                while not self.failed.is_set():
                    try:
                        s, t = waiting.popleft()
                    except IndexError:
                        return
                    entries[s, t] = self._table(connection, schemas[s], schemas[s].tables[t], f"{s}-{t}", seen)
            except BaseException:
                self.failed.set()
                raise

        busy = readers[: len(places)]
        if not busy:
            return
        with ThreadPoolExecutor(len(busy), thread_name_prefix="snapshot") as pool:
            outcomes = [pool.submit(work, connection) for connection in busy]
        raise_first([outcome.exception() for outcome in outcomes])

    def _refuse_own_numbers(self, schemas: Sequence[Schema]) -> None:
        names = [f"{schema.name}.{table.name}" for schema in schemas for table in schema.tables if table.own_numbers]
        if names:
            raise Refused(
                f"The history of these tables is told in transaction numbers of this server: {', '.join(names)}.",
                meaning="No other server has these numbers, so a backup could not be restored, and none is taken.",
                next_step="Give them ROW START and ROW END columns of type TIMESTAMP(6).",
            )

    def _table(self, connection: Connection, schema: Schema, table: Table, place: str, seen: View) -> TableEntry:
        columns = ", ".join(column.expression for column in table.columns) or "0"
        history = " FOR SYSTEM_TIME ALL" if table.kind == "SYSTEM VERSIONED" else ""
        view.run(connection, "SAVEPOINT everest")
        try:
            source = f"{quote(schema.name)}.{quote(table.name)}{history}"
            look = Look(schema.name, table, self.reader.identity)
            blocks = tsv.select(
                connection, f"SELECT {columns} FROM {source}{instants.lasting(table)}", self._poll, look
            )
            lines = _Lines(blocks, self._count)
            objects: list[DataRef] = []
            while lines.more:
                number = len(objects)
                objects.append(self._put(f"rows-{place}-{number}", "tsv", lines.next_object()))
            look.require_text(connection)
            self.inexact += look.inexact(connection)
            self.instants[place] = instants.statements(connection, schema.name, table, self._poll)
            self._check(schema, table, seen)
        except pymysql.MySQLError as error:
            if error_code(error) in CHANGED:
                raise _Changed(f"{schema.name}.{table.name} was changed by DDL.") from error
            raise
        # Lets go of the table's metadata lock: DDL on it need not wait for the rest of the backup.
        view.run(connection, "ROLLBACK TO SAVEPOINT everest")
        return TableEntry(table.name, table.engine, lines.rows, sqlfile.load_clause(table), tuple(objects))

    def _check(self, schema: Schema, table: Table, seen: View) -> None:
        """That it is still the table of the view; asked while the reading transaction keeps DDL away from it."""
        if seen.definitions_wait or not table.in_view:
            return
        with self.lock:
            definition, ids = self.reader.table(schema.name, table.name), self.reader.table_ids()
        same_numbers = numbers_of(schema.name, table.name, ids) == numbers_of(schema.name, table.name, seen.ids)
        if definition != table.definition or not same_numbers:
            raise _Changed(f"{schema.name}.{table.name} was changed or exchanged by DDL.")

    def _put(self, name: str, kind: str, parts: Iterator[bytes]) -> DataRef:
        key = layout.backup_data(self.archive.database, self.timeline, self.backup, name, kind)
        return self.archive.put_data(key, parts)

    def _poll(self) -> None:
        _stop_if_asked(self.run)
        if self.failed.is_set():
            raise Stopped("Another part of the backup failed.")

    def _count(self, size: int) -> None:
        with self.lock:
            self.done += size
            self.total = max(self.total, self.done)
            self.run.progress("rows", self.done, self.total, "bytes")

    def _schema(
        self, s: int, schema: Schema, identity: Identity, seen: View, entries: dict[tuple[int, int], TableEntry]
    ) -> SchemaEntry:
        counters = {}
        for table in schema.tables:
            name, whole = innodb_name(schema.name, table.name)
            if whole and table.counter and name in seen.counters:
                counters[table.name] = seen.counters[name]
        sequences = {name: values for (owner, name), values in seen.sequences.items() if owner == schema.name}
        statements = sqlfile.create(schema, identity, counters, sequences, self.tablespaces if s == 0 else ())
        again = [one for t in range(len(schema.tables)) for one in self.instants.get(f"{s}-{t}", ())]
        create = self._put(f"create-{s}", "sql", sqlfile.render([*statements, *again]))
        finish = None
        if schema.programs:
            statements = sqlfile.finish(schema, identity, seen.view_us)
            finish = self._put(f"finish-{s}", "sql", sqlfile.render(statements))
        tables = tuple(entries[s, t] for t in range(len(schema.tables)) if (s, t) in entries)
        return SchemaEntry(schema.name, create, finish, tables)

    def _manifest(
        self,
        identity: Identity,
        seen: View,
        name: str,
        schedule: str,
        started: int,
        schemas: tuple[SchemaEntry, ...],
    ) -> Manifest:
        return Manifest(
            backup=self.backup,
            name=name,
            database=self.archive.database,
            timeline=self.timeline,
            schedule=schedule,
            flavour=identity.flavour,
            version=identity.version_text,
            server=identity.server_uuid,
            position=seen.position,
            view_us=seen.view_us,
            started_us=started,
            finished_us=_now_us(),
            system_time_zone=identity.system_time_zone,
            settings=identity.settings,
            schemas=schemas,
            size=0,
            rows=sum(table.rows for schema in schemas for table in schema.tables),
        )


def _with_rows(schemas: Sequence[Schema]) -> list[tuple[int, int]]:
    """Places of the tables that hold rows."""
    return [(s, t) for s, schema in enumerate(schemas) for t, table in enumerate(schema.tables) if table.has_rows]


def _outside(schemas: Sequence[Schema]) -> list[tuple[int, int]]:
    """Those that no consistent snapshot covers."""
    return [(s, t) for s, t in _with_rows(schemas) if not schemas[s].tables[t].in_view]


class _Lines:
    """A table's lines, handed out as objects of OBJECT bytes, cut between rows."""

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


def _with_size(manifest: Manifest) -> Manifest:
    return replace(manifest, size=sum(ref.size for ref in manifest.data()))


def _stop_if_asked(run: Run) -> None:
    if run.should_stop():
        raise Stopped("The backup was stopped.", meaning="Nothing of it is kept.")


def _now_us() -> int:
    return time.time_ns() // 1000
