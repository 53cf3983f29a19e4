"""Backups and slices: rows that describe objects in a bucket."""

import uuid
from dataclasses import asdict
from datetime import timedelta

from django.core.exceptions import ValidationError
from django.db import models, transaction
from django.utils import timezone

from backups.engine import retention
from backups.engine.errors import EngineError
from backups.engine.types import BackupPoint, SlicePoint
from backups.models.job import Job
from backups.models.timeline import Timeline, from_us, to_us
from everest.secrets import SecretLost
from storages.models import BackupStorage
from storages.stores import StoreError

MINUTE = 60_000_000  # microseconds


class Backup(models.Model):
    PENDING, RUNNING, SUCCEEDED, FAILED, DELETING, CANCELLED = (
        "pending", "running", "succeeded", "failed", "deleting", "cancelled",
    )  # fmt: skip
    STATES = [
        (PENDING, "Pending"),
        (RUNNING, "In progress"),
        (SUCCEEDED, "Succeeded"),
        (FAILED, "Failed"),
        (DELETING, "Deleting"),
        (CANCELLED, "Cancelled"),
    ]

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    database = models.ForeignKey("backups.Database", on_delete=models.CASCADE, related_name="backups")
    timeline = models.ForeignKey(
        "backups.Timeline", null=True, blank=True, on_delete=models.PROTECT, related_name="backups"
    )
    storage = models.ForeignKey(BackupStorage, on_delete=models.PROTECT, related_name="backups")
    schedule = models.ForeignKey(
        "backups.Schedule", null=True, blank=True, on_delete=models.SET_NULL, related_name="backups"
    )
    name = models.CharField(max_length=64)
    state = models.CharField(max_length=12, choices=STATES, default=PENDING)
    error = models.TextField(blank=True)
    pinned = models.BooleanField(default=False)
    manifest_key = models.CharField(max_length=255, blank=True)
    position = models.JSONField(null=True, blank=True)
    view_at = models.DateTimeField("Consistent at", null=True, blank=True)
    size = models.BigIntegerField(default=0)
    rows = models.BigIntegerField(default=0)
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created_at"]
        constraints = [models.UniqueConstraint(fields=["database", "name"], name="backup_names_differ")]
        indexes = [
            models.Index(fields=["created_at"]),
            models.Index(fields=["database", "created_at"]),
            models.Index(fields=["database", "state", "view_at"]),
            models.Index(fields=["timeline", "state", "view_at"]),
            models.Index(fields=["schedule", "created_at"]),
            models.Index(fields=["storage", "database"]),
        ]

    def __str__(self):
        return self.name

    @property
    def job(self):
        """The newest Job that worked on it."""
        return self.jobs.order_by("pk").last()

    def point(self):
        return BackupPoint(
            id=str(self.pk),
            timeline=str(self.timeline_id),
            position=self.position,
            view_us=to_us(self.view_at),
            storage=self.storage.name,
            schedule=str(self.schedule_id or ""),
            pinned=self.pinned,
        )

    def take_over(self, manifest, key):
        """Describe what the manifest in the bucket holds."""
        self.manifest_key, self.position, self.view_at = key, dict(manifest.position), from_us(manifest.view_us)
        self.size, self.rows = manifest.size, manifest.rows
        self.started_at, self.finished_at = from_us(manifest.started_us), from_us(manifest.finished_us)
        self.state, self.error = self.SUCCEEDED, ""
        with transaction.atomic():
            self.save()
            Timeline.unspan(pk=self.timeline_id)

    def settle(self, state, error):
        """Its Job is over without success."""
        Backup.objects.filter(pk=self.pk, state__in=[self.PENDING, self.RUNNING]).update(
            state=state, error=error, finished_at=timezone.now()
        )

    def begin_again(self):
        """As if it had only been asked for now."""
        ended = [self.FAILED, self.CANCELLED]
        if not Backup.objects.filter(pk=self.pk, state__in=ended).update(state=self.PENDING, error=""):
            raise ValidationError(f"{self} is {self.get_state_display().lower()}.")

    def pin(self, pinned):
        """Pinned, neither retention nor a person deletes it; the bucket is told, too."""
        Backup.objects.filter(pk=self.pk).update(pinned=pinned)
        self.pinned = pinned
        self.database.describe_soon()

    def cancel(self, who=""):
        job = self.jobs.filter(kind=Job.BACKUP, state__in=Job.OPEN).first()
        return bool(job and job.cancel(who))

    def request_verify(self, who=""):
        return self.database.verify(who, backup=self)

    def request_delete(self, who=""):
        """Mark it, so that nothing is restored from it any more; a Job then deletes its objects."""
        if self.pinned:
            raise ValidationError(f"{self} is pinned. Remove the pin first.")
        if self.state in (self.PENDING, self.RUNNING):
            raise ValidationError(f"{self} is not finished. Cancel it first.")
        if self.restores.filter(state__in=["pending", "running"]).exists():
            raise ValidationError(f"{self} is being restored. Wait for the restore, or cancel it.")
        with transaction.atomic():
            if not Backup.objects.filter(pk=self.pk).exclude(state=self.DELETING).update(state=self.DELETING):
                raise ValidationError(f"{self} is being deleted already.")
            self.refresh_from_db()
            Timeline.unspan(pk=self.timeline_id)
            return Job.enqueue(Job.DELETE, who=who, database=self.database, backup=self)

    def manifest(self):
        """What the bucket says, as plain values; ValidationError with the reason where it cannot be read."""
        if self.state != self.SUCCEEDED:
            raise ValidationError(f"{self} has no manifest: it is {self.get_state_display().lower()}.")
        try:
            archive = self.database.archive(self.storage)
            return asdict(archive.read_manifest(str(self.timeline_id), str(self.pk)))
        except (EngineError, StoreError, SecretLost) as error:
            raise ValidationError(str(error)) from error

    @property
    def _others(self):
        """The timeline's other succeeded backups, oldest first."""
        return self.timeline.backups.filter(state=self.SUCCEEDED).exclude(pk=self.pk).order_by("view_at")

    def freed(self):
        """What deleting it gives back: its own bytes, and slices that no kept backup needs any more."""
        if self.state != self.SUCCEEDED or self.timeline is None:
            return {"slices": 0, "size": self.size}
        oldest = self._others.select_related("storage").first()
        if oldest is not None and oldest.view_at <= self.view_at:
            return {"slices": 0, "size": self.size}
        which = models.Q()
        if oldest is not None:  # no slice that is much younger can go
            newest = self.timeline.slices.filter(level=0).order_by("-sequence").values("pk")[:1]
            which = models.Q(last_us__lte=to_us(oldest.view_at) + MINUTE) | models.Q(pk=newest)
        live = {str(self.timeline_id)} if self.timeline.ended_at is None else set()
        kept = [oldest.point()] if oldest else []
        spare = retention.spare(kept, self.timeline.slice_points(which), self.timeline.at_or_before, live)
        return {"slices": len(spare), "size": self.size + sum(point.size for point in spare)}

    def losses(self):
        """What can no longer be restored once it is deleted: one sentence, or none."""
        if self.state != self.SUCCEEDED or self.timeline is None:
            return []
        span = next((one for one in self.timeline.kept_spans() if one.floor_id == self.pk), None)
        if span is None:
            return []  # an older backup and the slices behind it say all that this one says
        later = self._others.filter(view_at__gt=self.view_at).first()
        return [self._loss(span.first_us, min(span.last_us, to_us(later.view_at)) if later else span.last_us)]

    @staticmethod
    def _loss(first_us, end_us):
        if first_us == end_us:
            return f"The moment of this backup, {from_us(end_us):%Y-%m-%d %H:%M:%S} UTC."
        return f"Every moment from {from_us(first_us):%Y-%m-%d %H:%M:%S} to {from_us(end_us):%Y-%m-%d %H:%M:%S} UTC."


