"""Transactions that lie side by side, told and proven together with numpy.

`plain.plain`, one by one, is the reference: plain is here what is plain there, and of the most usual form.  Whatever
is the least bit unusual, or damaged, is left to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from isal.isal_zlib import crc32

from backups.engine.mysql import events as ev
from backups.engine.mysql.bulk import BEGINS, ROWS
from backups.engine.mysql.checksums import RESIDUE
from backups.engine.mysql.framing import leading
from backups.engine.mysql.gtid_events import uuid_text
from backups.engine.mysql.memory import Memory, Numbers, these
from backups.engine.mysql.rowbuffer import FLAGS, SYSTEM
from backups.engine.mysql.rows import STATEMENT_END

FEWEST = 64  # transactions: fewer are done sooner one by one
FEW = 8  # the same, of those that go on when the others have ended
SLACK = 64  # bytes behind the transactions that may be looked at, and do not matter
_SCHEMA = 8  # in a table map's body: length, then name
_BEGIN = int.from_bytes(b"\0BEGIN", "little")
_GTID_BYTES = ev.HEADER_SIZE + 26  # of an event that has all that is looked at
_LOGICAL_CLOCK = 2
_CHANGES = ROWS | these(ev.TABLE_MAP)


class RowEvents(NamedTuple):
    """In the log's order.  starts, ends: without checksums.  maps: bodies of their table maps."""

    kinds: Numbers
    starts: Numbers
    ends: Numbers
    maps: list[bytes]


