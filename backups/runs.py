"""What each kind of Job does.  A run may be killed anywhere and started again: every step looks before it leaps."""

from __future__ import annotations

import random
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from django.conf import settings
from django.db.models import Q
from django.utils import timezone

from backups import catalog, history, leases, merging, moments, shipping, sweeping
from backups.engine import layout, verify
from backups.engine.errors import Corrupt, Forked, Gap, LeaseLost, Refused, Stopped
from backups.engine.types import Position
from backups.models import Backup, Database, Job, Restore, Timeline
from backups.queue import EXPECTED, JobRun, NotYet, unexpected
from everest.models import Event
from storages.models import BackupStorage

PROBLEMS_KEPT = 20  # of a verification, on the Database; all are in its Job's log
IN_A_ROW = 3  # backups, at most, that nobody asked for
EVEREST = "Everest"
DRAIN_WAIT = 15  # seconds beyond a lease's length that a restore waits for the shipper of its target


# Backup


def backup(job: Job, run: JobRun) -> dict[str, Any]:
    row, database = job.backup, job.database
    if _committed(row):
        return _result(row)
    if Restore.objects.filter(target=database, state=Restore.RUNNING).exists():
        raise NotYet(f"{database} is being restored into; the backup waits for that.")
    timeline, since = begin_timeline(database)
    Backup.objects.filter(pk=row.pk).update(
        state=Backup.RUNNING, timeline=timeline, started_at=timezone.now(), error="", finished_at=None
    )
    row.refresh_from_db()
    catalog.write_description(database)
    if database.pitr:
        shipping.ring_ship()
    try:
        manifest = database.module.snapshot(
            database.config(),
            database.archive(row.storage),
            timeline=str(timeline.pk),
            backup=str(row.pk),
            name=row.name,
            schedule=str(row.schedule_id or ""),
            threads=database.connections,
            rate=(database.rate_limit or 0) * 1_000_000,
            run=run,
            since=since,
        )
    except Forked as error:
        shipping.end_timeline(timeline, Timeline.FORK, error)
        raise NotYet(f"{error} The backup starts again, on a new timeline.") from error
    row.take_over(manifest, layout.manifest(str(database.pk), str(timeline.pk), str(row.pk)))
    _afterwards(row)
    return _result(row)


def _committed(row: Backup) -> bool:
    """A run before this one may have been ended between the manifest and this row."""
    if row.timeline is None:
        return False
    archive = row.database.archive(row.storage)
    if str(row.pk) not in archive.backups(str(row.timeline_id)):
        return False
    manifest = archive.read_manifest(str(row.timeline_id), str(row.pk))
    row.take_over(manifest, layout.manifest(str(row.database_id), str(row.timeline_id), str(row.pk)))
    _afterwards(row)
    return True


def _afterwards(row: Backup) -> None:
    row.timeline.respan()
    row.timeline.refresh_from_db()  # shipping may have found its end meanwhile
    broken = row.timeline.ended_at and row.timeline.end_reason in (Timeline.GAP, Timeline.FORK)
    if broken and _none_waits(row.database) and not _again_and_again(row.database):
        # A hole was found while it ran, so it lies before the hole: recovery begins again with one behind it.
        row.database.backup_now(storage=row.storage, who=EVEREST)
    if row.database.ship_error and row.timeline.ended_at is None:
        Database.objects.filter(pk=row.database_id).update(ship_error="", ship_error_since=None, ship_retry_at=None)
    if row.database.pitr:
        shipping.ring_ship()
    if row.schedule and row.schedule.retention_copies:
        sweeping.enqueue(row.database)


def _again_and_again(database: Database) -> bool:
    """Whether nobody but this has asked for backups lately: one more would meet the next hole, too."""
    last = Job.objects.filter(kind=Job.BACKUP, database=database).order_by("-pk").values_list("who", flat=True)
    return list(last[:IN_A_ROW]) == [EVEREST] * IN_A_ROW


def _none_waits(database: Database) -> bool:
    waiting = database.backups.filter(state__in=[Backup.PENDING, Backup.RUNNING])
    return database.open_timeline is None and not waiting.exists()


def _result(row: Backup) -> dict[str, Any]:
    return {"rows": row.rows, "size": row.size, "name": row.name}


def begin_timeline(database: Database) -> tuple[Timeline, Position]:
    """The open timeline, if it is of this server and its log goes on, and a place on it.

    With recovery on, shipping begins at this place or before.
    """
    identity, position = database.identify()
    timeline = database.open_timeline
    if timeline:
        _end_if_over(database, timeline, identity, position)
    if not database.pitr:
        return Timeline.open(database, identity.server_uuid, None), position
    start = dict(database.module.anchored(database.config(), position))
    return Timeline.open(database, identity.server_uuid, start), start


