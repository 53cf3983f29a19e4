"""From what a person means (a time, a GTID, the latest) to one exact transaction.

The target of a time is the last transaction before the first whose effective commit time is after it: exactly T is
included.  Indexes are read only where their slice's times leave the answer open.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Protocol

from backups.engine.errors import Corrupt, NotCovered, Refused
from backups.engine.plan import in_order, run_from, utc
from backups.engine.times import AROUND, effective
from backups.engine.types import BackupPoint, Moment, Position, SliceIndex, SlicePoint, Transaction

Load = Callable[[SlicePoint], SliceIndex]
KEPT = 8  # indexes held at once


class Engine(Protocol):
    """What moments ask of an engine's module."""

    def at_or_before(self, a: Position, b: Position, /) -> bool: ...

    def contains(self, position: Position, transaction: Transaction, /) -> bool: ...

    def position_after(self, index: SliceIndex, transaction: Transaction, /) -> Position: ...


def at_time(
    slices: Iterable[SlicePoint],
    load: Load,
    time_us: int,
    floor: BackupPoint,
    engine: Engine,
    caught_up_us: int | None = None,
) -> Moment:
    """The moment just after everything committed at or before `time_us` (microseconds, UTC).

    slices: of the floor's timeline.  floor: the oldest backup that may serve, so that every later one gives the
    same moment.  caught_up_us: until then the server was seen to have nothing newer than the last slice.
    Raises NotCovered for a time before the floor or after what is known.
    """
    log = _Log(slices, load, floor, engine)
    if time_us < floor.view_us:
        raise log.not_covered(f"{utc(time_us)} lies before the oldest backup.")
    known = max(floor.view_us, caught_up_us or 0)
    for place in log.places_that_may_reach(time_us):
        for number, time in enumerate(log.times(place)):
            if place == 0 and number < log.in_backup:
                continue
            if time > time_us:
                return log.moment_before(place, number)
            known = max(known, time)
    if time_us > known:
        raise log.not_covered(f"{utc(time_us)} lies after what is known of this server's log.")
    return log.moment_before(len(log.run), 0)


def latest(slices: Iterable[SlicePoint], load: Load, floor: BackupPoint, engine: Engine) -> Moment:
    """The end of the gapless run that the floor lies on."""
    log = _Log(slices, load, floor, engine)
    return log.moment_before(len(log.run), 0)


def at_gtid(
    slices: Iterable[SlicePoint], load: Load, identity: str, floor: BackupPoint, engine: Engine
) -> Moment:
    """The moment just after one transaction, named by its identity; raise NotCovered, Refused for no identity."""
    log = _Log(slices, load, floor, engine)
    place, number = log.find(identity)
    return log.moment_before(place, number + 1)


def before_gtid(
    slices: Iterable[SlicePoint], load: Load, identity: str, floor: BackupPoint, engine: Engine
) -> Moment:
    """The moment just before one transaction; raise as `at_gtid` does."""
    log = _Log(slices, load, floor, engine)
    return log.moment_before(*log.find(identity))


def transactions(
    slices: Iterable[SlicePoint], load: Load, since_us: int, until_us: int, table: str = "", kind: str = ""
) -> Iterator[Transaction]:
    """What happened from `since_us` to `until_us`, both included, in log order, with effective commit times.

    slices: of one timeline, no two overlapping.  table: "table" or "schema.table"; a statement counts where its
    text names it.  kind: "insert", "update", "delete", "ddl" or "xa"; "" for all.
    """
    reader = _Reader(in_order(slices), load)
    for place in reader.within(since_us, until_us):
        for transaction in reader.timed(place):
            if since_us <= transaction.time_us <= until_us and matches(transaction, table, kind):
                yield transaction


def newest_first(
    slices: Iterable[SlicePoint], load: Load, since_us: int, until_us: int, table: str = "", kind: str = ""
) -> Iterator[tuple[SlicePoint, list[Transaction]]]:
    """The same from the end, slice by slice: each slice looked at, with what of it matches, newest first too."""
    reader = _Reader(in_order(slices), load)
    for place in reversed(list(reader.within(since_us, until_us))):
        found = [
            transaction
            for transaction in reader.timed(place)
            if since_us <= transaction.time_us <= until_us and matches(transaction, table, kind)
        ]
        yield reader.run[place], found[::-1]


def matches(transaction: Transaction, table: str, kind: str) -> bool:
    return _of_kind(transaction, kind) and _touches(transaction, table)


def _of_kind(transaction: Transaction, kind: str) -> bool:
    if kind in ("ddl", "xa"):
        return bool(getattr(transaction, kind))
    return not kind or any(getattr(change, f"{kind}s") for change in transaction.changes)


def _touches(transaction: Transaction, table: str) -> bool:
    schema, _, name = table.rpartition(".")
    if any(change.table == name and schema in ("", change.schema) for change in transaction.changes):
        return True
    return not table or re.search(rf"(?<!\w){re.escape(name)}(?!\w)", transaction.ddl, re.IGNORECASE) is not None


