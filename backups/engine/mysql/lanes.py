"""Applies compacted batches over several sessions at once, each with tables of its own."""

from __future__ import annotations

import binascii
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock

import pymysql

from backups.engine.mysql.batch import Batch, Name, pieces
from backups.engine.mysql.compaction import Changes
from backups.engine.mysql.server import BROKEN, Connection, error_code, flavour_of, quote, value
from backups.engine.mysql.step import Gathered

LANES = 2
PIECE = 1 << 20  # bytes of row events in one BINLOG statement


def binlog(raw: bytes) -> bytes:
    """The statement that has a server apply these events."""
    return b"BINLOG '" + binascii.b2a_base64(raw, newline=False) + b"'"


class Lane:
    """One session.  format: what it was told last about how events are written."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.format = b""

    def run(self, sql: bytes) -> None:
        self.connection.query(sql)


class Lanes:
    """open: gives a session in which row events can be applied.  largest: bytes of events that BINLOG can take.

    conflicts: parts of batches that the target refused and that were applied as they were logged instead, with the
    errors' numbers in `refused`.  counters: AUTO_INCREMENT values that the source has given and the target not seen.
    """

    def __init__(self, open: Callable[[], Connection], describe: Callable[[Connection, bytes], None], largest: int):
        self.open, self.describe, self.largest = open, describe, largest
        self.piece = min(PIECE, largest)
        self.lanes: list[Lane] = []
        self.conflicts = 0
        self.refused: set[int] = set()
        self.counters: dict[Name, int] = {}
        self.ended = False
        self._lock = Lock()
        self._pool = ThreadPoolExecutor(LANES, "lane")

    def submit(self, step: Gathered, increments: tuple[int, int]) -> list[Future[None]]:
        """Have a batch applied; the one before it must be done."""
        parts = shares(step.batch, LANES)
        while len(self.lanes) < len(parts):
            self.lanes.append(Lane(self.open()))
        return [
            self._pool.submit(self._apply, lane, step, names, increments)
            for lane, names in zip(self.lanes, parts, strict=False)
        ]

    @property
    def connections(self) -> list[Connection]:
        return [lane.connection for lane in self.lanes]

    def raise_counters(self, increments: tuple[int, int]) -> None:
        """Let the target have seen what the source has given; all batches must be done.

        In a session of these: that of the statements may have another character set, and temporary tables.
        """
        connection = self.lanes[0].connection
        for (schema, table), top in self.counters.items():
            step, offset = increments
            following = -(-(top + 1 - offset) // step) * step + offset
            if counter(connection, schema, table) < following:
                name = f"{quote(schema)}.{quote(table)}"
                connection.query(f"ALTER TABLE {name} AUTO_INCREMENT = {following}")
        self.counters.clear()

    def close(self) -> None:
        """Wait for what is being done, and end the sessions."""
        self.ended = True
        self._pool.shutdown(wait=True, cancel_futures=True)
        for lane in self.lanes:
            lane.connection.close()

    def _apply(self, lane: Lane, step: Gathered, names: list[Name], increments: tuple[int, int]) -> None:
        if lane.format != step.format:
            self.describe(lane.connection, step.format)
            lane.format = step.format
        lane.run(b"SET SESSION auto_increment_increment = %d, auto_increment_offset = %d" % increments)
        try:
            self._transaction(lane, self._compacted(step.batch, names))
        except pymysql.MySQLError as error:
            if self.ended or error_code(error) in BROKEN:
                raise
            lane.run(b"ROLLBACK")
            with self._lock:
                self.conflicts += 1
                self.refused.add(error_code(error))
            self._transaction(lane, step.batch.verbatim(names, self.piece))

    def _transaction(self, lane: Lane, pieces: Iterator[bytes]) -> None:
        lane.run(b"START TRANSACTION")
        for raw in pieces:
            lane.run(binlog(raw))
        lane.run(b"COMMIT")

    def _compacted(self, batch: Batch, names: list[Name]) -> Iterator[bytes]:
        in_order = [name for name in names if batch.tables[name] is None]
        if in_order:
            yield from batch.verbatim(in_order, self.piece)
        lost: dict[Name, int] = {}
        for name in names:
            if changes := batch.tables[name]:
                yield from pieces(self._events(name, changes, lost), self.piece)
        with self._lock:
            self.counters.update({name: max(top, self.counters.get(name, 0)) for name, top in lost.items()})

    def _events(self, name: Name, changes: Changes, lost: dict[Name, int]) -> Iterator[bytes]:
        net = changes.net()
        if top := changes.lost(net):
            lost[name] = top
        return changes.events(net, self.largest)


def counter(connection: Connection, schema: str, table: str) -> int:
    """The AUTO_INCREMENT value that comes next."""
    if flavour_of(connection) == "mysql":
        connection.query("SET SESSION information_schema_stats_expiry = 0")
    sql = "SELECT AUTO_INCREMENT FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s"
    return int(value(connection, sql, (schema, table)) or 0)


def shares(batch: Batch, count: int) -> list[list[Name]]:
    """A batch's tables for so many lanes, about the same work in each.  Tables that are not compacted stay together:
    they may be connected by foreign keys."""
    in_order = [name for name, changes in batch.tables.items() if changes is None]
    sizes = {name: changes.size for name, changes in batch.tables.items() if changes}
    found: list[list[Name]] = [in_order, *([] for _ in range(count - 1))]
    loads = [batch.size - min(batch.size, sum(sizes.values())) if in_order else 0, *[0] * (count - 1)]
    for name in sorted(sizes, key=lambda name: -sizes[name]):
        lane = loads.index(min(loads))
        found[lane].append(name)
        loads[lane] += sizes[name]
    return [names for names in found if names]
