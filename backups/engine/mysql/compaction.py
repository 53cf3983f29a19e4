"""Compaction: of all changes of a row in a batch of transactions only the first state and the last one count.

Pure.  Row images are walked by length and cut out as they are; nothing in them is decoded but AUTO_INCREMENT values.
Rows are told apart by the bytes of their primary key.  Keys that are equal to the server and differ in their bytes
('a' and 'A', 0.0 and -0.0) need no care: at any moment a table holds one of them at most, so deletes find the row
that was there at the batch's start, and inserts, which come last, find none.  No unique key is in the way of them
either: a row whose unique columns change is deleted and inserted, too.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from backups.engine.errors import Corrupt
from backups.engine.mysql.events import (
    CHECKSUM_SIZE,
    DELETE_ROWS,
    DELETE_ROWS_V1,
    HEADER,
    HEADER_SIZE,
    UPDATE_ROWS,
    UPDATE_ROWS_V1,
    UPDATES,
    WRITE_ROWS,
    WRITE_ROWS_V1,
    Event,
    parse,
)
from backups.engine.mysql.finder import Finder
from backups.engine.mysql.memory import Flags, Memory, Numbers
from backups.engine.mysql.rows import (
    RELAXED_UNIQUE_CHECKS,
    STATEMENT_END,
    RowsHeader,
    rows_header,
    table_map,
    width,
)

EVENT_BYTES = 256 << 10  # of images in one row event, unless one row has more
ENTRY_BYTES = 250  # what Python keeps for a row beside its images
_INTEGERS = frozenset({1, 2, 3, 8, 9})
_KINDS = (WRITE_ROWS_V1, UPDATE_ROWS_V1, DELETE_ROWS_V1, WRITE_ROWS, UPDATE_ROWS, DELETE_ROWS)


class Unfit(Exception):
    """This table's changes cannot be compacted."""


class Shape(NamedTuple):
    """A table as it is on the target; columns are told by their positions.

    unique: of all unique keys but the primary one; expressions: such a key holds more than columns.
    counter: that of AUTO_INCREMENT, -1 where there is none.  virtual: may be missing in images.
    """

    width: int
    key: tuple[int, ...]
    unique: tuple[int, ...] = ()
    expressions: bool = False
    counter: int = -1
    signed: bool = True
    virtual: frozenset[int] = frozenset()


