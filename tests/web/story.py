"""Rows for page tests: a Database with backups, slices, a gap and runs in every state, and no server behind it."""

from datetime import timedelta

from django.contrib.auth.models import Group
from django.utils import timezone

from backups.models import Backup, Database, Job, Restore, Schedule, Slice, Timeline, WorkerState
from backups.when import in_microseconds
from everest.models import User
from everest.people import make_groups
from storages.models import BackupStorage

TEN = timedelta(minutes=10)
SERVER = "11111111-2222-3333-4444-555555555555"
SECRETS = ["AKIA-KEY-IN-STORY", "storage-secret-in-story", "password-in-story", "client-key-in-story"]


def person(name, role="", **more):
    make_groups()
    user = User.objects.create_user(name, password="correct horse battery", **more)
    if role:
        user.groups.add(Group.objects.get(name=role))
    return user


def storage(name="minio", **more):
    values = {
        "type": "s3",
        "bucket": "everest-backups",
        "region": "eu-central-1",
        "endpoint": "http://127.0.0.1:1",
        "access_key": SECRETS[0],
        "secret_key": SECRETS[1],
        "checked_at": timezone.now(),
        "conditional_put": True,
    }
    return BackupStorage.objects.create(name=name, **(values | more))


def database(name="shop", **more):
    values = {
        "host": "127.0.0.1",
        "port": 1,
        "user": "everest",
        "password": SECRETS[2],
        "client_key": SECRETS[3],
        "flavour": "mysql",
        "version": "9.7.4",
        "server_uuid": SERVER,
        "status": "up",
        "checked_at": timezone.now(),
    }
    return Database.objects.create(name=name, **(values | more))


def place(number):
    return {"server": SERVER, "file": "binlog.000004", "pos": number, "file_id": "1", "gtids": f"{SERVER}:1-{number}"}


def timeline(database, started, number=1, **more):
    return Timeline.objects.create(
        database=database, number=number, server_uuid=SERVER, started_at=started, start_position=place(1), **more
    )


def backup(database, storage, name="nightly", at=None, position=10, line=None, **more):
    at = at or timezone.now()
    values = {
        "state": Backup.SUCCEEDED,
        "timeline": line,
        "view_at": at,
        "position": place(position),
        "size": 48_318_382,
        "rows": 1_204_551,
        "started_at": at,
        "finished_at": at + timedelta(seconds=74),
        "manifest_key": "v1/x/manifest.json",
    }
    return Backup.objects.create(database=database, storage=storage, name=name, **(values | more))


def slices(line, storage, first, count, start, every=timedelta(minutes=1), previous=""):
    """A gapless run: positions start, start + 10, ..."""
    rows = []
    for n in range(count):
        at = first + n * every
        key = f"v1/d/t/slices/0/index/{n:012d}.idx"
        rows.append(
            Slice(
                timeline=line, storage=storage, key=key, sequence=n, previous=previous,
                start=place(start + 10 * n), end=place(start + 10 * n + 10), first_us=in_microseconds(at),
                last_us=in_microseconds(at + every * 0.9), count=10, size=8_000, raw_size=31_000, written_at=at + every,
            )
        )  # fmt: skip
        previous = key
    Slice.objects.bulk_create(rows)
    line.storages.add(storage)


def history(database, storage):
    """A backup and an hour of slices, a gap, then another backup whose timeline still grows."""
    now = timezone.now()
    old = timeline(
        database,
        now - timedelta(hours=5),
        ended_at=now - timedelta(hours=3, minutes=30),
        end_reason="gap",
        end_detail="The server purged binlog.000003 before it was shipped.",
    )
    backup(database, storage, "before-the-gap", now - timedelta(hours=5), 10, old)
    slices(old, storage, now - timedelta(hours=5), 9, 10, TEN)
    line = timeline(database, now - timedelta(hours=2), 2, parent=old)
    first = backup(database, storage, "after-the-gap", now - timedelta(hours=2), 1000, line)
    slices(line, storage, now - timedelta(hours=2), 11, 1000, TEN)
    backup(database, storage, "nightly-2", now - timedelta(minutes=40), 1080, line)
    Database.objects.filter(pk=database.pk).update(
        pitr=True, pitr_storage=storage, caught_up_at=now - timedelta(seconds=4)
    )
    database.refresh_from_db()
    return first