class Slice(models.Model):
    """One slice as its index in the bucket describes it; rebuilt from there by `catalog`."""

    timeline = models.ForeignKey("backups.Timeline", on_delete=models.CASCADE, related_name="slices")
    storage = models.ForeignKey(BackupStorage, on_delete=models.PROTECT, related_name="slices")
    key = models.CharField(max_length=255)
    level = models.PositiveSmallIntegerField(default=0)
    sequence = models.BigIntegerField()
    previous = models.CharField(max_length=255, blank=True)
    start = models.JSONField()
    end = models.JSONField()
    first_us = models.BigIntegerField(default=0)
    last_us = models.BigIntegerField(default=0)
    count = models.PositiveIntegerField(default=0)
    size = models.BigIntegerField(default=0)
    raw_size = models.BigIntegerField(default=0)
    exact_times = models.BooleanField(default=True)
    written_at = models.DateTimeField()
    holds = models.PositiveIntegerField(default=1, help_text="Slices of level 0")
    apart = models.BooleanField(default=False, help_text="Seen not to be one binlog file with what is before it")
    parts_go_at = models.DateTimeField(null=True, help_text="From then on no run can have planned with its parts")

    GRACE = timedelta(hours=1)  # far more than lies between planning with rows and being seen to read

    class Meta:
        ordering = ["timeline_id", "level", "sequence"]
        constraints = [models.UniqueConstraint(fields=["timeline", "level", "sequence"], name="one_slice_a_sequence")]
        indexes = [models.Index(fields=["timeline", "level", "last_us", "size"])]

    def __str__(self):
        return self.key

    @classmethod
    def record(cls, timeline, storage, index):
        """The row of one index; recording it twice changes nothing."""
        with transaction.atomic():
            row, new = cls.objects.update_or_create(
                timeline=timeline,
                level=index.level,
                sequence=index.sequence,
                defaults={"storage": storage, **cls._described(index)},
            )
            timeline.storages.add(storage)
            if new and index.level == 0:  # merging changes nothing of what can be restored
                timeline.grow(row.point())
        return row

    @staticmethod
    def _described(index):
        times = index.times
        return {
            "key": index.key,
            "previous": index.previous,
            "start": dict(index.start),
            "end": dict(index.end),
            "first_us": min(times, default=0),
            "last_us": max(times, default=0),
            "count": len(times),
            "size": index.data.size,
            "raw_size": index.raw_size,
            "exact_times": index.exact_times,
            "written_at": from_us(index.written_us),
            "holds": index.holds,
            "parts_go_at": timezone.now() + Slice.GRACE if index.level else None,
        }

    def point(self):
        return SlicePoint(
            key=self.key,
            timeline=str(self.timeline_id),
            level=self.level,
            sequence=self.sequence,
            previous=self.previous,
            start=self.start,
            end=self.end,
            first_us=self.first_us,
            last_us=self.last_us,
            count=self.count,
            size=self.size,
            raw_size=self.raw_size,
            exact_times=self.exact_times,
            storage=self.storage.name,
            written_us=to_us(self.written_at),
            holds=self.holds,
        )
