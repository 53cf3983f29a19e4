"""Three real servers: a source, its native replica, and a target that Everest restores to; and one run on them."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pymysql
import pytest

from backups.engine import mysql, slices
from backups.engine.archive import Archive
from backups.engine.errors import EngineError, Refused, Transient
from backups.engine.levels import Group
from backups.engine.manifest import Manifest
from backups.engine.merging import merge
from backups.engine.mysql import batch, ranges
from backups.engine.plan import cover, in_order, plan
from backups.engine.types import Plan, Position, Quiet, SliceIndex, SlicePoint, Transaction
from everest.demo import servers as demo
from everest.demo.compare import Ask, compare, dump_all, quoted
from everest.demo.servers import Installation, Server
from tests.helpers import clean, source_config, target_config
from tests.keyed import keyed
from tests.servers.backups import archive_in
from tests.torture.history import AfterBackup, History, Load, Reconnect, Step, Unit

FAST = (
    "--sync-binlog=0",
    "--innodb-flush-log-at-trx-commit=0",
    "--max-allowed-packet=256M",
)
ALONE = {"mysql": ("--skip-replica-start", "--replica-parallel-workers=1"), "mariadb": ("--skip-slave-start",)}
STORAGE = "memory"
PATIENCE = 60.0  # seconds for a replica to reach a place
FOLLOWER = ("CREATE USER follower IDENTIFIED BY 'Follow-1'", "GRANT REPLICATION SLAVE ON *.* TO follower")
SHARED = (
    "CREATE DATABASE shared",
    "CREATE TABLE shared.counted (id INT AUTO_INCREMENT PRIMARY KEY, who INT, n INT, KEY (who))",
)
DURING = 40  # units beside a backup
FILE_HEAD = 300  # bytes of a log file in which no transaction ends
CALM_AFTER = 2  # tries of a backup that met changed definitions: the next one is given none


@dataclass(frozen=True)
class Variant:
    """How a source logs.  options: of the source and its replica.  encrypted: the source's log is."""

    name: str
    only: str = ""
    options: tuple[str, ...] = ()
    gtids: bool = True
    encrypted: bool = False


USUAL = Variant("usual log")
VARIANTS = (
    USUAL,
    Variant("log without GTIDs", "mysql", gtids=False),
    Variant("log without checksums", options=("--binlog-checksum=NONE",)),
    Variant("encrypted log", encrypted=True),
)


class OracleFailed(Exception):
    """The replica did not take what its source logged: it can judge nothing."""


@dataclass
class Outcome:
    """What one run showed.  differences: by the place they were seen at.  told: counted by feature and phase.

    failed: (feature, server error) of units that the source itself refused.  refused: what Everest refused by name.
    ways: in which restores were made that are right.
    """

    differences: dict[str, list[str]] = field(default_factory=dict)
    told: Counter[tuple[str, str]] = field(default_factory=Counter)
    failed: Counter[tuple[str, str]] = field(default_factory=Counter)
    refused: list[str] = field(default_factory=list)
    ways: Counter[str] = field(default_factory=Counter)
    transactions: int = 0
    restores: int = 0