class Changes:
    """The changes of one table, by primary key: the row's image before the first of them, and after the last.

    None stands for "no row".  size: bytes in memory.  top: the largest AUTO_INCREMENT value that was inserted.
    """

    def __init__(self, shape: Shape, event: Event) -> None:
        """event: the table's map."""
        self.shape = shape
        self.table = table_map(event)
        self.map = bytes(event.raw)
        self.trailer = event.trailer
        if len(self.table.types) != shape.width:
            raise Unfit
        self.rows: dict[bytes, tuple[bytes | None, bytes | None]] = {}
        self.size = len(self.map)
        self.top = 0
        self.columns = b""  # bitmap of those that are in the images
        self.version_1 = False  # of row events
        self.heads: dict[int, bytes] = {}  # by kind of event: what stands in front of the images
        self.last = b""  # header, table id and flags of the newest event

    def fits(self, event: Event) -> bool:
        """Whether another table map tells of the same columns."""
        other = table_map(event)
        return (other.types, other.metadata) == (self.table.types, self.table.metadata)

    def add(self, kind: int, raw: bytes, at: int, end: int) -> None:
        """Take a row event, without its checksum raw[at:end].

        Unfit where it cannot be: then what was taken before is no good either.
        """
        head = self.heads.get(kind)
        if head is None:
            head = self._meet(kind, raw, at, end)
        flags = at + HEADER_SIZE + 6
        place = flags + 2 if self.version_1 else flags + 2 + (raw[flags + 2] | raw[flags + 3] << 8)
        if not raw.startswith(head, place):
            raise Unfit
        self.last = raw[at : flags + 2]
        self._take(kind, raw, place + len(head), end)

    def _take(self, kind: int, raw: bytes, at: int, end: int) -> None:
        """The rows of one event, whose images lie there."""
        if _TAKE[kind](self, raw, at, end) != end:
            raise Corrupt("A row event ends inside a row.")

    def add_all(self, raw: bytes, memory: Memory, kinds: Numbers, starts: Numbers, ends: Numbers) -> None:
        """Take row events of version 2, as `add` takes each.  memory: as Finder.find_all wants it."""
        at = self._images(raw, memory, kinds, starts, ends)
        keys, middles = self.keys.find_all(raw, memory, at, ends)
        stops, new_keys = middles.copy(), list(keys)
        updates = np.flatnonzero(kinds == UPDATE_ROWS)
        last = ends[updates]
        found, stops[updates] = self.keys.find_all(raw, memory, np.minimum(middles[updates], last), last)
        for place, key in zip(updates.tolist(), found, strict=True):
            new_keys[place] = key
        single = (stops == ends) & (middles <= ends)  # most events are about one row
        self._see(raw, memory, at, ends, single & (kinds == WRITE_ROWS))
        columns = [column.tolist() for column in (kinds, at, middles, ends, single)]
        for kind, start, middle, end, one, key, new_key in zip(*columns, keys, new_keys, strict=True):
            if not one:
                self._take(kind, raw, start, end)
            elif kind == UPDATE_ROWS:
                self._update(key, raw[start:middle], new_key, raw[middle:end])
            elif kind == WRITE_ROWS:
                self._put(key, raw[start:end])
            else:
                self._delete(key, raw[start:end])
        newest = int(starts[-1])
        self.last = raw[newest : newest + HEADER_SIZE + 8]

    def _images(self, raw: bytes, memory: Memory, kinds: Numbers, starts: Numbers, ends: Numbers) -> Numbers:
        """Where the first image of each event begins."""
        at = starts + HEADER_SIZE + 8
        at += memory.short(at)
        for kind in np.unique(kinds).tolist():
            those = np.flatnonzero(kinds == kind)
            event = those[0]
            head = self.heads.get(kind) or self._meet(kind, raw, int(starts[event]), int(ends[event]))
            if (at[those] + len(head) > ends[those]).any():
                raise Unfit
            for byte in head:
                if (memory.bytes[at[those]] != byte).any():
                    raise Unfit
                at[those] += 1
        return at

    def _see(self, raw: bytes, memory: Memory, at: Numbers, ends: Numbers, inserts: Flags) -> None:
        """The AUTO_INCREMENT values of these images."""
        if self.shape.counter >= 0:
            found, _ = self.counters.find_all(raw, memory, at[inserts], ends[inserts])
            self.top = max(self.top, *map(self._counted, found), 0)

    def _meet(self, kind: int, raw: bytes, at: int, end: int) -> bytes:
        """What each event of a kind must have in front of its images; here the first one has come."""
        if kind not in _KINDS:
            raise Unfit
        head = rows_header(Event(kind, 0, 0, end - at, 0, 0, memoryview(raw)[at:end], 0))
        if not self.heads:
            self._begin(head)
            self.version_1 = kind < WRITE_ROWS
        if (kind < WRITE_ROWS) != self.version_1:
            raise Unfit
        self.heads[kind] = _packed(self.shape.width) + self.columns * (2 if kind in UPDATES else 1)
        return self.heads[kind]

    def _begin(self, head: RowsHeader) -> None:
        missing = {n for n in range(head.width) if not head.columns[n >> 3] >> (n & 7) & 1}
        if head.width != self.shape.width or missing - self.shape.virtual:
            raise Unfit
        if missing & {*self.shape.key, self.shape.counter}:
            raise Unfit
        self.columns = head.columns
        self.keys = Finder(self.table, head.columns, self.shape.key)
        self.uniques = Finder(self.table, head.columns, set(self.shape.unique) - missing)
        self.expressions = self.shape.expressions or bool(set(self.shape.unique) & missing)
        self.watched = self.shape.counter >= 0 and self.shape.counter not in self.shape.key
        self.counters = Finder(self.table, head.columns, () if self.shape.counter < 0 else (self.shape.counter,))

    def _inserts(self, body: bytes, at: int, end: int) -> int:
        find = self.keys.find
        while at < end:
            start = at
            key, at = find(body, at)
            self._insert(key, body[start:at])
        return at

    def _deletes(self, body: bytes, at: int, end: int) -> int:
        find = self.keys.find
        while at < end:
            start = at
            key, at = find(body, at)
            self._delete(key, body[start:at])
        return at

    def _updates(self, body: bytes, at: int, end: int) -> int:
        find = self.keys.find
        while at < end:
            start = at
            key, middle = find(body, at)
            new_key, at = find(body, middle)
            self._update(key, body[start:middle], new_key, body[middle:at])
        return at

    def _update(self, key: bytes, before: bytes, new_key: bytes, after: bytes) -> None:
        if key != new_key:
            self._move(key, before, new_key, after)
            return
        if self.watched and self._number(before) != self._number(after):
            raise Unfit
        known = self.rows.get(key)
        if known is None:
            self.rows[key] = before, after
            self.size += len(key) + len(before) + len(after) + ENTRY_BYTES
        elif known[1] == before:
            self.rows[key] = known[0], after
            self.size += len(after) - len(before)
        else:
            raise Unfit

    def _move(self, key: bytes, before: bytes, new_key: bytes, after: bytes) -> None:
        """A key change.  Servers differ in what an update of the AUTO_INCREMENT column does to the counter."""
        if self._number(before) != self._number(after):
            raise Unfit
        self._delete(key, before)
        self._put(new_key, after)

    def _insert(self, key: bytes, image: bytes) -> None:
        if self.shape.counter >= 0:
            self.top = max(self.top, self._number(image))
        self._put(key, image)

    def _put(self, key: bytes, image: bytes) -> None:
        known = self.rows.get(key)
        if known is None:
            self.rows[key] = None, image
            self.size += len(key) + len(image) + ENTRY_BYTES
        elif known[1] is None:
            self.rows[key] = known[0], image
            self.size += len(image)
        else:
            raise Unfit

    def _delete(self, key: bytes, image: bytes) -> None:
        known = self.rows.get(key)
        if known is None:
            self.rows[key] = image, None
            self.size += len(key) + len(image) + ENTRY_BYTES
        elif known[1] == image:
            self.rows[key] = known[0], None
            self.size -= len(image)
        else:
            raise Unfit

    def _number(self, image: bytes) -> int:
        """The AUTO_INCREMENT value in an image, 0 where there is none."""
        return self._counted(self.counters.find(image, 0)[0])

    def _counted(self, value: bytes) -> int:
        return int.from_bytes(value, "little", signed=self.shape.signed)

    # What is left to do

    def net(self) -> Net:
        """Deletes, updates (before, after) and inserts, each in an order that is good for the target."""
        deletes: list[tuple[bytes, bytes]] = []
        updates: list[tuple[bytes, tuple[bytes, bytes]]] = []
        inserts: list[tuple[bytes, bytes]] = []
        for key, (first, last) in self.rows.items():
            if first == last:
                continue
            if first is None or last is None:
                (deletes if last is None else inserts).append((key, first or last or b""))
            elif self._stays(first, last):
                updates.append((key, (first, last)))
            else:
                deletes.append((key, first))
                inserts.append((key, last))
        order = self._order()
        for found in (deletes, updates, inserts):
            found.sort(key=lambda item: order(item[0]))
        return Net([i for _, i in deletes], [i for _, i in updates], [i for _, i in inserts])

    def _stays(self, first: bytes, last: bytes) -> bool:
        """Whether the row keeps all its unique values, and so can be updated whatever becomes of other rows."""
        if self.expressions:
            return False
        if not self.shape.unique:
            return True
        size = self.keys.null_size
        return first[:size] == last[:size] and self.uniques.find(first, 0)[0] == self.uniques.find(last, 0)[0]

    def _order(self) -> Callable[[bytes], bytes]:
        """A function from a key to what it is sorted by: about the order that the target keeps its rows in."""
        columns = sorted(self.shape.key)
        if any(self.table.types[n] not in _INTEGERS for n in columns):
            return lambda key: key
        if len(columns) == 1:
            return lambda key: key[::-1]  # numbers are logged with their smallest byte first
        ends = list(accumulate(width(self.table.types[n], 0)[0] for n in columns))
        places = {n: (end - width(self.table.types[n], 0)[0], end) for n, end in zip(columns, ends, strict=True)}
        cuts = [places[n] for n in self.shape.key]
        return lambda key: b"".join(key[start:end][::-1] for start, end in cuts)

    def lost(self, net: Net) -> int:
        """The AUTO_INCREMENT value that the target will not have seen although the source has; 0 for none."""
        seen = max(map(self._number, net.inserts), default=0) if self.top else 0
        return self.top if self.top > seen else 0

    def events(self, net: Net, largest: int) -> Iterator[bytes]:
        """Whole row statements, each a table map and one row event.  largest: bytes that one may have."""
        largest -= len(self.map) + 2 * len(self.columns) + 64
        apart = [pair for pair in net.updates if len(pair[0]) + len(pair[1]) > largest]
        updates = [first + last for first, last in net.updates if len(first) + len(last) <= largest]
        write, update, delete = _KINDS[:3] if self.version_1 else _KINDS[3:]
        yield from self._pieces(delete, [*net.deletes, *(first for first, _ in apart)])
        yield from self._pieces(update, updates)
        yield from self._pieces(write, [*net.inserts, *(last for _, last in apart)])

    def _pieces(self, kind: int, images: list[bytes]) -> Iterator[bytes]:
        piece: list[bytes] = []
        size = 0
        for image in images:
            if piece and size + len(image) > EVENT_BYTES:
                yield self._event(kind, piece)
                piece, size = [], 0
            piece.append(image)
            size += len(image)
        if piece:
            yield self._event(kind, piece)

    def _event(self, kind: int, images: list[bytes]) -> bytes:
        timestamp, _, server_id, _, _, _ = HEADER.unpack_from(self.last)
        flags = int.from_bytes(self.last[-2:], "little") & ~RELAXED_UNIQUE_CHECKS | STATEMENT_END
        extra = b"" if self.version_1 else b"\x02\x00"  # such as the partition: none
        head = self.table.table_id.to_bytes(6, "little") + flags.to_bytes(2, "little") + extra
        head += _packed(self.shape.width) + self.columns * (2 if kind in UPDATES else 1)
        size = HEADER_SIZE + len(head) + sum(map(len, images)) + self.trailer
        raw = b"".join((HEADER.pack(timestamp, kind, server_id, size, 0, 0), head, *images))
        if self.trailer:
            raw += zlib.crc32(raw).to_bytes(CHECKSUM_SIZE, "little")
        return self.map + raw


# What takes the images of each kind of event.
_TAKE = dict(zip(_KINDS, (Changes._inserts, Changes._updates, Changes._deletes) * 2, strict=True))


class Net(NamedTuple):
    deletes: list[bytes]
    updates: list[tuple[bytes, bytes]]
    inserts: list[bytes]


def _packed(number: int) -> bytes:
    return bytes([number]) if number < 251 else b"\xfc" + number.to_bytes(2, "little")


def split(raw: bytes, trailer: int) -> Iterator[Event]:
    """The events in bytes that hold nothing else."""
    view, at = memoryview(raw), 0
    while at < len(raw):
        size = int.from_bytes(raw[at + 9 : at + 13], "little")
        yield parse(view[at : at + size], trailer)
        at += size
