"""A Job is claimed once, tells its progress, hears cancel and stop, and ends as a row that says why."""

import os
import threading
import time

import pytest
from django.core.exceptions import ValidationError
from django.utils import timezone
from django_q.models import OrmQ

from backups import queue, runs, tasks, ticking
from backups.engine.errors import LeaseLost, Refused, Stopped
from backups.models import Backup, Database, Job, Restore, Schedule, Timeline, WorkerState
from storages.models import BackupStorage

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def quick(settings):
    settings.EVEREST_LEASE_SECONDS = 0.6
    settings.EVEREST_TICK_SECONDS = 0
    settings.EVEREST_RING_AGAIN_SECONDS = 0


@pytest.fixture
def database():
    return Database.objects.create(name="shop", host="127.0.0.1", port=1, user="x", checked_at=timezone.now())


@pytest.fixture
def storage():
    return BackupStorage.objects.create(name="disk", type="local", bucket="disk")


@pytest.fixture
def job(database):
    return Job.enqueue(Job.VERIFY, database=database)


def test_backups_that_nobody_asked_for_do_not_go_on_for_ever(database):
    """Where each meets a hole while it runs, the next one would, too."""
    for who in ("a schedule", *[runs.EVEREST] * runs.IN_A_ROW):
        assert not runs._again_and_again(database)
        Job.enqueue(Job.BACKUP, who=who, database=database)
    assert runs._again_and_again(database)
    Job.enqueue(Job.BACKUP, who="a person", database=database)
    assert not runs._again_and_again(database)


def test_no_process_is_forked_in_the_midst_of_a_beat():
    """What the beat holds, metadata or a lock, the copy would wait for, as nobody gives it back there."""
    beats, goes_on, forked = threading.Event(), threading.Event(), threading.Event()

    def beat():
        beats.set()
        goes_on.wait()

    def fork():
        if pid := os.fork():
            os.waitpid(pid, 0)
            forked.set()
        else:
            os._exit(0)

    with queue.Pulse(beat, 0.01):
        beats.wait()
        other = threading.Thread(target=fork)
        other.start()
        early = forked.wait(0.2)
        goes_on.set()
        assert forked.wait(10) and not early
    other.join()


def bells():
    return OrmQ.objects.count()


def finish(job, run):
    return {"done": True}


def wait_for_stop(job, run):
    while not run.should_stop():
        time.sleep(0.02)
    raise Stopped("stopped")


def test_a_backup_reads_as_its_database_says(database, storage, monkeypatch):
    Database.objects.update(connections=1, rate_limit=20)
    asked = {}

    def snapshot(*_, **options):
        asked.update(options)
        raise Refused("enough")

    monkeypatch.setattr(database.module, "snapshot", snapshot)
    monkeypatch.setattr(runs, "begin_timeline", lambda database: (Timeline.open(database, "uuid", None), None))
    monkeypatch.setattr(runs.catalog, "write_description", lambda database: None)
    queue.work(database.backup_now(storage=storage, who="a test", ring=False).job, runs.BODIES[Job.BACKUP])
    assert (asked["threads"], asked["rate"]) == (1, 20_000_000)


def test_a_job_runs_once_however_often_it_is_delivered(job):
    started = []
    assert queue.work(job, lambda *_: started.append(1))
    assert not queue.work(job, lambda *_: started.append(2))
    assert not queue.work(Job.objects.get(pk=job.pk), lambda *_: started.append(3))
    assert started == [1]


def test_a_finished_job_keeps_result_and_releases_its_owner(job):
    queue.work(job, finish)
    job.refresh_from_db()
    assert (job.state, job.result, job.owner, job.attempts) == (Job.SUCCEEDED, {"done": True}, "", 1)
    assert job.started_at <= job.finished_at


def test_a_failure_is_state_with_its_reason_and_log(job):
    def body(job, run):
        run.log("Looking.")
        raise Refused("No.", meaning="Nothing changed.", next_step="Ask again.")

    queue.work(job, body)
    job.refresh_from_db()
    assert (job.state, job.error) == (Job.FAILED, "No. Nothing changed. Ask again.")
    assert "Looking." in job.log and "No. Nothing changed." in job.log


