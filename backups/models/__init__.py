"""What is backed up, when, and what came of it."""

from backups.models.backup import Backup, Slice
from backups.models.database import Database
from backups.models.job import Job, WorkerState
from backups.models.restore import Restore
from backups.models.schedule import Schedule
from backups.models.timeline import Recoverable, Span, Timeline

__all__ = [
    "Backup",
    "Database",
    "Job",
    "Recoverable",
    "Restore",
    "Schedule",
    "Slice",
    "Span",
    "Timeline",
    "WorkerState",
]