class Stand:
    """A context manager: its servers run until it ends."""

    def __init__(self, installation: Installation, folder: Path, variant: Variant = USUAL) -> None:
        self.flavour, self.variant = installation.flavour, variant
        self.folder = folder
        self.stack = ExitStack()
        patch = pytest.MonkeyPatch()
        patch.setattr(batch, "SMALL", 0)  # compaction looks at every batch, however few changes there are
        patch.setattr(ranges, "SMALL", 0)  # small tables are read as large ones are: by several processes, in ranges
        patch.setattr(ranges, "RANGE", 1 << 15)
        self.stack.callback(patch.undo)
        options = (*FAST, *variant.options)
        self.target = self._start(installation, "target", FAST)
        self.replica = self._start(installation, "replica", (*options, *ALONE[self.flavour]), variant.gtids)
        if variant.encrypted:
            installation, more = keyed(installation, folder / f"{self.flavour}-key")
            options = (*options, *more)
        self.source = self._start(installation, "source", options, variant.gtids)
        self.writing = target_config(self.target)
        if variant.gtids:
            self._follow()

    def _start(self, installation: Installation, name: str, options: tuple[str, ...], gtids: bool = True) -> Server:
        server = demo.start(installation, self.folder / f"{self.flavour}-{name}", gtid=gtids, options=options)
        self.stack.callback(server.kill)
        return server

    def __enter__(self) -> Stand:
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def run(self, history: History, one_by_one: bool = False) -> Outcome:
        """History, backup, slices, restores, comparisons.

        one_by_one: the sessions' units in their order, none beside another.
        """
        outcome = Outcome()
        store = self.folder / f"{self.flavour}-store"
        shutil.rmtree(store, ignore_errors=True)
        archive, timeline = archive_in(store), str(uuid.uuid4())
        self._begin()
        start = self._position()
        manifest = Play(self, history, archive, timeline, outcome, one_by_one).run()
        if manifest:
            self._judge(history, archive, manifest, start, outcome)
        return outcome

    def _begin(self) -> None:
        """Source and replica empty, with a log that begins here."""
        word = "REPLICA" if self.flavour == "mysql" else "SLAVE"
        clean(self.source)
        _execute(self.replica, f"STOP {word}", f"RESET {word}")
        clean(self.replica)
        if self.flavour == "mariadb":
            _execute(self.replica, "SET GLOBAL gtid_slave_pos = ''")
        else:
            clean(self.target)
            self.writing = target_config(self.target)
            for server in (self.source, self.replica, self.target):
                _drop_tablespaces(server)
        if not self.variant.gtids:
            self._follow()
        _execute(self.source, "SET GLOBAL local_infile = ON", *FOLLOWER, *SHARED)
        self.reading = source_config(self.source)

    # The oracle

    def _follow(self) -> None:
        if self.flavour == "mysql":
            change = (
                f"CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT={self.source.port},"
                f" SOURCE_USER='follower', SOURCE_PASSWORD='Follow-1', SOURCE_SSL=1, {self._from()}"
            )
        else:
            change = (
                f"CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={self.source.port},"
                " MASTER_USER='follower', MASTER_PASSWORD='Follow-1', MASTER_USE_GTID=slave_pos"
            )
        _execute(self.replica, change)

    def _from(self) -> str:
        if self.variant.gtids:
            return "SOURCE_AUTO_POSITION=1"
        with self.source.connect() as connection:
            first = Ask(connection)("SHOW BINARY LOGS", text=True)[0][0]
        return f"SOURCE_AUTO_POSITION=0, SOURCE_LOG_FILE='{first}', SOURCE_LOG_POS=4"

    def _replicate(self, place: str, following: str) -> None:
        """Let the replica come to exactly this set of GTIDs, or "file:position", and stop there.

        MySQL's SQL_AFTER_GTIDS now and then lets more through: it stops before the transaction that follows, if any.
        """
        word = "REPLICA" if self.flavour == "mysql" else "SLAVE"
        until = f"master_gtid_pos = '{place}'"
        if not self.variant.gtids:
            file, _, pos = place.rpartition(":")
            until = f"SOURCE_LOG_FILE = '{file}', SOURCE_LOG_POS = {pos}"
        elif self.flavour == "mysql":
            until = f"SQL_BEFORE_GTIDS = '{following}'" if following else f"SQL_AFTER_GTIDS = '{place}'"
        with self.replica.connect() as connection:
            ask = Ask(connection)
            if not self._reached(ask, place):
                ask(f"START {word} UNTIL {until}")
                self._wait(connection, word)
                ask(f"STOP {word}")
            if not self._reached(ask, place):
                raise OracleFailed(f"The replica is not at {place} but at {self._now(ask)}.")

    def _reached(self, ask: Ask, gtids: str) -> bool:
        if not self.variant.gtids:
            return _number(self._now(ask)) >= _number(gtids)
        if self.flavour == "mariadb":
            return sorted(self._now(ask).split(",")) == sorted(gtids.split(","))
        ((same,),) = ask("SELECT GTID_SUBSET(%s, @@gtid_executed) AND GTID_SUBSET(@@gtid_executed, %s)", gtids, gtids)
        return bool(same)

    def _now(self, ask: Ask) -> str:
        if not self.variant.gtids:
            status = _status(ask.connection, "REPLICA")
            return f"{status['Relay_Source_Log_File']}:{status['Exec_Source_Log_Pos']}"
        name = "gtid_slave_pos" if self.flavour == "mariadb" else "gtid_executed"
        return str(ask(f"SELECT @@GLOBAL.{name}", text=True)[0][0])

    def _wait(self, connection: Any, word: str) -> None:
        name = "Replica" if word == "REPLICA" else "Slave"
        deadline = time.monotonic() + PATIENCE
        while True:
            status = _status(connection, word)
            if status["Last_SQL_Errno"] or status["Last_IO_Errno"]:
                raise OracleFailed(f"The replica stopped: {status['Last_SQL_Error']}{status['Last_IO_Error']}")
            if status[f"{name}_SQL_Running"] == "No":
                return
            if time.monotonic() > deadline:
                raise OracleFailed(f"The replica did not get there: {status}")
            time.sleep(0.02)

    # The judgement

    def _judge(self, history: History, archive: Archive, manifest: Manifest, start: Position, outcome: Outcome) -> None:
        points = [slices.point(index, STORAGE) for index in self._ship(history, archive, manifest, start)]
        if history.merged:
            points = _merged(archive, points, history.merged)
        after = list(_after(archive, manifest))
        outcome.transactions = len(after)
        ways = dict(zip(history.cuts, history.verbatim, strict=True))
        for place, verbatim in {round(cut * len(after)): way for cut, way in ways.items()}.items():
            position = mysql.position_after(*after[place - 1]) if place else manifest.position
            following = after[place][1].identity if place < len(after) else ""
            where = str(position["gtids"]) if self.variant.gtids else _place(after[place - 1][1] if place else position)
            try:
                planned = plan([manifest.point(STORAGE)], points, position, mysql.at_or_before)
                self._restore(archive, manifest, planned, verbatim)
                found = self._differences(where, following)
            except EngineError as error:
                found = [f"{type(error).__name__}: {error}"]
                found += [f"{item.identity} is {item.ddl}" for _, item in after if item.identity in str(error)]
            if found:
                how = "verbatim" if verbatim else "compacted"
                outcome.differences[f"transaction {place} of {len(after)}, {where}, {how}"] = found
                return
            outcome.ways["verbatim" if verbatim else "compacted"] += 1
            outcome.ways["merged slices" if any(one.level for one in planned.slices) else "slices as shipped"] += 1
            outcome.restores += 1

    def _restore(self, archive: Archive, manifest: Manifest, planned: Plan, verbatim: bool) -> None:
        mysql.restore(
            self.writing, planned, manifest, {STORAGE: archive}, replace=True, remember=lambda settings: None,
            run=Quiet(), threads=2, compact=not verbatim,
        )  # fmt: skip

    def _ship(self, history: History, archive: Archive, manifest: Manifest, start: Position) -> list[SliceIndex]:
        chunks = mysql.capture(
            self.reading, start, replica_uuid=str(uuid.uuid4()), interval=60, max_bytes=history.max_bytes,
            drain=True, deadline=None, run=Quiet(), on_caught_up=lambda position: None,
        )  # fmt: skip
        slices.ship(archive, manifest.timeline, chunks, None, lambda index: None)
        return list(archive.slices(manifest.timeline))

    def _differences(self, where: str, following: str) -> list[str]:
        """What neither the replica nor, at the history's end, the source itself holds so."""
        self._replicate(where, following)
        last = not following
        with self.replica.connect() as replica, self.target.connect() as target, self.source.connect() as source:
            wanted, found, now = dump_all(replica), dump_all(target), dump_all(source) if last else None
        lines = differences(wanted, found)
        if lines and now is not None:
            same = {line.partition(": ")[0] for line in differences(now, found)}
            lines = [line for line in lines if line.partition(": ")[0] in same]
        return lines

    # Servers

    def _position(self) -> Position:
        with self.source.connect() as connection:
            return mysql.current_position(connection)


