"""`manage.py worker`: starts one django-q2 cluster a queue, rings the tick, watches, mends and stops them.

What it guards against was measured on django-q2 1.11.1 and is held by tests/crash/: a cluster's main process is told
to stop alone and after a shared stop flag; a cluster whose main process died leaves orphans that go on taking tasks;
one whose idle worker was killed looks healthy and takes nothing for good.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from datetime import datetime, timedelta
from importlib import import_module
from pathlib import Path

from django.conf import settings
from django.db import DatabaseError, close_old_connections
from django.utils import timezone
from django_q.brokers import get_broker

from backups import queue
from backups.engine import engine
from backups.models import Database, Job, WorkerState
from storages import stores

log = logging.getLogger("everest.worker")

QUEUES = (Job.SHORT, Job.LONG, Job.RESTORE)
WORKER = "EVEREST_WORKER"  # environment of clusters: which worker started them, as "pid:start time"
CANARIES = 6  # in the time of silence that a cluster is allowed
RESTART = 2  # seconds, at least, between two starts of a cluster that ends by itself
START = 30  # seconds more that a cluster is given to take its first task
PILE = 10  # doorbells that lie unheard: one more tells nothing


class Cluster:
    """One django-q2 cluster as a process group of its own."""

    def __init__(self, name: str, stop_file: Path) -> None:
        self.name = name
        self.token = f"{name}-{secrets.token_hex(6)}"
        self.started = timezone.now()
        environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": os.environ.get("DJANGO_SETTINGS_MODULE", "everest.settings"),
            "EVEREST_DATA": str(settings.EVEREST_DATA),
            "Q_CLUSTER_NAME": name,
            queue.CLUSTER: self.token,
            queue.STOP_FILE: str(stop_file),
            WORKER: identity(os.getpid()),
            # Many threads take little memory each; the C library would keep an arena for every few of them.
            "MALLOC_ARENA_MAX": os.environ.get("MALLOC_ARENA_MAX", "2"),
        }
        # Its standard input ends when this process does, however it does: the cluster ends itself then.
        self.process = subprocess.Popen(
            [sys.executable, "-m", "django", "worker", "--cluster", name],
            cwd=settings.BASE_DIR,
            env=environment,
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    def running(self) -> bool:
        return self.process.poll() is None

    def takes_tasks(self) -> bool:
        """Whether it took one lately: a canary, or anything else."""
        state = WorkerState.objects.filter(name=f"cluster {self.token}").first()
        return recent(state.seen_at) if state else recent(self.started + timedelta(seconds=START))

    def busy(self) -> int:
        """How many of its processes keep a Job or leases alive."""
        lease = timedelta(seconds=settings.EVEREST_LEASE_SECONDS)
        jobs = Job.objects.filter(owner__startswith=self.token, state=Job.RUNNING).values_list("owner", "heartbeat")
        ships = Database.objects.filter(ship_owner__startswith=self.token).values_list("ship_owner", "ship_lease_until")
        beats = [*jobs, *((owner, until - lease) for owner, until in ships)]
        return len({owner for owner, beat in beats if recent(beat)})

    def full(self) -> bool:
        return self.busy() >= settings.Q_CLUSTER["ALT_CLUSTERS"][self.name]["workers"]

    def ask_to_stop(self) -> None:
        """To its main process alone: a signal to the whole group deadlocks it."""
        if self.running():
            self.process.terminate()

    def kill(self) -> None:
        """All of the group, orphans of a dead main process included."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process.stdin.close()


def recent(moment: datetime) -> bool:
    """Not long ago; nor to come, as after a clock was set back."""
    silence = timedelta(seconds=settings.EVEREST_SILENCE_SECONDS)
    return -timedelta(seconds=START) <= timezone.now() - moment <= silence


