"""Does steps on a target, in order, while the next ones are being decoded.

One session over all slices: temporary tables of statement logs live in it.  Compacted batches have sessions of their
own (lanes.py), and nothing else runs while they do.  Nothing of all this is written to the target's own binlog.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import IO

import pymysql
from pymysql.constants import CLIENT, ER

from backups.engine.errors import EngineError, Refused, Stopped
from backups.engine.mysql import tsv
from backups.engine.mysql.batch import Batch, How
from backups.engine.mysql.compaction import Shape
from backups.engine.mysql.context import Session, text, with_definer
from backups.engine.mysql.lanes import Lanes, binlog
from backups.engine.mysql.load import is_there
from backups.engine.mysql.pipeline import Judge, Pipeline
from backups.engine.mysql.server import (
    Connection,
    ServerConfig,
    connect,
    error_code,
    explain,
    flavour_of,
    quote,
    rows,
    value,
    version_of,
)
from backups.engine.mysql.shapes import Shapes
from backups.engine.mysql.step import Control, Done, Format, Gathered, Rows, Statement, Step
from backups.engine.types import Run

AHEAD = 3  # parts of the queue that wait while more is decoded: groups of steps, and what each completes
GROUP = 64  # steps that are one group
GROUP_BYTES = 4 << 20  # of row events and statements in a group, unless one step has more
LOOK_SECONDS = 0.2  # between looks at should_stop
LARGEST_PACKET = 1 << 30
_IDLE_SECONDS = 86400  # how long the session may wait for a slow storage

# Session settings under which nothing fails or is altered that went through on the source.
_SETTINGS = {
    "completion_type": "0",
    "innodb_strict_mode": "0",
    "max_statement_time": "0",
    "net_read_timeout": "3600",
    "net_write_timeout": "3600",
    "restrict_fk_on_non_standard_key": "0",
    "sql_generate_invisible_primary_key": "0",
    "sql_safe_updates": "0",
    "system_versioning_alter_history": "KEEP",
    "wait_timeout": str(_IDLE_SECONDS),
}
_FROM_SOURCE = ("default_storage_engine",)  # what a statement's meaning depends on although the log lacks it
_SELECTED_ELSEWHERE = "information_schema"  # selected where a statement's own default schema is gone
_DROP_TEMPORARY = re.compile(rb"(?is)\s*DROP\s+(?:/\*.*?\*/\s*)?TEMPORARY\s+TABLE\b")
_KEEPS_DEFINITIONS = re.compile(rb"(?i)\s*(INSERT|UPDATE|DELETE|REPLACE|LOAD|SAVEPOINT|ROLLBACK|RELEASE)\b")
_UNKNOWN_ZONE, _PACKET_TOO_LARGE = 1298, ER.NET_PACKET_TOO_LARGE


class Applier:
    """A context manager: what was taken is done when `finish` returns; on an exception the rest is given up."""

    def __init__(self, config: ServerConfig, run: Run, *, source: Mapping[str, str], total: int) -> None:
        self.config = config
        self.run = run
        self.total = total  # source transactions that will come, for the progress; 0: unknown
        self.done, self.last = 0, ""
        self.source = source
        self.connection = self._connect()
        self._pipeline = Pipeline(self.connection)
        try:
            self._set_up()
        except pymysql.MySQLError as error:
            self.connection.close()
            raise explain(error, "Preparing the session that replays") from error
        self._pool = ThreadPoolExecutor(1, "apply")
        self._queue: deque[Future[None] | Done | Batch] = deque()
        self._group: list[Step] = []  # not queued yet
        self._group_size = 0  # bytes of row events and statements in it
        self._failed = False
        self._looked = 0.0
        self._lanes: Lanes | None = None  # while it is None no batch was compacted
        self._told = 0  # of conflicts
        self._in_lanes = False  # whether the newest step is in them
        self._shapes: Shapes | None = None
        self._outdated = False  # whether definitions may have changed since

    def _connect(self) -> Connection:
        """A session for row events; nothing fails or is altered in it that went through on the source."""
        connection = connect(self.config, client_flag=CLIENT.LOCAL_FILES)
        try:
            names = {str(name).lower() for name, _ in rows(connection, "SHOW SESSION VARIABLES")}
            wanted = _SETTINGS | {name: text(self.source[name]) for name in _FROM_SOURCE if name in self.source}
            connection.query("SET SESSION sql_log_bin = 0")
            assignments = (f"{name} = {wanted[name]}" for name in wanted if name in names)
            connection.query("SET SESSION " + ", ".join(assignments))
        except BaseException:
            connection.close()
            raise
        return connection

    def _set_up(self) -> None:
        connection = self.connection
        self.flavour = flavour_of(connection)
        names = {str(name).lower() for name, _ in rows(connection, "SHOW SESSION VARIABLES")}
        self.packet = min(int(value(connection, "SELECT @@max_allowed_packet")), LARGEST_PACKET)
        zone = zone_for(self.source.get("system_time_zone", ""), str(value(connection, "SELECT @@system_time_zone")))
        self.session = Session(self.flavour, names, zone, dict(_collations(connection)))
        self.schema: str | None = None

    @property
    def largest(self) -> int:
        """Bytes of row events that fit into one BINLOG statement."""
        return (self.packet - 1024) // 4 * 3

    @property
    def conflicts(self) -> int:
        return self._lanes.conflicts if self._lanes else 0

    # The queue

    def __enter__(self) -> Applier:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._failed = True  # what is still queued is not done any more
        under_way = self._pipeline.due or not all(item.done() for item in self._queue if isinstance(item, Future))
        if kind is not None and under_way:
            self._kill()
        self._pool.shutdown(wait=True, cancel_futures=True)
        if self._lanes:
            self._lanes.close()
        for item in self._queue:
            if isinstance(item, Batch):
                item.close()
        for connection in (self.connection, *([self._shapes.connection] if self._shapes else [])):
            connection.close()

    def take(self, step: Step) -> None:
        """Have one step done, soon; raises what an earlier one failed with, or Stopped."""
        if isinstance(step, Gathered):
            self._settle()
            self._take_batch(step)
        elif isinstance(step, Done) and self._in_lanes:
            self._queue.append(step)
        else:
            if self._in_lanes:
                self._settle()
                self._raise_counters()
                self._in_lanes = False
            if isinstance(step, Statement):
                self._outdated = self._outdated or not _KEEPS_DEFINITIONS.match(step.query.sql)
            self._group.append(step)
            self._group_size += _size(step)
            if len(self._group) >= GROUP or self._group_size >= GROUP_BYTES:
                self._submit()

    def _submit(self) -> None:
        """Have the session do what is grouped."""
        group, self._group, self._group_size = self._group, [], 0
        if group:
            self._wait(AHEAD)
            self._queue.append(self._pool.submit(self._do, group))
            if done := [step for step in group if isinstance(step, Done)]:
                self._queue.append(Done(sum(step.count for step in done), done[-1].last))

    def _take_batch(self, step: Gathered) -> None:
        if self._lanes is None:
            self._lanes = Lanes(self._connect, self._describe, self.largest)
        if not self._in_lanes:
            ((step_size, offset),) = rows(
                self.connection, "SELECT @@SESSION.auto_increment_increment, @@SESSION.auto_increment_offset"
            )
            self._increments = int(step_size), int(offset)
        self._in_lanes = True
        self._queue += self._lanes.submit(step, self._increments)
        self._queue.append(step.batch)

    def look(self, schema: str, table: str) -> Shape | How:
        """What the target says of a table when all steps so far are done."""
        try:
            if self._shapes is None:
                self._shapes = Shapes(self._connect())
            if self._outdated:
                self._settle()
                self._shapes.forget()
                self._outdated = False
            return self._shapes(schema, table)
        except pymysql.MySQLError as error:
            raise explain(error, f"Looking at {schema}.{table} on the target") from error

    def finish(self) -> None:
        self._settle()
        self._raise_counters()

    def _settle(self) -> None:
        """Wait until everything that was taken is done."""
        self._submit()
        self._wait(0)

    def _wait(self, most: int) -> None:
        """Wait until at most so many parts of the queue are left."""
        while True:
            while self._queue and self._passed(self._queue[0]):
                self._queue.popleft()
            self._look()
            if len(self._queue) <= most:
                return
            if isinstance(first := self._queue[0], Future):
                wait([first], timeout=LOOK_SECONDS)

    def _passed(self, item: Future[None] | Done | Batch) -> bool:
        """Whether this is done; all before it is."""
        if isinstance(item, Done):
            self.done, self.last = self.done + item.count, item.last
        elif isinstance(item, Batch):
            item.close()
            self._tell_conflicts()
        elif not item.done():
            return False
        else:
            self._result(item)
        return True

    def _tell_conflicts(self) -> None:
        if self.conflicts > self._told:
            self._told = self.conflicts
            assert self._lanes
            numbers = ", ".join(map(str, sorted(self._lanes.refused)))
            self.run.log(
                f"{self._told} times so far the target refused changes in their short form (error {numbers}):"
                " they were replayed one by one."
            )

    def _result(self, future: Future[None]) -> None:
        try:
            future.result()
        except (pymysql.MySQLError, OSError) as error:
            raise self._explained(error, None) from error
        except EngineError as error:
            error.meaning = error.meaning or self._reached()
            raise

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._looked >= LOOK_SECONDS:
            self._looked = now
            self.run.progress("replay", self.done, self.total, "transactions")
            if self.run.should_stop():
                raise Stopped("The replay was told to stop.", meaning=self._reached())

    def _kill(self) -> None:
        """End the sessions with all that they were sent, so that a stop waits for none of it, and none comes after."""
        with suppress(EngineError, pymysql.MySQLError), connect(self.config) as other:
            for connection in (self.connection, *(self._lanes.connections if self._lanes else [])):
                with suppress(pymysql.MySQLError):  # it may have ended by itself
                    rows(other, f"KILL {int(connection.thread_id())}")

    # One group of steps

    def _do(self, group: list[Step]) -> None:
        if self._failed:
            return
        step = group[0]
        try:
            for step in group:
                self._dispatch(step)
            self._pipeline.settle()
        except (pymysql.MySQLError, OSError) as error:
            self._failed = True
            raise self._explained(error, step) from error
        except BaseException:
            self._failed = True
            raise

    def _dispatch(self, step: Step) -> None:
        if isinstance(step, Rows):
            self._send(binlog(step.raw), step)
            self.session.rows_applied()
        elif isinstance(step, Control):
            self._send(step.sql, step)
        elif isinstance(step, Statement):
            self._statement(step)
        elif isinstance(step, Format):
            self._pipeline.settle()
            self._describe(self.connection, step.raw)

    def _send(self, sql: str | bytes, step: Step) -> None:
        """Have it run as a part of this step, without waiting for the answer."""
        self._pipeline.send(sql, partial(self._must_succeed, step))

    def _must_succeed(self, step: Step, error: pymysql.MySQLError | None) -> None:
        if error is not None:
            raise self._explained(error, step) from error

    def _describe(self, connection: Connection, raw: bytes) -> None:
        """Tell a session how the events from here on are written."""
        connection.query(binlog(raw))
        if self.flavour == "mysql":
            # It leaves GTID_NEXT undetermined, and every statement after it would fail.
            connection.query("SET SESSION gtid_next = 'AUTOMATIC'")

    def _raise_counters(self) -> None:
        """AUTO_INCREMENT values of rows that came and went again, which the target has not seen; all else is done."""
        if self._lanes and self._lanes.counters:
            try:
                self._lanes.raise_counters(self._increments)
            except pymysql.MySQLError as error:
                raise self._explained(error, None) from error

    def _statement(self, step: Statement) -> None:
        query = step.query
        if step.use:
            self._use(query.schema)
        for sql in self.session.prepare(query, step.timestamp, step.before):
            self._send(sql, step)
        sql = with_definer(query)
        if len(sql) > self.packet - 1024:
            raise pymysql.err.OperationalError(_PACKET_TOO_LARGE, "the statement is larger than max_allowed_packet")
        judge = partial(self._judge, step, sql)
        if step.file:
            self._load(sql, step.file, judge)
        else:
            self._pipeline.send(sql, judge)
        if not step.use:
            self.schema = None  # it may have dropped the selected one

    def _judge(self, step: Statement, sql: bytes, error: pymysql.MySQLError | None) -> None:
        """Whether a statement ended as it did on the source."""
        wanted = step.query.error_code
        if error is not None:
            code = error_code(error)
            dropped = code == ER.BAD_TABLE_ERROR and _DROP_TEMPORARY.match(sql)
            if code != wanted and not dropped and not is_there(sql, error):
                raise self._explained(error, step) from error
        elif wanted:
            raise Refused(
                f"A statement that stopped half-way on the source with error {wanted} went through on the target.",
                meaning="The target no longer equals the source.",
            )

    def _use(self, schema: str) -> None:
        """Select the schema; where it is gone, one in which nothing can be made or changed by its bare name."""
        if schema == self.schema:
            return
        for sql in self.session.readable(schema):
            self._pipeline.run(sql)
        try:
            self._pipeline.run(f"USE {quote(schema)}")
        except pymysql.MySQLError as error:
            if error_code(error) != ER.BAD_DB_ERROR:
                raise
            self._pipeline.run(f"USE {_SELECTED_ELSEWHERE}")
        self.schema = schema
        self.session.schema_changed()

    def _load(self, sql: bytes, file: IO[bytes], judge: Judge) -> None:
        self._pipeline.settle()
        with file:
            file.seek(0)
            try:
                tsv.load(self.connection, sql, iter(lambda: file.read(tsv.SEND), b""))
            except pymysql.MySQLError as error:
                judge(error)
            else:
                judge(None)

    # What went wrong

    def _explained(self, error: Exception, step: Step | None) -> EngineError:
        place = getattr(step, "place", "")
        found = explain(error, f"Transaction {place}" if place else "The replay of row events")
        found.meaning = found.meaning or self._reached()
        if error_code(error) == _UNKNOWN_ZONE:
            found.next_step = "Load the time zone tables on the target (mysql_tzinfo_to_sql), then restore again."
        elif error_code(error) == _PACKET_TOO_LARGE:
            found.next_step = f"Set max_allowed_packet on the target above {self.packet:,}, then restore again."
        return found

    def _reached(self) -> str:
        if not self.last:
            return "The target holds the snapshot, and no transaction after it for certain."
        return f"The target holds the source's state up to transaction {self.last}, and perhaps changes of later ones."


def _size(step: Step) -> int:
    """Bytes that a step keeps in memory."""
    if isinstance(step, Rows):
        return len(step.raw)
    return len(step.query.sql) if isinstance(step, Statement) else 0


def zone_for(source: str, target: str) -> str | None:
    """What stands on a target for the source's SYSTEM zone; None where its name says too little.

    A server tells its system zone as an abbreviation (CEST), which may stand for several.
    """
    if source == target or not source:
        return "SYSTEM"
    if source.upper() in ("UTC", "GMT", "UCT", "Z"):
        return "+00:00"
    return source if re.fullmatch(r"[+-]\d\d:\d\d|\w+/[\w/+-]+", source) else None


def _collations(connection: Connection) -> Iterator[tuple[int, tuple[str, str]]]:
    """Collations by number.  From MariaDB 10.10 on one name may stand for several: their full names count."""
    table, name = "collations", "collation_name"
    if flavour_of(connection) == "mariadb" and version_of(connection) >= (10, 10):
        table, name = "collation_character_set_applicability", "full_collation_name"
    for number, charset, collation in rows(
        connection, f"SELECT id, character_set_name, {name} FROM information_schema.{table}"
    ):
        yield int(number), (str(charset), str(collation))
