"""Registered servers."""

import secrets
import string
import uuid

from django.core import validators
from django.core.exceptions import ValidationError
from django.db import models, transaction
from django.db.models import Exists, OuterRef, Q
from django.utils import timezone

from backups.engine import engine
from backups.engine.archive import Archive
from backups.engine.crypt import Keys
from backups.engine.errors import EngineError
from backups.models.backup import Backup, Slice
from backups.models.job import Job
from backups.models.timeline import Recoverable, Span, Timeline, to_us
from everest.secrets import SecretField, SecretLost
from storages.models import BackupStorage


def unmended():
    """Timelines that ended in a gap which no later backup has mended yet."""
    later = Timeline.objects.filter(
        database=OuterRef("database"), number__gt=OuterRef("number"), backups__state=Backup.SUCCEEDED
    )
    return Timeline.objects.filter(~Exists(later), end_reason__in=[Timeline.GAP, Timeline.FORK])


def troubled():
    """Which Databases somebody should look at: no answer, not shipped, or a gap."""
    return Q(status=Database.DOWN) | ~Q(ship_error="") | Exists(unmended().filter(database=OuterRef("pk")))


class Database(models.Model):
    """A registered server, with its account and TLS settings."""

    UP, DOWN, RESTORING, UNKNOWN = "up", "down", "restoring", "unknown"
    VERIFY, REQUIRED, OFF = "verify", "required", "off"
    TLS = [(VERIFY, "Verify with CA"), (REQUIRED, "Required"), (OFF, "Off")]
    SEEN = ["flavour", "version", "server_uuid", "status", "status_detail", "checked_at", "checks"]

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=64, unique=True)
    engine = models.CharField(max_length=16, default="mysql", editable=False)
    host = models.CharField(max_length=255)
    port = models.PositiveIntegerField(default=3306)
    user = models.CharField(max_length=80)
    password = SecretField(blank=True, default="")
    tls = models.CharField("TLS", max_length=8, default=REQUIRED, choices=TLS)
    ca_certificate = models.TextField("CA certificate", blank=True)
    client_certificate = models.TextField(blank=True)
    client_key = SecretField(blank=True, default="")

    # Seen at the last check; for display and for refusing an unrelated server.
    flavour = models.CharField(max_length=16, blank=True, editable=False)
    version = models.CharField(max_length=64, blank=True, editable=False)
    server_uuid = models.CharField(max_length=255, blank=True, editable=False)
    status = models.CharField(max_length=12, default=UNKNOWN, editable=False)
    status_detail = models.TextField(blank=True, editable=False)
    checked_at = models.DateTimeField(null=True, blank=True, editable=False)
    checks = models.JSONField(default=list, blank=True, editable=False)

    # How a backup reads it.
    connections = models.PositiveSmallIntegerField(
        default=4, validators=[validators.MinValueValidator(1), validators.MaxValueValidator(16)]
    )
    rate_limit = models.PositiveIntegerField("Rate limit, MB/s", null=True, blank=True)

    # Point-in-time recovery.
    pitr = models.BooleanField("Point-in-time recovery", default=False)
    pitr_storage = models.ForeignKey(
        BackupStorage, null=True, blank=True, on_delete=models.PROTECT, related_name="pitr_databases"
    )
    pitr_interval = models.PositiveIntegerField("Upload interval, seconds", default=60)
    production_hours = models.CharField(max_length=64, blank=True)

    # The ship lease: claimed by a conditional UPDATE; the bucket, not this row, says where shipping stands.
    ship_owner = models.CharField(max_length=64, blank=True, editable=False)
    ship_lease_until = models.DateTimeField(null=True, blank=True, editable=False)
    ship_position = models.JSONField(null=True, blank=True, editable=False)
    ship_error = models.TextField(blank=True, editable=False)
    ship_error_since = models.DateTimeField(null=True, blank=True, editable=False)
    ship_failures = models.PositiveIntegerField(default=0, editable=False, help_text="Runs in a row that failed")
    ship_retry_at = models.DateTimeField(null=True, blank=True, editable=False)
    caught_up_at = models.DateTimeField(
        null=True, blank=True, editable=False, help_text="The server's position equalled the last slice's end then"
    )

    merge_due_at = models.DateTimeField(
        null=True, blank=True, editable=False, default=timezone.now, help_text="When slices may be due for merging"
    )

    # Rebuilt from a bucket: it may be at work elsewhere, so it is only restored from until its form is saved.
    paused = models.BooleanField(default=False, editable=False)

    # What reading everything again has proven.
    verified_at = models.DateTimeField(null=True, blank=True, editable=False)
    verified = models.JSONField(
        default=dict, blank=True, editable=False, help_text="timelines, objects, size in bytes, problems (key, what)"
    )

    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]

    def __str__(self):
        return self.name

    # -- the server

    @property
    def module(self):
        """The engine's functions for this kind of server."""
        return engine(self.engine)

    def secret(self, field):
        """A fresh instance may still hold a plain string."""
        return self._meta.get_field(field).to_python(getattr(self, field)).reveal()

    def config(self):
        """Raise SecretLost where the password cannot be decrypted any more."""
        local = self.host.startswith("/")
        return self.module.ServerConfig(
            host="localhost" if local else self.host,
            port=self.port,
            user=self.user,
            password=self.secret("password"),
            tls=self.tls,
            ca=self.ca_certificate,
            client_certificate=self.client_certificate,
            client_key=self.secret("client_key"),
            unix_socket=self.host if local else "",
        )

    def identify(self):
        """Who answers there now, and where its log ends; raises EngineError."""
        connection = self.module.connect(self.config(), read_timeout=20)
        try:
            return self.module.identify(connection), self.module.current_position(connection)
        finally:
            connection.close()

    def preflight(self):
        """Ask the server what a source must be; fills what was seen, saves nothing, never raises for a bad server."""
        self.checked_at = timezone.now()
        try:
            connection = self.module.connect(self.config(), read_timeout=20)
            try:
                identity = self.module.identify(connection)
            finally:
                connection.close()
            checks = self.module.preflight_source(self.config())
        except (EngineError, SecretLost) as error:
            self.status, self.status_detail = self.DOWN, str(error)
            self.checks = [{"name": "reachable", "state": "fail", "message": str(error), "fix": ""}]
        else:
            self.flavour, self.version, self.server_uuid = identity.flavour, identity.version_text, identity.server_uuid
            self.status, self.status_detail = self.UP, ""
            self.checks = [
                {"name": one.name, "state": one.state, "message": one.message, "fix": one.fix} for one in checks
            ]
        return self.checks

    def check_server(self):
        """As preflight, and remember it."""
        checks = self.preflight()
        if self.restores_into.filter(state="running").exists():
            self.status = self.RESTORING
        self.save(update_fields=self.SEEN)
        return checks

    # -- backups

    def default_backup_name(self):
        letters = string.ascii_lowercase + string.digits
        while True:
            name = "backup-" + "".join(secrets.choice(letters) for _ in range(3))
            if not self.backups.filter(name=name).exists():
                return name

    def backup_now(self, name="", storage=None, who="", schedule=None, ring=True, alone=False):
        """Put a backup into the queue; ValidationError where its name is taken or there is no storage.

        alone: refuse where one is under way, so that of two people who press the button one starts a run.
        """
        storage = storage or self.pitr_storage or BackupStorage.objects.order_by("created_at").first()
        if storage is None:
            raise ValidationError("There is no Backup Storage yet: add one under Settings > Backup Storages.")
        if name and self.backups.filter(name=name).exists():
            raise ValidationError(f"{self} already has a backup named {name}.")
        if schedule is not None:
            name = f"{schedule.name[:45]}-{timezone.now():%Y%m%d-%H%M%S}"
        with transaction.atomic():
            Database.objects.select_for_update().get(pk=self.pk)
            under_way = self.backups.filter(state__in=[Backup.PENDING, Backup.RUNNING]).first()
            if alone and under_way:
                raise ValidationError(
                    f"The backup {under_way} of {self} is not finished yet. Wait for it, or cancel it."
                )
            backup = Backup.objects.create(
                database=self, storage=storage, schedule=schedule, name=name or self.default_backup_name()
            )
            Job.enqueue(Job.BACKUP, who=who, ring=ring, database=self, backup=backup)
        return backup

    def verify(self, who="", ring=True, backup=None, every=1):
        """Re-read what is stored and prove it: one backup's timeline, or all that is restorable.

        every: read one data object in so many, by chance which; all else is proven whole.
        """
        under_way = self.jobs.filter(kind=Job.VERIFY, backup=backup, state=Job.PENDING).first()
        arguments = {"every": every} if every > 1 else {}
        return under_way or Job.enqueue(
            Job.VERIFY, who=who, ring=ring, database=self, backup=backup, arguments=arguments
        )

    # -- point-in-time recovery

    def set_pitr(self, on, storage=None, interval=None, who=""):
        """Shipping begins with the first backup that is started from now on, or at the newest one there is."""
        storage = storage or self.pitr_storage
        if on and storage is None:
            raise ValidationError("Choose the Backup Storage that slices are shipped to.")
        if interval is not None and interval < 1:
            raise ValidationError("The upload interval is at least 1 second.")
        self.pitr, self.pitr_storage, self.pitr_interval = on, storage, interval or self.pitr_interval
        self.ship_error, self.ship_error_since, self.ship_failures, self.ship_retry_at = "", None, 0, None
        fields = ["pitr", "pitr_storage", "pitr_interval"]
        self.save(update_fields=[*fields, "ship_error", "ship_error_since", "ship_failures", "ship_retry_at"])
        self.describe_soon()

    @property
    def open_timeline(self) -> Timeline | None:
        return self.timelines.filter(ended_at=None).first()

    def ranges(self) -> list[Recoverable]:
        """What can be restored, oldest first, from catalogue rows alone."""
        return self._ranges(self.timelines.all())

    def ranges_of(self, timeline) -> list[Recoverable]:
        return self._ranges(self.timelines.filter(pk=timeline.pk))

    def _ranges(self, timelines) -> list[Recoverable]:
        timelines = list(timelines.select_related("database").order_by("number"))
        kept = {line.pk: [] for line in timelines}
        for span in Span.objects.filter(timeline__in=timelines).select_related("floor__storage").order_by(*Span.ORDER):
            kept[span.timeline_id].append(span)
        found = []
        for line in timelines:
            spans = kept[line.pk] if line.spanned else line.found_spans()
            found += [self.recoverable(span, line, newest=span is spans[-1]) for span in spans]
        return found

    def recoverable(self, span, timeline, newest) -> Recoverable:
        floor = span.floor.point()
        if newest and self.pitr and self.caught_up_at and timeline.ended_at is None:
            # Nothing has happened on the server since its last slice, as was seen at caught_up_at.
            return Recoverable(timeline, span.first_us, max(span.last_us, to_us(self.caught_up_at)), floor, live=True)
        return Recoverable(timeline, span.first_us, span.last_us, floor)

    def recoverable_to(self):
        ranges = self.ranges()
        return ranges[-1].last if ranges else None

    @classmethod
    def look_up(cls, databases):
        """Note on each, in two queries for all, what a list shows: `newest`, a Recoverable or None, and `unmended`."""
        newest = Span.objects.filter(timeline__database=OuterRef("pk")).order_by("-timeline__number", "-first_us")
        lasts = cls.objects.filter(pk__in=[one.pk for one in databases]).annotate(span=newest.values("pk")[:1])
        spans = Span.objects.filter(pk__in=lasts.values("span")).select_related("timeline", "floor__storage")
        of = {span.timeline.database_id: span for span in spans}
        gaps = {line.database_id: line for line in unmended().filter(database__in=lasts).order_by("number")}
        for one in databases:
            span = of.get(one.pk)
            one.newest = span and one.recoverable(span, span.timeline, newest=True)
            one.unmended = gaps.get(one.pk)

    def gap(self) -> Timeline | None:
        """The timeline that ended in a gap which no later backup has mended yet."""
        return unmended().filter(database=self).order_by("number").last()

    def merge_failure(self) -> Job | None:
        """The last try to merge slices, where it failed: nothing is lost, but small ones fill the storage."""
        return self.jobs.filter(kind=Job.MERGE, state=Job.FAILED).first()

    def release_ship_lease(self):
        """Let another worker ship; the one that held the lease sees it and stops.  Slices cannot be written twice."""
        held = Database.objects.filter(pk=self.pk).exclude(ship_owner="")
        if not held.update(ship_owner="", ship_lease_until=None):
            raise ValidationError(f"Nobody ships {self} now: there is no lease to release.")

    # -- what happened

    def list_transactions(self, who="", **asked):
        """A Job that finds one page of transactions: since_us, until_us, table, kind, after (a result's `next`)."""
        return Job.enqueue(Job.TRANSACTIONS, who=who, database=self, arguments=asked)

    def show_rows(self, transaction, who="", first=0, **more):
        """A Job that reads changed rows of one transaction of such a page, from row number `first` on."""
        arguments = {"transaction": transaction, "first": first, **more}
        return Job.enqueue(Job.ROWS, who=who, database=self, arguments=arguments)

    # -- the bucket

    def archive(self, storage):
        return Archive(storage.open_store(), str(self.pk), Keys.parse(storage.secret("encryption_keys")))

    def archives(self):
        """One a storage, by its name, for every storage that holds something of this database."""
        storages = BackupStorage.objects.filter(
            models.Q(pk=self.pitr_storage_id)
            | Exists(self.backups.filter(storage=OuterRef("pk")))
            | Exists(self.timelines.filter(storages=OuterRef("pk")))
        )
        return {storage.name: self.archive(storage) for storage in storages}

    def describe_soon(self):
        """Let a worker rewrite database.json, which holds what cannot be derived from other objects."""
        if not self.jobs.filter(kind=Job.CHECK, state=Job.PENDING).exists():
            Job.enqueue(Job.CHECK, database=self)

    def remove(self, keep_data=True, who=""):
        """Forget it; its stored data stays unless told otherwise, then a Job deletes that first."""
        if self.jobs.filter(state__in=Job.OPEN).exclude(kind__in=[*Job.UPKEEP, *Job.LOOKS]).exists():
            raise ValidationError(f"{self} has work in progress. Cancel it first.")
        if not keep_data:
            Database.objects.filter(pk=self.pk).update(pitr=False)
            self.schedules.update(active=False)
            return Job.enqueue(Job.DELETE, who=who, database=self, arguments={"whole": True})
        self.forget()
        return None

    def stored(self):
        """What its backups and slices hold in the storages: how many, and bytes."""
        backups = self.backups.filter(state=Backup.SUCCEEDED).aggregate(n=models.Count("pk"), size=models.Sum("size"))
        slices = Slice.objects.filter(timeline__database=self).aggregate(n=models.Count("pk"), size=models.Sum("size"))
        size = (backups["size"] or 0) + (slices["size"] or 0)
        return {"backups": backups["n"], "slices": slices["n"], "size": size}

    def forget(self):
        """Delete every row; Django's PROTECT between them asks for this order."""
        with transaction.atomic():
            self.restores.all().delete()
            self.restores_into.all().delete()
            self.jobs.all().delete()
            self.backups.all().delete()
            self.timelines.all().delete()
            self.delete()
