"""Histories of servers, and what of them can be restored."""

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.db import models, transaction
from django.db.models import Max, Q
from django.utils import timezone

from backups.engine.types import BackupPoint, SlicePoint

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def from_us(time_us: int) -> datetime:
    return EPOCH + timedelta(microseconds=time_us)


def to_us(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)


@dataclass(frozen=True)
class Recoverable:
    """A span of moments that can be restored; `live` where it grows with the server."""

    timeline: "Timeline"
    first_us: int
    last_us: int
    floor: BackupPoint  # the backup it begins with
    live: bool = False

    @property
    def first(self):
        return from_us(self.first_us)

    @property
    def last(self):
        return from_us(self.last_us)

    def __str__(self):
        return f"{self.first:%Y-%m-%d %H:%M:%S.%f} to {self.last:%Y-%m-%d %H:%M:%S.%f} UTC"


class Timeline(models.Model):
    """One gapless history of one server.  Open while ended_at is null; at most one is open a Database."""

    GAP, FORK, RESTORE, REPLACED = "gap", "fork", "restore", "replaced"
    REASONS = [(GAP, "Gap"), (FORK, "Fork"), (RESTORE, "Restored"), (REPLACED, "Server replaced")]

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    database = models.ForeignKey("backups.Database", on_delete=models.CASCADE, related_name="timelines")
    parent = models.ForeignKey("self", null=True, blank=True, on_delete=models.SET_NULL, related_name="children")
    number = models.PositiveIntegerField(help_text="1, 2, 3 in order of creation")
    server_uuid = models.CharField(max_length=64, blank=True)
    started_at = models.DateTimeField()
    start_position = models.JSONField(
        null=True, blank=True, help_text="Shipping starts here; null until a backup with PITR on"
    )
    ended_at = models.DateTimeField(null=True, blank=True)
    end_reason = models.CharField(max_length=16, blank=True, choices=REASONS)
    end_detail = models.TextField(blank=True)

    class Meta:
        ordering = ["database", "number"]
        constraints = [
            models.UniqueConstraint(
                fields=["database"], condition=Q(ended_at=None), name="one_open_timeline_a_database"
            ),
            models.UniqueConstraint(fields=["database", "number"], name="timeline_numbers_differ"),
        ]

    def __str__(self):
        return f"{self.database} timeline {self.number}"

    @classmethod
    def open(cls, database, server_uuid, position):
        """The database's open timeline, begun now where there is none.

        position: where shipping starts, None where point-in-time recovery is off.  The parent is the timeline
        before it, except where that one belongs to another server.
        """
        with transaction.atomic():
            type(database).objects.select_for_update().get(pk=database.pk)  # of two backups that begin, one opens it
            timelines = cls.objects.filter(database=database)
            if (found := timelines.filter(ended_at=None).first()) is None:
                last = timelines.order_by("number").last()
                found = cls.objects.create(
                    database=database,
                    parent=None if last is None or last.end_reason == cls.REPLACED else last,
                    number=(timelines.aggregate(n=Max("number"))["n"] or 0) + 1,
                    server_uuid=server_uuid,
                    started_at=timezone.now(),
                    start_position=position,
                )
        if position is not None and found.start_position is None and not found.slices.exists():
            cls.objects.filter(pk=found.pk, start_position__isnull=True).update(start_position=position)
            found.refresh_from_db()
        return found

    def end(self, reason, detail):
        """End it; False where it had ended already (the first reason stays)."""
        ended = Timeline.objects.filter(pk=self.pk, ended_at=None).update(
            ended_at=timezone.now(), end_reason=reason, end_detail=detail
        )
        self.refresh_from_db()
        return bool(ended)

    def backup_points(self) -> list[BackupPoint]:
        backups = self.backups.filter(state="succeeded").select_related("storage")
        return [backup.point() for backup in backups]

    def slice_points(self) -> list[SlicePoint]:
        return [one.point() for one in self.slices.select_related("storage").order_by("level", "sequence")]
