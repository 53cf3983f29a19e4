"""Replay: slices onto a loaded snapshot, up to one exact transaction.

Three stages that know little of each other: slices are read into transactions (here), transactions are turned into
steps (steps.py), steps are done on the target (applier.py).
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import accumulate

from backups.engine.errors import Corrupt, EngineError
from backups.engine.mysql import events as ev
from backups.engine.mysql import stretch
from backups.engine.mysql.applier import Applier
from backups.engine.mysql.events import Event
from backups.engine.mysql.gtid import DomainSet, GtidSet, at_or_before, contains, executed, successive
from backups.engine.mysql.server import ServerConfig
from backups.engine.mysql.step import Step
from backups.engine.mysql.steps import Steps
from backups.engine.types import Position, Run, SliceIndex, Transaction

WHOLE = 1 << 20  # bytes of a transaction that is read as one
TOGETHER = 2 << 20  # bytes of transactions that are

Slices = Iterable[tuple[SliceIndex, Iterable[bytes]]]


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """What was applied.

    last: identity of the last transaction, "" where there was none.  skipped: account statements and changes to
    system schemas that were left out.  prepared: XA branches that were prepared and not committed at the moment;
    they are not applied.  conflicts: compacted batches that the target refused and got verbatim instead.
    """

    transactions: int
    row_events: int
    statements: int
    skipped: int
    prepared: tuple[str, ...]
    last: str
    conflicts: int = 0


def replay(
    config: ServerConfig,
    slices: Slices,
    *,
    start: Position,
    stop: Position,
    run: Run,
    source: Mapping[str, str],
    total: int = 0,
    compact: bool = True,
) -> ReplayResult:
    """Apply every transaction after `start` up to and including the last one before `stop`, and no other.

    slices: in replay order, each index with its decompressed bytes.  start: what the target holds.
    source: the source's settings, as a manifest keeps them.  total: transactions to come, for the progress.
    compact: let many changes of a row become one where that gives the same result.

    Raises Corrupt where slices do not join or do not hold what their index says, Gap for an incident in the log,
    Refused where the target cannot do it, Transient, and Stopped; the target is then somewhere in between.
    """
    window = Window(start, stop)
    with (
        Applier(config, run, source=source, total=total) as applier,
        closing(Steps(applier.largest, applier.look if compact else None)) as steps,
    ):
        for step in decode(slices, window, steps):
            applier.take(step)
        applier.finish()
    window.prove()
    if applier.done != window.count or applier.last != window.last:
        raise EngineError(
            f"{applier.done} transactions were applied, up to {applier.last}, "
            f"where {window.count} were to be, up to {window.last}."
        )
    seen = steps.seen
    return ReplayResult(
        applier.done, seen.row_events, seen.statements, seen.skipped, tuple(sorted(seen.prepared)), applier.last,
        applier.conflicts,
    )  # fmt: skip


class Window:
    """Which transactions lie after `start` and before `stop`, and whether all of them came by."""

    def __init__(self, start: Position, stop: Position) -> None:
        self.start, self.stop = start, stop
        self.end = start  # of the slices so far
        self.count, self.last = 0, ""
        self.by_gtid = start.get("gtids") is not None and stop.get("gtids") is not None
        if self.by_gtid:
            self.have = executed(start["gtids"], stop["gtids"]).copy()
            self.want = executed(stop["gtids"], start["gtids"])

    def joins(self, index: SliceIndex) -> None:
        """Raise Corrupt where a slice does not go on where the one before it ended (or, the first, after `start`).

        Gap where MariaDB's numbers go back in it: they would not tell what the target holds.
        """
        first = self.end is self.start
        if not (at_or_before(index.start, self.end) if first else dict(index.start) == dict(self.end)):
            raise Corrupt(
                f"Slice {index.key} does not begin where the one before it ends.",
                meaning="Transactions between them would be missing.",
            )
        self.end = index.end
        if self.by_gtid and isinstance(self.want, DomainSet):
            log = DomainSet.parse(index.start["gtids"])
            for item in index.transactions:
                log.add(item.identity)

    def before(self, item: Transaction) -> bool:
        """Whether the target holds it already."""
        return self.have.has(item.identity) if self.by_gtid else contains(self.start, item)

    def beyond(self, item: Transaction) -> bool:
        return not (self.want.has(item.identity) if self.by_gtid else contains(self.stop, item))

    def passed(self, item: Transaction) -> None:
        self.count, self.last = self.count + 1, item.identity
        if self.by_gtid:
            self.have.add(item.identity)

    def lacks_all(self, items: Sequence[Transaction]) -> bool:
        """Whether the target lacks all of these, is to hold them, and none has a bearing on another's being there."""
        if self.by_gtid:
            if not isinstance(self.have, GtidSet) or not isinstance(self.want, GtidSet):
                return False
            if (run := self._run(items)) is not None:
                return self.want.contains(run) and run.subtract(self.have) == run
            if len({item.identity for item in items}) < len(items):
                return False
        return not any(self.before(item) or self.beyond(item) for item in items)

    def passed_all(self, items: Sequence[Transaction]) -> None:
        run = self._run(items)
        if run is not None and isinstance(self.have, GtidSet):
            self.count, self.last = self.count + len(items), items[-1].identity
            self.have = self.have.union(run)
        else:
            for item in items:
                self.passed(item)

    def _run(self, items: Sequence[Transaction]) -> GtidSet | None:
        """The GTIDs of these as a set, where they follow one another, as most do."""
        return successive([item.identity for item in items]) if self.by_gtid else None

    def prove(self) -> None:
        """Raise Corrupt where not everything up to `stop` came by."""
        covered = at_or_before(self.stop, self.end)
        if covered and self.by_gtid:
            covered = _within(self.want, self.have)
        if not covered:
            raise Corrupt(
                f"The slices end before the moment: the last transaction in them is {self.last or 'none'}.",
                meaning="The target holds an earlier state than was asked for.",
                next_step="Verify the database's storage; restore to an earlier moment.",
            )


