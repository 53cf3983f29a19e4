"""Slices, continuously: one run serves many databases side by side for about a minute, then rings its successor."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone

from backups import leases, merging
from backups.engine import levels, slices
from backups.engine.errors import Corrupt, Forked, Gap, LeaseLost, Refused, Stopped
from backups.engine.types import Chunk, Position, Quiet, Run, SliceIndex
from backups.models import Backup, Database, Slice, Timeline
from backups.models.timeline import from_us
from backups.queue import EXPECTED, Pulse, new_owner, ring, stopping, unexpected
from everest.models import Event
from storages.models import BackupStorage

log = logging.getLogger("everest.work")

LOOK = 1.0  # seconds between looks for databases that became due
HAND_OVER = 3.0  # seconds before its end that a run rings its successor, and idles before it gives up
MAX_BYTES = 16 << 20  # of one slice, decompressed; compressed it is a single part of an upload
DAMAGE_TRIES = 3  # runs in a row that read damage before it counts as lost


class ShipRun:
    """One delivery's work: leases, threads, and the successor."""

    def __init__(self) -> None:
        self.owner = new_owner()
        self.deadline = time.monotonic() + settings.EVEREST_SHIP_SECONDS
        self.kept: set = set()
        self._threads: dict[Any, threading.Thread] = {}
        self._extended = time.monotonic()

    def run(self) -> None:
        with Pulse(self._keep, min(LOOK, settings.EVEREST_LEASE_SECONDS / 3)):
            self._serve_until_deadline()
            for thread in self._threads.values():
                thread.join()
        if not stopping() and leases.due().exists():
            ring_ship()

    def _serve_until_deadline(self) -> None:
        """Take what is due until shortly before the end; with nothing to serve for a while, end early."""
        hand_over = min(HAND_OVER, settings.EVEREST_SHIP_SECONDS / 4)
        rung_rest = rung_successor = False
        served = time.monotonic()
        while not stopping() and time.monotonic() < self.deadline and time.monotonic() < served + hand_over:
            ending = time.monotonic() > self.deadline - hand_over
            if not ending:
                self._take_more()
            if any(thread.is_alive() for thread in self._threads.values()):
                served = time.monotonic()
                if ending and not rung_successor:
                    rung_successor = True
                    ring_ship()
                elif not rung_rest and len(self._threads) >= settings.EVEREST_SHIP_DATABASES and leases.due().exists():
                    rung_rest = True
                    ring_ship()
            time.sleep(min(LOOK, hand_over) / 2)

    def _take_more(self) -> None:
        self._threads = {key: thread for key, thread in self._threads.items() if thread.is_alive()}
        room = settings.EVEREST_SHIP_DATABASES - len(self._threads)
        for database in leases.due().exclude(pk__in=self._threads)[:room]:
            if leases.claim(database, self.owner):
                self.kept |= {database.pk}
                thread = threading.Thread(target=self._serve, args=(database,), name=f"ship {database}", daemon=True)
                self._threads[database.pk] = thread
                thread.start()

    def _keep(self) -> None:
        if time.monotonic() - self._extended >= settings.EVEREST_LEASE_SECONDS / 3:
            self._extended = time.monotonic()
            leases.extend(self.owner)
        self.kept = leases.kept(self.owner)

    def _serve(self, database: Database) -> None:
        watch = Watch(self, database)
        try:
            serve(database, self.owner, watch, deadline=self.deadline, drain=False)
        finally:
            leases.release(database, self.owner)
            connection.close()


class Watch(Quiet):
    """The engine's Run for one database of a ship run."""

    def __init__(self, run: ShipRun, database: Database) -> None:
        self._run, self._database = run, database.pk

    def should_stop(self) -> bool:
        return stopping() or self._database not in self._run.kept


def ring_ship() -> None:
    ring("backups.tasks.ship", queue="short")


def serve(database: Database, owner: str, run: Run, *, deadline: float | None, drain: bool) -> None:
    """Ship one database and keep what went wrong on its row; raises nothing, so that others go on."""
    try:
        ship_database(database, run, deadline=deadline, drain=drain)
    except (LeaseLost, Stopped):
        pass
    except Gap as error:
        log.warning("%s: %s", database, error)
    except EXPECTED as error:
        _failed(database, str(error))
    except Exception as error:
        # Not foreseen: recorded like the others, its trace in the worker's log.
        log.exception("shipping %s failed", database)
        _failed(database, unexpected(error))


