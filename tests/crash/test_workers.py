"""Each trap of django-q2 that was measured, sprung on purpose: the work finishes once, by itself."""

import os
import signal
from pathlib import Path

from tests.crash.conftest import PATIENCE
from tests.helpers import wait_for


def kill(*pids):
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def rollup(pid):
    """KiB by name, of all that a process has in memory."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {line.split(":")[0]: int(line.split()[1]) for line in lines}


def test_killed_idle_workers_wedge_the_queue_until_the_cluster_is_replaced(running):
    before = running.main_process("long")
    kill(*running.pool("long", 2))
    job = running.slow_job()
    running.wait_for_end(job)
    assert running.main_process("long") != before


def test_a_wedged_queue_is_served_again_while_a_long_run_goes_on(running):
    long_job = running.slow_job(waits=True)
    busy = running.wait_for_start(long_job)
    kill(*(pid for pid in running.pool("long", 2) if pid != busy))
    running.wait_for_end(running.slow_job())
    assert running.job(long_job)["state"] == "running"
    running.go()
    running.wait_for_end(long_job)
    assert running.job(long_job)["attempts"] == 1


def test_a_killed_busy_worker_is_replaced_and_its_job_taken_again(running):
    job = running.slow_job(waits=True)
    kill(running.wait_for_start(job))
    running.go()
    running.wait_for_end(job)
    assert running.job(job)["attempts"] == 2


def test_a_killed_main_process_leaves_no_orphans_and_its_job_is_taken_again(running):
    job = running.slow_job(waits=True)
    old = running.wait_for_start(job)
    kill(running.main_process("long"))
    wait_for(lambda: old not in running.processes(), 20)
    running.go()
    running.wait_for_end(job)


def test_clusters_end_with_a_killed_worker_and_the_next_one_goes_on(installation):
    worker = installation.start_worker()
    job = installation.slow_job(waits=True)
    installation.wait_for_start(job)
    kill(worker.pid)
    wait_for(lambda: not installation.processes(), 20)
    installation.go()
    installation.start_worker()
    installation.wait_for_end(job)


def test_orphans_of_a_worker_that_died_with_its_clusters_are_ended(installation):
    worker = installation.start_worker()
    kill(worker.pid, *(installation.main_process(queue) for queue in ("short", "long", "restore")))
    worker.wait()
    orphans = set(installation.processes())
    assert orphans
    installation.start_worker()
    assert not orphans & set(installation.processes())


def test_a_stop_sends_work_back_within_seconds_and_the_next_worker_finishes_it(installation):
    worker = installation.start_worker()
    job = installation.slow_job(waits=True)
    installation.wait_for_start(job)
    installation.stop_worker(worker)
    assert installation.job(job)["state"] == "pending"
    assert not installation.processes()
    installation.go()
    installation.start_worker()
    installation.wait_for_end(job)


def test_a_stop_while_clusters_start_leaves_no_process(installation):
    worker = installation.launch_worker()
    wait_for(installation.processes, 20)
    installation.stop_worker(worker)
    assert not installation.processes()


def test_processes_have_in_memory_once_what_all_of_them_load(running):
    sizes = [rollup(pid) for pid in running.processes()]
    assert sum(size["Pss"] for size in sizes) < sum(size["Rss"] for size in sizes) / 4


def test_a_stop_takes_no_prefetched_work_along(installation):
    worker = installation.start_worker()
    jobs = installation.slow_jobs(5, waits=True)
    installation.wait_for_start(jobs[0])
    installation.stop_worker(worker)
    assert {installation.job(job)["state"] for job in jobs} == {"pending"}


def test_a_job_that_outlasts_its_delivery_and_is_rung_for_often_runs_once(running):
    job = running.slow_job(seconds=5)  # deliveries come again after two seconds
    running.run(f"job = Job.objects.get(pk={job})\nfor _ in range(3): job.ring()")
    running.wait_for_end(job)
    assert len(running.words("start", job)) == 1


def test_a_lost_bell_costs_a_moment_only(running):
    running.wait_for_end(running.slow_job(ring=False))


def test_an_unreadable_bell_keeps_nobody(running):
    running.run(
        "from django.utils import timezone\nfrom django_q.models import OrmQ\n"
        "OrmQ.objects.create(key='long', payload='rubbish', lock=timezone.now())"
    )
    running.wait_for_end(running.slow_job())


def test_cancel_reaches_a_run_in_another_process_within_seconds(running):
    job = running.slow_job(waits=True)
    running.wait_for_start(job)
    running.run(f"assert Job.objects.get(pk={job}).cancel('ann')")
    wait_for(lambda: running.job(job)["state"] == "cancelled", 20)


def test_two_machines_share_the_work_and_one_tick(installation):
    first, second = installation.start_worker(), installation.start_worker()
    jobs = installation.slow_jobs(4, seconds=1)
    for job in jobs:
        installation.wait_for_end(job)
        assert len(installation.words("start", job)) == 1
    long_job = installation.slow_job(waits=True)
    installation.wait_for_start(long_job)
    its = installation.below(first.pid)
    kill(first.pid)
    wait_for(lambda: not its & set(installation.processes()), PATIENCE)  # else one of them might end the job yet
    installation.go()
    installation.wait_for_end(long_job)
    assert second.poll() is None
