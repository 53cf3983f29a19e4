"""From logged transactions to what a target is to do: the pure middle between decoding and applying.

Transactions of nothing but row events are gathered: many become one, compacted where that is wanted (batch.py).
Everything else is done in its place: each
statement with its context, savepoints and groups that end in ROLLBACK included.  A branch that XA PREPARE left
behind is held back until its XA COMMIT comes, and done there: until then its locks keep everybody else from its
rows and tables.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import IO

from backups.engine.errors import Corrupt, Gap, Refused
from backups.engine.mysql import events as ev
from backups.engine.mysql.batch import Batch, Look, Name
from backups.engine.mysql.bulk import BEGINS
from backups.engine.mysql.cascades import without_cascades
from backups.engine.mysql.events import Event, FormatDescription, with_checksum
from backups.engine.mysql.gtid_events import PREPARED_XA, STANDALONE, gtid, maria_gtid
from backups.engine.mysql.held import Held, temporary, without_savepoints
from backups.engine.mysql.plain import plain, proven
from backups.engine.mysql.rowbuffer import SYSTEM, RowBuffer, ends_statement, schema_of, table_id
from backups.engine.mysql.skipped import is_skipped
from backups.engine.mysql.statements import LoadQuery, Query, load_query, query, xa_prepare
from backups.engine.mysql.step import Control, Done, Format, Gathered, Rows, Statement, Step
from backups.engine.mysql.stretch import Stretch
from backups.engine.mysql.wrapped import payload_events, uncompressed

GATHER_BYTES = 4 << 20  # of row events in one target transaction, unless one source transaction has more
GATHER_COUNT = 500  # source transactions in one target transaction

_BRANCH = re.compile(rb"XA (START|BEGIN|END|COMMIT|ROLLBACK) (.*?)( ONE PHASE)?$", re.DOTALL)
_ALTER_STARTED, _ALTER_ROLLED_BACK = 2, 8  # MariaDB's gtid_flags of an ALTER logged in two phases
_SETTINGS = frozenset({ev.INTVAR, ev.RAND, ev.USER_VAR})
# Told about, but nothing to do: GTIDs are not written, and a ROWS_QUERY is only a comment.
_NOTHING = ev.GTIDS | {ev.ROWS_QUERY, ev.MARIA_ANNOTATE_ROWS, ev.IGNORABLE}
_IGNORABLE, _SUPPRESS_USE = 0x80, 0x8  # flags of an event
_DUPLICATES = (b"", b"IGNORE", b"REPLACE")


@dataclass(slots=True)
class Seen:
    """What was met on the way.  skipped: account statements and changes to system schemas that were left out."""

    row_events: int = 0
    statements: int = 0
    skipped: int = 0
    prepared: dict[str, Held] = field(default_factory=dict)


def _must_be(place: str, identity: str) -> None:
    """A GTID event that has one must have the identity that the transaction is listed with."""
    if identity not in ("", place):
        raise Corrupt(f"The slice holds another transaction where its index says {place}.")


class Steps:
    """Turns transactions, one after the other, into steps.

    largest: bytes of one event that BINLOG can take.  look: asks the target about a table as it is when all steps so
    far are done; None for no compaction.
    """

    def __init__(self, largest: int, look: Look | None = None) -> None:
        self.largest = largest
        self.look = look
        self.limit = min(GATHER_BYTES, largest)
        self.seen = Seen()
        self._format: FormatDescription | None = None
        self._sent_format = b""
        self._unfit: set[Name] = set()
        self._batch = self._new_batch(look)  # of transactions that are complete
        self._compacting = look is not None  # as far as is known: then many are taken at once
        self._pending = 0  # complete ones that no Done has told of
        self._last = ""
        self._begin_transaction("")

    def _new_batch(self, look: Look | None) -> Batch:
        return Batch(look, self._unfit, self._format.trailer if self._format else 0)

    def _begin_transaction(self, place: str) -> None:
        self.place = place
        self._own = RowBuffer()
        self._group = False  # between BEGIN and COMMIT
        self._open = False  # the target is between this transaction's BEGIN and COMMIT
        self._branch: Held | None = None
        self._skipped_tables: set[bytes] = set()
        self._before: list[Event] = []
        self._files: dict[int, IO[bytes]] = {}

    def format(self, event: Event) -> Iterator[Step]:
        """A slice, or a log file in a slice, begins."""
        raw = bytes(event.raw)
        if raw != self._sent_format:
            yield from self._flush()
            self._sent_format = raw
            yield Format(raw)
        self._format = ev.format_description(event)
        if not self._batch:
            self._batch = self._new_batch(self.look)

    def transaction(self, place: str, events: Iterable[Event]) -> Iterator[Step]:
        """One transaction, its GTID event first.  place: its identity."""
        self._begin_transaction(place)
        for event in without_savepoints(self._plain(events)):
            if event.type in ev.GTIDS:
                _must_be(place, gtid(event).identity)
            yield from self._event(event)
        if self._branch is not None or self._open or self._own:
            raise Corrupt(f"Transaction {place} has no end.")
        yield from self._complete()

    def whole(self, place: str, raw: bytes) -> Iterator[Step]:
        """One transaction that is in memory."""
        assert self._format is not None
        found = plain(raw, self._format.trailer) if len(raw) <= self.limit else None
        if found is None:
            yield from self.transaction(place, proven(raw, self._format.trailer))
            return
        _must_be(place, found.identity)
        self.place = place
        self.seen.row_events += found.events
        yield from self._gather(found.rows)
        yield from self._complete()

    def side_by_side(self, places: Sequence[str], raw: bytes, ends: Sequence[int]) -> Iterator[Step]:
        """Transactions that are in memory together.  ends: where each ends in `raw`."""
        assert self._format is not None
        together = self._compacting and len(raw) <= self.limit and BEGINS[raw[4]]
        stretch = Stretch(raw, places, ends, self._format.trailer) if together else None
        first, starts = 0, [0, *ends]
        while first < len(places):
            last = stretch.reach(first) if stretch and self._batch.compacted else first
            if stretch and last > first:
                yield from self._take_all(stretch, first, last, places[last - 1])
            else:
                last = first + 1
                yield from self.whole(places[first], raw[starts[first] : ends[first]])
            first = last
        self._compacting = self._batch.compacted

    def _take_all(self, stretch: Stretch, first: int, last: int, place: str) -> Iterator[Step]:
        self.place = self._last = place
        self._pending += last - first
        self.seen.row_events += self._batch.add_all(stretch, first, last)
        if self._full():
            yield from self._flush()

    def finish(self) -> Iterator[Step]:
        """What is still gathered."""
        yield from self._flush()

    def close(self) -> None:
        """Give up what is held: branches that were not committed, and what an error left behind."""
        self._batch.close()
        for branch in (*self.seen.prepared.values(), *([self._branch] if self._branch else [])):
            branch.close()
        for file in self._files.values():
            file.close()

    def _plain(self, events: Iterable[Event]) -> Iterator[Event]:
        """Without wrapping, each with a checksum or none as the format description says."""
        assert self._format is not None
        trailer = self._format.trailer
        for event in events:
            if event.type == ev.TRANSACTION_PAYLOAD:
                yield from payload_events(event, trailer)
            else:
                yield uncompressed(event)

    # One event

    def _event(self, event: Event) -> Iterator[Step]:
        kind = event.type
        if kind in ev.ROWS and self._branch is None:
            yield from self._rows(event)
        elif kind == ev.QUERY:
            yield from self._query(event)
        elif kind == ev.XA_PREPARE:
            yield from self._prepared(event)
        elif kind in ev.GTIDS:
            self._begin(event)
        elif self._branch is not None:
            self._branch.add(event)
        elif kind == ev.TABLE_MAP:
            self._table_map(event)
        elif kind == ev.XID:
            yield from self._close(b"COMMIT")
        elif kind in _SETTINGS:
            self._before.append(event)
        else:
            yield from self._rare(event)

    def _rare(self, event: Event) -> Iterator[Step]:
        if event.type in (ev.BEGIN_LOAD_QUERY, ev.APPEND_BLOCK):
            number = int.from_bytes(event.body[:4], "little")
            if number not in self._files:
                self._files[number] = temporary()
            self._files[number].write(event.body[4:])
        elif event.type == ev.EXECUTE_LOAD_QUERY:
            yield from self._load(event, load_query(event))
        elif event.type == ev.INCIDENT:
            number, text = ev.incident(event)
            raise Gap(
                f"Transaction {self.place} is an incident that the source logged: {text or number}.",
                meaning="The log does not hold what the source did there.",
                next_step="Restore to a moment before it, or from a backup after it.",
            )
        elif event.type not in _NOTHING and not event.flags & _IGNORABLE:
            raise Refused(
                f"Transaction {self.place} holds an event of type {event.type}, which this version cannot replay.",
                next_step="Use a newer version of Everest.",
            )

    def _begin(self, event: Event) -> None:
        """MariaDB's GTID event stands for BEGIN, or XA START, too."""
        if event.type == ev.MARIA_GTID:
            flags = maria_gtid(event).flags
            self._group = not flags & STANDALONE
            if flags & PREPARED_XA:
                self._branch = Held(self.place)

    # Rows

    def _table_map(self, event: Event) -> None:
        if schema_of(event) in SYSTEM:
            if not self._skipped_tables:
                self.seen.skipped += 1
            self._skipped_tables.add(table_id(event))
        else:
            self._skipped_tables.discard(table_id(event))
            self._own.add_map(event)

    def _rows(self, event: Event) -> Iterator[Step]:
        if table_id(event) in self._skipped_tables:
            if ends_statement(event):
                self._own.end_statement()
            return
        if self._own.maps_size + event.size > self.largest:
            self._too_large(event.size)
        if self._own.size + event.size > self.limit and self._own.size > self._own.maps_size:
            yield from self._in_place()
        self._own.add_rows(event)
        self.seen.row_events += 1

    def _too_large(self, size: int) -> None:
        wanted = -(-size * 4 // 3) + 4096
        raise Refused(
            f"Transaction {self.place} holds a row event of {size:,} bytes; the target takes at most {self.largest:,}.",
            meaning="The transactions before it can be restored.",
            next_step=f"Set max_allowed_packet on the target to {wanted:,} or more and restore again."
            if wanted <= 1 << 30
            else "No server takes a row event of this size from a client: restore to a moment before it.",
        )

    # Statements

    def _query(self, event: Event) -> Iterator[Step]:
        if self._branch is None and bytes(event.body[-6:]) == b"\0BEGIN":  # most there are: not worth parsing
            self._group = True
            return
        item = query(event)
        if branch := _BRANCH.fullmatch(item.sql):
            yield from self._xa(branch[1], branch[2])
        elif self._branch is not None:
            self._branch.add(event)
        elif item.sql in (b"COMMIT", b"ROLLBACK"):
            yield from self._close(item.sql)
        elif is_skipped(item):
            self.seen.skipped += 1
            self._before.clear()
        elif not item.status.get("gtid_flags", 0) & (_ALTER_STARTED | _ALTER_ROLLED_BACK):
            yield from self._statement(event, item)

    def _statement(self, event: Event, item: Query, file: IO[bytes] | None = None) -> Iterator[Step]:
        yield from self._in_place()
        use = bool(item.schema) and not event.flags & _SUPPRESS_USE
        yield Statement(item, event.timestamp, use, tuple(self._before), self.place, file)
        self._before.clear()
        self.seen.statements += 1

    def _load(self, event: Event, load: LoadQuery) -> Iterator[Step]:
        """LOAD DATA: the log has the file's bytes, which the target is given as a LOCAL file."""
        if load.file_id not in self._files:
            raise Corrupt(f"Transaction {self.place} loads a file that the log does not hold.")
        sql = load.query.sql
        name = b" LOCAL INFILE 'everest' " + _DUPLICATES[load.duplicates] + b" INTO"
        item = replace(load.query, sql=sql[: load.start] + name + sql[load.end :])
        yield from self._statement(event, item, self._files.pop(load.file_id))

    # Branches

    def _xa(self, verb: bytes, name: bytes) -> Iterator[Step]:
        key = name.replace(b" ", b"").decode()
        if verb in (b"START", b"BEGIN"):
            self._branch = Held(self.place)
        elif verb == b"ROLLBACK" and key in self.seen.prepared:
            self.seen.prepared.pop(key).close()
        elif verb == b"COMMIT":
            if key not in self.seen.prepared:
                raise Refused(
                    f"Transaction {self.place} commits the XA branch {key}, which was prepared before the backup.",
                    meaning="The backup does not hold what the branch did.",
                    next_step="Start from an older backup.",
                )
            yield from self._replay(self.seen.prepared.pop(key))

    def _prepared(self, event: Event) -> Iterator[Step]:
        if self._branch is None:
            raise Corrupt(f"Transaction {self.place} prepares an XA branch that it did not start.")
        branch, self._branch = self._branch, None
        item = xa_prepare(event)
        if item.one_phase:
            yield from self._replay(branch)
        else:
            name = f"X'{item.gtrid.hex()}',X'{item.bqual.hex()}',{item.format_id}"
            self.seen.prepared[name] = branch

    def _replay(self, branch: Held) -> Iterator[Step]:
        yield from self._flush()
        self._batch = self._new_batch(None)
        self._group = True
        assert self._format is not None
        for event in branch.events():
            if event.trailer != self._format.trailer:
                event = with_checksum(event.type, event, event.body, self._format.trailer)
            yield from self._event(event)
        branch.close()
        yield from self._close(b"COMMIT")
        yield from self._flush()

    # Where target transactions begin and end

    def _close(self, sql: bytes) -> Iterator[Step]:
        """COMMIT or ROLLBACK of the transaction under way."""
        self._own.end_statement()
        if self._open or (self._own and sql == b"ROLLBACK"):
            yield from self._in_place()
            yield Control(sql, self.place)
            self._open = False
        elif self._own:
            yield from self._gather(self._own.take())
        self._group = False

    def _gather(self, raw: bytes) -> Iterator[Step]:
        if not self._batch.compacted and self._batch.size + len(raw) > self.limit:
            yield from self._flush()
        self._batch.add(raw)

    def _in_place(self) -> Iterator[Step]:
        """Bring the target to this very point of the transaction."""
        yield from self._flush()
        if self._group and not self._open:
            yield Control(b"START TRANSACTION", self.place)
            self._open = True
        if rows := self._own.take():
            assert self._format is not None
            yield Rows(without_cascades(rows, self._format.trailer), self.place)

    def _flush(self) -> Iterator[Step]:
        """The gathered transactions as one."""
        batch, self._batch = self._batch, self._new_batch(self.look)
        if batch.compacted:
            yield Gathered(batch, self._sent_format, self._last)
        elif batch:
            yield Control(b"START TRANSACTION", self._last)
            for raw in batch.verbatim(None, self.limit):
                yield Rows(raw, self._last)
            yield Control(b"COMMIT", self._last)
            batch.close()
        if self._pending:
            yield Done(self._pending, self._last)
            self._pending = 0

    def _complete(self) -> Iterator[Step]:
        self._pending += 1
        self._last = self.place
        if not self._batch or self._full():
            yield from self._flush()

    def _full(self) -> bool:
        if self._batch.compacted:
            return self._batch.full
        return self._batch.size >= self.limit or self._pending >= GATHER_COUNT
