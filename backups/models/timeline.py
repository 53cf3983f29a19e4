"""Histories of servers, and what of them can be restored."""

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.db import models, transaction
from django.db.models import Max, Q
from django.utils import timezone

from backups.engine import engine, plan
from backups.engine.types import BackupPoint, SlicePoint
from storages.models import BackupStorage

MOST_GROWING = 50  # spans that one more slice may change: backups that it catches up with
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
    storages = models.ManyToManyField(BackupStorage, related_name="timelines", editable=False)  # that hold its slices
    spanned = models.BooleanField(default=False, editable=False, help_text="Its spans say what its other rows say")

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
                    spanned=True,
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

    def slice_points(self, *which: Q) -> list[SlicePoint]:
        slices = self.slices.filter(*which).select_related("storage").order_by("level", "sequence")
        return [one.point() for one in slices.iterator()]

    # What can be restored of it, kept as rows: pages show it without a look at every slice.

    @property
    def at_or_before(self):
        return engine(self.database.engine).at_or_before

    def kept_spans(self) -> list["Span"]:
        """Oldest first."""
        if not self.spanned:
            return self.found_spans()
        return list(self.spans.select_related("floor__storage").order_by(*Span.ORDER))

    def found_spans(self) -> list["Span"]:
        """As all its backups and slices say; not saved."""
        taken = {str(one.pk): one for one in self.backups.filter(state="succeeded").select_related("storage")}
        slices = self.slice_points() if taken else []
        found = plan.ranges([one.point() for one in taken.values()], slices, self.at_or_before)
        return [Span(timeline=self, floor=taken[one.first.id]).say(one) for one in found]

    @classmethod
    def unspan(cls, **which):
        """A backup came, or something went: what was kept is found anew.  In the transaction that changes it."""
        cls.objects.filter(**which).update(spanned=False)

    def respan(self):
        """Keep what all its backups and slices say."""
        with transaction.atomic():
            Timeline.objects.select_for_update().get(pk=self.pk)
            self.spans.all().delete()
            Span.objects.bulk_create(self.found_spans())
            Timeline.objects.filter(pk=self.pk).update(spanned=True)

    def grow(self, point: SlicePoint):
        """A slice was added.  In the transaction that adds it."""
        if not Timeline.objects.select_for_update().get(pk=self.pk).spanned:
            return
        if self.slices.filter(level=0, sequence__gt=point.sequence).exists():
            self.unspan(pk=self.pk)
            return
        newest = self.spans.select_related("floor__storage").order_by("-first_us", "-floor")[:MOST_GROWING]
        kept = {str(span.floor_id): span for span in reversed(newest)}
        for one in plan.grown([span.range() for span in kept.values()], point, self.at_or_before):
            span = kept.pop(one.first.id)
            if span.end != one.end:  # it goes on with the slice, or begins there
                span.say(one).save()
        Span.objects.filter(pk__in=[span.pk for span in kept.values()]).delete()


class Span(models.Model):
    """One range of `plan.ranges`: moments of a timeline that can be restored, from a backup on."""

    ORDER = ["first_us", "floor"]

    timeline = models.ForeignKey(Timeline, on_delete=models.CASCADE, related_name="spans")
    floor = models.ForeignKey("backups.Backup", on_delete=models.CASCADE, related_name="+")
    first_us = models.BigIntegerField()
    last_us = models.BigIntegerField()
    last = models.JSONField()
    end = models.JSONField(null=True)
    near = models.JSONField(default=list)

    class Meta:
        ordering = ["timeline", "first_us"]
        indexes = [models.Index(fields=["timeline", "first_us"])]

    def __str__(self):
        return f"{from_us(self.first_us)} to {from_us(self.last_us)}"

    def say(self, found: plan.Range) -> "Span":
        self.first_us, self.last_us = found.first_us, found.last_us
        self.last, self.end, self.near = dict(found.last), found.end and dict(found.end), list(found.near)
        return self

    def range(self) -> plan.Range:
        first, line = self.floor.point(), str(self.timeline_id)
        return plan.Range(line, self.first_us, self.last_us, first, self.last, self.end, tuple(self.near))