def _merged(archive: Archive, points: list[SlicePoint], size: int) -> list[SlicePoint]:
    """So many at a time, as far as they can be joined; those that a merged one holds are not there any more."""
    groups = [Group(1, tuple(points[at : at + size])) for at in range(0, len(points), size)]
    made = [merge(archive, group, mysql, Quiet()) for group in groups if len(group.parts) > 1]
    return list(cover(in_order([*points, *(slices.point(index, STORAGE) for index in made if index)])))


def _place(at: Any) -> str:
    """ "file:position" of a position, or of where a transaction ends."""
    if isinstance(at, Transaction):
        file, _, start = at.identity.rpartition(":")
        return f"{file}:{int(start) + at.length}"
    return f"{at['file']}:{at['pos']}"


def _number(place: str) -> tuple[int, int]:
    """A file that has only begun is as good as not begun: what a replica says of it depends on its timing."""
    file, _, pos = place.rpartition(":")
    return int(file.rpartition(".")[2]), max(0, int(pos) - FILE_HEAD)


def _drop_tablespaces(server: Server) -> None:
    """Unlogged: source and replica both begin without any."""
    with server.connect() as connection:
        ask = Ask(connection)
        ask("SET sql_log_bin = 0")
        for (name,) in ask(
            "SELECT NAME FROM information_schema.INNODB_TABLESPACES WHERE SPACE_TYPE = 'General' AND NAME <> 'mysql'",
            text=True,
        ):
            ask(f"DROP TABLESPACE {quoted(name)}")


