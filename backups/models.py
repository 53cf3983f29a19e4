"""What is backed up, when, and what came of it."""

import uuid

from django.db import models
from django.db.models import Q

from everest.secrets import SecretField
from storages.models import BackupStorage


class Database(models.Model):
    """A registered server, with its account and TLS settings."""

    UP, DOWN, RESTORING, UNKNOWN = "up", "down", "restoring", "unknown"
    VERIFY, REQUIRED, OFF = "verify", "required", "off"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=64, unique=True)
    engine = models.CharField(max_length=16, default="mysql", editable=False)
    host = models.CharField(max_length=255)
    port = models.PositiveIntegerField(default=3306)
    user = models.CharField(max_length=80)
    password = SecretField(blank=True, default="")
    tls = models.CharField("TLS", max_length=8, default=REQUIRED, choices=[(VERIFY, "Verify with CA"), (REQUIRED, "Required"), (OFF, "Off")])
    ca_certificate = models.TextField("CA certificate", blank=True)
    client_certificate = models.TextField(blank=True)
    client_key = SecretField(blank=True, default="")

    # Seen at the last check; for display and for refusing an unrelated server.
    flavour = models.CharField(max_length=16, blank=True, editable=False)
    version = models.CharField(max_length=64, blank=True, editable=False)
    server_uuid = models.CharField(max_length=64, blank=True, editable=False)
    status = models.CharField(max_length=12, default=UNKNOWN, editable=False)
    status_detail = models.TextField(blank=True, editable=False)
    checked_at = models.DateTimeField(null=True, blank=True, editable=False)
    checks = models.JSONField(default=list, blank=True, editable=False)

    # Point-in-time recovery.
    pitr = models.BooleanField("Point-in-time recovery", default=False)
    pitr_storage = models.ForeignKey(BackupStorage, null=True, blank=True, on_delete=models.PROTECT, related_name="pitr_databases")
    pitr_interval = models.PositiveIntegerField("Upload interval, seconds", default=60)
    production_hours = models.CharField(max_length=64, blank=True)

    # The ship lease: claimed by a conditional UPDATE; the bucket, not this row, says where shipping stands.
    ship_owner = models.CharField(max_length=64, blank=True, editable=False)
    ship_lease_until = models.DateTimeField(null=True, blank=True, editable=False)
    ship_position = models.JSONField(null=True, blank=True, editable=False)
    ship_error = models.TextField(blank=True, editable=False)
    ship_error_since = models.DateTimeField(null=True, blank=True, editable=False)
    caught_up_at = models.DateTimeField(null=True, blank=True, editable=False, help_text="The server's position equalled the last slice's end then")

    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]

    def __str__(self):
        return self.name


class Timeline(models.Model):
    """One gapless history of one server.  Open while ended_at is null; at most one is open a Database."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    database = models.ForeignKey(Database, on_delete=models.CASCADE, related_name="timelines")
    parent = models.ForeignKey("self", null=True, blank=True, on_delete=models.SET_NULL, related_name="children")
    number = models.PositiveIntegerField(help_text="1, 2, 3 in order of creation")
    server_uuid = models.CharField(max_length=64, blank=True)
    started_at = models.DateTimeField()
    start_position = models.JSONField(null=True, blank=True, help_text="Shipping starts here; null until a backup with PITR on")
    ended_at = models.DateTimeField(null=True, blank=True)
    end_reason = models.CharField(max_length=16, blank=True, choices=[("gap", "Gap"), ("fork", "Fork"), ("restore", "Restored"), ("replaced", "Server replaced")])
    end_detail = models.TextField(blank=True)

    class Meta:
        ordering = ["database", "number"]
        constraints = [
            models.UniqueConstraint(fields=["database"], condition=Q(ended_at=None), name="one_open_timeline_a_database"),
            models.UniqueConstraint(fields=["database", "number"], name="timeline_numbers_differ"),
        ]

    def __str__(self):
        return f"{self.database} timeline {self.number}"


class Schedule(models.Model):
    """When backups of one Database are taken, in a named zone, and how many copies are kept (0: all)."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    database = models.ForeignKey(Database, on_delete=models.CASCADE, related_name="schedules")
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


class Backup(models.Model):
    PENDING, RUNNING, SUCCEEDED, FAILED, DELETING, CANCELLED = "pending", "running", "succeeded", "failed", "deleting", "cancelled"
    STATES = [(PENDING, "Pending"), (RUNNING, "In progress"), (SUCCEEDED, "Succeeded"), (FAILED, "Failed"), (DELETING, "Deleting"), (CANCELLED, "Cancelled")]

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    database = models.ForeignKey(Database, on_delete=models.CASCADE, related_name="backups")
    timeline = models.ForeignKey(Timeline, null=True, blank=True, on_delete=models.PROTECT, related_name="backups")
    storage = models.ForeignKey(BackupStorage, on_delete=models.PROTECT, related_name="backups")
    schedule = models.ForeignKey(Schedule, null=True, blank=True, on_delete=models.SET_NULL, related_name="backups")
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

    def __str__(self):
        return self.name