class Stretch:
    """raw: whole transactions, each ending where `ends` says, under the identities in `places`.

    plain: which of them are GTID, BEGIN, row events and COMMIT, sound, and what `places` says.
    """

    def __init__(self, raw: bytes, places: Sequence[str], ends: Sequence[int], trailer: int) -> None:
        self.raw, self.trailer = raw, trailer
        self.memory = Memory(memoryview(raw + bytes(SLACK)))
        self.starts, self.ends = np.array([0, *ends[:-1]], np.int64), np.array(ends, np.int64)
        self.plain = np.ones(len(places), np.bool_)
        self._at, self._of = self._frames()
        self._keep()
        self._prove_checksums()
        self._keep()
        if len(self._at):
            self._tell_forms()
            self._tell_tables()
            self._tell_identities(places)

    def reach(self, first: int) -> int:
        """Up to where transactions are plain from `first` on."""
        return first + leading(self.plain[first:])

    def rows(self, first: int, last: int) -> list[bytes]:
        """Table maps and row events of each transaction from `first` to before `last`, which are all plain."""
        starts, ends = self._at[self._first[first:last] + 2], self._at[self._last[first:last]]
        return [self.raw[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]

    def table_maps(self, first: int, last: int) -> dict[bytes, int]:
        """By their bodies, without checksums: where the last such event begins."""
        begin, end = np.searchsorted(self._maps, (self._first[first], self._last[last - 1]))
        return dict(zip(self._bodies[begin:end], self._at[self._maps[begin:end]].tolist(), strict=True))

    def row_events(self, first: int, last: int) -> RowEvents:
        """Of the transactions from `first` to before `last`, which are all plain."""
        begin, end = np.searchsorted(self._rows, (self._first[first], self._last[last - 1]))
        events = self._rows[begin:end]
        starts = self._at[events]
        return RowEvents(
            self._kind[events].astype(np.int64),
            starts,
            starts + self._size[events] - self.trailer,
            [self._bodies[number] for number in self._map[begin:end].tolist()],
        )

    def _frames(self) -> tuple[Numbers, Numbers]:
        """Where events begin, and in which transactions: by steps that all of these make at once, but the last few."""
        at, live = self.starts.copy(), np.arange(len(self.starts))
        begins, of = [live[:0]], [live[:0]]
        while len(live) >= FEW:
            here = at[live]
            size = self.memory.long(here + 9)
            fits = (size >= ev.HEADER_SIZE + self.trailer) & (here + size <= self.ends[live])
            self.plain[live[~fits]] = False
            live, here = live[fits], here[fits]
            begins.append(here)
            of.append(live)
            at[live] = here + size[fits]
            live = live[at[live] < self.ends[live]]
        self.plain[live] = False
        found = np.concatenate(begins)
        order = np.argsort(found)
        return found[order], np.concatenate(of)[order]

    def _prove_checksums(self) -> None:
        if self.trailer:
            raw, ends = self.raw, (self._at + self._size).tolist()
            sums = [crc32(raw[start:end]) for start, end in zip(self._at.tolist(), ends, strict=True)]
            self.plain[self._of[np.array(sums, np.int64) != RESIDUE]] = False

    def _keep(self) -> None:
        """The events of transactions that are plain as far as is known."""
        kept = self.plain[self._of]
        self._at, self._of = self._at[kept], self._of[kept]
        self._size = self.memory.long(self._at + 9)
        self._kind = self.memory.bytes[self._at + 4]

    def _tell_forms(self) -> None:
        """GTID, BEGIN, table maps and row events, the last of which ends a statement, XID."""
        count, most = len(self.plain), len(self._at) - 1
        first = np.searchsorted(self._of, np.arange(count))
        sizes = np.bincount(self._of, minlength=count)
        changes = np.bincount(self._of[_CHANGES[self._kind]], minlength=count)
        self._first, self._last = first, np.clip(first + sizes - 1, 0, most)
        first, second, before = np.minimum(first, most), np.minimum(first + 1, most), np.maximum(self._last - 1, 0)
        stop = self._at[second] + self._size[second] - self.trailer
        self.plain &= (
            BEGINS[self._kind[first]]
            & (self._size[first] >= _GTID_BYTES + self.trailer)
            & (self.memory.byte(self._at[first] + ev.HEADER_SIZE + 25) == _LOGICAL_CLOCK)
            & (self._kind[second] == ev.QUERY)
            & (self.memory.number(stop - 6, 6) == _BEGIN)
            & (self._kind[self._last] == ev.XID)
            & (changes == sizes - 3)
            & ROWS[self._kind[before]]
            & (self.memory.byte(self._at[before] + FLAGS) & STATEMENT_END != 0)
        )

    def _tell_tables(self) -> None:
        """Each row event follows the map of its table in its transaction, and none is about a system schema."""
        self._rows, self._maps = np.flatnonzero(ROWS[self._kind]), np.flatnonzero(self._kind == ev.TABLE_MAP)
        bounds = self._at[self._maps], self._at[self._maps] + self._size[self._maps] - self.trailer
        starts, ends = (column.tolist() for column in bounds)
        self._bodies = [self.raw[start + ev.HEADER_SIZE : end] for start, end in zip(starts, ends, strict=True)]
        system = {body for body in set(self._bodies) if _schema(body) in SYSTEM}
        self._map = np.searchsorted(self._maps, self._rows) - 1  # -1: there is none
        maps = np.append(self._maps, 0)[self._map]
        ids = self.memory.number(self._at + ev.HEADER_SIZE, 6)
        own = (self._map >= 0) & (self._of[maps] == self._of[self._rows]) & (ids[maps] == ids[self._rows])
        self.plain[self._of[self._rows[~own]]] = False
        if system:
            self.plain[self._of[self._maps[[body in system for body in self._bodies]]]] = False

    def _tell_identities(self, places: Sequence[str]) -> None:
        for number in np.flatnonzero(self.plain).tolist():
            at = int(self.starts[number])
            if self.raw[at + 4] == ev.GTID:
                at += ev.HEADER_SIZE + 1
                last = int.from_bytes(self.raw[at + 16 : at + 24], "little", signed=True)
                self.plain[number] = places[number] == f"{uuid_text(self.raw[at : at + 16])}:{last}"


def _schema(body: bytes) -> bytes:
    """Of a table map."""
    size = int.from_bytes(body[_SCHEMA : _SCHEMA + 1], "little")
    return body[_SCHEMA + 1 : _SCHEMA + 1 + size]
