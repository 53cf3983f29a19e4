"""Shipping goes on without a hole whatever happens to the workers, while somebody writes."""

import os
import signal
import threading
from itertools import pairwise

import pytest

from everest.demo import accounts
from tests.crash.conftest import PATIENCE
from tests.helpers import compare, dump_all, wait_for


class Writer(threading.Thread):
    """Adds an order every few milliseconds until it is ended."""

    def __init__(self, server):
        super().__init__()
        self.server, self.done, self.count = server, threading.Event(), 0

    def run(self):
        with self.server.connect() as connection, connection.cursor() as cursor:
            while not self.done.wait(0.02):
                self.count += 1
                cursor.execute(f"INSERT INTO shop.orders VALUES ({self.count}, UUID())")

    def end(self):
        self.done.set()
        self.join()


@pytest.fixture
def writer(mysql_source):
    with mysql_source.connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE DATABASE shop")
        cursor.execute("CREATE TABLE shop.orders (id INT PRIMARY KEY, what CHAR(36))")
    made = Writer(mysql_source)
    made.start()
    yield made
    made.end()


@pytest.fixture
def shop(installation, writer, mysql_source):
    """A database that is shipped every second, with a first backup asked for."""
    (installation.folder / "storages" / "disk").mkdir(parents=True)
    user, password = accounts.create(mysql_source, "source", "target")
    installation.run(
        "disk = BackupStorage.objects.create(name='disk', type='local', bucket='disk')\n"
        f"shop = Database.objects.create(name='shop', host='127.0.0.1', port={mysql_source.port}, user={user!r}, "
        f"password={password!r}, pitr=True, pitr_storage=disk, pitr_interval=1)\nshop.backup_now('first')"
    )
    return installation


def slices(shop):
    return shop.rows("SELECT start, end, count FROM backups_slice ORDER BY timeline_id, sequence")


def wait_for_slices(shop, more):
    known = len(slices(shop))
    wait_for(lambda: len(slices(shop)) >= known + more, PATIENCE)


def wait_until_caught_up(shop):
    written = shop.run("from django.utils import timezone\nprint(timezone.now().strftime('%Y-%m-%d %H:%M:%S'))")
    wait_for(lambda: shop.rows("SELECT 1 FROM backups_database WHERE caught_up_at > ?", written), PATIENCE)


def test_every_transaction_is_shipped_once_though_shippers_and_workers_are_killed(shop, writer):
    worker = shop.start_worker()
    wait_for_slices(shop, 2)
    for pid in shop.pool("short", 3):
        os.kill(pid, signal.SIGKILL)
    wait_for_slices(shop, 2)
    worker.kill()
    worker.wait()
    shop.start_worker()
    wait_for_slices(shop, 6)  # over at least one hand-over to a successor
    writer.end()
    wait_until_caught_up(shop)
    found = slices(shop)
    assert all(one[1] == following[0] for one, following in pairwise(found))
    backup_rows = shop.rows("SELECT rows FROM backups_backup")[0][0]
    assert sum(count for *_, count in found) >= writer.count - backup_rows
    assert shop.rows("SELECT ship_error FROM backups_database") == [("",)]
    shop.environment["DJANGO_SETTINGS_MODULE"] = "everest.settings"  # where verify really verifies
    proof = "job = run_job_now(Database.objects.get().verify(ring=False))\nprint(job.state, job.error)"
    assert shop.run(f"from backups.queue import run_job_now\n{proof}") == "succeeded"


def test_a_restore_in_place_takes_the_lease_over_and_shipping_goes_on(shop, writer, mysql_source):
    shop.start_worker()
    wait_for_slices(shop, 2)
    writer.end()
    wait_until_caught_up(shop)
    with mysql_source.connect() as connection:
        before = dump_all(connection)
        with connection.cursor() as cursor:
            cursor.execute("DROP TABLE shop.orders")
            cursor.execute("SELECT @@global.gtid_executed")
            source, _, numbers = cursor.fetchone()[0].rpartition(":")
            drop = f"{source}:{numbers.split('-')[-1]}"
    wait_until_caught_up(shop)
    shop.run(
        "from backups.queue import run_job_now\nshop = Database.objects.get()\n"
        f"restore = Restore.request(shop, shop, 'before', moment_gtid={drop!r}, ring=False)\n"
        "run_job_now(restore.job)\nrestore.refresh_from_db()\nrestore.start('shop')"
    )
    wait_for(lambda: shop.rows("SELECT 1 FROM backups_restore WHERE state IN ('succeeded', 'failed')"), PATIENCE)
    assert shop.rows("SELECT state, error FROM backups_restore") == [("succeeded", "")]
    with mysql_source.connect() as connection:
        assert not compare(before, dump_all(connection))
    wait_for(lambda: shop.rows("SELECT 1 FROM backups_backup WHERE state = 'succeeded'")[1:], PATIENCE)
    with mysql_source.connect() as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO shop.orders VALUES (1000000, 'after')")
    second = (
        "SELECT 1 FROM backups_slice s JOIN backups_timeline t ON t.id = timeline_id WHERE number = 2 AND count > 0"
    )
    wait_for(lambda: shop.rows(second), PATIENCE)