class Slice(models.Model):
    """One slice as its index in the bucket describes it; rebuilt from there by `catalog`."""

    timeline = models.ForeignKey(Timeline, on_delete=models.CASCADE, related_name="slices")
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

    class Meta:
        ordering = ["timeline", "level", "sequence"]
        constraints = [models.UniqueConstraint(fields=["timeline", "level", "sequence"], name="one_slice_a_sequence")]
        indexes = [models.Index(fields=["timeline", "level", "last_us"])]

    def __str__(self):
        return self.key


class Restore(models.Model):
    PENDING, RUNNING, SUCCEEDED, FAILED, CANCELLED = "pending", "running", "succeeded", "failed", "cancelled"
    STATES = [(PENDING, "Pending"), (RUNNING, "In progress"), (SUCCEEDED, "Succeeded"), (FAILED, "Failed"), (CANCELLED, "Cancelled")]
    LATEST, TIME, GTID, BEFORE, BACKUP = "latest", "time", "gtid", "before", "backup"
    MOMENTS = [(LATEST, "Latest possible"), (TIME, "Date and time"), (GTID, "Up to a GTID"), (BEFORE, "Just before a GTID"), (BACKUP, "A backup")]

    source = models.ForeignKey(Database, on_delete=models.CASCADE, related_name="restores")
    target = models.ForeignKey(Database, on_delete=models.CASCADE, related_name="restores_into")
    moment = models.CharField(max_length=8, choices=MOMENTS)
    moment_us = models.BigIntegerField(null=True, blank=True, help_text="For a date and time: microseconds since the epoch, UTC")
    moment_gtid = models.CharField(max_length=200, blank=True)
    backup = models.ForeignKey(Backup, null=True, blank=True, on_delete=models.SET_NULL, related_name="restores", help_text="Base backup")
    timeline = models.ForeignKey(Timeline, null=True, blank=True, on_delete=models.SET_NULL, related_name="restores")
    # Filled when the moment is resolved and planned: position, last and next transaction, slices, bytes, schemas to be lost.
    plan = models.JSONField(null=True, blank=True)
    replace = models.CharField(max_length=64, blank=True, help_text="The target's name, typed, where it holds schemas")
    touched = models.BooleanField(default=False, help_text="The target has been changed: a retry may replace what it holds")
    target_settings = models.JSONField(default=dict, blank=True, help_text="Settings to put back on the target, also after a crash")
    state = models.CharField(max_length=12, choices=STATES, default=PENDING)
    error = models.TextField(blank=True)
    result = models.JSONField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    who = models.CharField(max_length=150, blank=True)

    class Meta:
        ordering = ["-created_at"]

    def __str__(self):
        return f"restore {self.pk} of {self.source} into {self.target}"


class Job(models.Model):
    """One running piece of work.  This table is the queue; the broker is only a doorbell."""

    SHORT, LONG, RESTORE = "short", "long", "restore"
    PENDING, RUNNING, SUCCEEDED, FAILED, CANCELLED = "pending", "running", "succeeded", "failed", "cancelled"
    STATES = [(PENDING, "Pending"), (RUNNING, "In progress"), (SUCCEEDED, "Succeeded"), (FAILED, "Failed"), (CANCELLED, "Cancelled")]
    KINDS = [("backup", "Backup"), ("restore", "Restore"), ("resolve", "Resolve a moment"), ("delete", "Delete"), ("verify", "Verify"), ("check", "Check")]

    kind = models.CharField(max_length=12, choices=KINDS)
    queue = models.CharField(max_length=8, choices=[(SHORT, "Short"), (LONG, "Long"), (RESTORE, "Restore")])
    state = models.CharField(max_length=12, choices=STATES, default=PENDING)
    database = models.ForeignKey(Database, null=True, blank=True, on_delete=models.CASCADE, related_name="jobs")
    backup = models.ForeignKey(Backup, null=True, blank=True, on_delete=models.CASCADE, related_name="jobs")
    restore = models.ForeignKey(Restore, null=True, blank=True, on_delete=models.CASCADE, related_name="jobs")
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
        indexes = [models.Index(fields=["state", "queue"])]

    def __str__(self):
        return f"{self.get_kind_display()} {self.pk}"
