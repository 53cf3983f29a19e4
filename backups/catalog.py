"""The bucket is the truth: what of the metadata goes there, and how all rows come back from a bucket alone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models import Max
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from backups.engine import archive as archives
from backups.engine import layout
from backups.engine.archive import Archive
from backups.engine.errors import Corrupt, Stopped
from backups.engine.manifest import Manifest
from backups.engine.types import Quiet, Run
from backups.models import Backup, Database, Schedule, Slice, Timeline
from backups.models.timeline import from_us
from storages.models import BackupStorage


@dataclass
class Report:
    """How many rows a rebuild found or made."""

    databases: int = 0
    timelines: int = 0
    backups: int = 0
    slices: int = 0

    def __str__(self) -> str:
        return f"{self.databases} databases, {self.timelines} timelines, {self.backups} backups, {self.slices} slices"


# What is written


def describe(database: Database) -> dict[str, Any]:
    """database.json: what cannot be derived from other objects, and no secret."""
    return {
        "database": str(database.pk),
        "name": database.name,
        "engine": database.engine,
        "address": {"host": database.host, "port": database.port, "user": database.user, "tls": database.tls},
        "server": {"uuid": database.server_uuid, "flavour": database.flavour, "version": database.version},
        "pitr": {
            "on": database.pitr,
            "storage": database.pitr_storage.name if database.pitr_storage else "",
            "interval": database.pitr_interval,
        },
        "production_hours": database.production_hours,
        "reading": {"connections": database.connections, "rate_limit": database.rate_limit},
        "schedules": [_schedule(one) for one in database.schedules.select_related("storage")],
        "pins": [str(pk) for pk in database.backups.filter(pinned=True).values_list("pk", flat=True)],
        "timelines": [_timeline(one) for one in database.timelines.order_by("number")],
    }


def _schedule(schedule: Schedule) -> dict[str, Any]:
    return {
        "id": str(schedule.pk),
        "name": schedule.name,
        "storage": schedule.storage.name,
        "cron": schedule.cron,
        "time_zone": schedule.time_zone,
        "start_from": _text(schedule.start_from),
        "retention_copies": schedule.retention_copies,
        "active": schedule.active,
    }


def _timeline(timeline: Timeline) -> dict[str, Any]:
    return {
        "id": str(timeline.pk),
        "number": timeline.number,
        "parent": str(timeline.parent_id or ""),
        "server_uuid": timeline.server_uuid,
        "started_at": _text(timeline.started_at),
        "start_position": timeline.start_position,
        "ended_at": _text(timeline.ended_at),
        "end_reason": timeline.end_reason,
        "end_detail": timeline.end_detail,
    }


def _text(moment: datetime | None) -> str:
    return moment.isoformat() if moment else ""


def write_description(database: Database) -> None:
    """Replace database.json in every storage that holds something of this database; raises EngineError.

    Not of one that is paused: another installation may write it.
    """
    if database.paused:
        return
    body = describe(database)
    for archive in database.archives().values():
        archive.write_database(body)


# What is read


def rebuild(storage: BackupStorage, run: Run | None = None) -> Report:
    """Bring rows for everything in a storage; what is known already is compared with the bucket.  Repeatable."""
    run = run or Quiet()
    report = Report()
    for uuid in archives.databases(storage.open_store()):
        _rebuild_database(storage, uuid, report, run)
    return report


def _rebuild_database(storage: BackupStorage, uuid: str, report: Report, run: Run) -> None:
    archive = Database(pk=uuid).archive(storage)
    described = archive.read_database() or {}
    manifests = list(archive.manifests())
    if not described and not manifests:
        return
    with transaction.atomic():
        database = _database(storage, uuid, described)
        _timelines(database, described, archive.timelines(), manifests)
        _schedules(database, storage, described)
    run.log(f"{database}: {len(manifests)} backups.")
    _backups(database, storage, manifests, set(described.get("pins", [])))
    report.databases += 1
    report.backups += len(manifests)
    for timeline in database.timelines.filter(pk__in=archive.timelines()):
        report.timelines += 1
        report.slices += _slices(timeline, storage, archive, run)
        timeline.respan()


def _database(storage: BackupStorage, uuid: str, described: dict[str, Any]) -> Database:
    """The row; a new one has no credentials yet, says so, and rests until somebody has entered them."""
    parts = ("address", "pitr", "server", "reading")
    address, pitr, server, reading = (described.get(part, {}) for part in parts)
    return Database.objects.get_or_create(
        pk=uuid,
        defaults={
            "name": _free_name(described.get("name") or f"recovered-{uuid[:8]}"),
            "engine": described.get("engine", "mysql"),
            "host": address.get("host", ""),
            "port": address.get("port", 3306),
            "user": address.get("user", ""),
            "tls": address.get("tls", Database.REQUIRED),
            "server_uuid": server.get("uuid", ""),
            "flavour": server.get("flavour", ""),
            "version": server.get("version", ""),
            "status": Database.UNKNOWN,
            "paused": True,
            "status_detail": f"Rebuilt from {storage}. Enter its password, and check its address.",
            "pitr": pitr.get("on", False),
            "pitr_storage": _storage_named(pitr.get("storage", ""), storage),
            "pitr_interval": pitr.get("interval", 60),
            "production_hours": described.get("production_hours", ""),
            "connections": reading.get("connections", 4),
            "rate_limit": reading.get("rate_limit"),
        },
    )[0]


def _free_name(name: str) -> str:
    taken, number = name, 1
    while Database.objects.filter(name=taken).exists():
        number += 1
        taken = f"{name[:58]}-{number}"
    return taken


def _storage_named(name: str, otherwise: BackupStorage) -> BackupStorage:
    """Another installation may call the same bucket by another name."""
    return BackupStorage.objects.filter(name=name).first() or otherwise


def _timelines(database: Database, described: dict[str, Any], folders: list[str], manifests: list[Manifest]) -> None:
    for one in described.get("timelines", []):
        _timeline_row(database, one)
    for one in described.get("timelines", []):
        if one["parent"]:
            Timeline.objects.filter(pk=one["id"], parent=None).update(parent=one["parent"])
    for folder in folders:
        if not Timeline.objects.filter(pk=folder).exists():
            _unrecorded(database, folder, manifests)


def _timeline_row(database: Database, one: dict[str, Any]) -> None:
    ended = {"ended_at": _moment(one["ended_at"]), "end_reason": one["end_reason"], "end_detail": one["end_detail"]}
    row, new = Timeline.objects.get_or_create(
        pk=one["id"],
        defaults={
            "database": database,
            "number": one["number"],
            "server_uuid": one["server_uuid"],
            "started_at": _moment(one["started_at"]),
            "start_position": one["start_position"],
            **ended,
        },
    )
    if not new and row.ended_at is None and ended["ended_at"]:
        Timeline.objects.filter(pk=row.pk).update(**ended)


def _unrecorded(database: Database, folder: str, manifests: list[Manifest]) -> None:
    """A timeline that database.json does not tell of: kept for what it holds, and not shipped to any more."""
    mine = [one for one in manifests if one.timeline == folder]
    Timeline.objects.create(
        pk=folder,
        database=database,
        number=(database.timelines.aggregate(n=Max("number"))["n"] or 0) + 1,
        server_uuid=mine[0].server if mine else "",
        started_at=from_us(min((one.started_us for one in mine), default=0)),
        ended_at=timezone.now(),
        end_reason=Timeline.GAP,
        end_detail="database.json does not tell of this timeline; what it holds is restorable.",
    )


def _moment(text: str) -> datetime | None:
    return parse_datetime(text) if text else None


def _schedules(database: Database, storage: BackupStorage, described: dict[str, Any]) -> None:
    for one in described.get("schedules", []):
        if not Schedule.objects.filter(pk=one["id"]).exists():
            Schedule(
                pk=one["id"],
                database=database,
                storage=_storage_named(one["storage"], storage),
                name=one["name"],
                cron=one["cron"],
                time_zone=one["time_zone"],
                start_from=_moment(one["start_from"]),
                retention_copies=one["retention_copies"],
                active=one["active"],
            ).save(describe=False)


def _backups(database: Database, storage: BackupStorage, manifests: list[Manifest], pins: set[str]) -> None:
    for one in manifests:
        backup = Backup.objects.filter(pk=one.backup).first() or Backup(
            pk=one.backup,
            database=database,
            storage=storage,
            timeline_id=one.timeline,
            schedule=Schedule.objects.filter(pk=one.schedule).first() if one.schedule else None,
            name=_free_backup_name(database, one.name),
            pinned=one.backup in pins,
        )
        if backup.state not in (Backup.DELETING, Backup.SUCCEEDED):
            backup.take_over(one, layout.manifest(str(database.pk), one.timeline, one.backup))
    found = [one.backup for one in manifests]
    lost = database.backups.filter(storage=storage, state=Backup.SUCCEEDED).exclude(pk__in=found)
    with transaction.atomic():
        lost.update(state=Backup.FAILED, error="Its manifest is no longer in the storage.")
        Timeline.unspan(database=database)


def _free_backup_name(database: Database, name: str) -> str:
    taken, number = name, 1
    while database.backups.filter(name=taken).exists():
        number += 1
        taken = f"{name[:58]}-{number}"
    return taken


def _slices(timeline: Timeline, storage: BackupStorage, archive: Archive, run: Run) -> int:
    """Rows as the listing says: missing ones are read from their indexes, surplus ones go."""
    line = str(timeline.pk)
    listed = {key for level in archive.levels(line) for key in archive.slice_keys(line, level)}
    known = set(timeline.slices.filter(storage=storage).values_list("key", flat=True))
    with transaction.atomic():
        for key in known - listed:
            Slice.objects.filter(timeline=timeline, storage=storage, key=key).delete()
        Timeline.unspan(pk=timeline.pk)  # until all is read
    for done, key in enumerate(sorted(listed - known)):
        if run.should_stop():
            raise Stopped("Stopped; running it again goes on.")
        try:
            Slice.record(timeline, storage, archive.read_slice(key))
        except Corrupt:
            if archive.has(key):  # else it was merged and given up since it was listed
                raise
        run.progress(f"{timeline}", done + 1, len(listed - known), "slices")
    return len(listed)
