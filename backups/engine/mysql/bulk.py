"""Runs of whole transactions out of a receive buffer at once, with numpy.

`stream.Reader` and `transactions.Grouper`, event by event, are the reference.  Taken here is what every check holds
for; at the first thing that is not plainly right it stops and leaves that to the reference, which knows the error
and its place.  A transaction that is right but unusual is summarised by a Grouper.
"""

from __future__ import annotations

import copy
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from backups.engine.errors import Corrupt
from backups.engine.identities import MOST_DIGITS, Identities
from backups.engine.mysql import events
from backups.engine.mysql.framing import OVERHEAD, SMALLEST, Log, Slab, leading
from backups.engine.mysql.gtid_events import gtid, uuid_text
from backups.engine.mysql.memory import Flags, Memory, Numbers, these
from backups.engine.mysql.rowcounts import RowCounts
from backups.engine.mysql.transactions import Grouper
from backups.engine.types import Change, Transaction

SLACK = 256  # bytes behind a buffer's end that may be looked at, and do not matter
FEWEST = 64  # events: fewer are done sooner one by one
FEW = 8  # table maps that are alike: for fewer it is not worth while to look whether they are
KEPT = 1 << 14  # sums of a transaction's changes that are remembered, before all are forgotten

_BODY = events.HEADER_SIZE
_code = struct.Struct("<q")  # table << 34 | kind of change << 32 | rows
_BEGIN = int.from_bytes(b"BEGIN", "little")

# By type of event
BEGINS = these(events.GTID, events.ANONYMOUS_GTID)
ROWS = these(events.WRITE_ROWS, events.UPDATE_ROWS, events.DELETE_ROWS)
_USUAL = BEGINS | ROWS | these(events.QUERY, events.TABLE_MAP, events.XID, events.ROWS_QUERY)


class Origin(NamedTuple):
    """What is known before a buffer: the log file's grouper, and the place in it."""

    grouper: Grouper
    file: str
    pos: int


@dataclass(slots=True)
class Batch:
    """Whole transactions in the log's order, as columns.

    packets: how many they came in; ends: where each does in `data`; places: where each does in the log file.
    numbered: (uuid, number of the first) if their GTIDs follow one another without a hole.
    """

    data: memoryview
    packets: int
    ends: list[int]
    places: list[int]
    times: list[int]
    identities: Identities
    lengths: list[int]
    changes: list[tuple[Change, ...]]
    ddl: list[str]
    xa: list[str]
    numbered: tuple[str, int] | None

    def columns(self, first: int, last: int, shift: int) -> Sequence[Sequence[Any]]:
        """Those from `first` to before `last`, by field.  shift: from places in `data` to places in the slice."""
        part = slice(first, last)
        lengths = self.lengths[part]
        offsets = [end - length + shift for end, length in zip(self.ends[part], lengths, strict=True)]
        rest = self.changes[part], self.ddl[part], self.xa[part]
        return self.times[part], self.identities[part], offsets, lengths, *rest


