"""Transactions of nothing but rows that become one on the target: compacted as far as can be, else as they are."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from enum import Enum
from tempfile import TemporaryFile
from typing import IO

import numpy as np

from backups.engine.mysql.cascades import without_cascades
from backups.engine.mysql.compaction import Changes, Shape, Unfit, split
from backups.engine.mysql.events import HEADER_SIZE, TABLE_MAP, Event, parse
from backups.engine.mysql.memory import Numbers
from backups.engine.mysql.plain import HEAD
from backups.engine.mysql.rowbuffer import Part, table_id, with_statement_end
from backups.engine.mysql.rows import table_map
from backups.engine.mysql.stretch import RowEvents, Stretch

SMALL = 16 << 10  # bytes of events that are not worth a look at the target's tables
LIVE_BYTES = 32 << 20  # of images in memory
LOG_BYTES = 128 << 20  # of events as they were logged, of which no more than IN_MEMORY are in memory
MOST = 100_000  # transactions
IN_MEMORY = 8 << 20
FEW = 16  # row events of a table: fewer are taken sooner one by one

Name = tuple[str, str]  # schema, table


class How(Enum):
    """What becomes of a table's changes where they are not compacted.

    IN_ORDER: each is applied, beside others that are compacted.  ALONE: the whole batch is applied as it was logged.
    """

    IN_ORDER = 1
    ALONE = 2


Look = Callable[[str, str], Shape | How]


class Log:
    """Byte strings in their order, in memory as long as they are few, then in an unnamed temporary file."""

    def __init__(self) -> None:
        self.count = 0
        self._sizes: list[int] = []  # of those in the file
        self._parts: list[bytes] = []
        self._memory = 0
        self._file: IO[bytes] | None = None

    def append(self, raw: bytes) -> None:
        self.count += 1
        self._parts.append(raw)
        self._memory += len(raw)
        if self._memory > IN_MEMORY:
            self._spill()

    def __iter__(self) -> Iterator[bytes]:
        """May run several times at once."""
        at = 0
        for size in self._sizes:
            assert self._file
            yield os.pread(self._file.fileno(), size, at)
            at += size
        yield from self._parts

    def close(self) -> None:
        if self._file:
            self._file.close()

    def _spill(self) -> None:
        if self._file is None:
            self._file = TemporaryFile()  # noqa: SIM115
        self._file.write(b"".join(self._parts))
        self._file.flush()
        self._sizes += map(len, self._parts)
        self._parts.clear()
        self._memory = 0


class Batch:
    """look: what the target says of a table; None: nothing is compacted.  unfit: tables that cannot be, grows."""

    def __init__(self, look: Look | None, unfit: set[Name], trailer: int) -> None:
        self.look, self.unfit, self.trailer = look, unfit, trailer
        self.size = 0  # bytes as logged
        self.tables: dict[Name, Changes | None] = {}  # None: in order
        self._alone = look is None
        self._merging = False
        self._log = Log()
        self._names: dict[bytes, Name] = {}  # by table map
        self._maps: dict[bytes, Changes | None] = {}  # by table map

    def __bool__(self) -> bool:
        return bool(self.size)

    @property
    def compacted(self) -> bool:
        return not self._alone and any(self.tables.values())

    @property
    def full(self) -> bool:
        """Only for one that is compacted."""
        live = sum(changes.size for changes in self.tables.values() if changes)
        return live >= LIVE_BYTES or self.size >= LOG_BYTES or self._log.count >= MOST

    def add(self, raw: bytes) -> None:
        """One transaction's row events, as whole statements."""
        self._log.append(raw)
        self.size += len(raw)
        if self._alone:
            return
        if self._merging:
            self._merge(raw)
        elif self.size >= SMALL:
            self._merging = True
            for one in self._log:
                self._merge(one)

    def add_all(self, stretch: Stretch, first: int, last: int) -> int:
        """The stretch's transactions from `first` to before `last`, all plain; returns how many row events these have.

        Only for one that is compacted.
        """
        for raw in stretch.rows(first, last):
            self._log.append(raw)
            self.size += len(raw)
        for body, at in stretch.table_maps(first, last).items():
            if body not in self._maps:
                size = HEADER_SIZE + len(body) + self.trailer
                self._meet(parse(memoryview(stretch.raw)[at : at + size], self.trailer))
        events = stretch.row_events(first, last)
        tables = [self._maps[body] for body in events.maps]
        places = {id(changes): number for number, changes in enumerate(tables)}
        numbers = np.array([places[id(changes)] for changes in tables])
        for number in places.values():
            if changes := tables[number]:
                self._change(changes, stretch, events, np.flatnonzero(numbers == number))
        return len(tables)

    def _change(self, changes: Changes, stretch: Stretch, events: RowEvents, places: Numbers) -> None:
        """Take one table's row events."""
        kinds, starts, ends = events.kinds[places], events.starts[places], events.ends[places]
        try:
            if len(places) >= FEW:
                changes.add_all(stretch.raw, stretch.memory, kinds, starts, ends)
                return
            for kind, start, end in zip(kinds.tolist(), starts.tolist(), ends.tolist(), strict=True):
                changes.add(kind, stretch.raw, start, end)
        except Unfit:
            self._give_up((changes.table.schema, changes.table.table))

    def verbatim(self, names: Collection[Name] | None, limit: int) -> Iterator[bytes]:
        """The events of these tables (None: of all) as they were logged, in pieces of at most `limit` bytes unless
        one event (None: one transaction) has more; every piece is whole statements."""
        logged = self._log if names is None else (part for raw in self._log for part in self._only(raw, names))
        return pieces((without_cascades(raw, self.trailer) for raw in logged), limit)

    def close(self) -> None:
        self._log.close()
        self.tables.clear()

    def _only(self, raw: bytes, names: Collection[Name]) -> Iterator[bytes]:
        """Each row event of these tables as a statement of its own."""
        maps: dict[bytes, Event] = {}
        for event in split(raw, self.trailer):
            if event.type == TABLE_MAP:
                maps[table_id(event)] = event
            elif self._name(maps[table_id(event)]) in names:
                ended = with_statement_end(Part(event.raw, event.trailer))
                yield b"".join((maps[table_id(event)].raw, ended.raw))

    def _name(self, event: Event) -> Name:
        body = bytes(event.body)
        name = self._names.get(body)
        if name is None:
            table = table_map(event)
            name = self._names[body] = table.schema, table.table
        return name

    def _merge(self, raw: bytes) -> None:
        """In one pass over the bytes: nearly all of a replay's work lies here and in Changes.add."""
        maps: dict[bytes, Changes | None] = {}
        trailer, at = self.trailer, 0
        while at < len(raw):
            kind, size = HEAD.unpack_from(raw, at)
            stop = at + size
            if kind == TABLE_MAP:
                body = raw[at + HEADER_SIZE : stop - trailer]
                if body not in self._maps:
                    self._meet(parse(memoryview(raw)[at:stop], trailer))
                maps[raw[at + 19 : at + 25]] = self._maps[body]
            elif raw[at + 19 : at + 25] not in maps:
                self._alone = True  # a row event without its table map: let the server judge it
            elif changes := maps[raw[at + 19 : at + 25]]:
                try:
                    changes.add(kind, raw, at, stop - trailer)
                except Unfit:
                    self._give_up((changes.table.schema, changes.table.table))
            at = stop

    def _meet(self, event: Event) -> None:
        """A table map that is new to this batch."""
        name = self._name(event)
        changes = self.tables.get(name)
        if name not in self.tables:
            changes = self._begin(name, event)
        elif changes and not changes.fits(event):
            self._give_up(name)
            changes = None
        self._maps[bytes(event.body)] = changes

    def _begin(self, name: Name, event: Event) -> Changes | None:
        assert self.look
        shape = How.IN_ORDER if name in self.unfit else self.look(*name)
        self._alone = self._alone or shape is How.ALONE
        self.tables[name] = None
        if isinstance(shape, Shape):
            try:
                self.tables[name] = Changes(shape, event)
            except Unfit:
                self._give_up(name)
        return self.tables[name]

    def _give_up(self, name: Name) -> None:
        given_up = self.tables[name]
        self._maps = {body: None if found is given_up else found for body, found in self._maps.items()}
        self.tables[name] = None
        self.unfit.add(name)


def pieces(parts: Iterable[bytes], limit: int) -> Iterator[bytes]:
    """Parts put together up to so many bytes, each part whole."""
    found: list[bytes] = []
    size = 0
    for part in parts:
        if found and size + len(part) > limit:
            yield b"".join(found)
            found, size = [], 0
        found.append(part)
        size += len(part)
    if found:
        yield b"".join(found)