def _failed(database: Database, message: str) -> None:
    """Note it and wait, longer each time; it is tried again by later runs."""
    row = Database.objects.get(pk=database.pk)
    wait = timedelta(seconds=settings.EVEREST_TICK_SECONDS / 4 * 2 ** min(row.ship_failures, 10))
    Database.objects.filter(pk=database.pk).update(
        ship_error=message,
        ship_error_since=row.ship_error_since or timezone.now(),
        ship_failures=row.ship_failures + 1,
        ship_retry_at=timezone.now() + min(leases.LONGEST_WAIT, wait),
    )


def ship_database(database: Database, run: Run, *, deadline: float | None = None, drain: bool = False) -> int:
    """Ship from the end of what the bucket holds; return the number of slices written.

    drain: up to the server's position as it was at the start, then return.  Raises EngineError; a Gap has ended
    the timeline by then.  The caller holds the lease.
    """
    timeline = database.open_timeline
    if timeline is None:
        raise Refused(f"{database} has no open timeline.", next_step="Take a backup: shipping starts with it.")
    try:
        last = last_slice(database, timeline)
        adopt(database, timeline, last)
        start = last.end if last else first_position(timeline)
        check_server(database, timeline, start)
        connection.close()  # what is captured may be long in coming; a hundred that wait would take 30 MB
        with closing(database.module.Idle(database.config())) as idle:
            voyage = Voyage(database, timeline, start, idle.since)
            chunks = database.module.capture(
                database.config(),
                start,
                replica_uuid=str(database.pk),
                interval=database.pitr_interval,
                max_bytes=MAX_BYTES,
                drain=drain,
                deadline=deadline,
                run=run,
                on_caught_up=voyage.caught_up,
            )
            slices.ship(voyage.archive, str(timeline.pk), _proven(database, chunks), last, voyage.record)
            return voyage.count
    except Gap as error:
        end_timeline(timeline, Timeline.FORK if isinstance(error, Forked) else Timeline.GAP, error)
        raise


