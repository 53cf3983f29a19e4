"""Rows of all tables into objects, read side by side over connections that share one view.

A large table is read in ranges of its key, several at once; small ones share what a table costs besides its rows.
Where no lock is held there is a process for each processor: most of the time goes into what becomes of the rows.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pymysql

from backups.engine.errors import Stopped, Transient, raise_first
from backups.engine.forks import Fail, Fork, Parent, Shared, answered, cores
from backups.engine.manifest import TableEntry
from backups.engine.mysql import instants, tsv
from backups.engine.mysql.ranges import Changed, Found, Part, Place, Rows, changes_told, let_go, units
from backups.engine.mysql.schema import Numbers, Reader, Schema
from backups.engine.mysql.server import Connection, explain
from backups.engine.mysql.view import View
from backups.engine.types import DataRef, Run

# Bytes of lines in one object, mostly a single part of an upload.  A larger range is several, cut between rows.
OBJECT = 16 << 20
NAP = 0.2  # seconds, at most, until a stop is seen
GRACE = 30  # seconds that processes have to stop by themselves
DOING = "Reading from the server"

Put = Callable[[str, str, Iterator[bytes]], DataRef]  # of a name, a kind and the bytes


class Pace:
    """Holds back what reads more than `rate` bytes a second, all threads taken together; 0 lets everything go."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.lock = threading.Lock()
        self.until = 0.0

    def take(self, size: int, poll: Callable[[], None]) -> None:
        """Wait for as long as `size` bytes take, and for those that others took before."""
        if not self.rate:
            return
        with self.lock:
            self.until = until = max(self.until, time.monotonic()) + size / self.rate
        while (left := until - time.monotonic()) > 0:
            poll()
            time.sleep(min(left, NAP))


# What a process that was forked has found: ranges, inexact, instants.
_Share = tuple[list[Found], list[str], dict[Place, list[bytes]]]