class Worker:
    """Keeps one cluster a queue, and until their runs end those that take no more tasks but still work."""

    def __init__(self) -> None:
        self.stop_file = Path(tempfile.gettempdir()) / f"everest-stop-{os.getpid()}-{secrets.token_hex(6)}"
        self.clusters: list[Cluster] = []
        self.leaving: list[Cluster] = []
        self.stopping = threading.Event()
        self._rung = self._looked = 0.0

    def run(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._asked)
        end_orphans()
        self.clusters = [Cluster(name, self.stop_file) for name in QUEUES]
        log.info("worker %d started %s", os.getpid(), ", ".join(cluster.token for cluster in self.clusters))
        try:
            while not self.stopping.is_set():
                self._turn()
                self.stopping.wait(0.2)
        finally:
            self.stop()

    def _asked(self, number: int, frame: object) -> None:
        """A second signal does not wait any longer."""
        if self.stopping.is_set():
            for cluster in self.clusters + self.leaving:
                cluster.kill()
        self.stopping.set()

    def _turn(self) -> None:
        try:
            if time.monotonic() - self._rung >= settings.EVEREST_TICK_SECONDS:
                self._rung = time.monotonic()
                queue.ring("backups.tasks.tick", queue=Job.SHORT)
            if time.monotonic() - self._looked >= settings.EVEREST_SILENCE_SECONDS / CANARIES:
                self._looked = time.monotonic()
                self._ring_canaries()
                self._replace_deaf()
        except DatabaseError:
            # Without the metadata nobody can be heard, so nobody is judged.
            log.exception("The metadata cannot be reached")
            close_old_connections()
        for cluster in self.clusters:
            if not cluster.running() and timezone.now() - cluster.started > timedelta(seconds=RESTART):
                self._replace(cluster, "ended by itself")

    def _ring_canaries(self) -> None:
        for name in QUEUES:
            if get_broker(name).queue_size() < PILE:
                queue.ring("backups.tasks.canary", queue=name)

    def _replace_deaf(self) -> None:
        """A cluster with a free process that takes no task is wedged; what it still works on may end."""
        for cluster in self.leaving:
            if not cluster.busy():
                cluster.kill()
        self.leaving = [cluster for cluster in self.leaving if cluster.running()]
        for cluster in self.clusters:
            if not cluster.takes_tasks() and not cluster.full():
                self._replace(cluster, "takes no tasks any more")

    def _replace(self, cluster: Cluster, why: str) -> None:
        log.error("cluster %s %s and is replaced", cluster.token, why)
        self.clusters[self.clusters.index(cluster)] = Cluster(cluster.name, self.stop_file)
        if cluster.running() and cluster.busy():
            self.leaving.append(cluster)
        else:
            cluster.kill()

    def stop(self) -> None:
        """Let runs come to a safe place, for a bounded time."""
        log.info("worker %d is stopping", os.getpid())
        self.stop_file.touch()
        ending = self.clusters + self.leaving
        for cluster in ending:
            cluster.ask_to_stop()
        give_up = time.monotonic() + settings.EVEREST_STOP_SECONDS
        while any(cluster.running() for cluster in ending) and time.monotonic() < give_up:
            time.sleep(0.1)
        for cluster in ending:
            if cluster.running():
                log.warning("cluster %s did not stop in time and is killed; its work is resumed later", cluster.token)
            cluster.kill()
        self.stop_file.unlink()
        log.info("worker %d has stopped", os.getpid())


def run_cluster() -> None:
    """A cluster's own main process: django-q2, and a thread that ends the group when the worker is gone."""
    from django_q.cluster import Cluster as QCluster

    _preload()
    QCluster().start()
    # Started after the fork above, as threads and forks do not mix.
    threading.Thread(target=_end_with_worker, daemon=True).start()


def _preload() -> None:
    """Load what tasks need before any process forks: they share that memory, as nothing touches it any more."""
    import_module("backups.tasks")
    engine("mysql")
    stores.preload()
    gc.collect()
    gc.freeze()


def _end_with_worker() -> None:
    while os.read(0, 1):
        pass
    os.killpg(0, signal.SIGKILL)


# Processes, as Linux tells of them; elsewhere these find nothing.


def identity(pid: int) -> str:
    """A process id that is not mistaken for a later process of the same number."""
    try:
        return f"{pid}:{Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[19]}"
    except OSError:
        return f"{pid}:"


def end_orphans() -> None:
    """Processes of this installation whose worker and main process both died."""
    for folder in Path("/proc").glob("[0-9]*"):
        variables = _environment(folder)
        worker, ours = variables.get(WORKER, ""), variables.get("EVEREST_DATA") == str(settings.EVEREST_DATA)
        if worker and ours and identity(int(worker.partition(":")[0])) != worker:
            log.warning("ending orphan %s of worker %s", folder.name, worker)
            os.kill(int(folder.name), signal.SIGKILL)


def _environment(folder: Path) -> dict[str, str]:
    try:
        pairs = (folder / "environ").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return {}
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


def memory(root: int) -> int:
    """Bytes of a process and all its descendants, shared pages counted once (PSS)."""
    total, waiting = 0, [root]
    while waiting:
        pid = waiting.pop()
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            children = [Path(f"/proc/{pid}/task/{task}/children") for task in os.listdir(f"/proc/{pid}/task")]
            waiting += [int(child) for path in children for child in path.read_text().split()]
        except OSError:
            continue  # it has ended meanwhile
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total