def differences(wanted: Any, found: Any) -> list[str]:
    """A replica does not say whether an event is enabled; its counters know nothing of ids that were rolled back."""
    first, second = dict(wanted), dict(found)
    counters = []
    for name in first.keys() & second.keys():
        first[name], second[name] = _comparable(first[name]), _comparable(second[name])
        for table in wanted[name]["tables"].keys() & found[name]["tables"].keys():
            low, high = (int(side[name]["tables"][table]["counter"] or 0) for side in (wanted, found))
            if high < low:
                counters.append(f"{name}/tables/{table}/counter: {low} is wanted, {high} was found")
    return compare(first, second) + counters


def _comparable(schema: Any) -> Any:
    tables = {name: {**table, "counter": None} for name, table in schema["tables"].items()}
    words = (b"DISABLE ON REPLICA", b"DISABLE ON SLAVE", b"ENABLE", b"DISABLE")
    events = {}
    for name, values in schema["events"].items():
        events[name] = tuple(_replaced(value, words) if isinstance(value, bytes) else value for value in values)
    return {**schema, "tables": tables, "events": events}


def _replaced(value: bytes, words: tuple[bytes, ...]) -> bytes:
    for word in words:
        value = value.replace(b" " + word + b" ", b" STATUS ", 1)
    return value


def _after(archive: Archive, manifest: Manifest) -> Iterator[tuple[SliceIndex, Any]]:
    for index in archive.slices(manifest.timeline):
        for item in index.transactions:
            if not mysql.contains(manifest.position, item):
                yield index, item


def _status(connection: Any, word: str) -> dict[str, Any]:
    with connection.cursor(pymysql.cursors.DictCursor) as cursor:
        cursor.execute(f"SHOW {word} STATUS")
        return dict(cursor.fetchone())


def _execute(server: Server, *statements: str) -> None:
    with server.connect() as connection:
        for statement in statements:
            connection.query(statement)


