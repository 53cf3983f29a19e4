"""A Job that takes as long as a test wants and writes down what happens to it."""

import os
import time

from django.apps import AppConfig

from backups.engine.errors import Stopped


def slow(job, run):
    note(job, "start")
    until = time.monotonic() + job.arguments["seconds"]
    while time.monotonic() < until:
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
        from backups.models import Job

        runs.BODIES[Job.VERIFY] = slow
