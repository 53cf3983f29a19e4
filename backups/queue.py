"""How work is rung for, claimed, run and ended.  The Job table is the queue; the broker is only a doorbell."""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import DatabaseError, close_old_connections, connection
from django.utils import timezone
from django_q.tasks import async_task

from backups.engine.errors import EngineError, LeaseLost, Stopped
from backups.engine.types import Quiet, Run
from backups.models import Job, WorkerState
from everest.secrets import SecretLost
from storages.stores import StoreError

log = logging.getLogger("everest.work")

STOP_FILE = "EVEREST_STOP_FILE"  # environment: a file that exists once this worker is to stop
CLUSTER = "EVEREST_CLUSTER"  # environment: the token of the cluster that this process belongs to
EXPECTED = (EngineError, StoreError, SecretLost)


def ring(task: str, *arguments: Any, queue: str) -> None:
    """Knock at a queue's door.  A lost or doubled knock costs a minute, never correctness."""
    async_task(task, *arguments, cluster=queue, timeout=-1, save=False, ack_failure=True)


def cluster() -> str:
    return os.environ.get(CLUSTER, "")


def new_owner() -> str:
    """A token that only one run has; its beginning tells which cluster it runs in."""
    return f"{cluster() or 'alone'}:{secrets.token_hex(12)}"


def stopping() -> bool:
    """Whether this process's worker is on its way down."""
    path = os.environ.get(STOP_FILE)
    return bool(path) and Path(path).exists()


def workers_seen() -> bool:
    """Whether the tick was seen lately; without it nothing is started, shipped or mended."""
    limit = timezone.now() - timedelta(seconds=settings.EVEREST_HEALTH_SECONDS)
    return WorkerState.objects.filter(name=WorkerState.TICK, seen_at__gte=limit).exists()


# A process that is forked while a thread beats would wait for ever for what that thread holds.
BEAT = threading.Lock()
os.register_at_fork(before=BEAT.acquire, after_in_parent=BEAT.release, after_in_child=BEAT.release)


class Pulse:
    """Calls `beat` every `every` seconds from a thread of its own, which alone speaks with the metadata for a run.

    The metadata may be away for a while: the lease in it decides then, not this thread.
    """

    def __init__(self, beat: Callable[[], Any], every: float) -> None:
        self._beat, self._every = beat, every
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Pulse:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._done.wait(self._every):
                with BEAT:
                    self._once()
        finally:
            with BEAT:
                connection.close()

    def _once(self) -> None:
        try:
            self._beat()
        except DatabaseError:
            log.exception("The metadata could not be reached for a heartbeat")
            close_old_connections()


class JobRun:
    """The engine's Run, kept in the Job's row once a second by a Pulse; the engine's threads only touch memory."""

    def __init__(self, job: Job, owner: str, mirror: Run | None = None) -> None:
        self.job, self.owner = job, owner
        self.mirror = mirror or Quiet()
        self.cancelled = self.lost = False
        self._beaten = time.monotonic()
        self._progress: dict[str, Any] = {}
        self._step = self._since = ""
        self._lines: list[str] = []
        self._lock = threading.Lock()

    def should_stop(self) -> bool:
        if self.mirror.should_stop():  # a person ends a run in the foreground
            self.cancelled = True
        return self.cancelled or self.lost or stopping()

    def progress(self, step: str, done: int = 0, total: int = 0, unit: str = "") -> None:
        self.mirror.progress(step, done, total, unit)
        with self._lock:
            if step != self._step:
                self._step, self._since = step, timezone.now().isoformat()
            self._progress = {"step": step, "done": done, "total": total, "unit": unit, "since": self._since}

    def log(self, line: str) -> None:
        self.mirror.log(line)
        with self._lock:
            self._lines.append(f"{timezone.now():%H:%M:%S} {line}\n")

    def beat(self) -> None:
        """See whether the Job is still ours and wanted; write what is new, and the lease every third of its length."""
        asked = self.job.held(self.owner).values_list("cancel_requested", flat=True).first()
        self.lost, self.cancelled = asked is None, self.cancelled or bool(asked)
        changed = self._news()
        if time.monotonic() - self._beaten >= settings.EVEREST_LEASE_SECONDS / 3:
            self._beaten = time.monotonic()
            changed |= Job.lease()
        if changed and not self.lost:
            self.lost = not self.job.held(self.owner).update(**changed)

    def _news(self) -> dict[str, Any]:
        with self._lock:
            progress, lines = self._progress, self._lines
            self._progress, self._lines = {}, []
        changed: dict[str, Any] = {}
        if progress:
            changed["progress"] = {**progress, "at": timezone.now().isoformat()}
        if lines:
            text = Job.objects.filter(pk=self.job.pk).values_list("log", flat=True).first() or ""
            changed["log"] = (text + "".join(lines))[-Job.LOG_LIMIT :]
        return changed


class NotYet(EngineError):
    """The work has to wait for something; its Job goes back to pending and is rung for again."""


Body = Callable[[Job, JobRun], Any]


def work(job: Job, body: Body, mirror: Run | None = None) -> bool:
    """Claim a Job and run it to an end that its row tells; False where another has it.  Raises nothing of its own."""
    owner = job.claim()
    if not owner:
        return False
    run = JobRun(job, owner, mirror)
    with Pulse(run.beat, min(1, settings.EVEREST_LEASE_SECONDS / 3)):
        outcome = _outcome(job, run, body)
    run.beat()
    _end(job, run, *outcome)
    return True


def _outcome(job: Job, run: JobRun, body: Body) -> tuple[str, Any, str]:
    """Run the body; (state, result, error), with state "" for a run that leaves no trace."""
    try:
        return Job.SUCCEEDED, body(job, run), ""
    except Stopped:
        return Job.CANCELLED if run.cancelled else Job.PENDING, None, ""
    except NotYet as error:
        run.log(str(error))
        return Job.CANCELLED if run.cancelled else Job.PENDING, None, ""
    except LeaseLost:
        return "", None, ""
    except EXPECTED as error:
        run.log(str(error))
        return Job.FAILED, {"error": type(error).__name__}, str(error)
    except Exception as error:
        # Not foreseen, so a fault of Everest: recorded on the Job, with its trace in the worker's log.
        log.exception("%s failed", job)
        run.log(f"Unexpected error: {type(error).__name__}.")
        return Job.FAILED, None, unexpected(error)


def unexpected(error: Exception) -> str:
    """For people; its text stays in the log, as it may hold anything."""
    return f"Everest failed unexpectedly ({type(error).__name__}). The worker's log has the trace."


def _end(job: Job, run: JobRun, state: str, result: Any, error: str) -> None:
    if not state or run.lost:
        return
    if state == Job.PENDING:
        job.release(run.owner)
        return
    if state == Job.CANCELLED:
        error = "Cancelled."
    if job.kind == Job.MERGE and state == Job.SUCCEEDED:
        job.forget()
    elif job.finish(run.owner, state, result=result, error=error) and state != Job.SUCCEEDED:
        job.refresh_from_db()
        job.settle_subject(state, error)


def run_job_now(job: Job, run: Run | None = None) -> Job:
    """Execute a Job in this process, claimed as a worker would; return it as it ended."""
    from backups.tasks import BODIES

    if not work(job, BODIES[job.kind], run):
        job.refresh_from_db()
        raise LeaseLost(f"{job} is {job.get_state_display().lower()} already: another worker has it.")
    job.refresh_from_db()
    return job
