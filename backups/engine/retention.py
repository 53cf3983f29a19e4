"""What may be given up: pure functions; nothing is deleted from a bucket without their yes.

A kept restore point is every moment of a timeline from its oldest kept backup on.  So slices go from the front of
a timeline only, and the newest slice of an open timeline always stays: shipping resumes from it.
Callers pass what complete listings of every storage say: a backup that nobody told of could need anything.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from backups.engine import layout
from backups.engine.levels import makes_up
from backups.engine.plan import AtOrBefore, cover, in_order
from backups.engine.types import BackupPoint, SlicePoint
from storages.stores.base import ObjectInfo

ORPHAN_AGE = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class GiveUp:
    """What no kept restore point needs."""

    backups: tuple[BackupPoint, ...]
    slices: tuple[SlicePoint, ...]


def decide(
    backups: Iterable[BackupPoint],
    slices: Iterable[SlicePoint],
    *,
    copies: Mapping[str, int],
    open_timelines: Collection[str],
    at_or_before: AtOrBefore,
    unwanted: Collection[str] = (),
    busy: Collection[str] = (),
) -> GiveUp:
    """Which backups and slices may go.

    copies: schedule id -> how many succeeded backups it keeps, 0 for all.  unwanted: backups that a person deletes.
    open_timelines: those that are still shipped or backed up to.
    busy: ids of backups and timelines that live Jobs read or write; nothing of theirs goes.
    """
    backups = list(backups)
    going = {point.id for point in surplus(backups, copies)} | set(unwanted)
    gone = [point for point in backups if point.id in going and not {point.id, point.timeline} & set(busy)]
    leaving = {point.id for point in gone}
    kept = [point for point in backups if point.id not in leaving]
    idle = [point for point in slices if point.timeline not in busy]
    return GiveUp(tuple(gone), tuple(spare(kept, idle, at_or_before, open_timelines)))


def surplus(backups: Iterable[BackupPoint], copies: Mapping[str, int]) -> list[BackupPoint]:
    """A schedule's succeeded backups beyond its newest `copies`; pinned ones stay, and are not counted.

    A backup without a schedule, or with one that is no longer there, stays until someone deletes it.
    """
    by_schedule: dict[str, list[BackupPoint]] = {}
    for backup in backups:
        if backup.schedule and copies.get(backup.schedule) and not backup.pinned:
            by_schedule.setdefault(backup.schedule, []).append(backup)
    newest_first = {name: sorted(taken, key=_age, reverse=True) for name, taken in by_schedule.items()}
    return [backup for name, taken in newest_first.items() for backup in taken[copies[name] :]]


def spare(
    kept: Iterable[BackupPoint],
    slices: Iterable[SlicePoint],
    at_or_before: AtOrBefore,
    open_timelines: Collection[str],
) -> list[SlicePoint]:
    """Slices that end at or before every kept backup of their timeline; oldest first."""
    floors: dict[str, list[BackupPoint]] = {}
    for backup in kept:
        floors.setdefault(backup.timeline, []).append(backup)
    runs: dict[tuple[str, int], list[SlicePoint]] = {}
    for point in in_order(slices):
        runs.setdefault((point.timeline, point.level), []).append(point)
    found: list[SlicePoint] = []
    for (timeline, level), points in runs.items():
        oldest = _lowest(floors.get(timeline, []), at_or_before)
        resumed_from = points[-1] if timeline in open_timelines and level == 0 else None
        for point in points:
            if point is resumed_from or not all(at_or_before(point.end, floor.position) for floor in oldest):
                break
            found.append(point)
    return found


def superseded(slices: Iterable[SlicePoint], proven: Collection[str], newest: int) -> list[SlicePoint]:
    """Slices of one timeline that larger ones hold which were just proven whole (their keys); oldest first.

    newest: sequence of the timeline's newest slice of level 0, which stays: shipping resumes from it.
    """
    found: list[SlicePoint] = []
    last = -1
    for point in in_order(slices):
        if point.last <= last and (point.level, point.sequence) != (0, newest):
            found.append(point)
        elif point.key in proven:
            last = max(last, point.last)
    return found


def spoilt_copies(slices: Iterable[SlicePoint], damaged: Collection[str]) -> list[SlicePoint]:
    """Damaged slices (their keys) of one timeline of which smaller ones still hold everything."""
    ordered = in_order(slices)
    sound = [point for point in ordered if point.key not in damaged]
    return [
        point
        for point in ordered
        if point.key in damaged and makes_up(cover(one for one in sound if _lies_in(one, point)), point)
    ]


def _lies_in(point: SlicePoint, larger: SlicePoint) -> bool:
    return larger.sequence <= point.sequence and point.last <= larger.last and point.level < larger.level


def _lowest(floors: Collection[BackupPoint], at_or_before: AtOrBefore) -> list[BackupPoint]:
    """The oldest backup; several where positions do not say which it is."""
    lowest: list[BackupPoint] = []
    for floor in sorted(floors, key=_age):
        if not any(at_or_before(known.position, floor.position) for known in lowest):
            lowest.append(floor)
    return lowest


def orphans(
    listing: Iterable[ObjectInfo],
    named_by: Callable[[str], Collection[str]],
    now: datetime,
    busy: Collection[str] = (),
) -> list[str]:
    """Data objects that no marker names, older than 7 days and of no live Job.

    listing: every object of one database in one storage.  named_by: the data keys that a marker (a manifest's or
    index's key) names; asked only where the listing leaves a doubt.  busy: ids of backups that live Jobs write.
    Objects that are not Everest's stay.
    """
    markers: set[str] = set()
    data: dict[tuple[str, str], list[ObjectInfo]] = {}
    for info in listing:
        key = layout.parse(info.key)
        if key and key.kind in ("manifest", "index"):
            markers.add(info.key)
        elif key and key.kind in ("backup data", "slice data") and key.backup not in busy:
            data.setdefault((key.kind, _marker(key)), []).append(info)
    found: list[str] = []
    for (kind, marker), infos in data.items():
        old = [info.key for info in infos if now - info.modified > ORPHAN_AGE]
        if old and marker in markers:
            certain = kind == "slice data" and len(infos) == 1  # the only one there is the one that is named
            named = old if certain else named_by(marker)
            old = [key for key in old if key not in named]
        found += old
    return found


def _marker(key: layout.Key) -> str:
    if key.kind == "backup data":
        return layout.manifest(key.database, key.timeline, key.backup)
    return layout.index(key.database, key.timeline, key.level, key.sequence)


def _age(backup: BackupPoint) -> tuple[int, str]:
    return backup.view_us, backup.id