class Bulk:
    """Takes the runs out of one connection's buffers."""

    def __init__(self) -> None:
        self._slab = Slab()
        self._forget()

    def _forget(self) -> None:
        self._rows = RowCounts()
        self._known: dict[bytes, tuple[Change, ...]] = {}

    def take(self, buffer: memoryview, at: int, end: int, origin: Origin) -> tuple[Batch | None, int]:
        """Whole transactions from the packet at `at` on, if there are enough of them.

        The second is how far the reference is to go before the next try.
        """
        if end - at < FEWEST * SMALLEST or not BEGINS[buffer[at + OVERHEAD + 4]]:
            return None, at
        if self._rows.full() or len(self._known) > KEPT:
            self._forget()
        log = Log(buffer, at, end, origin.pos, self._slab)
        heads = _heads(log, origin) if len(log) >= FEWEST else None
        return self._batch(log, heads, origin) if heads else None, log.reach

    def _batch(self, log: Log, heads: Heads, origin: Origin) -> Batch | None:
        odd = np.zeros(len(heads.first), np.bool_)
        odd[heads.of[~_usual(log, len(heads.of))]] = True
        codes, of = self._codes(log, heads, odd)
        bounds = np.searchsorted(of, np.arange(len(odd) + 1)).tolist()
        changes = self._changes(codes.tobytes(), bounds)
        times, ddl, xa = heads.times.tolist(), [""] * len(odd), [""] * len(odd)
        count = len(odd)
        for number in np.flatnonzero(odd).tolist():
            done = _summarised(log, int(heads.first[number]), int(heads.last[number]), origin)
            if done is None:
                count = number
                break
            changes[number], ddl[number], xa[number] = done.changes, done.ddl, done.xa
        if not count:
            return None
        last = heads.last[:count] - 1
        packets = int(last[-1]) + 1
        data = log.data[: log.ends[packets - 1]]
        if len(data) < len(log.data) // 2:
            data = memoryview(bytes(data))  # the rest is not to be kept with it
        ends, places = log.ends[last].tolist(), (log.places[last] + (origin.pos & ~0xFFFFFFFF)).tolist()
        lengths = heads.lengths.tolist()
        return Batch(data, packets, ends, places, times, heads.identities, lengths, changes, ddl, xa, heads.numbered)

    def _changes(self, codes: bytes, bounds: list[int]) -> list[tuple[Change, ...]]:
        """Of each transaction.  bounds: where its row events begin among all, and the last one's end."""
        known, result = self._known, []
        for start, end in pairwise(bounds):
            key = codes[8 * start : 8 * end]
            changes = known.get(key)
            if changes is None:
                changes = known[key] = self._summed(key)
            result.append(changes)
        return result

    def _summed(self, codes: bytes) -> tuple[Change, ...]:
        counts: dict[tuple[str, str], list[int]] = {}
        for (code,) in _code.iter_unpack(codes):
            table = self._rows.tables[code >> 34]
            counts.setdefault((table.schema, table.table), [0, 0, 0])[code >> 32 & 3] += code & 0xFFFFFFFF
        return tuple(Change(*name, *numbers) for name, numbers in counts.items())

    def _codes(self, log: Log, heads: Heads, odd: Flags) -> tuple[Numbers, Numbers]:
        """(table, kind and rows as one number, transaction) of each row event.

        A transaction with one that does not follow its table map, or is not understood, is set odd.
        """
        kinds = log.kinds[: len(heads.of)]
        is_map = kinds == events.TABLE_MAP
        found, maps = np.flatnonzero(ROWS[kinds]), np.flatnonzero(is_map)
        numbers = np.append(self._tables(log, maps), -1)
        nearest = np.cumsum(is_map)[found] - 1  # -1 is the one that was added
        tables, maps = numbers[nearest], np.append(maps, 0)[nearest]
        ids = partial(log.memory.number, size=6)
        same_id = ids(log.starts[maps] + _BODY) == ids(log.starts[found] + _BODY)
        right = (tables >= 0) & (heads.of[maps] == heads.of[found]) & same_id
        odd[heads.of[found[~right]]] = True
        found, tables = found[right], tables[right]
        counts = self._rows.count(log.memory, log.event, found, log.starts[found], log.sizes[found], tables)
        odd[heads.of[found[counts < 0]]] = True
        found, tables, counts = found[counts >= 0], tables[counts >= 0], counts[counts >= 0]
        return tables << 34 | kinds[found].astype(np.int64) - events.WRITE_ROWS << 32 | counts, heads.of[found]

    def _tables(self, log: Log, maps: Numbers) -> Numbers:
        """The numbers of the tables that table maps are about: of few tables there are many maps, which are alike."""
        starts, sizes = log.starts[maps] + _BODY, log.sizes[maps] - SMALLEST
        _, firsts, groups = np.unique(log.memory.number(starts, 6) << 8 ^ sizes, return_index=True, return_inverse=True)
        if len(firsts) < len(maps) // FEW:
            members = np.split(np.argsort(groups, kind="stable"), np.cumsum(np.bincount(groups))[:-1])
            if all(log.memory.alike(starts[some], sizes[some]) for some in members):
                return self._rows.numbers_of(log.bodies(maps[firsts]))[groups]
        return self._rows.numbers_of(log.bodies(maps))


class Heads(NamedTuple):
    """Transactions that are whole and as long as they say.

    first, last: of their events, the last not included; of: the transaction of each event.
    """

    first: Numbers
    last: Numbers
    of: Numbers
    lengths: Numbers
    times: Numbers
    identities: Identities
    numbered: tuple[str, int] | None


