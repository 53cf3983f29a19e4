"""Coverage, proven before anything is touched: pure functions over backups, slices and positions.

Positions are opaque: `at_or_before` orders them, equality of one slice's end and the next one's start proves a
chain.  Slices are put in order by sequence; a merged slice carries the sequence of the first one it holds, so
slices of all levels form one order in which starts never decrease.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
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
    """

    timeline: str
    first_us: int
    last_us: int
    first: BackupPoint
    last: Position


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
    return sorted(slices, key=lambda point: point.sequence * 10 - point.level)


def _ranges_of(backups: list[BackupPoint], ordered: list[SlicePoint], at_or_before: AtOrBefore) -> list[Range]:
    found: list[Range] = []
    for backup in sorted(backups, key=lambda backup: backup.view_us):
        if found and _within(backup.position, found[-1], at_or_before):
            continue
        run = _run(ordered, backup.position, at_or_before)
        ends_after = bool(run) and not at_or_before(run[-1].end, backup.position)
        last = run[-1].end if ends_after else backup.position
        last_us = max(backup.view_us, _last_us(run)) if ends_after else backup.view_us
        found.append(Range(backup.timeline, backup.view_us, last_us, backup, last))
    return found


def _within(position: Position, known: Range, at_or_before: AtOrBefore) -> bool:
    return at_or_before(known.first.position, position) and at_or_before(position, known.last)


def _last_us(run: Sequence[SlicePoint]) -> int:
    """The largest commit time near the end; a clock that may be set at will is not believed past the writing."""
    near = islice((point for point in reversed(run) if point.count), NEAR)
    return max((_believed_us(point) for point in near), default=0)


def _believed_us(point: SlicePoint) -> int:
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
    end = run[0].end
    for place in range(first + 1, len(ordered)):
        point = ordered[place]
        if point.start == end:
            run.append(point)
            end = point.end
    return run


def _holder(ordered: list[SlicePoint], position: Position, at_or_before: AtOrBefore) -> int | None:
    """The place of the slice that holds a position: of each level only the last that starts in time can."""
    place = bisect_left(ordered, True, key=lambda point: not at_or_before(point.start, position))
    levels = {point.level for point in ordered}
    while levels and place:
        place -= 1
        if ordered[place].level in levels:
            levels.remove(ordered[place].level)
            if at_or_before(position, ordered[place].end):
                return _longest(ordered, place)
    return None


def _longest(ordered: list[SlicePoint], place: int) -> int:
    """Of the slices of several levels that begin where this one does, the longest: it is the first in order."""
    while place and ordered[place - 1].sequence == ordered[place].sequence:
        place -= 1
    return place


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
