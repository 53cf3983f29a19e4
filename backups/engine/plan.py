"""Coverage, proven before anything is touched: pure functions over backups, slices and positions.

Positions are opaque: `at_or_before` orders them, equality of one slice's end and the next one's start proves a
chain.  Slices are put in order by sequence; a merged slice carries the sequence of the first one it holds, so
slices of all levels form one order in which starts never decrease.  Of two slices that overlap one holds the other:
taking the largest each time finds a way wherever there is one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice

from backups.engine.errors import NotCovered
from backups.engine.types import BackupPoint, Plan, Position, SlicePoint

NEAR = 21  # slices

AtOrBefore = Callable[[Position, Position], bool]


@dataclass(frozen=True, slots=True)
class Range:
    """Moments that can be restored to: from the read view of `first` to the place `last`.

    first_us, last_us: microseconds, UTC; last_us is the largest recorded commit time near the end.
    end, near: where its run of slices ends (None where none holds its backup's place), and the commit times that
    last_us is found from, newest first: what `grown` needs.
    """

    timeline: str
    first_us: int
    last_us: int
    first: BackupPoint
    last: Position
    end: Position | None = None
    near: tuple[int, ...] = ()


def plan(
    backups: Iterable[BackupPoint],
    slices: Iterable[SlicePoint],
    target: Position,
    at_or_before: AtOrBefore,
    backup: str = "",
) -> Plan:
    """The newest backup at or before the target, or the one chosen by id, and the slices from it to the target.

    Backups and slices are those of one timeline (ValueError otherwise).
    Raises NotCovered, naming what is missing and what is restorable.
    """
    backups, ordered = list(backups), in_order(slices)
    if len({point.timeline for point in backups} | {point.timeline for point in ordered}) > 1:
        raise ValueError("a plan lies on one timeline")
    chosen = _choose(backups, target, at_or_before, backup)
    if chosen is None:
        raise _no_backup(backups, ordered, at_or_before, backup)
    if at_or_before(target, chosen.position):
        return Plan(chosen, (), target)
    run = _run(_starting_before(ordered, target, at_or_before), chosen.position, at_or_before)
    end = run[-1].end if run else chosen.position
    if not run or not at_or_before(target, end):
        raise _hole(end, target, backups, ordered, at_or_before)
    return Plan(chosen, tuple(run), target)


def ranges(backups: Iterable[BackupPoint], slices: Iterable[SlicePoint], at_or_before: AtOrBefore) -> list[Range]:
    """What can be restored, over any number of timelines, oldest first."""
    by_timeline: dict[str, tuple[list[BackupPoint], list[SlicePoint]]] = {}
    for backup in backups:
        by_timeline.setdefault(backup.timeline, ([], []))[0].append(backup)
    for point in slices:
        if point.timeline in by_timeline:
            by_timeline[point.timeline][1].append(point)
    found = [
        found for taken, shipped in by_timeline.values() for found in _ranges_of(taken, in_order(shipped), at_or_before)
    ]
    return sorted(found, key=lambda found: found.first_us)


def run_from(slices: Iterable[SlicePoint], position: Position, at_or_before: AtOrBefore) -> list[SlicePoint]:
    """The gapless run that begins with the slice that holds `position`; empty where none does."""
    return _run(in_order(slices), position, at_or_before)


def in_order(slices: Iterable[SlicePoint]) -> list[SlicePoint]:
    """By sequence; of several that begin at one place the longest first."""
    return sorted(slices, key=order)


def order(point: SlicePoint) -> int:
    """What `in_order` sorts by."""
    return point.sequence * 10 - point.level


def cover(slices: Iterable[SlicePoint]) -> Iterator[SlicePoint]:
    """Of slices in order those that no larger one holds."""
    last = -1
    for point in slices:
        if point.last > last:
            yield point
            last = point.last


def grown(known: Iterable[Range], point: SlicePoint, at_or_before: AtOrBefore) -> list[Range]:
    """What `ranges` says of one timeline, from what it said before a slice that comes after all others."""
    found: list[Range] = []
    for one in known:
        if not found or not _within(one.first.position, found[-1], at_or_before):
            found.append(_with(one, point, at_or_before))
    return found


def _ranges_of(backups: list[BackupPoint], ordered: list[SlicePoint], at_or_before: AtOrBefore) -> list[Range]:
    found: list[Range] = []
    for backup in sorted(backups, key=lambda backup: (backup.view_us, backup.id)):
        if not found or not _within(backup.position, found[-1], at_or_before):
            run = _run(ordered, backup.position, at_or_before)
            found.append(_range(backup, run[-1].end if run else None, _near(run), at_or_before))
    return found


def _range(backup: BackupPoint, end: Position | None, near: tuple[int, ...], at_or_before: AtOrBefore) -> Range:
    if end is None or at_or_before(end, backup.position):
        return Range(backup.timeline, backup.view_us, backup.view_us, backup, backup.position, end, near)
    return Range(backup.timeline, backup.view_us, max(backup.view_us, *near, 0), backup, end, end, near)


def _with(known: Range, point: SlicePoint, at_or_before: AtOrBefore) -> Range:
    """One range and the slice behind it: its run goes on there, or begins there where the slice holds its backup."""
    begins = _holds(point, known.first.position, at_or_before)
    if not begins and (known.end is None or point.start != known.end):
        return known
    near = () if begins else known.near
    return _range(known.first, point.end, (*_near([point]), *near)[:NEAR], at_or_before)


def _holds(point: SlicePoint, position: Position, at_or_before: AtOrBefore) -> bool:
    return at_or_before(point.start, position) and at_or_before(position, point.end)


def _within(position: Position, known: Range, at_or_before: AtOrBefore) -> bool:
    return at_or_before(known.first.position, position) and at_or_before(position, known.last)


def _near(run: Sequence[SlicePoint]) -> tuple[int, ...]:
    """Commit times near the end, of which the largest counts: the last slices that hold transactions."""
    return tuple(_believed_us(point) for point in islice((point for point in reversed(run) if point.count), NEAR))


def _believed_us(point: SlicePoint) -> int:
    """A clock that may be set at will is not believed past the writing."""
    return point.last_us if point.exact_times or not point.written_us else min(point.last_us, point.written_us)


def _choose(
    backups: Iterable[BackupPoint], target: Position, at_or_before: AtOrBefore, backup: str
) -> BackupPoint | None:
    usable = [
        point
        for point in backups
        if (not backup or point.id == backup) and at_or_before(point.position, target)
    ]
    return max(usable, key=lambda point: point.view_us, default=None)


def _starting_before(ordered: list[SlicePoint], target: Position, at_or_before: AtOrBefore) -> list[SlicePoint]:
    return ordered[: bisect_left(ordered, True, key=lambda point: at_or_before(target, point.start))]


def _run(ordered: list[SlicePoint], position: Position, at_or_before: AtOrBefore) -> list[SlicePoint]:
    """From the slice that holds the position, each next one beginning exactly where the one before ends."""
    first = _holder(ordered, position, at_or_before)
    if first is None:
        return []
    run = [ordered[first]]
    end, last = run[0].end, run[0].last
    for place in range(first + 1, len(ordered)):
        point = ordered[place]
        if point.sequence > last and point.start == end:
            run.append(point)
            end, last = point.end, point.last
    return run


def _holder(ordered: list[SlicePoint], position: Position, at_or_before: AtOrBefore) -> int | None:
    """The place of the slice that holds a position: of each level only the last that starts in time can.

    Of several the largest: of the small ones that it holds any may be gone, and no larger one begins behind it.
    """
    place = bisect_left(ordered, True, key=lambda point: not at_or_before(point.start, position))
    levels = {point.level for point in ordered}
    found = None
    while levels and place:
        place -= 1
        point = ordered[place]
        if point.level in levels:
            levels.remove(point.level)
            if point.last >= ordered[found].last if found is not None else at_or_before(position, point.end):
                found = place
    return found


def _no_backup(
    backups: list[BackupPoint], ordered: list[SlicePoint], at_or_before: AtOrBefore, backup: str
) -> NotCovered:
    if backup:
        what = f"Backup {backup} is not from this moment or before it."
    else:
        what = "The moment lies before the oldest backup."
    return NotCovered(
        what,
        meaning="There is nothing to start this restore from.",
        next_step=restorable(ranges(backups, ordered, at_or_before)),
    )


def _hole(
    end: Position, target: Position, backups: list[BackupPoint], ordered: list[SlicePoint], at_or_before: AtOrBefore
) -> NotCovered:
    beyond = next((point for point in ordered if not at_or_before(point.start, end)), None)
    until = beyond.start if beyond and at_or_before(beyond.start, target) else target
    return NotCovered(
        f"The log from {place(end)} to {place(until)} is not in the storage.",
        meaning="Moments after the first of these places cannot be restored from this backup.",
        next_step=restorable(ranges(backups, ordered, at_or_before)),
    )


def restorable(found: Sequence[Range]) -> str:
    """The sentence that says what can be restored."""
    if not found:
        return "Nothing is restorable yet: take a backup."
    spans = ", ".join(f"{utc(one.first_us)} to {utc(one.last_us)}" for one in found)
    return f"Restorable (UTC): {spans}."


def utc(time_us: int) -> str:
    return datetime.fromtimestamp(time_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")


def place(position: Position) -> str:
    """A position for people; it is opaque here, so everything it says."""
    return " ".join(f"{name} {value}" for name, value in position.items() if value not in (None, "", 0)) or "the start"