def _end_if_over(database: Database, timeline: Timeline, identity: Any, position: Position) -> None:
    """A backup of another history must not lie on this one, whether shipping has found its end yet or not."""
    known = _known_positions(timeline)
    joined = known and all(database.module.at_or_before(one, position) for one in known)
    if timeline.server_uuid != identity.server_uuid and not joined:
        detail = f"Another server answers now: {identity.server_uuid} instead of {timeline.server_uuid}."
        shipping.end_timeline(timeline, Timeline.REPLACED, detail)
        return
    for one in known:
        try:
            database.module.prove_same(database.config(), one)
        except Forked as error:
            shipping.end_timeline(timeline, Timeline.FORK, error)
            return
        except Gap as error:
            if database.pitr and one is known[0]:  # log behind a backup may be purged once it is shipped
                shipping.end_timeline(timeline, Timeline.GAP, error)
                return


def _known_positions(timeline: Timeline) -> list[Position]:
    """Where shipping stands, and where its newest backup lies."""
    last = timeline.slices.filter(level=0).order_by("sequence").last()
    taken = timeline.backups.filter(state=Backup.SUCCEEDED).order_by("view_at").last()
    shipped = last.end if last else timeline.start_position
    return [one for one in (shipped, taken and taken.position) if one]


# Restore


def resolve(job: Job, run: JobRun) -> dict[str, Any]:
    restore = job.restore
    restore.plan, restore.error = moments.review(restore), ""
    restore.save(update_fields=["plan", "error"])
    return {}


def restore(job: Job, run: JobRun) -> dict[str, Any]:
    row = job.restore
    running = Restore.objects.filter(pk=row.pk, state__in=[Restore.PENDING, Restore.RUNNING]).update(
        state=Restore.RUNNING, started_at=row.started_at or timezone.now(), error=""
    )
    if not running:
        raise Refused(f"This restore is {row.get_state_display().lower()} already.")
    row.refresh_from_db()
    Database.objects.filter(pk=row.target_id).update(status=Database.RESTORING)
    try:
        result = _restore(row, run)
    except LeaseLost:
        raise
    except Stopped:
        if run.cancelled:  # otherwise a worker stops, and the next one goes on
            _over(row, Restore.CANCELLED, "Cancelled.")
        raise
    except Exception as error:
        _over(row, Restore.FAILED, str(error) if isinstance(error, EXPECTED) else unexpected(error))
        if isinstance(error, Corrupt):
            merging.mend(row.source, run)  # so that a next try does without what is damaged, where it can
        raise
    row.result = result
    row.save(update_fields=["result"])
    _over(row, Restore.SUCCEEDED, "")
    return result


def _restore(row: Restore, run: JobRun) -> dict[str, Any]:
    run.progress("Planning")
    plan = moments.planned(row)
    archives = row.source.archives()
    manifest = archives[plan.backup.storage].read_manifest(plan.backup.timeline, plan.backup.id)
    if not row.touched:
        _refuse_bad_target(row, manifest)
    end_target_timeline(row, run)
    result = row.target.module.restore(
        row.target.config(),
        plan,
        manifest,
        archives,
        replace=row.touched or row.replace == row.target.name,
        remember=lambda values: remember(row, values),
        run=run,
        accounts=row.accounts,
        compact=not row.verbatim,
    )
    return asdict(result)


def _refuse_bad_target(row: Restore, manifest: Any) -> None:
    """Before anything of the target is touched, its timeline included."""
    failed = [c for c in row.target.module.preflight_target(row.target.config(), manifest, None) if c.state == "fail"]
    if failed:
        raise Refused(
            " ".join(f"{c.message} {c.fix}".strip() for c in failed), meaning=f"{row.target} was not changed."
        )
    state = row.target.module.inspect_target(row.target.config())
    if state.schemas and row.replace != row.target.name:
        names = ", ".join(name for name, _ in state.schemas)
        raise Refused(
            f"{row.target} holds {names}.",
            meaning="They would be lost; nothing was changed.",
            next_step="Start the restore again and type the target's name to replace them.",
        )


def remember(row: Restore, values: dict[str, Any]) -> None:
    """Keep a target's settings as they were before the first change, whatever a later run finds."""
    row.refresh_from_db(fields=["target_settings"])
    row.target_settings, row.touched = {**values, **row.target_settings}, True
    row.save(update_fields=["target_settings", "touched"])