def test_a_fault_of_everest_is_a_failed_job_without_secrets(job, caplog):
    def body(job, run):
        raise ZeroDivisionError("password=hunter2")

    queue.work(job, body)
    job.refresh_from_db()
    assert job.state == Job.FAILED and "ZeroDivisionError" in job.error and "hunter2" not in job.error + job.log


def test_the_bell_rings_on_commit_with_ids_only(database):
    from django.db import transaction

    with transaction.atomic():
        job = Job.enqueue(Job.VERIFY, database=database)
        assert bells() == 0
    task = OrmQ.objects.get().task
    assert (task["func"], task["args"], task["kwargs"]) == ("backups.tasks.run", (job.pk,), {})
    assert OrmQ.objects.get().key == "long"


def test_a_rolled_back_job_never_rings(database):
    from django.db import transaction

    with pytest.raises(ZeroDivisionError), transaction.atomic():
        Job.enqueue(Job.VERIFY, database=database)
        raise ZeroDivisionError
    assert bells() == 0


def test_cancel_of_a_waiting_job_ends_it_at_once(job):
    assert job.cancel("ann")
    assert job.state == Job.CANCELLED and "ann" in job.error
    assert not queue.work(job, finish)


def test_cancel_of_a_running_job_is_heard_within_seconds(job):
    def body(job, run):
        Job.objects.get(pk=job.pk).cancel("ann")
        wait_for_stop(job, run)

    began = time.monotonic()
    queue.work(job, body)
    job.refresh_from_db()
    assert job.state == Job.CANCELLED and time.monotonic() - began < 3


def test_a_stop_sends_the_job_back_to_wait(job, tmp_path, monkeypatch):
    monkeypatch.setenv(queue.STOP_FILE, str(tmp_path / "stop"))

    def body(job, run):
        (tmp_path / "stop").touch()
        wait_for_stop(job, run)

    queue.work(job, body)
    job.refresh_from_db()
    assert (job.state, job.owner, job.attempts, job.error) == (Job.PENDING, "", 0, "")


def test_a_stopping_worker_takes_no_job(job, tmp_path, monkeypatch):
    monkeypatch.setenv(queue.STOP_FILE, str(tmp_path))
    tasks.run(job.pk)
    job.refresh_from_db()
    assert job.state == Job.PENDING


def test_the_lease_is_kept_while_a_run_lasts(job):
    def body(job, run):
        time.sleep(1.5)  # more than two leases
        ticking.reclaim_jobs()
        assert not run.should_stop()

    queue.work(job, body)
    job.refresh_from_db()
    assert (job.state, job.attempts) == (Job.SUCCEEDED, 1)


def test_a_job_whose_worker_died_is_taken_again(job):
    job.claim()
    Job.objects.filter(pk=job.pk).update(lease_until=timezone.now())
    ticking.tick()
    assert queue.work(Job.objects.get(pk=job.pk), finish)
    job.refresh_from_db()
    assert (job.state, job.attempts) == (Job.SUCCEEDED, 2)


def test_a_run_that_lost_its_job_leaves_no_trace(job):
    def body(job, run):
        Job.objects.filter(pk=job.pk).update(owner="another")
        wait_for_stop(job, run)

    queue.work(job, body)
    job.refresh_from_db()
    assert (job.state, job.owner, job.error) == (Job.RUNNING, "another", "")


def test_a_job_that_ends_its_workers_fails_in_the_end(job):
    Job.objects.filter(pk=job.pk).update(attempts=ticking.MOST_ATTEMPTS - 1)
    job.claim()
    Job.objects.filter(pk=job.pk).update(lease_until=timezone.now())
    ticking.reclaim_jobs()
    job.refresh_from_db()
    assert job.state == Job.FAILED and "died 5 times" in job.error