class Reading:
    """What the threads share, and what they found.

    again: another reader of definitions, for a process of its own.
    inexact: sentences.  instants: statements for rows, by their table's place.
    """

    def __init__(self, reader: Reader, again: Callable[[], Reader], put: Put, run: Run, rate: int = 0) -> None:
        self.reader = reader
        self.again = again
        self.put = put
        self.run = run
        self.pace = Pace(rate)
        self.lock = threading.Lock()
        self.shared: Shared
        self.fail: Fail = lambda error: None  # a fork tells its parent at once
        self.found: list[Found] = []
        self.entries: dict[Place, TableEntry] = {}
        self.inexact: list[str] = []
        self.instants: dict[Place, list[bytes]] = {}
        self.before = self.total = 0

    def read(
        self,
        connections: Sequence[Connection],
        schemas: Sequence[Schema],
        places: Sequence[Place],
        seen: View,
        apart: bool = False,
    ) -> None:
        """Read tables side by side, the largest first; the first failure ends the others.  Raises Changed.

        apart: in a process for each processor.  Making one may take a moment, so not while a lock is held.
        """
        parts = list(units(connections[0], schemas, places, self.reader.identity))
        busy = connections[: len(parts)]
        if not busy:
            return
        processes = min(cores(), len(busy)) if apart and not self.pace.rate else 1
        with Shared(len(parts), processes) as self.shared:
            self._split(parts, [busy[n::processes] for n in range(processes)], seen)
            self.before += self.shared.done
        self._gather(busy[::processes], {part.rows.place: part.rows for unit in parts for part in unit}, seen)

    def _split(self, parts: Sequence[Sequence[Part]], shares: Sequence[Sequence[Connection]], seen: View) -> None:
        """The first share of the connections is this process's, each other one a fork's."""
        work = partial(self._work, parts, partial(self._read, seen))
        forks: list[Fork[_Share]] = []
        try:
            for n, share in enumerate(shares[1:], 1):
                forks.append(Fork(partial(self._apart, Parent(), n, share, work, seen)))
            self._together(shares[0], work, forks)
        finally:
            for fork in forks:
                fork.end()

    def _work(self, items: Sequence[Any], act: Callable[[Connection, Any], None], connection: Connection) -> None:
        """Take what nobody else has taken, as long as there is some."""
        try:
            while (number := self.shared.next()) is not None:
                self.poll()
                act(connection, items[number])
        except BaseException as error:
            self.shared.fail()
            if not isinstance(error, Stopped):
                self.fail(explain(error, DOING) if isinstance(error, pymysql.MySQLError) else error)
            raise

    def _together(
        self, connections: Sequence[Connection], work: Callable[[Connection], None], forks: Sequence[Fork[_Share]] = ()
    ) -> None:
        """Work over each of these connections, and wait until that and what was forked is done."""
        with ThreadPoolExecutor(len(connections), thread_name_prefix="snapshot") as pool:
            threads = [pool.submit(work, connection) for connection in connections]
            try:
                errors = self._answers(forks)
            except BaseException:
                self.shared.fail()
                raise
        raise_first([*errors, *(thread.exception() for thread in threads)])

    def _answers(self, forks: Sequence[Fork[_Share]]) -> list[BaseException]:
        """Take in what others have found, and see to it meanwhile that all stop where they should."""
        errors: list[BaseException] = []
        waiting, until = list(forks), math.inf
        while waiting and time.monotonic() < until:
            for fork in answered(waiting, NAP):
                waiting.remove(fork)
                try:
                    self._take(*fork.result())
                except BaseException as error:
                    errors.append(error)
            if errors or self.run.should_stop():
                self.shared.fail()
            if self.shared.failed:
                until = min(until, time.monotonic() + GRACE)
            self._tell()
        kind = Stopped if self.run.should_stop() else Transient
        return [*errors, *(kind("A process that read rows did not stop in time.") for _ in waiting)]

    def _take(self, found: list[Found], inexact: list[str], instants: dict[Place, list[bytes]]) -> None:
        self.found += found
        self.inexact += inexact
        self.instants |= instants

    def _apart(
        self,
        run: Run,
        process: int,
        connections: Sequence[Connection],
        work: Callable[[Connection], None],
        seen: View,
        fail: Fail,
    ) -> _Share:
        """What a process does that was forked, with connections that are its own from now on."""
        self.run, self.shared.process, self.fail = run, process, fail
        self.found, self.inexact, self.instants = [], [], {}
        own = [*connections]
        if not seen.definitions_wait:
            self.reader = self.again()
            own.append(self.reader.connection)
        self._together(connections, work)
        for connection in own:
            connection.close()  # the server would note a session that ends without a word
        return self.found, self.inexact, self.instants

    def _gather(self, connections: Sequence[Connection], tables: dict[Place, Rows], seen: View) -> None:
        """Put tables together from what was found; what is said of a whole one is asked when all of it is read."""
        for found in self.found:
            one = tables[found.place]
            one.found.append(found)
            one.look.decimals |= found.decimals
        self.found = []
        self.entries |= {place: one.entry() for place, one in tables.items()}
        # Of most there is nothing to ask: they were looked at with each range, and may change since.
        ranged = [one for one in tables.values() if one.ranges > 1 and (one.look.others or one.look.decimals)]
        if not ranged:
            return
        with Shared(len(ranged)) as self.shared:
            self._together(connections, partial(self._work, ranged, partial(self._complete_whole, seen)))

    def poll(self) -> None:
        if self.run.should_stop():
            raise Stopped("The backup was stopped.", meaning="Nothing of it is kept.")
        if self.shared.failed:
            raise Stopped("Another part of the backup failed.")

    def _read(self, seen: View, connection: Connection, parts: Sequence[Part]) -> None:
        with let_go(connection):
            for part in parts:
                with changes_told(part.rows.name):
                    self._part(connection, part)
            self._check([part.rows for part in parts], seen)

    def _part(self, connection: Connection, part: Part) -> None:
        one, (s, t) = part.rows, part.rows.place
        lines = _Lines(tsv.select(connection, part.query, self.poll, one.look), self._count)
        objects: list[DataRef] = []
        while lines.more:
            name = f"rows-{s}-{t}-{part.number}-{len(objects)}"
            objects.append(self.put(name, "tsv", lines.next_object()))
        if one.ranges == 1:
            self._complete(connection, one)
        self.found.append(Found(one.place, part.number, objects, lines.rows, one.look.decimals))

    def _complete_whole(self, seen: View, connection: Connection, one: Rows) -> None:
        with let_go(connection):
            with changes_told(one.name):
                self._complete(connection, one)
            self._check([one], seen)

    def _complete(self, connection: Connection, one: Rows) -> None:
        one.look.require_text(connection)
        self.inexact += one.look.inexact(connection)
        self.instants[one.place] = instants.statements(connection, one.schema.name, one.table, self.poll)

    def _check(self, found: Sequence[Rows], seen: View) -> None:
        """That they are still the tables of the view; asked while the reading transaction keeps DDL away from them."""
        looked_at = [one for one in found if one.table.in_view]
        if seen.definitions_wait or not looked_at:
            return
        with self.lock:
            before, now = Numbers(seen.ids), Numbers(self.reader.table_ids())
            for one in looked_at:
                schema, table = one.schema.name, one.table.name
                with changes_told(one.name):
                    definition = self.reader.table(schema, table)
                if definition != one.table.definition or before.of(schema, table) != now.of(schema, table):
                    raise Changed(f"{one.name} was changed or exchanged by DDL.")

    def _count(self, size: int) -> None:
        with self.lock:
            self.shared.add(size)
        self._tell()
        self.pace.take(size, self.poll)

    def _tell(self) -> None:
        done = self.before + self.shared.done
        self.run.progress("rows", done, max(self.total, done), "bytes")


class _Lines:
    """A query's lines, handed out as objects of OBJECT bytes, cut between rows."""

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