def _heads(log: Log, origin: Origin) -> Heads | None:
    """None where the first is not."""
    memory, first = log.memory, np.flatnonzero(BEGINS[log.kinds])
    at = log.starts[first] + _BODY
    immediate = memory.number(at + 42, 7)
    second = immediate >> 55
    immediate &= (1 << 55) - 1
    original = np.where(second, memory.number(at + 49, 7), immediate)
    replicated = memory.long(log.starts[first] + 5) != origin.grouper.server_id
    said, behind = _packed(memory, at + 49 + 7 * second)
    last = np.append(first[1:], len(log))
    lengths = log.ends[last - 1] - log.ends[first] + log.sizes[first]
    right = (
        (memory.bytes[at + 25] == 2)
        & (behind <= log.starts[first] + log.sizes[first] - events.CHECKSUM_SIZE)
        & (said == lengths)
        & (said > log.sizes[first])
    )
    count = leading(right)
    if not count:
        return None
    first, last = first[:count], last[:count]
    times = np.where(replicated, np.minimum(immediate, original), immediate)
    of = np.repeat(np.arange(count), last - first)
    return Heads(first, last, of, lengths[:count], times[:count], *_names(log, first, origin))


def _packed(memory: Memory, at: Numbers) -> tuple[Numbers, Numbers]:
    """Length-encoded numbers of up to 3 bytes, -1 for others; and what follows."""
    mark = memory.byte(at)
    size = (mark == 252) * 2 + (mark == 253) * 3
    return np.where(size, memory.number(at + 1, size), np.where(mark < 251, mark, -1)), at + 1 + size


def _names(log: Log, first: Numbers, origin: Origin) -> tuple[Identities, tuple[str, int] | None]:
    """Identities, and what makes them `numbered`."""
    memory, at = log.memory, log.starts[first] + _BODY
    low, high, numbers = memory.word(at + 1), memory.word(at + 9), memory.word(at + 17).astype(np.int64)
    one_source = (low == low[0]).all() and (high == high[0]).all() and (log.kinds[first] == events.GTID).all()
    if origin.grouper.by_place or not one_source or numbers.min() < 1 or numbers.max() >= 10**MOST_DIGITS:
        return Identities(_name(log, event, origin) for event in first.tolist()), None
    uuid = uuid_text(log.event(0)[_BODY + 1 : _BODY + 17])
    identities = Identities()
    identities.add(f"{uuid}:", numbers.tolist())
    return identities, (uuid, int(numbers[0])) if (np.diff(numbers) == 1).all() else None


def _name(log: Log, event: int, origin: Origin) -> str:
    identity = gtid(events.parse(memoryview(log.event(event)), events.CHECKSUM_SIZE)).identity
    return _place(log, event, origin) if origin.grouper.by_place or not identity else identity


def _place(log: Log, event: int, origin: Origin) -> str:
    pos = (origin.pos & ~0xFFFFFFFF) + int(log.places[event - 1]) if event else origin.pos
    return f"{origin.file}:{pos}"


def _usual(log: Log, count: int) -> Flags:
    """Which of the first events nothing more needs to be known of than what row counts tell."""
    kinds = log.kinds[:count]
    usual: Flags = _USUAL[kinds]
    queries = np.flatnonzero(kinds == events.QUERY)
    at, stop = log.starts[queries] + _BODY, log.starts[queries] + log.sizes[queries] - events.CHECKSUM_SIZE
    text = at + 14 + log.memory.byte(at + 8) + log.memory.short(at + 11)
    usual[queries] = (text + 5 == stop) & (log.memory.number(np.minimum(text, stop), 5) == _BEGIN)
    return usual


def _summarised(log: Log, first: int, last: int, origin: Origin) -> Transaction | None:
    """One transaction, event by event; None where it is damaged."""
    grouper, done = copy.copy(origin.grouper), None
    try:
        for event in range(first, last):
            raw = events.parse(memoryview(log.event(event)), events.CHECKSUM_SIZE)
            done = grouper.feed(raw, 0, _place(log, first, origin))
    except Corrupt:
        return None
    return done