def test_cancel_of_a_job_whose_worker_died_takes_effect(job):
    job.claim()
    job.cancel("ann")
    Job.objects.filter(pk=job.pk).update(lease_until=timezone.now())
    ticking.reclaim_jobs()
    job.refresh_from_db()
    assert job.state == Job.CANCELLED


def test_progress_and_log_are_written_at_most_once_a_second(job, django_assert_max_num_queries):
    def body(job, run):
        with django_assert_max_num_queries(0):
            for done in range(10_000):
                run.progress("rows", done, 10_000, "rows")
        run.log("Half way.")

    queue.work(job, body)
    job.refresh_from_db()
    assert (job.progress["done"], job.progress["total"]) == (9_999, 10_000)
    assert "Half way." in job.log


def test_a_log_never_grows_without_end(job, monkeypatch):
    monkeypatch.setattr(Job, "LOG_LIMIT", 100)
    queue.work(job, lambda job, run: [run.log(f"line {number}") for number in range(50)] and None)
    job.refresh_from_db()
    assert len(job.log) == 100 and job.log.endswith("line 49\n")


def test_the_tick_rings_for_jobs_that_nobody_heard(database):
    job = Job.enqueue(Job.VERIFY, database=database, ring=False)
    assert bells() == 0
    ticking.ring_pending_jobs()
    job.refresh_from_db()
    assert bells() == 1 and job.rung_at


def test_unheard_bells_do_not_pile_up(database):
    for _ in range(3):
        Job.enqueue(Job.VERIFY, database=database, ring=False)
    for _ in range(30):
        ticking.ring_pending_jobs()
    assert bells() <= ticking.MOST_BELLS


def test_of_two_ticks_one_wins(settings):
    settings.EVEREST_TICK_SECONDS = 20
    assert ticking.tick()
    assert not ticking.tick()
    WorkerState.objects.update(seen_at=timezone.now() - timezone.timedelta(seconds=19))
    assert ticking.tick()


def test_workers_are_missed_after_three_minutes():
    assert not queue.workers_seen()
    ticking.tick()
    assert queue.workers_seen()
    WorkerState.objects.update(seen_at=timezone.now() - timezone.timedelta(seconds=181))
    assert not queue.workers_seen()


def test_a_step_of_the_tick_that_fails_does_not_keep_the_others(monkeypatch, job):
    def broken():
        raise ZeroDivisionError

    monkeypatch.setattr(ticking, "STEPS", [broken, ticking.ring_pending_jobs])
    assert ticking.tick()
    job.refresh_from_db()
    assert job.rung_at


def test_a_job_runs_in_the_foreground_as_a_worker_would_run_it(job, monkeypatch):
    monkeypatch.setitem(runs.BODIES, Job.VERIFY, finish)
    assert queue.run_job_now(job).state == Job.SUCCEEDED
    with pytest.raises(LeaseLost, match="another worker has it"):
        queue.run_job_now(job)


def test_old_jobs_are_pruned_and_new_ones_stay(job, database):
    queue.work(job, finish)
    fresh = Job.enqueue(Job.VERIFY, database=database)
    Job.objects.filter(pk=job.pk).update(finished_at=timezone.now() - timezone.timedelta(days=91))
    ticking.prune()
    assert list(Job.objects.all()) == [fresh]


def test_a_due_schedule_starts_one_backup_however_many_runs_were_missed(database, storage):
    schedule = Schedule.objects.create(database=database, storage=storage, name="nightly", cron="0 1 * * *")
    Schedule.objects.update(next_run=timezone.now() - timezone.timedelta(days=3))
    ticking.start_schedules()
    ticking.start_schedules()
    backup = Backup.objects.get()
    assert backup.schedule == schedule and backup.jobs.get().kind == Job.BACKUP
    schedule.refresh_from_db()
    assert schedule.next_run > timezone.now() and schedule.last_run