def schedule(database, storage, name="nightly", **more):
    values = {"cron": "0 1 * * *", "time_zone": "Europe/Berlin", "retention_copies": 7}
    return Schedule.objects.create(database=database, storage=storage, name=name, **(values | more))


DROP = "DROP TABLE `customers`"
PLAN = {
    "position": place(1200), "timeline": "", "slices": 23, "bytes": 9_400_000, "seconds": 95, "in_place": False,
    "last": {"time_us": 1_795_370_401_123_456, "identity": f"{SERVER}:1199", "tables": ["shop.orders"], "ddl": ""},
    "next": {"time_us": 1_795_370_402_000_001, "identity": f"{SERVER}:1200", "tables": [], "ddl": DROP},
    "backup": {"id": "x", "name": "nightly-2", "view_us": 1_795_370_000_000_000, "storage": "minio"},
    "loses": [{"schema": "shop_staging", "rows": 120_400}], "checks": [],
}  # fmt: skip


def restore(source, target, state="draft", plan=PLAN, **more):
    made = Restore.objects.create(
        source=source, target=target, state=state, plan=plan, who="olga", **({"moment": "latest"} | more)
    )
    return made


def job(kind, state="running", **more):
    values = {
        "who": "olga",
        "started_at": timezone.now() - timedelta(seconds=20),
        "progress": {"step": "Copying rows", "done": 700_000, "total": 1_204_551, "unit": "rows"},
        "log": "17:00:01 Read view at binlog.000004:1200\n17:00:02 shop.orders: 700000 rows\n",
    }
    return Job.objects.create(kind=kind, queue=Job.QUEUES[kind], state=state, **(values | more))


def transaction(database, number=1200, **more):
    """One line of the list of transactions."""
    line = database.timelines.order_by("number").last()
    found = {
        "timeline": str(line.pk) if line else "",
        "cursor": {"timeline": 2, "sequence": 5, "identity": "gtid:4"}, "time_us": 1_795_370_402_000_001,
        "identity": f"{SERVER}:{number}", "more": 0, "rows": 250, "ddl": "", "xa": "",
        "tables": [{"name": "shop.orders", "inserts": 1, "updates": 2, "deletes": 247}],
    }  # fmt: skip
    return found | more


def listed(database, **more):
    """The Job of a list that has been found, with an older page behind it."""
    drop = transaction(database, ddl=DROP, tables=[], rows=0)
    result = {"transactions": [drop, transaction(database, 1199)], "next": drop["cursor"], "looked": 3}
    values = {"result": result, "arguments": {"since_us": None, "until_us": None, "table": "", "kind": ""}}
    return job("transactions", "succeeded", database=database, **(values | more))


def rows_shown(database, **more):
    """The Job of a transaction's rows that have been read: one of each kind."""
    update = {
        "table": "shop.orders",
        "kind": "update",
        "cells": [["id", "7", "", "7", ""], ["what", "<b>", "", "NULL", "null"]],
    }
    gone = {
        "table": "shop.orders",
        "kind": "delete",
        "cells": [["id", "8", "", "", "none"], ["raw", "0xff", "unread", "", "none"]],
    }
    arguments = {"transaction": transaction(database, 1199), "first": 0, "list": 0}
    values = {"result": {"rows": [update, gone], "names": "nightly"}, "arguments": arguments}
    return job("rows", "succeeded", database=database, **(values | more))


def workers_at_work():
    WorkerState.seen(WorkerState.TICK)
