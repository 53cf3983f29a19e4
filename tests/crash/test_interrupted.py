"""A backup and a restore that are stopped, then killed, in the middle: they finish once, by themselves, and right."""

import os
import signal

import pytest

from everest.demo import accounts
from tests.crash.conftest import PATIENCE
from tests.helpers import compare, dump_all, wait_for

TABLES = 24


@pytest.fixture
def shop(installation, mysql_source, mysql_target):
    """A database with something in many tables, an empty one, and a storage that drags."""
    with mysql_source.connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE DATABASE shop")
        for number in range(TABLES):
            cursor.execute(f"CREATE TABLE shop.t{number} (id INT PRIMARY KEY)")
            cursor.execute(f"INSERT INTO shop.t{number} VALUES (1), (2), ({number + 3})")
    (installation.folder / "storages" / "disk").mkdir(parents=True)
    (installation.folder / "drag").touch()
    lines = ["disk = BackupStorage.objects.create(name='disk', type='local', bucket='disk')"]
    for name, server in (("shop", mysql_source), ("other", mysql_target)):
        user, password = accounts.create(server, "source", "target")
        lines.append(
            f"Database.objects.create(name={name!r}, host='127.0.0.1', port={server.port}, user={user!r}, "
            f"password={password!r}, pitr={name == 'shop'}, pitr_storage=disk, pitr_interval=1)"
        )
    installation.run("\n".join(lines))
    return installation


def content(server):
    with server.connect() as connection:
        return dump_all(connection)


def started(shop, kind):
    """The Job's id, once it is in the midst of its work."""
    wait_for(lambda: (shop.folder / "hanging").exists(), PATIENCE)
    return shop.rows("SELECT id FROM backups_job WHERE kind = ? AND state = 'running'", kind)[0][0]


def interrupt(shop, worker, kind, queue):
    """Stop the worker in the midst of a Job, start another, and kill its busy processes; let it end unhurt."""
    job = started(shop, kind)
    shop.stop_worker(worker)
    assert shop.job(job)["state"] == "pending"
    (shop.folder / "hanging").unlink()
    shop.start_worker()
    started(shop, kind)
    busy = shop.pool(queue, 2)
    forks = {pid for pid, parent in shop.processes(queue).items() if parent in busy}
    assert len(forks) == (kind == "backup")
    for pid in busy:
        os.kill(pid, signal.SIGKILL)
    (shop.folder / "drag").unlink()
    wait_for(lambda: not forks & set(shop.processes(queue)), PATIENCE)
    wait_for(lambda: shop.job(job)["state"] not in ("running", "pending"), PATIENCE)
    assert shop.job(job)["state"] == "succeeded", shop.job(job)["error"]
    assert shop.job(job)["attempts"] == 2  # a stopped run does not count
    return job


def test_an_interrupted_backup_is_taken_once(shop):
    worker = shop.start_worker()
    shop.run("Database.objects.get(name='shop').backup_now('only')")
    interrupt(shop, worker, "backup", "long")
    assert shop.rows("SELECT name, state, rows FROM backups_backup") == [("only", "succeeded", 3 * TABLES)]
    assert len(list(shop.folder.rglob("manifest.json"))) == 1


def test_an_interrupted_restore_ends_with_exactly_the_moment(shop, mysql_source, mysql_target):
    worker = shop.start_worker()
    (shop.folder / "drag").unlink()
    shop.run("Database.objects.get(name='shop').backup_now('only')")
    wait_for(lambda: shop.rows("SELECT 1 FROM backups_backup WHERE state = 'succeeded'"), PATIENCE)
    with mysql_source.connect() as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO shop.t0 VALUES (100)")
    wait_for(lambda: shop.rows("SELECT 1 FROM backups_slice WHERE count > 0"), PATIENCE)
    (shop.folder / "drag").touch()
    shop.run(
        "source, target = Database.objects.get(name='shop'), Database.objects.get(name='other')\n"
        "from backups.queue import run_job_now\n"
        "restore = Restore.request(source, target, 'latest', ring=False)\n"
        "run_job_now(restore.job)\nrestore.refresh_from_db()\nrestore.start()"
    )
    interrupt(shop, worker, "restore", "restore")
    assert not compare(content(mysql_source), content(mysql_target))
    assert shop.rows("SELECT state, target_settings FROM backups_restore") == [("succeeded", "{}")]
    with mysql_target.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT @@read_only, @@local_infile")
        assert cursor.fetchone() == (0, 0)
