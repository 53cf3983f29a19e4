"""A backup: every user schema as of one exact place in the binlog, streamed into the bucket."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial

import pymysql

from backups.engine import layout
from backups.engine.archive import Archive
from backups.engine.errors import Forked, Gap, Refused, Stopped, Transient
from backups.engine.manifest import Manifest, SchemaEntry
from backups.engine.mysql import accounts, sqlfile, view
from backups.engine.mysql.dump import prove_same
from backups.engine.mysql.grants import require_sight
from backups.engine.mysql.ranges import Changed
from backups.engine.mysql.reading import DOING, Reading
from backups.engine.mysql.schema import Reader, Schema, innodb_name
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
)
from backups.engine.mysql.view import View
from backups.engine.types import DataRef, Position, Run

TRIES = 5
# What SHOW CREATE says of what was dropped after it was listed: table, view, schema, routine, trigger, event, sequence.
GONE = (1146, 1347, 1049, 1305, 1360, 1539, 4091)


def snapshot(
    config: ServerConfig,
    archive: Archive,
    *,
    timeline: str,
    backup: str,
    name: str,
    schedule: str,
    threads: int = 4,
    rate: int = 0,
    run: Run,
    since: Position | None = None,
) -> Manifest:
    """Back up all user schemas; the manifest is written last and is what makes the objects a backup.

    since: a place on the timeline.  Raises Forked where the log was begun anew after it: the backup is of another
    history, and no manifest is written.
    threads: connections that read.  rate: bytes a second that they read together, 0 for no limit.
    Memory: about a megabyte a thread besides what the store's upload keeps, or the largest single row.  There are as
    many processes as processors, if so many connections read and no rate is given.
    Raises Refused, Transient, Stopped; what was put so far is then unreferenced and given up by retention.
    """
    started = _now_us()
    for _ in range(TRIES):
        try:
            with ExitStack() as stack:
                job = _Job(config, archive, timeline, backup, threads, rate, run, stack)
                manifest = job.manifest(name, schedule, started)
        except Changed as change:
            reason = str(change)
            run.log(f"{reason} The backup starts again.")
            _stop_if_asked(run)
            time.sleep(view.PAUSE)
            continue
        except pymysql.MySQLError as error:
            raise explain(error, DOING) from error
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
    """One try."""

    config: ServerConfig
    archive: Archive
    timeline: str
    backup: str
    threads: int
    rate: int
    run: Run
    stack: ExitStack

    def manifest(self, name: str, schedule: str, started: int) -> Manifest:
        control = self._session()
        identity = identify(control)
        require_sight(control)
        view.prepare(control, identity)
        self.reader = self._reader(identity)
        readers = [self._session(identity) for _ in range(self.threads)]
        for connection in readers:
            view.run(connection, "SET SESSION character_set_results = NULL")
        with view.definitions_held(control, identity):
            schemas, ids = self._schemas(), self.reader.table_ids()
        self._refuse_own_numbers(schemas)
        tables = _with_rows(schemas)
        again = partial(self._reader, identity)
        reading = Reading(self.reader, again, self._put, self.run, self.rate)
        reading.total = sum(schemas[s].tables[t].size for s, t in tables)
        with view.locked_view(control, readers, self.reader, schemas, self.run) as seen:
            reading.read(readers, schemas, _outside(schemas), seen)
        self.run.log(f"The read view is open; the lock was held for {seen.held_us / 1000:.1f} ms.")
        now = self._schemas()
        changed = now != schemas or seen.ids != ids
        if changed and (not seen.definitions_wait or _outside(schemas) or _outside(now)):
            raise Changed("A definition changed while the view was opened.")
        # As they have been since the view was opened, with counters that are not behind its rows.
        schemas, tables = now, _with_rows(now)
        reading.read(readers, schemas, [place for place in tables if place not in reading.entries], seen, True)
        self.tablespaces = self.reader.tablespaces()
        written = tuple(self._schema(s, schema, identity, seen, reading) for s, schema in enumerate(schemas))
        made = self._accounts(control, identity)
        manifest = self._manifest(identity, seen, name, schedule, started, written)
        definers = {program.definer for schema in schemas for program in schema.programs if program.definer}
        manifest = replace(manifest, inexact=tuple(sorted(reading.inexact)), definers=tuple(sorted(definers)))
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
                raise Changed(f"Something was dropped while definitions were read: {error_text(error)}.") from error
            raise

    def _reader(self, identity: Identity) -> Reader:
        return Reader(self._session(identity), identity)

    def _session(self, identity: Identity | None = None) -> Connection:
        connection = self.stack.enter_context(closing(connect(self.config)))
        if identity:
            view.prepare(connection, identity)
        return connection

    def _refuse_own_numbers(self, schemas: Sequence[Schema]) -> None:
        names = [f"{schema.name}.{table.name}" for schema in schemas for table in schema.tables if table.own_numbers]
        if names:
            raise Refused(
                f"The history of these tables is told in transaction numbers of this server: {', '.join(names)}.",
                meaning="No other server has these numbers, so a backup could not be restored, and none is taken.",
                next_step="Give them ROW START and ROW END columns of type TIMESTAMP(6).",
            )

    def _put(self, name: str, kind: str, parts: Iterator[bytes]) -> DataRef:
        key = layout.backup_data(self.archive.database, self.timeline, self.backup, name, kind)
        return self.archive.put_data(key, parts)

    def _schema(self, s: int, schema: Schema, identity: Identity, seen: View, reading: Reading) -> SchemaEntry:
        counters = {}
        for table in schema.tables:
            name, whole = innodb_name(schema.name, table.name)
            if whole and table.counter and name in seen.counters:
                counters[table.name] = seen.counters[name]
        sequences = {name: values for (owner, name), values in seen.sequences.items() if owner == schema.name}
        statements = sqlfile.create(schema, identity, counters, sequences, self.tablespaces if s == 0 else ())
        again = [one for t in range(len(schema.tables)) for one in reading.instants.get((s, t), ())]
        create = self._put(f"create-{s}", "sql", sqlfile.render([*statements, *again]))
        finish = None
        if schema.programs:
            statements = sqlfile.finish(schema, identity, seen.view_us)
            finish = self._put(f"finish-{s}", "sql", sqlfile.render(statements))
        tables = tuple(reading.entries[s, t] for t in range(len(schema.tables)) if (s, t) in reading.entries)
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


def _with_size(manifest: Manifest) -> Manifest:
    return replace(manifest, size=sum(ref.size for ref in manifest.data()))


def _stop_if_asked(run: Run) -> None:
    if run.should_stop():
        raise Stopped("The backup was stopped.", meaning="Nothing of it is kept.")


def _now_us() -> int:
    return time.time_ns() // 1000
