"""Giving up what no kept restore point needs: marked first, then deleted, and only what `retention` allows."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from backups import catalog
from backups.engine import layout, retention
from backups.engine.archive import Archive
from backups.engine.errors import Refused, Stopped
from backups.engine.types import BackupPoint
from backups.models import Backup, Database, Job, Restore, Slice, Timeline
from backups.queue import JobRun, NotYet
from everest.models import Event

AGAIN = timedelta(days=1)


def enqueue(database: Database) -> None:
    """One sweep a database is enough, however many ask for it; one that failed is tried again after a day."""
    sweeps = database.jobs.filter(kind=Job.DELETE, backup=None, arguments={})
    failed = Q(state=Job.FAILED, finished_at__gt=timezone.now() - AGAIN)
    if not sweeps.filter(Q(state=Job.PENDING) | failed).exists():
        Job.enqueue(Job.DELETE, who="retention", database=database)


def sweep(job: Job, run: JobRun) -> dict[str, Any]:
    """Delete what is marked, what schedules no longer keep, and the slices and orphans that nothing needs."""
    database = job.database
    if job.arguments.get("whole"):
        return _forget(database, run)
    archives = database.archives()
    busy, backups = _busy(database), _listed(database, archives)  # in this order: a Job may end in between
    unwanted = {str(pk) for pk in database.backups.filter(state=Backup.DELETING).values_list("pk", flat=True)}
    if unwanted & busy:
        raise NotYet("A restore or verification still reads it; the deletion waits for that.")
    decision = retention.decide(
        backups,
        [point for timeline in database.timelines.all() for point in timeline.slice_points()],
        copies={str(one.pk): one.retention_copies for one in database.schedules.all()},
        open_timelines={str(pk) for pk in database.timelines.filter(ended_at=None).values_list("pk", flat=True)},
        at_or_before=database.module.at_or_before,
        unwanted=unwanted,
        busy=busy,
    )
    if unwanted - {point.id for point in decision.backups} & {point.id for point in backups}:
        raise NotYet("Something still works on its timeline; the deletion waits for that.")
    with transaction.atomic():
        Backup.objects.filter(pk__in=[point.id for point in decision.backups]).update(state=Backup.DELETING)
        Timeline.unspan(pk__in={point.timeline for point in decision.backups})
    database.backups.filter(state=Backup.DELETING).update(error="")
    refusals = [why for storage, archive in archives.items() if (why := _swept(storage, archive, decision, busy, run))]
    count = _drop_rows(job)
    for timeline in database.timelines.filter(spanned=False):
        timeline.respan()
    catalog.write_description(database)
    if refusals:
        raise Refused(
            " ".join(refusals),
            meaning="What could not be deleted stays marked, and is not restored from.",
            next_step="It is tried again with later backups; where objects are locked, once their time is over.",
        )
    return {"backups": count, "slices": len(decision.slices)}


def _swept(storage: str, archive: Archive, decision: retention.GiveUp, busy: Collection[str], run: JobRun) -> str:
    """Give up one storage's part; why not, where the storage refuses it (a lock on objects, a missing right)."""
    try:
        _give_up(storage, archive, decision, run)
        _orphans(archive, busy, run)
        return ""
    except Refused as error:
        marked = Backup.objects.filter(state=Backup.DELETING, storage__name=storage, database=archive.database)
        marked.update(error=str(error))
        return f"{storage}: {error.what} {error.next_step}".strip()


def _drop_rows(job: Job) -> int:
    """Rows of what is deleted; those whose objects a storage would not let go stay."""
    gone = job.database.backups.filter(state=Backup.DELETING, error="")
    for name in gone.values_list("name", flat=True):
        Event.note(job.who or "Everest", "deleted a backup", f"{job.database} {name}")
    count = gone.count()
    gone.delete()
    return count


def _listed(database: Database, archives: dict[str, Archive]) -> list[BackupPoint]:
    """Every committed backup in every storage, whether there is a row for it or not."""
    pinned = {str(pk) for pk in database.backups.filter(pinned=True).values_list("pk", flat=True)}
    return [
        manifest.point(storage, pinned=manifest.backup in pinned)
        for storage, archive in archives.items()
        for manifest in archive.manifests()
    ]


def _busy(database: Database) -> set[str]:
    """Backups and timelines that live Jobs read or write."""
    return read_now(database, Job.BACKUP)


def read_now(database: Database, *kinds: str) -> set[str]:
    """Backups and timelines that restores and verifications read, or Jobs of these kinds work on."""
    reading = Restore.objects.filter(source=database, state__in=[Restore.PENDING, Restore.RUNNING])
    found = {part for one in reading if one.plan for part in (one.plan["timeline"], one.plan["backup"]["id"])}
    for job in database.jobs.filter(state=Job.RUNNING, kind__in=[Job.VERIFY, *kinds]).select_related("backup"):
        every = database.timelines.values_list("pk", flat=True)
        found |= {str(job.backup_id), *map(str, [job.backup.timeline_id] if job.backup else every)}
    return found - {"None"}


def _give_up(storage: str, archive: Archive, decision: retention.GiveUp, run: JobRun) -> None:
    if run.should_stop():
        raise Stopped("The deletion goes on later.")
    backups = [point for point in decision.backups if point.storage == storage]
    slices = [point for point in decision.slices if point.storage == storage]
    run.log(f"{storage}: {len(backups)} backups and {len(slices)} slices are given up.")
    archive.give_up(backups, slices)
    with transaction.atomic():
        Slice.objects.filter(key__in=[point.key for point in slices], storage__name=storage).delete()
        Timeline.unspan(pk__in={point.timeline for point in slices})


def _orphans(archive: Archive, busy: Collection[str], run: JobRun) -> None:
    """What runs left that were cut off, once it is old enough to be nobody's: data without marker, writes half done."""

    def named_by(marker: str) -> set[str]:
        key = layout.parse(marker)
        if key and key.kind == "manifest":
            return {ref.key for ref in archive.read_manifest(key.timeline, key.backup).data()}
        return {archive.read_slice(marker).data.key}

    now = timezone.now()
    found = retention.orphans(archive.objects(), named_by, now, busy)
    if found:
        run.log(f"{len(found)} orphaned objects are given up.")
        archive.give_up(orphans=found)
    try:
        if cut_off := archive.tidy(now - retention.ORPHAN_AGE):
            run.log(f"{cut_off} writes that were cut off are given up.")
    except Refused as error:  # they cost room, and harm nothing
        run.log(f"Writes that were cut off were not looked for: {error}")


def _forget(database: Database, run: JobRun) -> dict[str, Any]:
    """All that is stored of a database, markers first, then its rows."""
    if database.jobs.filter(kind=Job.MERGE, state=Job.RUNNING).exists():
        raise NotYet("Its slices are being merged; the deletion waits for that.")
    if database.ship_owner and database.ship_lease_until > timezone.now():
        raise NotYet("A worker still ships this database; the deletion waits until it lets go.")
    for archive in database.archives().values():
        keys = [info.key for info in archive.objects()]
        markers = [key for key in keys if (parts := layout.parse(key)) and parts.kind in ("manifest", "index")]
        archive.give_up(orphans=markers)
        archive.give_up(orphans=[key for key in keys if key not in set(markers)])
    Event.note("Everest", "deleted all stored data", database)
    database.forget()
    return {}