def _proven(database: Database, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    """Damage that is still there after several tries is in the server's log, not on the way: a gap."""
    try:
        yield from chunks
    except Corrupt as error:
        if database.ship_failures < DAMAGE_TRIES:
            raise
        raise Gap(error.what, meaning=error.meaning, next_step=error.next_step) from error


class Voyage:
    """What one run tells about one timeline: rows for its slices, and since when nothing was left behind.

    idle: the server's clock at a look that found nothing behind a position, else None.
    """

    def __init__(
        self, database: Database, timeline: Timeline, start: Position, idle: Callable[[Position], int | None]
    ) -> None:
        self.database, self.timeline, self._idle = database, timeline, idle
        self.archive = database.archive(database.pitr_storage)
        self.count = 0
        self._stored = start
        self._merging = 0
        self._seen: tuple[Position, Any] | None = None
        self._looked = 0.0
        self._lock = threading.Lock()

    def record(self, index: SliceIndex) -> None:
        """A slice is in the bucket.  Called from the shipment's threads."""
        try:
            Slice.record(self.timeline, self.database.pitr_storage, index)
            self._expect_merging(index)
            with self._lock:
                self.count += 1
                self._stored = index.end
                self._note(ship_position=dict(index.end))
        finally:
            connection.close()

    def _expect_merging(self, index: SliceIndex) -> None:
        """Once a window: what it holds by then may be merged."""
        due = levels.next_us(slices.point(index), index.written_us)
        if due and due != self._merging:
            self._merging = due
            merging.expect(self.database, from_us(due))

    def caught_up(self, position: Position) -> None:
        """Nothing lay behind `position` a moment ago; it counts once that much is in the bucket.

        The moment is the server's to tell: word of it may be late, and commit times are of the server's clock.
        """
        if time.monotonic() - self._looked < 1:
            return
        self._looked = time.monotonic()
        if (seen_us := self._idle(position)) is not None:
            with self._lock:
                self._seen = (position, from_us(seen_us))
                self._note()

    def _note(self, **changed: Any) -> None:
        if self._seen and dict(self._seen[0]) == dict(self._stored):
            changed["caught_up_at"], self._seen = self._seen[1], None
        if changed:
            healthy = {"ship_error": "", "ship_error_since": None, "ship_failures": 0, "ship_retry_at": None}
            Database.objects.filter(pk=self.database.pk).update(**changed, **healthy)


def last_slice(database: Database, timeline: Timeline) -> SliceIndex | None:
    """The newest slice in any bucket that this timeline has been shipped to."""
    found = [database.archive(one).last_slice(str(timeline.pk)) for one in _shipped_to(database, timeline)]
    return max((one for one in found if one), key=lambda one: one.sequence, default=None)


def _shipped_to(database: Database, timeline: Timeline) -> set[BackupStorage]:
    return {database.pitr_storage, *timeline.storages.all()}


def adopt(database: Database, timeline: Timeline, last: SliceIndex | None) -> None:
    """Rows for slices that a run committed and did not live to note."""
    newest = timeline.slices.filter(level=0).order_by("sequence").last()
    known = newest.sequence if newest else -1
    if last is None or last.sequence <= known:
        return
    for storage in _shipped_to(database, timeline):
        for index in database.archive(storage).slices(str(timeline.pk), after=known):
            Slice.record(timeline, storage, index)


def first_position(timeline: Timeline) -> Position:
    """Where an unshipped timeline begins: noted by a backup, else the newest backup's own position."""
    if timeline.start_position is None:
        backup = timeline.backups.filter(state=Backup.SUCCEEDED).order_by("view_at").last()
        if backup is None:
            raise Refused("There is no backup on this timeline yet.", next_step="Shipping starts with the first one.")
        Timeline.objects.filter(pk=timeline.pk, start_position__isnull=True).update(start_position=backup.position)
        timeline.refresh_from_db()
    return timeline.start_position


def check_server(database: Database, timeline: Timeline, start: Position) -> None:
    """The timeline's own server, or one that took over from it with all its transactions; else the timeline ends."""
    identity, current = database.identify()
    if identity.server_uuid == timeline.server_uuid or database.module.at_or_before(start, current):
        return
    error = Gap(
        f"{database} is another server now ({identity.server_uuid} instead of {timeline.server_uuid}), and it does "
        "not hold the transactions that were shipped.",
        meaning="What was shipped stays restorable; nothing of the new server is recoverable yet.",
        next_step="Take a backup now: it begins a new timeline.",
    )
    end_timeline(timeline, Timeline.REPLACED, error)
    raise error


def end_timeline(timeline: Timeline, reason: str, error: Exception | str) -> bool:
    """End it once, with its reason where people and the bucket can read it."""
    with transaction.atomic():
        if not timeline.end(reason, str(error)):
            return False
        if reason != Timeline.RESTORE:
            Database.objects.filter(pk=timeline.database_id).update(
                ship_error=str(error), ship_error_since=timezone.now()
            )
        Event.note("Everest", f"ended a timeline: {timeline.get_end_reason_display()}", timeline, str(error))
        timeline.database.describe_soon()
    return True


def drain(database: Database, run: Run) -> int:
    """Ship everything up to now and return how many slices that took; another worker that ships now may do it."""
    if not (database.pitr and database.pitr_storage):
        raise Refused(
            f"Point-in-time recovery is off for {database}.", next_step="Switch it on, and choose a Backup Storage."
        )
    before = Slice.objects.filter(timeline__database=database).count()
    goal: Position | None = None
    while True:
        owner = new_owner()
        if leases.claim(database, owner):
            return _drain_now(database, owner, run)
        goal = goal or database.identify()[1]
        if _shipped(database, goal):
            return Slice.objects.filter(timeline__database=database).count() - before
        if run.should_stop():
            raise Stopped("Stopped before everything was shipped.")
        time.sleep(0.2)


def _shipped(database: Database, goal: Position) -> bool:
    """Whether whoever ships has come to this place, whatever was written since."""
    timeline = database.open_timeline
    last = timeline and timeline.slices.filter(level=0).order_by("sequence").last()
    end = last.end if last else timeline and timeline.start_position
    return bool(end) and database.module.at_or_before(goal, end)


def _drain_now(database: Database, owner: str, run: Run) -> int:
    try:
        with Pulse(lambda: leases.extend(owner), settings.EVEREST_LEASE_SECONDS / 3):
            return ship_database(database, run, drain=True)
    finally:
        leases.release(database, owner)
