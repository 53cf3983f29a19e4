"""The ship lease of a database: who may write the next slice of its timeline.  Claimed by a conditional UPDATE."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db.models import Exists, OuterRef, Q
from django.utils import timezone

from backups.engine.errors import Transient
from backups.engine.types import Run
from backups.models import Backup, Database, Restore, Slice, Timeline
from backups.queue import Pulse, new_owner

LONGEST_WAIT = timedelta(seconds=300)  # after a failure


def free() -> Q:
    """Never taken, run out, or longer than any lease is: a machine with a wrong clock wrote that one."""
    now = timezone.now()
    return Q(ship_lease_until=None) | Q(ship_lease_until__lt=now) | Q(ship_lease_until__gt=now + 2 * _length())


def claim(database: Database, owner: str) -> bool:
    return bool(Database.objects.filter(free(), pk=database.pk).update(ship_owner=owner, ship_lease_until=_until()))


def extend(owner: str) -> None:
    """Keep all leases of one run."""
    Database.objects.filter(ship_owner=owner).update(ship_lease_until=_until())


def kept(owner: str) -> set[Any]:
    """The databases that a run still holds and is still to ship."""
    return set(wanted().filter(ship_owner=owner).values_list("pk", flat=True))


def release(database: Database, owner: str) -> None:
    Database.objects.filter(pk=database.pk, ship_owner=owner).update(ship_owner="", ship_lease_until=None)


def wanted():
    """Databases with something to ship; one that is being restored into is left to the restore."""
    restoring = Restore.objects.filter(state=Restore.RUNNING).values("target")
    taken = Exists(Backup.objects.filter(timeline=OuterRef("pk"), state=Backup.SUCCEEDED))
    begun = Q(start_position__isnull=False) | taken | Exists(Slice.objects.filter(timeline=OuterRef("pk")))
    open_ones = Timeline.objects.filter(begun, ended_at=None).values("database")
    shipped = Database.objects.filter(pitr=True, paused=False, pitr_storage__isnull=False, pk__in=open_ones)
    return shipped.exclude(pk__in=restoring)


def due():
    """Databases that nobody ships now, and that are not waiting after a failure."""
    now = timezone.now()
    waited = Q(ship_retry_at=None) | Q(ship_retry_at__lte=now) | Q(ship_retry_at__gt=now + 2 * LONGEST_WAIT)
    return wanted().filter(free()).filter(waited)


def _until():
    return timezone.now() + _length()


def _length():
    return timedelta(seconds=settings.EVEREST_LEASE_SECONDS)


@contextmanager
def held(database: Database, run: Run, wait: float) -> Iterator[str]:
    """The lease for the length of a `with`, waiting for another holder for at most `wait` seconds."""
    owner, give_up = new_owner(), time.monotonic() + wait
    while not claim(database, owner):
        if run.should_stop() or time.monotonic() > give_up:
            raise Transient(f"Another worker is shipping {database} and did not let go within {wait:.0f} s.")
        time.sleep(0.2)
    try:
        with Pulse(lambda: extend(owner), settings.EVEREST_LEASE_SECONDS / 3):
            yield owner
    finally:
        release(database, owner)
