"""The watchdog: starts what is due and rings again for what nobody heard."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta

from django.conf import settings
from django.db.models import Q
from django.utils import timezone
from django_q.brokers import get_broker
from django_q.models import OrmQ

from backups import leases, merging, shipping
from backups.models import Backup, Database, Job, Restore, Schedule, Timeline, WorkerState

log = logging.getLogger("everest.work")

MOST_BELLS = 20  # that wait in one queue
MOST_ATTEMPTS = 5  # of one Job whose workers died on it
VERIFY_AGAIN = timedelta(days=1)
DRAFTS_KEPT = timedelta(days=1)
ROWS_KEPT = timedelta(hours=1)  # they hold data of the databases


def tick() -> bool:
    """All of it; False where another machine's tick was a moment ago."""
    if not WorkerState.win(WorkerState.TICK, settings.EVEREST_TICK_SECONDS):
        return False
    for step in STEPS:
        try:
            step()
        except Exception:
            # One step's trouble must not keep the others from running; it is tried again with the next tick.
            log.exception("tick: %s failed", step.__name__)
    return True


def reclaim_jobs() -> None:
    """Jobs whose worker went silent are pending again; one that keeps ending its workers fails."""
    now = timezone.now()
    # No lease is that long: a machine with a wrong clock wrote it, and may be gone.
    absurd = Q(lease_until__gt=now + timedelta(seconds=2 * settings.EVEREST_LEASE_SECONDS))
    for job in Job.objects.filter(Q(lease_until__lt=now) | absurd, state=Job.RUNNING):
        same = Job.objects.filter(pk=job.pk, state=Job.RUNNING, owner=job.owner, lease_until=job.lease_until)
        if job.cancel_requested:
            _end(job, same, Job.CANCELLED, "Cancelled.")
        elif job.attempts >= MOST_ATTEMPTS:
            _end(job, same, Job.FAILED, f"Its worker died {job.attempts} times; the worker's log may say why.")
        else:
            same.update(state=Job.PENDING, owner="", lease_until=None, rung_at=None)


def _end(job, same, state, error) -> None:
    if same.update(state=state, owner="", lease_until=None, error=error, finished_at=timezone.now()):
        job.refresh_from_db()
        job.settle_subject(state, error)


def ring_pending_jobs() -> None:
    """A doorbell may be lost, locked away with another machine, or unreadable."""
    now, wait = timezone.now(), timedelta(seconds=settings.EVEREST_RING_AGAIN_SECONDS)
    unheard = Q(rung_at=None) | Q(rung_at__lt=now - wait) | Q(rung_at__gt=now + wait)
    waiting = Job.objects.filter(unheard, state=Job.PENDING).order_by("pk")
    for queue in set(Job.QUEUES.values()):
        # Where bells lie unheard already, all workers are busy: one more would only pile up.
        room = max(0, MOST_BELLS - get_broker(queue).queue_size())
        for job in waiting.filter(queue=queue)[:room]:
            job.ring()


def start_schedules() -> None:
    now = timezone.now()
    due = Schedule.objects.filter(active=True, next_run__lte=now, database__paused=False)
    for schedule in due.select_related("database", "storage"):
        schedule.take(now)


def start_shipping() -> None:
    if leases.due().exists():
        shipping.ring_ship()


def check_databases() -> None:
    """Each every few minutes, by a Job of its own."""
    old = timezone.now() - timedelta(seconds=settings.EVEREST_CHECK_SECONDS)
    waiting = Job.objects.filter(kind=Job.CHECK, state__in=Job.OPEN).values("database")
    due = Q(checked_at=None) | Q(checked_at__lt=old)
    for database in Database.objects.filter(due, paused=False).exclude(pk__in=waiting):
        if database.password or database.checked_at:
            Job.enqueue(Job.CHECK, database=database)


def put_settings_back() -> None:
    """Restores that ended without putting their target's settings back, however they ended."""
    over = [Restore.SUCCEEDED, Restore.FAILED, Restore.CANCELLED]
    for restore in Restore.objects.filter(state__in=over).exclude(target_settings={}):
        recent = timezone.now() - timedelta(seconds=settings.EVEREST_CHECK_SECONDS)
        tries = restore.jobs.filter(kind=Job.PUT_BACK)
        if not tries.filter(Q(state__in=Job.OPEN) | Q(created_at__gt=recent)).exists():
            Job.enqueue(Job.PUT_BACK, database=restore.target, restore=restore)


def verify_databases() -> None:
    """Everything is read again and proven every few days; after a try that failed, on the next day."""
    if not settings.EVEREST_VERIFY_DAYS:
        return
    now = timezone.now()
    old = now - timedelta(days=settings.EVEREST_VERIFY_DAYS)
    due = Q(verified_at__lt=old) | Q(verified_at=None, created_at__lt=old)
    tried = Q(state__in=Job.OPEN) | Q(created_at__gt=now - VERIFY_AGAIN)
    recent = Job.objects.filter(tried, kind=Job.VERIFY, backup=None, database__isnull=False).values("database")
    held = Backup.objects.filter(state=Backup.SUCCEEDED).values("database")
    for database in Database.objects.filter(due, pk__in=held).exclude(pk__in=recent):
        database.verify("Everest", every=settings.EVEREST_VERIFY_SAMPLE)


def respan_timelines() -> None:
    """Those whose backups or slices changed in a way that nobody has worked through yet."""
    for timeline in Timeline.objects.filter(spanned=False):
        timeline.respan()


def prune() -> None:
    """Once an hour: old Jobs, drafts and worker states; doorbells that nobody can read."""
    if not WorkerState.win("prune", 3600):
        return
    now = timezone.now()
    old = now - timedelta(days=settings.EVEREST_KEEP_JOBS_DAYS)
    Job.objects.exclude(state__in=Job.OPEN).filter(finished_at__lt=old).delete()
    # Checks and resolves come by the thousand and tell nothing after a day.
    brief = Job.objects.filter(kind__in=[Job.CHECK, Job.RESOLVE, Job.TRANSACTIONS]).exclude(state__in=Job.OPEN)
    brief.filter(finished_at__lt=now - DRAFTS_KEPT).delete()
    Job.objects.filter(kind=Job.ROWS, finished_at__lt=now - ROWS_KEPT).delete()
    Restore.objects.filter(state=Restore.DRAFT, created_at__lt=now - DRAFTS_KEPT).delete()
    WorkerState.objects.filter(name__startswith="cluster ", seen_at__lt=now - DRAFTS_KEPT).delete()
    OrmQ.objects.filter(lock__lt=now - DRAFTS_KEPT).delete()


STEPS: list[Callable[[], None]] = [
    reclaim_jobs,
    ring_pending_jobs,
    start_schedules,
    start_shipping,
    check_databases,
    put_settings_back,
    verify_databases,
    merging.start_due,
    respan_timelines,
    prune,
]
