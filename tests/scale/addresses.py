"""Every address that a person or a poll can GET, for the busiest database of a seeded installation."""

from __future__ import annotations

from django.urls import reverse

from backups.models import Backup, Database, Job, Restore, Schedule

# name: what its address takes
PAGES = {
    "health": (), "preferences": (), "events": (), "storages": (), "storage-add": (), "storage-edit": ("storage",),
    "storage-delete": ("storage",), "databases": (), "databases-part": (), "database-add": (),
    "database": ("database",), "database-jobs": ("database",), "database-settings": ("database",),
    "database-edit": ("database",), "database-pitr": ("database",), "database-delete": ("database",),
    "backups": ("database",), "backup-now": ("database",), "schedule-add": ("database",),
    "schedule-edit": ("schedule",), "schedule-delete": ("schedule",), "restores": ("database",),
    "restore-wizard": ("database",), "transactions": ("database",), "backup": ("backup",),
    "backup-row": ("backup",), "backup-delete": ("backup",), "restore": ("restore",), "restore-row": ("restore",),
    "restore-part": ("restore",), "job": ("job",), "job-part": ("job",),
}  # fmt: skip
ASKED = {
    "databases, searched": "databases/?q=database-005",
    "databases, last page": "databases/?page=99999",
    "databases, down": "databases/?status=down",
    "events, searched": "events/?q=database-00001",
    "events, searched in vain": "events/?q=nothing-like-it",
    "events, last page": "events/?page=99999",
    "backups, last page": "{backups}?page=99999",
    "restores, last page": "{restores}?page=99999",
    "overview of a day": "{database}?window=day",
}
ADMIN = ["database", "timeline", "schedule", "backup", "slice", "restore", "job", "workerstate"]


def every() -> dict[str, str]:
    database = Database.objects.order_by("name").first()
    things = {
        "database": database,
        "storage": database.pitr_storage,
        "schedule": Schedule.objects.filter(database=database).first(),
        "backup": Backup.objects.filter(database=database).order_by("view_at").first(),
        "restore": Restore.objects.filter(source=database).first(),
        "job": Job.objects.filter(database=database).first(),
    }
    found = {name: reverse(name, args=[things[one].pk for one in takes]) for name, takes in PAGES.items()}
    found |= {name: "/" + url.format(**found).lstrip("/") for name, url in ASKED.items()}
    found |= {f"admin: {name}": reverse(f"admin:backups_{name}_changelist") for name in ADMIN}
    found |= {f"admin: one {name}": reverse(f"admin:backups_{name}_change", args=[things[name].pk])
              for name in ("database", "backup", "job", "restore", "schedule")}  # fmt: skip
    found["admin: event"] = reverse("admin:everest_event_changelist")
    found["admin: slice, searched"] = reverse("admin:backups_slice_changelist") + f"?q={database.name}"
    return found