def put_back_settings(row: Restore) -> None:
    row.refresh_from_db(fields=["target_settings"])
    if row.target_settings:
        row.target.module.put_back(row.target.config(), row.target_settings)
        row.target_settings = {}
        row.save(update_fields=["target_settings"])


def end_target_timeline(row: Restore, run: JobRun) -> None:
    """What the target was until now stays restorable: ship the rest of its log, then end its timeline."""
    target = row.target
    timeline = target.open_timeline
    if timeline is None:
        return
    if target.pitr and target.pitr_storage:
        run.log(f"Shipping the rest of {target}'s own log.")
        try:
            with leases.held(target, run, settings.EVEREST_LEASE_SECONDS + DRAIN_WAIT):
                shipping.ship_database(target, run, drain=True)
        except Gap as error:
            run.log(f"{target}'s timeline had ended already: {error}")
    shipping.end_timeline(timeline, Timeline.RESTORE, f"Restored from {row.source}: {row}.")


def _over(row: Restore, state: str, error: str) -> None:
    """The target is free again.  Where its timeline was ended for this, a new one begins with a backup at once."""
    row.settle(state, error)
    row.refresh_from_db()
    with suppress(*EXPECTED):  # the tick tries again
        put_back_settings(row)
    Database.objects.filter(pk=row.target_id).update(status=Database.UNKNOWN)
    last = row.target.timelines.order_by("number").last()
    half_done = row.touched and state != Restore.SUCCEEDED
    if last and last.ended_at and last.end_reason == Timeline.RESTORE and not half_done:
        before = last.backups.order_by("created_at").last()
        storage = row.target.pitr_storage or (before and before.storage)
        row.target.backup_now(storage=storage, who=f"restore {row.pk}")


# The rest


def delete(job: Job, run: JobRun) -> dict[str, Any]:
    return sweeping.sweep(job, run)


def verification(job: Job, run: JobRun) -> dict[str, Any]:
    """Prove one backup's timeline, or every timeline that holds something; the result stays on the Database."""
    database = job.database
    timelines = [job.backup.timeline] if job.backup and job.backup.timeline else timelines_held(database)
    if not timelines:
        raise Refused(f"There is nothing to verify for {database} yet.")
    archives, total = database.archives(), verify.Report()
    every = job.arguments.get("every", 1)
    for timeline in timelines:
        first = random.randrange(every)
        total += verify.verify(archives, str(timeline.pk), database.module.at_or_before, run, every, first)
    if job.backup is None or total.problems:
        _note_verified(database, len(timelines), total, every)
    if total.problems:
        merging.mend(database, run)
        first = total.problems[0]
        raise Corrupt(f"{len(total.problems)} of {total.objects} objects are damaged, first {first.key}: {first.what}")
    return {"timelines": len(timelines), "objects": total.objects, "size": total.size, "every": every}


def timelines_held(database: Database) -> list[Timeline]:
    """Those of which something is stored."""
    held = Q(backups__state=Backup.SUCCEEDED) | Q(slices__isnull=False)
    return list(database.timelines.filter(held).distinct().order_by("number"))


def _note_verified(database: Database, timelines: int, report: verify.Report, every: int) -> None:
    problems = [{"key": one.key, "what": one.what} for one in report.problems[:PROBLEMS_KEPT]]
    read = {"timelines": timelines, "objects": report.objects, "size": report.size, "every": every}
    found = read | {"problems": problems}
    Database.objects.filter(pk=database.pk).update(verified_at=timezone.now(), verified=found)
    if problems:
        Event.note(EVEREST, "found damage", database, problems[0]["key"])


def rebuild_catalogue(job: Job, run: JobRun) -> dict[str, Any]:
    storage = BackupStorage.objects.filter(pk=job.arguments["storage"]).first()
    if storage is None:
        raise Refused("The storage whose catalogue was to be read is no longer there.")
    return asdict(catalog.rebuild(storage, run))


def check(job: Job, run: JobRun) -> dict[str, Any]:
    job.database.check_server()
    catalog.write_description(job.database)
    return {"status": job.database.status}


def put_back(job: Job, run: JobRun) -> dict[str, Any]:
    """A restore is over for good: its target's settings go back to what they were."""
    put_back_settings(job.restore)
    return {}


BODIES = {
    Job.BACKUP: backup,
    Job.RESOLVE: resolve,
    Job.RESTORE: restore,
    Job.DELETE: delete,
    Job.VERIFY: verification,
    Job.CHECK: check,
    Job.PUT_BACK: put_back,
    Job.CATALOG: rebuild_catalogue,
    Job.TRANSACTIONS: history.transactions,
    Job.ROWS: history.rows,
    Job.MERGE: merging.merge,
}
