"""`manage.py worker`: starts one django-q2 cluster a queue, rings the tick, watches, mends and stops them.

What it guards against was measured on django-q2 1.11.1 and is held by tests/crash/: a cluster's main process is told
to stop alone and after a shared stop flag; a cluster whose main process died leaves orphans that go on taking tasks;
one whose idle worker was killed looks healthy and takes nothing for good.

All processes fork from one that has loaded and done what they have in common: it is in memory once.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import multiprocessing
import os
import secrets
import signal
import sys
import tempfile
import threading
import time
from datetime import datetime, timedelta
from importlib import import_module
from pathlib import Path

from django.conf import settings
from django.db import DatabaseError, close_old_connections, connections, transaction
from django.utils import timezone
from django_q.brokers import get_broker
from django_q.cluster import Cluster as QCluster
from django_q.conf import Conf

from backups import leases, queue
from backups.engine import engine
from backups.models import Database, Job, WorkerState
from storages import stores

log = logging.getLogger("everest.worker")

QUEUES = (Job.SHORT, Job.LONG, Job.RESTORE)
WORKER = "EVEREST_WORKER"  # environment of a worker and all its processes: which one it is, as "pid:start time"
CANARIES = 6  # in the time of silence that a cluster is allowed
RESTART = 2  # seconds, at least, between two starts of a cluster that ends by itself
START = 30  # seconds more that a cluster is given to take its first task
PILE = 10  # doorbells that lie unheard: one more tells nothing
STOPS = (signal.SIGTERM, signal.SIGINT)
FORK = multiprocessing.get_context("fork")


class Cluster:
    """One django-q2 cluster as a process group of its own."""

    def __init__(self, name: str, worker: Worker) -> None:
        self.name = name
        self.token = f"{name}-{secrets.token_hex(6)}"
        self.started = timezone.now()
        self.process = FORK.Process(target=run_cluster, args=(name, self.token, worker))
        connections.close_all()  # none may be used by two processes
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)  # until the cluster is without the worker's handlers
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)

    def running(self) -> bool:
        return self.process.is_alive()

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
        self.process.kill()  # where it had no time to make its group
        self.process.join()


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
        # Nothing is ever written: reading ends when the process with the other end does, however it does.
        self.lifeline, self._alive = os.pipe()
        self.stopping = threading.Event()
        self._rung = self._looked = 0.0

    def run(self) -> None:
        for number in STOPS:
            signal.signal(number, self._asked)
        end_orphans()
        preload()
        try:
            for name in QUEUES:
                self.clusters.append(Cluster(name, self))
            log.info("worker %d started %s", os.getpid(), ", ".join(cluster.token for cluster in self.clusters))
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
        self.clusters[self.clusters.index(cluster)] = Cluster(cluster.name, self)
        if cluster.running() and cluster.busy():
            self.leaving.append(cluster)
        else:
            cluster.kill()

    def stop(self) -> None:
        """Let runs come to a safe place, for a bounded time; nothing is left running, whatever fails."""
        log.info("worker %d is stopping", os.getpid())
        ending = self.clusters + self.leaving
        try:
            self.stop_file.touch()
            for cluster in ending:
                cluster.ask_to_stop()
            give_up = time.monotonic() + settings.EVEREST_STOP_SECONDS
            while any(cluster.running() for cluster in ending) and time.monotonic() < give_up:
                time.sleep(0.1)
        finally:
            for cluster in ending:
                if cluster.running():
                    log.warning("cluster %s did not stop in time and is killed; its work is resumed", cluster.token)
                cluster.kill()
        self.stop_file.unlink()
        log.info("worker %d has stopped", os.getpid())

    def let_go(self) -> None:
        """Called in a process that was forked: it is not the worker."""
        os.close(self._alive)
        for number in STOPS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)


def run_cluster(name: str, token: str, worker: Worker) -> None:
    """A cluster's own main process: django-q2, and a thread that ends the group when the worker is gone."""
    os.setsid()
    worker.let_go()
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text(f"everest {name}")  # how `ps` and `top` list the whole group
    os.environ |= {queue.CLUSTER: token, queue.STOP_FILE: str(worker.stop_file)}
    # What Q_CLUSTER_NAME would do, had django-q2 not been loaded before.
    Conf.CLUSTER_NAME, Conf.WORKERS = name, settings.Q_CLUSTER["ALT_CLUSTERS"][name]["workers"]
    QCluster().start()
    # Started after the fork above, as threads and forks do not mix.
    threading.Thread(target=_end_with_worker, args=(worker.lifeline,), daemon=True).start()


def _end_with_worker(lifeline: int) -> None:
    while os.read(lifeline, 1):
        pass
    os.killpg(0, signal.SIGKILL)


def preload() -> None:
    """Load what tasks need before any process forks: they share that memory, as collecting garbage leaves it alone."""
    import_module("backups.tasks")
    engine("mysql")
    stores.preload()
    _rehearse()
    gc.collect()
    gc.freeze()


def _rehearse() -> None:
    """Do once what every process does: what is loaded, compiled and cached by that is shared too.  No row stays."""
    try:
        with transaction.atomic():
            WorkerState.seen("cluster rehearsal")
            queue.ring("backups.tasks.canary", queue=Job.SHORT)
            leases.due().first()
            Job.objects.first()
            transaction.set_rollback(True)
    except DatabaseError:
        log.exception("The metadata cannot be reached")


def become_worker() -> None:
    """Start this process anew if its environment is not yet a worker's: what it forks is known by that when orphaned.

    The C library reads its settings at the start only.
    """
    own = identity(os.getpid())
    if os.environ.get(WORKER) != own:
        os.environ |= {WORKER: own, "EVEREST_DATA": str(settings.EVEREST_DATA)}
        # Many threads take little memory each; the C library would keep an arena for every few of them.
        os.environ.setdefault("MALLOC_ARENA_MAX", "2")
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


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