class Play:
    """A history on its way: a thread for each session, and one backup in the middle."""

    def __init__(
        self, stand: Stand, history: History, archive: Archive, timeline: str, outcome: Outcome, one_by_one: bool
    ) -> None:
        self.stand, self.history, self.archive, self.timeline, self.outcome = stand, history, archive, timeline, outcome
        self.one_by_one = one_by_one
        self.lock = threading.Condition()
        self.ended = 0
        self.phase = "backup"
        self.limit = 0  # of units that may end before the backup has: the others lie behind it
        self.calm = threading.Event()
        self.calm.set()
        self.errors: list[BaseException] = []

    def run(self) -> Manifest | None:
        lanes: dict[int, list[Unit]] = {}
        for unit in self.history.units:
            lanes.setdefault(0 if self.one_by_one else unit.session, []).append(unit)
        threads = [threading.Thread(target=self._lane, args=(lane,), daemon=True) for lane in lanes.values()]
        for thread in threads:
            thread.start()
        try:
            with self.lock:
                self.lock.wait_for(lambda: self.ended >= self.history.snapshot or bool(self.errors), 120)
            return self._snapshot()
        finally:
            self.calm.set()
            for thread in threads:
                thread.join(300)
            if self.errors:
                raise self.errors[0]

    def _snapshot(self) -> Manifest | None:
        with self.lock:
            self.phase, self.limit = "during", self.ended + DURING
        try:
            return mysql.snapshot(
                self.stand.reading, self.archive, timeline=self.timeline, backup=str(uuid.uuid4()), name="torture",
                schedule="", threads=2, run=_Watch(self.calm),
            )  # fmt: skip
        except (Refused, Transient) as error:
            self.outcome.refused.append(str(error))
            return None
        finally:
            with self.lock:
                self.phase = "slices"
                self.lock.notify_all()
            self.calm.set()

    def _lane(self, units: list[Unit]) -> None:
        sessions: dict[int, pymysql.Connection[Any]] = {}
        try:
            for unit in units:
                if unit.definitions:
                    self.calm.wait(PATIENCE)
                with self.lock:
                    self.lock.wait_for(lambda: self.phase != "during" or self.ended < self.limit, PATIENCE)
                self._unit(unit, sessions)
                with self.lock:
                    self.ended += 1
                    self.lock.notify_all()
        except BaseException as error:
            with self.lock:
                self.errors.append(error)
                self.lock.notify_all()
        finally:
            for connection in sessions.values():
                connection.close()

    def _unit(self, unit: Unit, sessions: dict[int, pymysql.Connection[Any]]) -> None:
        before = self.phase
        try:
            for step in unit.steps:
                if isinstance(step, AfterBackup):
                    with self.lock:
                        self.lock.wait_for(lambda: self.phase == "slices", 300)
                    continue
                if isinstance(step, Reconnect) or unit.session not in sessions:
                    self._again(unit.session, sessions)
                if not isinstance(step, Reconnect):
                    _step(sessions[unit.session], step)
        except pymysql.MySQLError as error:
            self.outcome.failed[unit.features[0], str(error)] += 1
            self._again(unit.session, sessions)
            self._undo(unit, sessions)
            return
        phase = before if before == self.phase else "during"
        self.outcome.told.update((name, phase) for name in unit.features)

    def _again(self, session: int, sessions: dict[int, pymysql.Connection[Any]]) -> None:
        if session in sessions:
            sessions.pop(session).close()
        # What statements return is not looked at, and may be in any character set.
        sessions[session] = self.stand.source.connect(local_infile=True, use_unicode=False)
        sessions[session].query("SET SESSION sql_mode = '', lock_wait_timeout = 20, innodb_lock_wait_timeout = 20")

    def _undo(self, unit: Unit, sessions: dict[int, pymysql.Connection[Any]]) -> None:
        """A branch that an error left prepared would keep the backup waiting; so would a global setting stay."""
        for step in unit.steps:
            if isinstance(step, str) and step.startswith(("XA PREPARE ", "SET GLOBAL log_bin_compress = OFF")):
                with suppress(pymysql.MySQLError):
                    sessions[unit.session].query(step.replace("XA PREPARE", "XA ROLLBACK"))


def _step(connection: pymysql.Connection[Any], step: Step) -> None:
    if isinstance(step, Load):
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            file.write(step.content)
            file.flush()
            connection.query(step.sql.replace("<file>", file.name))
        return
    with connection.cursor() as cursor:
        cursor.execute(step)
        while cursor.nextset():
            pass


class _Watch(Quiet):
    """Ends the changes of definitions when a backup has started again too often: in the end it must succeed."""

    def __init__(self, calm: threading.Event) -> None:
        self.calm = calm
        self.again = 0

    def log(self, line: str) -> None:
        self.again += "starts again" in line
        if self.again >= CALM_AFTER:
            self.calm.clear()