def _within(want: GtidSet | DomainSet, have: GtidSet | DomainSet) -> bool:
    if isinstance(want, DomainSet):
        return isinstance(have, DomainSet) and have.contains(want)
    return isinstance(have, GtidSet) and have.contains(want)


def decode(slices: Slices, window: Window, steps: Steps) -> Iterator[Step]:
    """Everything that is to be done, in order."""
    for index, chunks in slices:
        window.joins(index)
        if not (yield from _slice(index, chunks, window, steps)):
            break
    yield from steps.finish()


def _slice(index: SliceIndex, chunks: Iterable[bytes], window: Window, steps: Steps) -> Generator[Step, None, bool]:
    """One slice; returns False once the moment was reached inside it."""
    reader = Reader(index.key, chunks)
    for group in _side_by_side(index.transactions):
        for event in reader.until(group[0].offset):
            if event.type == ev.FORMAT_DESCRIPTION:
                yield from steps.format(event)
        if len(group) >= stretch.FEWEST and window.lacks_all(group):
            places, ends = [item.identity for item in group], list(accumulate(item.length for item in group))
            yield from steps.side_by_side(places, reader.take(ends[-1]), ends)
            window.passed_all(group)
            continue
        for item in group:
            before = window.before(item)
            if not before and window.beyond(item):
                return False
            if before:
                reader.skip(item.length)
                continue
            if item.length <= WHOLE:
                yield from steps.whole(item.identity, reader.take(item.length))
            else:
                yield from steps.transaction(item.identity, reader.until(item.offset + item.length))
            window.passed(item)
    return True


def _side_by_side(transactions: Iterable[Transaction]) -> Iterator[list[Transaction]]:
    """Transactions in groups that may be read at once; one with more bytes than that is alone."""
    group: list[Transaction] = []
    size = end = 0
    for item in transactions:
        if group and (item.offset != end or size + item.length > TOGETHER):
            yield group
            group, size = [], 0
        group.append(item)
        size, end = size + item.length, item.offset + item.length
    if group:
        yield group


class Reader:
    """A slice's bytes from front to back: events, each proven by its checksum, or transactions as they are.

    Raises Corrupt where they are not what the index says.
    """

    def __init__(self, key: str, chunks: Iterable[bytes]) -> None:
        self.key = key
        self.trailer: int | None = None  # None: no format description was seen yet
        self._chunks = iter(chunks)
        self._buffer, self._at = b"", 0
        self.offset = 0
        if self.take(len(ev.MAGIC)) != ev.MAGIC:
            raise Corrupt(f"Slice {key} is no binlog file: it does not begin with its magic number.")

    def until(self, end: int) -> Iterator[Event]:
        """Events up to this offset, which must lie between two of them."""
        while self.offset < end:
            size = int.from_bytes(self._peek(ev.HEADER_SIZE)[9:13], "little")
            if size < ev.HEADER_SIZE or self.offset + size > end:
                raise self._other(end)
            event = ev.parse(memoryview(self.take(size)), self.trailer or 0)
            ev.verify(event)
            if event.type == ev.FORMAT_DESCRIPTION:
                self.trailer = ev.format_description(event).trailer
            elif self.trailer is None:
                raise Corrupt(f"Slice {self.key} does not begin with a format description.")
            yield event
        if self.offset != end:
            raise self._other(end)

    def skip(self, size: int) -> None:
        while size:
            size -= len(self.take(min(size, WHOLE)))

    def take(self, size: int) -> bytes:
        found = self._peek(size)
        self._at += size
        self.offset += size
        return found

    def _peek(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._buffer):
            parts = [self._buffer[self._at :]]
            have = len(parts[0])
            while have < size:
                chunk = next(self._chunks, None)
                if chunk is None:
                    raise self._other(self.offset + size)
                parts.append(chunk)
                have += len(chunk)
            self._buffer, self._at, end = b"".join(parts), 0, size
        return self._buffer[self._at : end]

    def _other(self, end: int) -> Corrupt:
        return Corrupt(f"Slice {self.key} does not hold what its index says, at byte {self.offset} of {end}.")
