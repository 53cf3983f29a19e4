"""A Job that takes as long as a test wants and writes down what happens to it; a storage that drags.

A Job that `waits` goes on once a file named "go" lies in the data folder.
"""

import os
import time
from itertools import count

from django.apps import AppConfig
from django.conf import settings

from backups.engine.errors import Stopped
from storages.stores.local import LocalStore


def slow(job, run):
    note(job, "start")
    until = time.monotonic() + job.arguments["seconds"]
    while time.monotonic() < until or (job.arguments["waits"] and not (settings.EVEREST_DATA / "go").exists()):
        if run.should_stop():
            note(job, "stop")
            raise Stopped("stopped")
        time.sleep(0.02)
    note(job, "end")


def note(job, word):
    with open(job.arguments["diary"], "a") as diary:
        diary.write(f"{word} {job.pk} {os.getpid()}\n")


class SlowJobs(AppConfig):
    name = "tests.crash"
    label = "slow_jobs"

    def ready(self):
        from backups import runs
        from backups.engine.mysql import ranges, reading
        from backups.models import Job

        runs.BODIES[Job.VERIFY] = slow
        ranges.SMALL, reading.cores = 0, lambda: 2  # a backup of small tables forks too
        LocalStore.upload, LocalStore.get = dragged(LocalStore.upload), dragged(LocalStore.get)


def dragged(method):
    """A storage that, after a few calls, hangs as long as a file named "drag" lies in the data folder."""
    calls = count()

    def called(self, *arguments, **options):
        if next(calls) >= 4:
            hang()
        return method(self, *arguments, **options)

    return called


def hang():
    from backups import queue

    folder = settings.EVEREST_DATA
    while (folder / "drag").exists() and not queue.stopping():
        (folder / "hanging").touch()
        time.sleep(0.02)