def _at(transaction: Transaction, time_us: int) -> Transaction:
    return transaction if transaction.time_us == time_us else replace(transaction, time_us=time_us)


class _Reader:
    """The indexes of slices in order, read when asked for, the last few kept."""

    def __init__(self, run: Sequence[SlicePoint], load: Load) -> None:
        self.run = run
        self._load = load
        self._kept: dict[int, SliceIndex] = {}

    def index(self, place: int) -> SliceIndex:
        found = self._kept.pop(place, None) or self._load(self.run[place])
        self._kept[place] = found
        if len(self._kept) > KEPT:
            del self._kept[next(iter(self._kept))]
        return found

    def times(self, place: int) -> list[int]:
        """Effective commit times of one slice's transactions."""
        recorded = self._recorded(place)
        if self.run[place].exact_times:
            return recorded
        reach = self._reach(place)
        before = [time for near in range(reach.start, place) for time in self._recorded(near)]
        after = [time for near in range(place + 1, reach.stop) for time in self._recorded(near)]
        return effective(before, recorded, after)

    def timed(self, place: int) -> list[Transaction]:
        """One slice's transactions with their effective times."""
        return [
            _at(transaction, time)
            for transaction, time in zip(self.index(place).transactions, self.times(place), strict=True)
        ]

    def within(self, since_us: int, until_us: int) -> Iterator[int]:
        return self.near(lambda point: point.last_us >= since_us and point.first_us <= until_us)

    def near(self, wanted: Callable[[SlicePoint], bool]) -> Iterator[int]:
        """Places of the slices whose effective times may come from recorded ones in a wanted slice, in order."""
        done = 0
        for place, point in enumerate(self.run):
            if point.count and wanted(point):
                reach = range(place, place + 1) if point.exact_times else self._reach(place)
                yield from range(max(done, reach.start), reach.stop)
                done = reach.stop

    def _recorded(self, place: int) -> list[int]:
        return [transaction.time_us for transaction in self.index(place).transactions] if self.run[place].count else []

    def _reach(self, place: int) -> range:
        """The slices whose transactions can be among the ten before or after one of this slice's."""
        start, stop, between = place, place + 1, 0
        while start and between < AROUND:
            start -= 1
            between += self.run[start].count
        between = 0
        while stop < len(self.run) and between < AROUND:
            between += self.run[stop].count
            stop += 1
        return range(start, stop)


class _Log(_Reader):
    """The gapless run from a backup on."""

    def __init__(self, slices: Iterable[SlicePoint], load: Load, floor: BackupPoint, engine: Engine) -> None:
        of_timeline = [point for point in slices if point.timeline == floor.timeline]
        super().__init__(run_from(of_timeline, floor.position, engine.at_or_before), load)
        self._floor = floor
        self._engine = engine

    @cached_property
    def in_backup(self) -> int:
        """How many transactions of the run's first slice the backup has; later slices begin after it."""
        has = self._engine.contains
        transactions = self.index(0).transactions if self.run else ()
        return bisect_left(transactions, True, key=lambda one: not has(self._floor.position, one))

    def places_that_may_reach(self, time_us: int) -> Iterator[int]:
        return self.near(lambda point: point.last_us >= time_us)

    def find(self, identity: str) -> tuple[int, int]:
        """Where a transaction lies: (slice, transaction)."""
        wanted = Transaction(time_us=0, identity=identity.strip().lower(), offset=0, length=1)
        has = self._engine.contains
        try:
            if has(self._floor.position, wanted):
                raise self.not_covered(f"Transaction {identity} is in the oldest backup already.")
            place = bisect_left(self.run, True, key=lambda point: has(point.end, wanted))
        except (Corrupt, ValueError) as error:
            raise Refused(
                f"{identity!r} does not name a transaction.",
                next_step="Give a GTID as the server prints it, or file:position where the server has none.",
            ) from error
        for number, one in enumerate(self.index(place).transactions if place < len(self.run) else ()):
            if one.identity.lower() == wanted.identity:
                return place, number
        raise self.not_covered(f"Transaction {identity} is not in the storage.")

    def moment_before(self, place: int, number: int) -> Moment:
        """The moment between the transaction at this place and the one before it."""
        while place < len(self.run) and number >= self.run[place].count:
            place, number = place + 1, 0
        following = self._transaction(place, number) if place < len(self.run) else None
        while place and not number:
            place -= 1
            number = self.run[place].count
        if place == 0 and number <= self.in_backup:
            return Moment(self._floor.position, None, following)
        last = self._transaction(place, number - 1)
        return Moment(self._engine.position_after(self.index(place), last), last, following)

    def _transaction(self, place: int, number: int) -> Transaction:
        return _at(self.index(place).transactions[number], self.times(place)[number])

    def not_covered(self, what: str) -> NotCovered:
        places = [place for place, point in enumerate(self.run) if point.count]
        until = max(self._floor.view_us, max(self.times(places[-1])) if places else 0)
        return NotCovered(
            what,
            meaning=f"Restorable (UTC): {utc(self._floor.view_us)} to {utc(until)}.",
            next_step="Choose a moment in this range.",
        )
