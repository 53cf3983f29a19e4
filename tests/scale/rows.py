"""Rows as a large installation has them, and no server behind them: what the pages are measured with."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from datetime import timedelta

from django.contrib.auth.models import Group
from django.db import connection, transaction
from django.utils import timezone

from backups.models import Backup, Database, Job, Restore, Schedule, Slice, Timeline, WorkerState
from backups.models.timeline import to_us
from everest.models import Event, User
from everest.people import ADMINISTRATOR, make_groups
from storages.models import BackupStorage

SERVER = "11111111-2222-3333-4444-555555555555"
YEAR = timedelta(days=365)
BUSIEST = 10  # one database holds a tenth of all backups and slices
STORAGES = 20


def place(number: int) -> dict:
    return {"server": SERVER, "file": "binlog.000004", "pos": number, "file_id": "1", "gtids": f"{SERVER}:1-{number}"}


def administrator() -> User:
    make_groups()
    user = User.objects.create_user("scale", password="correct horse battery", is_staff=True, is_superuser=True)
    user.groups.add(Group.objects.get(name=ADMINISTRATOR))
    return user


@transaction.atomic
def seed(databases: int, backups: int, slices: int, storages: int = STORAGES) -> Database:
    """Fill the metadata; return the busiest database.  Each has a gap in its year and is shipped now."""
    WorkerState.seen(WorkerState.TICK)
    places = [_storage(number) for number in range(storages)]
    busiest, *others = Database.objects.bulk_create(_database(number, places) for number in range(databases))
    made = [busiest, *others]
    share = (backups // BUSIEST, slices // BUSIEST) if others else (backups, slices)
    _history(busiest, *share)
    for database in others:
        _history(database, (backups - share[0]) // len(others), (slices - share[1]) // len(others))
    _in_batches(Event, (_event(number, made) for number in range(backups)))
    _in_batches(Restore, (_restore(number, busiest, made) for number in range(databases)))
    for line in Timeline.objects.select_related("database"):
        line.storages.add(line.database.pitr_storage_id)
        line.respan()
    return busiest


def _in_batches(model: type, rows: Iterable) -> None:
    """As bulk_create, which on SQLite puts only some dozen rows into one statement."""
    fields = [field for field in model._meta.local_concrete_fields if field.get_internal_type() != "BigAutoField"]
    columns = ", ".join(connection.ops.quote_name(field.column) for field in fields)
    sql = f"INSERT INTO {model._meta.db_table} ({columns}) VALUES ({', '.join(['%s'] * len(fields))})"
    values = ([field.get_db_prep_save(field.pre_save(row, True), connection) for field in fields] for row in rows)
    with connection.cursor() as cursor:
        while batch := list(itertools.islice(values, 5_000)):
            cursor.executemany(sql, batch)


def _storage(number: int) -> BackupStorage:
    return BackupStorage.objects.create(
        name=f"storage-{number}", bucket=f"bucket-{number}", region="eu", endpoint="http://127.0.0.1:1",
        access_key="key", secret_key="secret", checked_at=timezone.now(), conditional_put=True,
    )  # fmt: skip


def _database(number: int, places: list[BackupStorage]) -> Database:
    return Database(
        name=f"database-{number:05d}", host=f"db{number}.example.com", user="everest", password="secret",
        flavour="mysql", version="9.7.0", server_uuid=SERVER, status="down" if number % 4 == 3 else "up",
        checked_at=timezone.now(), pitr=True, pitr_storage=places[number % len(places)],
        pitr_interval=10, caught_up_at=timezone.now(),
    )  # fmt: skip


def _history(database: Database, backups: int, slices: int) -> None:
    """Half of it before a gap; on every tenth database nothing has mended the gap yet."""
    now, half = timezone.now(), YEAR / 2
    old = Timeline(
        database=database, number=1, server_uuid=SERVER, started_at=now - YEAR, start_position=place(1),
        ended_at=now - half, end_reason="gap", end_detail="The server purged binlog.000003 before it was shipped.",
    )  # fmt: skip
    new = Timeline(
        database=database, number=2, server_uuid=SERVER, started_at=now - half, start_position=place(1), parent=old
    )
    Timeline.objects.bulk_create([old, new])
    schedule = Schedule(
        database=database, storage=database.pitr_storage, name="nightly", cron="0 1 * * *", retention_copies=0,
        next_run=now + timedelta(days=1),
    )  # fmt: skip
    Schedule.objects.bulk_create([schedule])
    taken = []
    for line, first, count in ((old, now - YEAR, backups // 2), (new, now - half, backups - backups // 2)):
        lasted = half * 0.95 if line is old else half  # what is missing lies in the gap
        _in_batches(Slice, _slices(line, first, slices // 2, lasted / max(slices // 2, 1)))
        if line is old or database.name[-1] != "7":
            taken += _backups(line, schedule, first, count, lasted / max(count, 1), slices // 2)
    _in_batches(Backup, taken)
    _in_batches(Job, (_job(one) for one in taken))


def _slices(line: Timeline, first, count: int, every: timedelta) -> Iterator[Slice]:
    previous = ""
    for number in range(count):
        at = first + number * every
        key = f"v1/{line.database_id}/{line.pk}/slices/0/index/{number:012d}.idx"
        yield Slice(
            timeline=line, storage=line.database.pitr_storage, key=key, sequence=number, previous=previous,
            start=place(10 * number + 1), end=place(10 * number + 11), first_us=to_us(at),
            last_us=to_us(at + every * 0.9), count=10, size=8_000, raw_size=31_000, written_at=at + every,
        )  # fmt: skip
        previous = key


def _backups(line: Timeline, schedule: Schedule, first, count: int, every: timedelta, slices: int) -> list[Backup]:
    return [
        Backup(
            database=line.database, storage=line.database.pitr_storage, schedule=schedule, timeline=line,
            name=f"nightly-{line.number}-{number:06d}", state="succeeded", view_at=first + number * every,
            position=place(10 * slices * number // count + 1), size=48_318_382, rows=1_204_551,
            started_at=first + number * every, finished_at=first + number * every + timedelta(seconds=74),
            manifest_key="v1/x/manifest.json",
        )
        for number in range(count)
    ]  # fmt: skip


def _job(backup: Backup) -> Job:
    return Job(
        kind=Job.BACKUP, queue=Job.LONG, state="succeeded", database_id=backup.database_id, backup=backup,
        who="schedule", attempts=1, started_at=backup.started_at, finished_at=backup.finished_at,
        log="17:00:01 Read view at binlog.000004:1200\n" * 20,
    )  # fmt: skip


def _event(number: int, made: list[Database]) -> Event:
    return Event(who="Everest", action="deleted a backup", subject=f"{made[number % len(made)]} backup-{number}")


def _restore(number: int, busiest: Database, made: list[Database]) -> Restore:
    return Restore(
        source=busiest, target=made[-1 - number % min(5, len(made))], moment="latest", state="succeeded", who="olga",
        started_at=timezone.now(), finished_at=timezone.now(), plan={"bytes": 1, "loses": [], "timeline": ""},
    )  # fmt: skip
