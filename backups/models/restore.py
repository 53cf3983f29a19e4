"""Restores: one run that brings a target to a moment."""

from django.core.exceptions import ValidationError
from django.db import models, transaction
from django.utils import timezone

from backups.models.job import Job


class Restore(models.Model):
    DRAFT, PENDING, RUNNING, SUCCEEDED, FAILED, CANCELLED = (
        "draft", "pending", "running", "succeeded", "failed", "cancelled",
    )  # fmt: skip
    STATES = [
        (DRAFT, "Not started"),
        (PENDING, "Pending"),
        (RUNNING, "In progress"),
        (SUCCEEDED, "Succeeded"),
        (FAILED, "Failed"),
        (CANCELLED, "Cancelled"),
    ]
    LATEST, TIME, GTID, BEFORE, BACKUP = "latest", "time", "gtid", "before", "backup"
    MOMENTS = [
        (LATEST, "Latest possible"),
        (TIME, "Date and time"),
        (GTID, "Up to a GTID"),
        (BEFORE, "Just before a GTID"),
        (BACKUP, "A backup"),
    ]

    source = models.ForeignKey("backups.Database", on_delete=models.CASCADE, related_name="restores")
    target = models.ForeignKey("backups.Database", on_delete=models.CASCADE, related_name="restores_into")
    moment = models.CharField(max_length=8, choices=MOMENTS)
    moment_us = models.BigIntegerField(
        null=True, blank=True, help_text="For a date and time: microseconds since the epoch, UTC"
    )
    moment_gtid = models.CharField(max_length=200, blank=True)
    backup = models.ForeignKey(
        "backups.Backup",
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="restores",
        help_text="Base backup",
    )
    timeline = models.ForeignKey(
        "backups.Timeline", null=True, blank=True, on_delete=models.SET_NULL, related_name="restores"
    )
    # Filled when the moment is resolved and planned: position, last and next transaction, slices, bytes, schemas lost.
    plan = models.JSONField(null=True, blank=True)
    replace = models.CharField(max_length=64, blank=True, help_text="The target's name, typed, where it holds schemas")
    accounts = models.BooleanField(
        default=False, help_text="Put back the backup's accounts that the target does not have"
    )
    verbatim = models.BooleanField(
        default=False, help_text="Replay every change as it was logged, none combined with later ones"
    )
    touched = models.BooleanField(
        default=False, help_text="The target has been changed: a retry may replace what it holds"
    )
    target_settings = models.JSONField(
        default=dict, blank=True, help_text="Settings to put back on the target, also after a crash"
    )
    state = models.CharField(max_length=12, choices=STATES, default=DRAFT)
    error = models.TextField(blank=True)
    result = models.JSONField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    who = models.CharField(max_length=150, blank=True)

    class Meta:
        ordering = ["-created_at"]
        indexes = [models.Index(fields=["source", "created_at"])]

    def __str__(self):
        return f"restore {self.pk} of {self.source} into {self.target}"

    @classmethod
    def request(
        cls, source, target, moment, who="", *, moment_us=None, moment_gtid="", backup=None, timeline=None, ring=True
    ):
        """A draft, and a Job that resolves its moment and plans it for the person to review."""
        cls._check_request(source, moment, moment_us, moment_gtid, backup)
        with transaction.atomic():
            restore = cls.objects.create(
                source=source,
                target=target,
                moment=moment,
                moment_us=moment_us,
                moment_gtid=moment_gtid.strip(),
                backup=backup,
                timeline=timeline or (backup.timeline if backup else None),
                who=str(who),
            )
            Job.enqueue(Job.RESOLVE, who=who, ring=ring, database=source, restore=restore)
        return restore

    @classmethod
    def _check_request(cls, source, moment, moment_us, moment_gtid, backup):
        if not source.backups.filter(state="succeeded").exists():
            raise ValidationError(f"{source} has no succeeded backup yet, so nothing can be restored.")
        if moment == cls.TIME and moment_us is None:
            raise ValidationError("Say which date and time to restore to.")
        if moment in (cls.GTID, cls.BEFORE) and not moment_gtid.strip():
            raise ValidationError("Say which GTID is meant.")
        if moment == cls.BACKUP and (backup is None or backup.state != "succeeded"):
            raise ValidationError("Choose a succeeded backup.")

    @property
    def job(self):
        """The newest Job that worked on it."""
        return self.jobs.order_by("pk").last()

    @property
    def loses(self):
        """Schemas of the target that would be replaced or dropped: [{"schema", "rows"}]."""
        return (self.plan or {}).get("loses", [])

    def start(self, replace="", who="", ring=True, accounts=False, verbatim=False):
        """Go; ValidationError with the reason why not.  Of two people who press the button, one starts it."""
        self._check_start(replace)
        with transaction.atomic():
            started = Restore.objects.filter(pk=self.pk, state=self.DRAFT).update(
                state=self.PENDING, replace=replace, accounts=accounts, verbatim=verbatim, error=""
            )
            if not started:
                raise ValidationError("This restore was started already.")
            self.refresh_from_db()
            return Job.enqueue(Job.RESTORE, who=who, ring=ring, database=self.target, restore=self)

    def _check_start(self, replace):
        if self.plan is None:
            raise ValidationError(self.error or "The moment is not resolved yet. Wait for it a few seconds.")
        if self.loses and replace != self.target.name:
            schemas = ", ".join(one["schema"] for one in self.loses)
            raise ValidationError(f"{self.target} holds {schemas}. Type the name {self.target} to replace them.")
        busy = Job.objects.filter(state__in=Job.OPEN, kind__in=[Job.RESTORE, Job.BACKUP], database=self.target)
        if (job := busy.first()) is not None:
            raise ValidationError(f"{self.target} is busy: {job} is not finished. Wait for it, or cancel it.")

    def settle(self, state, error):
        """It is over; without success, say what state the target is in."""
        touched = Restore.objects.values_list("touched", flat=True).get(pk=self.pk)
        if state != self.SUCCEEDED and touched:
            error += f" {self.target} has been changed and is incomplete: restore into it again before it is used."
        elif state != self.SUCCEEDED:
            error += f" {self.target} was not changed."
        Restore.objects.filter(pk=self.pk, state__in=[self.PENDING, self.RUNNING]).update(
            state=state, error=error, finished_at=timezone.now()
        )

    def cancel(self, who=""):
        """Stop what works on it; a draft is put away at once."""
        job = self.jobs.filter(kind__in=[Job.RESTORE, Job.RESOLVE], state__in=Job.OPEN).first()
        cancelled = bool(job and job.cancel(who))
        drafts = Restore.objects.filter(pk=self.pk, state=self.DRAFT)
        return bool(drafts.update(state=self.CANCELLED, finished_at=timezone.now())) or cancelled
