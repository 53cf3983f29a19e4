"""Running pieces of work.  This table is the queue; the broker is only a doorbell."""

from datetime import timedelta

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models, transaction
from django.db.models import F, Q
from django.db.models.functions import Coalesce
from django.utils import timezone


class Job(models.Model):
    """One running piece of work.  This table is the queue; the broker is only a doorbell."""

    SHORT, LONG, RESTORE = "short", "long", "restore"
    PENDING, RUNNING, SUCCEEDED, FAILED, CANCELLED = "pending", "running", "succeeded", "failed", "cancelled"
    STATES = [
        (PENDING, "Pending"),
        (RUNNING, "In progress"),
        (SUCCEEDED, "Succeeded"),
        (FAILED, "Failed"),
        (CANCELLED, "Cancelled"),
    ]
    OPEN = (PENDING, RUNNING)
    LOG_LIMIT = 200_000  # characters; of a longer log the oldest go
    BACKUP, RESOLVE, DELETE, VERIFY, CHECK, PUT_BACK = "backup", "resolve", "delete", "verify", "check", "put_back"
    CATALOG, TRANSACTIONS, ROWS, MERGE = "catalog", "transactions", "rows", "merge"
    LOOKS = (TRANSACTIONS, ROWS)  # what a person asked to see; nothing changes by it
    UPKEEP = (CHECK, MERGE)  # comes every few minutes of itself
    KINDS = [
        (BACKUP, "Backup"),
        (RESTORE, "Restore"),
        (RESOLVE, "Resolve a moment"),
        (DELETE, "Delete"),
        (VERIFY, "Verify"),
        (CHECK, "Check"),
        (PUT_BACK, "Put settings back"),
        (CATALOG, "Read a storage's catalogue"),
        (TRANSACTIONS, "List transactions"),
        (ROWS, "Show rows"),
        (MERGE, "Merge slices"),
    ]
    QUEUES = {
        BACKUP: LONG,
        VERIFY: LONG,
        DELETE: LONG,
        CATALOG: LONG,
        MERGE: LONG,
        RESTORE: RESTORE,
        RESOLVE: SHORT,
        CHECK: SHORT,
        PUT_BACK: SHORT,
        TRANSACTIONS: SHORT,
        ROWS: SHORT,
    }

    kind = models.CharField(max_length=12, choices=KINDS)
    queue = models.CharField(max_length=8, choices=[(SHORT, "Short"), (LONG, "Long"), (RESTORE, "Restore")])
    state = models.CharField(max_length=12, choices=STATES, default=PENDING)
    database = models.ForeignKey(
        "backups.Database", null=True, blank=True, on_delete=models.CASCADE, related_name="jobs"
    )
    backup = models.ForeignKey("backups.Backup", null=True, blank=True, on_delete=models.SET_NULL, related_name="jobs")
    restore = models.ForeignKey("backups.Restore", null=True, blank=True, on_delete=models.CASCADE, related_name="jobs")
    arguments = models.JSONField(default=dict, blank=True)
    owner = models.CharField(max_length=64, blank=True, help_text="Who holds it: a random token a run")
    lease_until = models.DateTimeField(null=True, blank=True)
    heartbeat = models.DateTimeField(null=True, blank=True)
    rung_at = models.DateTimeField(null=True, blank=True)
    attempts = models.PositiveIntegerField(default=0)
    cancel_requested = models.BooleanField(default=False)
    progress = models.JSONField(default=dict, blank=True)
    result = models.JSONField(null=True, blank=True)
    error = models.TextField(blank=True)
    log = models.TextField(blank=True)
    who = models.CharField(max_length=150, blank=True)
    created_at = models.DateTimeField(auto_now_add=True, db_index=True)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created_at", "-id"]
        indexes = [models.Index(fields=["state", "queue"]), models.Index(fields=["database", "state"])]

    def __str__(self):
        return f"{self.get_kind_display()} {self.pk}"

    @classmethod
    def enqueue(cls, kind, *, who="", ring=True, arguments=None, **refs):
        """Put it into the queue; the bell rings once the transaction around this is committed."""
        job = cls.objects.create(kind=kind, queue=cls.QUEUES[kind], who=str(who), arguments=arguments or {}, **refs)
        if ring:
            transaction.on_commit(job.ring)
        return job

    @classmethod
    def rebuild_catalogue(cls, storage, who=""):
        """Bring rows for everything that a storage holds; one Job a storage is enough at a time."""
        same = {"kind": cls.CATALOG, "arguments": {"storage": storage.pk}}
        return cls.objects.filter(state__in=cls.OPEN, **same).first() or cls.enqueue(who=who, **same)

    def ring(self):
        from backups.queue import ring

        Job.objects.filter(pk=self.pk).update(rung_at=timezone.now())
        ring("backups.tasks.run", self.pk, queue=self.queue)

    @staticmethod
    def lease():
        now = timezone.now()
        return {"heartbeat": now, "lease_until": now + timedelta(seconds=settings.EVEREST_LEASE_SECONDS)}

    def claim(self):
        """Take it for this process: a conditional UPDATE, so of two deliveries one wins.  Return the owner or ""."""
        from backups.queue import new_owner

        owner = new_owner()
        claimed = Job.objects.filter(pk=self.pk, state=self.PENDING).update(
            state=self.RUNNING,
            owner=owner,
            attempts=F("attempts") + 1,
            started_at=Coalesce("started_at", timezone.now()),
            **self.lease(),
        )
        if claimed:
            self.refresh_from_db()
        return owner if claimed else ""

    def held(self, owner):
        """The row, if this owner still holds it: every write of a run goes through here."""
        return Job.objects.filter(pk=self.pk, state=self.RUNNING, owner=owner)

    def release(self, owner):
        """A stop interrupted it: pending again, to be resumed or started over; that try does not count."""
        return bool(
            self.held(owner).update(
                state=self.PENDING, owner="", lease_until=None, rung_at=None, attempts=F("attempts") - 1
            )
        )

    def finish(self, owner, state, *, result=None, error=""):
        return bool(
            self.held(owner).update(
                state=state, owner="", lease_until=None, result=result, error=error, finished_at=timezone.now()
            )
        )

    def forget(self):
        """It did what it was for and tells nothing; neither do those of its kind that failed before."""
        same = Job.objects.filter(kind=self.kind, database=self.database)
        same.filter(Q(pk=self.pk) | ~Q(state__in=self.OPEN)).delete()

    def cancel(self, who=""):
        """Ask a run to stop; a Job that nobody runs is cancelled at once.  False where it was over already."""
        with transaction.atomic():
            waiting = Job.objects.filter(pk=self.pk, state=self.PENDING).update(
                state=self.CANCELLED, cancel_requested=True, finished_at=timezone.now(), error=f"Cancelled by {who}."
            )
            if waiting:
                self.refresh_from_db()
                self.settle_subject(self.CANCELLED, self.error)
            asked = Job.objects.filter(pk=self.pk, state=self.RUNNING).update(cancel_requested=True)
        self.refresh_from_db()
        return bool(waiting or asked)

    def waits_for(self):
        """Why it has not started yet; "" once it has."""
        from backups.queue import workers_seen

        if self.state != self.PENDING:
            return ""
        if not workers_seen():
            return "No worker has been seen for three minutes: start `manage.py worker`."
        if self.log:
            return self.log.strip().rpartition("\n")[2]
        running = Job.objects.filter(queue=self.queue, state=self.RUNNING).select_related("database")
        if not running:
            return "It starts in a moment."
        return "It waits for a worker: " + ", ".join(f"{job} of {job.database}" for job in running) + " is running."

    def settle_subject(self, state, error):
        """Carry the Job's end over to the Backup or Restore that it worked on."""
        if self.kind == self.BACKUP and self.backup:
            self.backup.settle(state, error)
        elif self.kind == self.RESTORE and self.restore:
            self.restore.settle(state, error)
        elif self.kind == self.RESOLVE and self.restore and error:
            self.restore.error = error
            self.restore.save(update_fields=["error"])

    def retry(self, who=""):
        """A new Job for the same work, this one stays as it ended; ValidationError with the reason why not.

        A restore is not retried: what it would replace has to be reviewed anew.
        """
        if self.state not in (self.FAILED, self.CANCELLED):
            raise ValidationError(f"{self} is {self.get_state_display().lower()}: only what failed can be retried.")
        if self.kind == self.RESTORE:
            raise ValidationError(f"{self}: choose Restore again on its page, where what would be lost is reviewed.")
        if (self.kind == self.BACKUP and self.backup is None) or self.kind in self.LOOKS:
            raise ValidationError(f"{self}: what it was for is gone.")
        same = {"kind": self.kind, "database": self.database, "backup": self.backup, "restore": self.restore}
        if Job.objects.filter(state__in=self.OPEN, **same).exists():
            raise ValidationError(f"{self} is being retried already.")
        with transaction.atomic():
            if self.kind == self.BACKUP:
                self.backup.begin_again()
            return Job.enqueue(who=who, arguments=self.arguments, **same)

    def release_lease(self):
        """Give up a run whose worker is silent, before its lease ends: pending again, for another worker."""
        silent = timezone.now() - timedelta(seconds=settings.EVEREST_LEASE_SECONDS / 2)
        same = Job.objects.filter(pk=self.pk, state=self.RUNNING, owner=self.owner, heartbeat__lt=silent)
        if not same.update(state=self.PENDING, owner="", lease_until=None, rung_at=None):
            raise ValidationError(f"{self} is not held by a silent worker. Cancel it, if it is to stop.")


class WorkerState(models.Model):
    """When something of the workers was last heard: the tick, each cluster.  Claimed by conditional UPDATE."""

    TICK = "tick"

    name = models.CharField(max_length=100, primary_key=True)
    seen_at = models.DateTimeField()
    detail = models.JSONField(default=dict, blank=True)

    def __str__(self):
        return self.name

    @classmethod
    def seen(cls, name, **detail):
        cls.objects.update_or_create(name=name, defaults={"seen_at": timezone.now(), "detail": detail})

    @classmethod
    def win(cls, name, every):
        """True for one caller in `every` seconds, of however many processes and machines.

        A time to come was written by a machine whose clock is wrong; it holds nobody up.
        """
        now = timezone.now()
        _, created = cls.objects.get_or_create(name=name, defaults={"seen_at": now})
        # A tenth of a second or of the interval early is on time: rings are never exactly `every` apart.
        length = timedelta(seconds=every)
        due = Q(seen_at__lte=now - length + min(length / 10, timedelta(seconds=1))) | Q(seen_at__gt=now + length)
        return created or bool(cls.objects.filter(due, name=name).update(seen_at=now))