def test_two_workers_that_see_one_due_schedule_start_one_backup(database, storage):
    Schedule.objects.create(database=database, storage=storage, name="nightly", cron="0 1 * * *")
    Schedule.objects.update(next_run=timezone.now() - timezone.timedelta(hours=1))
    first, second = Schedule.objects.get(), Schedule.objects.get()
    assert first.take(timezone.now())
    Backup.objects.update(state=Backup.SUCCEEDED)
    assert not second.take(timezone.now())
    assert Backup.objects.count() == 1


def test_a_paused_schedule_starts_nothing(database, storage):
    schedule = Schedule.objects.create(database=database, storage=storage, name="nightly", cron="* * * * *")
    schedule.pause()
    assert schedule.next_run is None
    ticking.start_schedules()
    assert not Backup.objects.exists()
    schedule.resume()
    assert schedule.next_run > timezone.now()


def test_a_backup_needs_a_free_name_and_a_storage(database):
    with pytest.raises(ValidationError, match="no Backup Storage yet"):
        database.backup_now()
    BackupStorage.objects.create(name="disk", type="local", bucket="disk")
    database.backup_now("first")
    with pytest.raises(ValidationError, match="already has a backup named first"):
        database.backup_now("first")


def test_cancelling_a_waiting_backup_marks_the_backup(database, storage):
    backup = database.backup_now("first", storage)
    assert backup.cancel("ann")
    backup.refresh_from_db()
    assert backup.state == Backup.CANCELLED and "ann" in backup.error


def test_a_failed_backup_says_why(database, storage):
    backup = database.backup_now("first", storage)
    tasks.run(backup.job.pk)
    backup.refresh_from_db()
    assert backup.state == Backup.FAILED and "Nothing answers at 127.0.0.1:1" in backup.error


def test_a_server_that_does_not_answer_is_down_with_a_sentence(database):
    checks = database.check_server()
    database.refresh_from_db()
    assert database.status == Database.DOWN and "Nothing answers" in database.status_detail
    assert checks[0]["state"] == "fail"


def test_two_presses_of_the_button_start_one_restore(database, storage):
    plan = {"loses": [], "timeline": "", "backup": {"id": ""}}
    restore = Restore.objects.create(source=database, target=database, moment="latest", plan=plan)
    again = Restore.objects.get(pk=restore.pk)
    queue.work(restore.start(who="ann"), finish)
    with pytest.raises(ValidationError, match="started already"):
        again.start(who="ben")
    assert restore.jobs.filter(kind=Job.RESTORE).count() == 1


def test_a_restore_that_would_lose_schemas_needs_the_typed_name(database):
    plan = {"loses": [{"schema": "shop", "rows": 5}], "timeline": "", "backup": {"id": ""}}
    restore = Restore.objects.create(source=database, target=database, moment="latest", plan=plan)
    with pytest.raises(ValidationError, match="Type the name shop"):
        restore.start(replace="Shop")
    assert restore.start(replace="shop").kind == Job.RESTORE


def test_a_restore_that_is_not_resolved_does_not_start(database):
    restore = Restore.objects.create(source=database, target=database, moment="latest")
    with pytest.raises(ValidationError, match="not resolved yet"):
        restore.start()


def test_a_draft_of_a_restore_can_be_put_away(database):
    restore = Restore.objects.create(source=database, target=database, moment="latest")
    resolving = Job.enqueue(Job.RESOLVE, restore=restore, database=database)
    assert restore.cancel("ann")
    restore.refresh_from_db()
    resolving.refresh_from_db()
    assert (restore.state, resolving.state) == (Restore.CANCELLED, Job.CANCELLED)
    with pytest.raises(ValidationError):
        restore.start()


def test_a_manifest_that_cannot_be_read_is_a_sentence_for_the_page(database, storage):
    backup = database.backup_now("first", storage)
    with pytest.raises(ValidationError, match="has no manifest"):
        backup.manifest()


def test_a_waiting_job_says_what_it_waits_for(job, database):
    assert "start `manage.py worker`" in job.waits_for()
    ticking.tick()
    assert job.waits_for() == "It starts in a moment."
    Job.enqueue(Job.BACKUP, database=database).claim()
    assert "waits for a worker" in job.waits_for() and "shop" in job.waits_for()
