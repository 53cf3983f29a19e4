"""What doorbells call.  Tasks return nothing and raise nothing: failure is the state of a row."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps
from typing import Any

from backups import queue, ticking
from backups.models import Job, WorkerState
from backups.runs import BODIES
from backups.shipping import ShipRun

log = logging.getLogger("everest.work")


def task(function: Callable[..., None]) -> Callable[..., None]:
    """Tell that this cluster takes tasks, do nothing once the worker stops, and raise nothing."""

    @wraps(function)
    def called(*arguments: Any) -> None:
        if queue.stopping():
            return
        try:
            WorkerState.seen(f"cluster {queue.cluster()}")
            function(*arguments)
        except Exception:
            # What can be foreseen is recorded by the Job.  Here the metadata failed, or Everest did: a lease runs
            # out then, and the tick rings again.
            log.exception("%s%r failed", function.__name__, arguments)

    return called


@task
def run(job: int) -> None:
    """Work on one Job, unless another delivery has it."""
    found = Job.objects.filter(pk=job).first()
    if found is not None:
        queue.work(found, BODIES[found.kind])


@task
def ship() -> None:
    """Ship every database that is due, for about a minute."""
    ShipRun().run()


@task
def tick() -> None:
    """Start what is due and mend what was lost; of several that ring, one does it."""
    ticking.tick()


@task
def canary() -> None:
    """Nothing but the sign that this cluster takes tasks."""
