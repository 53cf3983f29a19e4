"""Merging in the background: small slices become large ones, and are given up once these were proven again.

A run is bounded, and there is one a database at a time; what it does not come to, the next one does.  It leaves a
Job behind only where it failed.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from backups import sweeping
from backups.engine import levels, merging, plan, retention
from backups.engine.archive import Archive
from backups.engine.errors import Corrupt, Refused, Stopped
from backups.engine.types import Run, SliceIndex, SlicePoint
from backups.models import Database, Job, Slice, Timeline
from backups.models.timeline import from_us, to_us
from backups.queue import JobRun

RUN_SECONDS = 120
BUSY_WAIT = timedelta(minutes=5)
REFUSED_WAIT = timedelta(days=1)  # a storage may lock its objects
FAILED_WAIT = timedelta(hours=1)
PAGE = 1000  # rows


def start_due() -> None:
    """A Job for each database that has something to merge or to give up; after one that failed, an hour later."""
    now = timezone.now()
    tried = Q(state__in=Job.OPEN) | Q(state=Job.FAILED, finished_at__gt=now - FAILED_WAIT)
    busy = Job.objects.filter(tried, kind=Job.MERGE).values("database")
    for database in Database.objects.filter(merge_due_at__lte=now, paused=False).exclude(pk__in=busy):
        Job.enqueue(Job.MERGE, database=database)


def expect(database: Database, due: datetime) -> None:
    """Merging is to look at this database then, or earlier."""
    later = Q(merge_due_at=None) | Q(merge_due_at__gt=due)
    Database.objects.filter(later, pk=database.pk).update(merge_due_at=due)


def merge(job: Job, run: JobRun) -> dict[str, Any]:
    """Give up what was merged long enough ago, then merge what is due."""
    database = job.database
    Database.objects.filter(pk=database.pk).update(merge_due_at=None)
    work = _Work(database, run)
    try:
        for timeline in database.timelines.filter(slices__isnull=False).distinct():
            work.give_up(timeline)
            work.merge(timeline)
    except BaseException:
        expect(database, timezone.now())
        raise
    if work.next:
        expect(database, min(work.next))
    if work.refusals:
        raise Refused(" ".join(work.refusals), next_step="What could not be deleted stays until it can be.")
    return {"merged": work.merged, "given_up": work.given_up}


def mend(database: Database, run: Run) -> None:
    """Damage was found: give up damaged slices of which smaller ones still hold everything, so that these are used."""
    work = _Work(database, run)
    for timeline in database.timelines.filter(slices__isnull=False).distinct():
        for holder, parts in list(levels.held(points(timeline))):
            if levels.makes_up(plan.cover(parts), holder):
                work.spoilt(holder, parts)
    if work.given_up:
        expect(database, timezone.now())


class _Work:
    """One run.  next: when there will be something to do again."""

    def __init__(self, database: Database, run: Run) -> None:
        self.database, self.run = database, run
        self.archives = database.archives()
        self.deadline = time.monotonic() + RUN_SECONDS
        self.next: list[datetime] = []
        self.refusals: list[str] = []
        self.merged = self.given_up = 0

    def _over(self) -> bool:
        if self.run.should_stop():
            raise Stopped("Merging goes on later.")
        if time.monotonic() < self.deadline:
            return False
        self.next.append(timezone.now())
        return True

    # Merging

    def merge(self, timeline: Timeline) -> None:
        now = timezone.now()
        apart = set(timeline.slices.filter(apart=True).values_list("key", flat=True))
        for group in levels.due(points(timeline), to_us(now), apart):
            if self._over():
                return
            self.run.progress("Merging slices", self.merged)
            storage = group.parts[0].storage
            made = merging.merge(self.archives[storage], group, self.database.module, self.run)
            self._note(timeline, group, made, apart)
        newest = timeline.slices.filter(level=0).order_by("sequence").last()
        if newest and (due := levels.next_us(newest.point(), to_us(now))):
            self.next.append(from_us(due))

    def _note(self, timeline: Timeline, group: levels.Group, made: SliceIndex | None, apart: set[str]) -> None:
        """A row for what was made, and a mark where the log begins anew: nothing is joined to what is before that."""
        first = group.parts[0]
        last = made.last if made else first.last
        rest = next((one for one in group.parts if one.sequence > last), None)
        with transaction.atomic():
            if made:
                row = Slice.record(timeline, timeline.slices.get(key=first.key).storage, made)
                timeline.slices.filter(pk=row.pk).update(apart=first.key in apart)
                self.next.append(row.parts_go_at)
                self.merged += 1
            if rest:
                timeline.slices.filter(key=rest.key).update(apart=True)
                self.next.append(timezone.now())

    # Giving up

    def give_up(self, timeline: Timeline) -> None:
        newest = timeline.slices.filter(level=0).order_by("sequence").last()
        may_go = dict(timeline.slices.filter(level__gt=0).values_list("key", "parts_go_at"))
        for holder, parts in levels.held(points(timeline)):
            going = retention.superseded([holder, *parts], {holder.key}, newest.sequence if newest else -1)
            if not going:
                continue
            if (wait := self._wait(timeline, may_go[holder.key])) is not None:
                self.next.append(wait)
            elif self._over():
                return
            else:
                self._replace(holder, parts, going)

    def _wait(self, timeline: Timeline, may_go: datetime | None) -> datetime | None:
        """Until when nothing may go: runs that planned with the small ones may still read them."""
        now = timezone.now()
        if may_go is None or may_go > now:
            return may_go or now + Slice.GRACE
        return now + BUSY_WAIT if str(timeline.pk) in sweeping.read_now(self.database) else None

    def _replace(self, holder: SlicePoint, parts: list[SlicePoint], going: list[SlicePoint]) -> None:
        """The small ones go, unless the large one is not whole."""
        if self.spoilt(holder, parts):
            self.next.append(timezone.now())
            return
        try:
            self._delete(self.archives[holder.storage], going)
        except Refused as error:
            self.refusals.append(str(error))
            until = timezone.now() + REFUSED_WAIT
            Slice.objects.filter(key=holder.key, storage__name=holder.storage).update(parts_go_at=until)
            self.next.append(until)

    def spoilt(self, holder: SlicePoint, parts: list[SlicePoint]) -> bool:
        """Whether a merged slice was damaged and is gone now; raise Corrupt where the small ones lack some of it."""
        archive = self.archives[holder.storage]
        try:
            merging.prove_again(archive, holder)
        except Corrupt as error:
            going = retention.spoilt_copies([holder, *parts], {holder.key})
            if not going:
                raise
            self.run.log(f"{error} The slices that it was made of are used in its place.")
            self._delete(archive, going)
            return True
        return False

    def _delete(self, archive: Archive, going: list[SlicePoint]) -> None:
        archive.give_up(slices=going)
        first = going[0]
        rows = Slice.objects.filter(timeline=first.timeline, storage__name=first.storage)
        rows.filter(key__in=[one.key for one in going]).delete()
        self.given_up += len(going)


def points(timeline: Timeline) -> Iterator[SlicePoint]:
    """All its slices in order, a page of rows at a time: there may be millions."""
    found = timeline.slices.order_by().values_list("level", flat=True).distinct()
    return heapq.merge(*(_of_level(timeline, level) for level in list(found)), key=plan.order)


def _of_level(timeline: Timeline, level: int) -> Iterator[SlicePoint]:
    after, more = -1, True
    while more:
        rows = timeline.slices.filter(level=level, sequence__gt=after).select_related("storage").order_by("sequence")
        page = [row.point() for row in rows[:PAGE]]
        yield from page
        more = len(page) == PAGE
        after = page[-1].sequence if page else after
