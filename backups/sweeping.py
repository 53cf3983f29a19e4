"""Giving up what no kept restore point needs: marked first, then deleted, and only what `retention` allows."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from django.utils import timezone

from backups import catalog
from backups.engine import layout, retention
from backups.engine.archive import Archive
from backups.engine.errors import Stopped
from backups.engine.types import BackupPoint
from backups.models import Backup, Database, Job, Restore, Slice
from backups.queue import JobRun, NotYet
from everest.models import Event


def enqueue(database: Database) -> None:
    """One sweep a database is enough, however many ask for it."""
    waiting = database.jobs.filter(kind=Job.DELETE, state=Job.PENDING, backup=None, arguments={})
    if not waiting.exists():
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
    Backup.objects.filter(pk__in=[point.id for point in decision.backups]).update(state=Backup.DELETING)
    for storage, archive in archives.items():
        _give_up(storage, archive, decision, unwanted, run)
        _orphans(archive, busy, run)
    gone = database.backups.filter(state=Backup.DELETING)
    for name in gone.values_list("name", flat=True):
        Event.note(job.who or "Everest", "deleted a backup", f"{database} {name}")
    count = gone.count()
    gone.delete()
    catalog.write_description(database)
    return {"backups": count, "slices": len(decision.slices)}


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
    reading = Restore.objects.filter(source=database, state__in=[Restore.PENDING, Restore.RUNNING])
    found = {part for one in reading if one.plan for part in (one.plan["timeline"], one.plan["backup"]["id"])}
    for job in database.jobs.filter(state=Job.RUNNING, kind__in=[Job.BACKUP, Job.VERIFY]).select_related("backup"):
        every = database.timelines.values_list("pk", flat=True)
        found |= {str(job.backup_id), *map(str, [job.backup.timeline_id] if job.backup else every)}
    return found - {"None"}


def _give_up(
    storage: str, archive: Archive, decision: retention.GiveUp, unwanted: Collection[str], run: JobRun
) -> None:
    if run.should_stop():
        raise Stopped("The deletion goes on later.")
    backups = [point for point in decision.backups if point.storage == storage]
    slices = [point for point in decision.slices if point.storage == storage]
    run.log(f"{storage}: {len(backups)} backups and {len(slices)} slices are given up.")
    archive.give_up(backups, slices)
    Slice.objects.filter(key__in=[point.key for point in slices], storage__name=storage).delete()


def _orphans(archive: Archive, busy: Collection[str], run: JobRun) -> None:
    """Data without its marker, left by runs that were cut off, once it is old enough to be nobody's."""

    def named_by(marker: str) -> set[str]:
        key = layout.parse(marker)
        if key and key.kind == "manifest":
            return {ref.key for ref in archive.read_manifest(key.timeline, key.backup).data()}
        return {archive.read_slice(marker).data.key}

    listing = archive.store.list(layout.database_prefix(archive.database))
    found = retention.orphans(listing, named_by, timezone.now(), busy)
    if found:
        run.log(f"{len(found)} orphaned objects are given up.")
        archive.give_up(orphans=found)


def _forget(database: Database, run: JobRun) -> dict[str, Any]:
    """All that is stored of a database, markers first, then its rows."""
    if database.ship_owner and database.ship_lease_until > timezone.now():
        raise NotYet("A worker still ships this database; the deletion waits until it lets go.")
    for archive in database.archives().values():
        keys = [info.key for info in archive.store.list(layout.database_prefix(archive.database))]
        markers = [key for key in keys if (parts := layout.parse(key)) and parts.kind in ("manifest", "index")]
        archive.give_up(orphans=markers)
        archive.give_up(orphans=[key for key in keys if key not in set(markers)])
    Event.note("Everest", "deleted all stored data", database)
    database.forget()
    return {}
