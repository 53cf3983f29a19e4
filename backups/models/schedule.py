"""When backups are taken."""

import uuid

from django.core.exceptions import ValidationError
from django.db import models
from django.utils import timezone

from backups import schedules
from everest.models import Event
from storages.models import BackupStorage


class Schedule(models.Model):
    """When backups of one Database are taken, in a named zone, and how many copies are kept (0: all)."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    database = models.ForeignKey("backups.Database", on_delete=models.CASCADE, related_name="schedules")
    storage = models.ForeignKey(BackupStorage, on_delete=models.PROTECT, related_name="schedules")
    name = models.CharField(max_length=64)
    cron = models.CharField(max_length=100)
    time_zone = models.CharField(max_length=64, default="UTC")
    start_from = models.DateTimeField(null=True, blank=True)
    retention_copies = models.PositiveIntegerField(default=0)
    active = models.BooleanField(default=True)
    next_run = models.DateTimeField(null=True, blank=True, db_index=True, editable=False)
    last_run = models.DateTimeField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["database", "name"]
        constraints = [models.UniqueConstraint(fields=["database", "name"], name="schedule_names_differ")]

    def __str__(self):
        return self.name

    def clean(self):
        for field, check in (("cron", schedules.validate), ("time_zone", schedules.zone_named)):
            try:
                check(getattr(self, field))
            except ValueError as error:
                raise ValidationError({field: str(error)}) from None

    def save(self, *args, describe=True, **kwargs):
        """Compute the next run anew, and let the bucket know (not while rows come from there)."""
        self.next_run = self.after(timezone.now()) if self.active else None
        super().save(*args, **kwargs)
        if describe:
            self.database.describe_soon()

    def delete(self, *args, **kwargs):
        deleted = super().delete(*args, **kwargs)
        self.database.describe_soon()
        return deleted

    def after(self, moment):
        return schedules.next_run(self.cron, self.time_zone, moment, self.start_from)

    def next_runs(self, count=3):
        return schedules.next_runs(self.cron, self.time_zone, timezone.now(), count, self.start_from)

    def describe(self):
        return schedules.describe(self.cron, self.time_zone)

    def pause(self, who=""):
        self._switch(False, who)

    def resume(self, who=""):
        self._switch(True, who)

    def _switch(self, active, who):
        self.active = active
        self.save()

    def take(self, now):
        """Start the backup that is due; False where another worker took it.  However many were missed: one."""
        taken = Schedule.objects.filter(pk=self.pk, active=True, next_run=self.next_run).update(
            next_run=self.after(now), last_run=now
        )
        if not taken:
            return False
        if self.backups.filter(state__in=["pending", "running"]).exists():
            Event.note("schedule", "skipped a backup", self.name, "Its backup before is not finished yet.")
            return False
        self.database.backup_now(storage=self.storage, who="schedule", schedule=self)
        return True
