"""Three real servers: a source, its native replica, and a target that Everest restores to; and one run on them."""

from __future__ import annotations

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

from backups.engine import mysql, slices
from backups.engine.archive import Archive
from backups.engine.errors import EngineError, Refused, Transient
from backups.engine.manifest import Manifest
from backups.engine.plan import plan
from backups.engine.types import Plan, Position, Quiet, SliceIndex
from everest.demo import servers as demo
from everest.demo.compare import Ask, compare, dump_all
from everest.demo.servers import Installation, Server
from tests.engine.memory_store import MemoryStore
from tests.helpers import clean, source_config, target_config
from tests.torture.history import History, Load, Reconnect, Step, Unit

FAST = ("--sync-binlog=0", "--innodb-flush-log-at-trx-commit=0", "--local-infile=1")
ALONE = {"mysql": ("--skip-replica-start", "--replica-parallel-workers=1"), "mariadb": ("--skip-slave-start",)}
STORAGE = "memory"
PATIENCE = 60.0  # seconds for a replica to reach a place
FOLLOWER = ("CREATE USER follower IDENTIFIED BY 'Follow-1'", "GRANT REPLICATION SLAVE ON *.* TO follower")
SHARED = (
    "CREATE DATABASE shared",
    "CREATE TABLE shared.counted (id INT AUTO_INCREMENT PRIMARY KEY, who INT, n INT, KEY (who))",
)
DURING = 40  # units beside a backup
CALM_AFTER = 2  # tries of a backup that met changed definitions: the next one is given none


class OracleFailed(Exception):
    """The replica did not take what its source logged: it can judge nothing."""


@dataclass
class Outcome:
    """What one run showed.  differences: by the place they were seen at.  told: counted by feature and phase.

    failed: (feature, server error) of units that the source itself refused.  refused: what Everest refused by name.
    """

    differences: dict[str, list[str]] = field(default_factory=dict)
    told: Counter[tuple[str, str]] = field(default_factory=Counter)
    failed: Counter[tuple[str, str]] = field(default_factory=Counter)
    refused: list[str] = field(default_factory=list)
    transactions: int = 0
    restores: int = 0


class Stand:
    """A context manager: its servers run until it ends."""

    def __init__(self, installation: Installation, folder: Path) -> None:
        self.flavour = installation.flavour
        self.folder = folder
        self.stack = ExitStack()
        self.source = self._start(installation, "source", FAST)
        self.target = self._start(installation, "target", FAST)
        self.replica = self._start(installation, "replica", (*FAST, *ALONE[self.flavour]))
        self.writing = target_config(self.target)
        self._follow()

    def _start(self, installation: Installation, name: str, options: tuple[str, ...]) -> Server:
        server = demo.start(installation, self.folder / f"{self.flavour}-{name}", options=options)
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
        archive, timeline = Archive(MemoryStore(), str(uuid.uuid4())), str(uuid.uuid4())
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
        _execute(self.source, *FOLLOWER, *SHARED)
        self.reading = source_config(self.source)

    # The oracle

    def _follow(self) -> None:
        if self.flavour == "mysql":
            change = (
                f"CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT={self.source.port},"
                " SOURCE_USER='follower', SOURCE_PASSWORD='Follow-1', SOURCE_SSL=1, SOURCE_AUTO_POSITION=1"
            )
        else:
            change = (
                f"CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={self.source.port},"
                " MASTER_USER='follower', MASTER_PASSWORD='Follow-1', MASTER_USE_GTID=slave_pos"
            )
        _execute(self.replica, change)

    def _replicate(self, gtids: str, following: str) -> None:
        """Let the replica come to exactly this set, and stop there.

        MySQL's SQL_AFTER_GTIDS now and then lets more through: it stops before the transaction that follows, if any.
        """
        word = "REPLICA" if self.flavour == "mysql" else "SLAVE"
        until = f"master_gtid_pos = '{gtids}'"
        if self.flavour == "mysql":
            until = f"SQL_BEFORE_GTIDS = '{following}'" if following else f"SQL_AFTER_GTIDS = '{gtids}'"
        with self.replica.connect() as connection:
            ask = Ask(connection)
            if not self._reached(ask, gtids):
                ask(f"START {word} UNTIL {until}")
                self._wait(connection, word)
                ask(f"STOP {word}")
            if not self._reached(ask, gtids):
                raise OracleFailed(f"The replica is not at {gtids} but at {self._now(ask)}.")

    def _reached(self, ask: Ask, gtids: str) -> bool:
        if self.flavour == "mariadb":
            return sorted(self._now(ask).split(",")) == sorted(gtids.split(","))
        ((same,),) = ask("SELECT GTID_SUBSET(%s, @@gtid_executed) AND GTID_SUBSET(@@gtid_executed, %s)", gtids, gtids)
        return bool(same)

    def _now(self, ask: Ask) -> str:
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
        after = list(_after(archive, manifest))
        outcome.transactions = len(after)
        for place in dict.fromkeys(round(cut * len(after)) for cut in history.cuts):
            position = mysql.position_after(*after[place - 1]) if place else manifest.position
            following = after[place][1].identity if place < len(after) else ""
            try:
                self._restore(archive, manifest, plan([manifest.point(STORAGE)], points, position, mysql.at_or_before))
                found = self._differences(position, following)
            except EngineError as error:
                found = [f"{type(error).__name__}: {error}"]
                found += [f"{item.identity} is {item.ddl}" for _, item in after if item.identity in str(error)]
            if found:
                outcome.differences[f"transaction {place} of {len(after)}, {position['gtids']}"] = found
                return
            outcome.restores += 1

    def _restore(self, archive: Archive, manifest: Manifest, planned: Plan) -> None:
        mysql.restore(
            self.writing, planned, manifest, {STORAGE: archive}, replace=True, remember=lambda settings: None,
            run=Quiet(), threads=2,
        )  # fmt: skip

    def _ship(self, history: History, archive: Archive, manifest: Manifest, start: Position) -> list[SliceIndex]:
        chunks = mysql.capture(
            self.reading, start, replica_uuid=str(uuid.uuid4()), interval=60, max_bytes=history.max_bytes,
            drain=True, deadline=None, run=Quiet(), on_caught_up=lambda position: None,
        )  # fmt: skip
        slices.ship(archive, manifest.timeline, chunks, None, lambda index: None)
        return list(archive.slices(manifest.timeline))

    def _differences(self, position: Position, following: str) -> list[str]:
        """What neither the replica nor, at the history's end, the source itself holds so."""
        self._replicate(str(position["gtids"]), following)
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
        sessions[session] = self.stand.source.connect(local_infile=True)
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
