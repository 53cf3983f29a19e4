"""A server with several writers, backed up and shipped, and moments of it that were noted with all of its content."""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from backups.engine import mysql, slices
from backups.engine.archive import Archive
from backups.engine.manifest import Manifest
from backups.engine.mysql.restore import RestoreResult, restore
from backups.engine.mysql.snapshot import snapshot
from backups.engine.plan import plan
from backups.engine.types import BackupPoint, Moment, Plan, Position, Quiet, SliceIndex, SlicePoint, Transaction
from everest.demo.servers import Server
from tests.helpers import dump_all, source_config, target_config
from tests.servers.backups import archive_in

STORAGE = "folder"
TABLES = """
    CREATE DATABASE shop;
    CREATE TABLE shop.customers (id INT PRIMARY KEY AUTO_INCREMENT, name VARCHAR(60), email VARCHAR(60) UNIQUE,
        a INT, b INT, c DATETIME(6), d DECIMAL(12,4), e TEXT);
    CREATE TABLE shop.orders (id BIGINT PRIMARY KEY AUTO_INCREMENT, customer INT, total DECIMAL(10,2), at TIMESTAMP(6),
        FOREIGN KEY (customer) REFERENCES shop.customers (id) ON DELETE CASCADE);
    CREATE TABLE shop.log (text VARCHAR(200), n INT);
    CREATE TABLE shop.dropped (id INT PRIMARY KEY, v VARCHAR(20));
    CREATE TABLE shop.truncated LIKE shop.dropped;
    CREATE TABLE shop.emptied LIKE shop.dropped;
"""


class Writers:
    """Threads that change the shop's tables at random until they are paused."""

    def __init__(self, server: Server, count: int = 4) -> None:
        self.server = server
        self.idle = [threading.Lock() for _ in range(count)]  # held while a transaction runs
        self.over = False
        self.failures: list[Exception] = []
        self.threads = [threading.Thread(target=self._write, args=(n,), daemon=True) for n in range(count)]

    def __enter__(self) -> Writers:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over = True
        for thread in self.threads:
            thread.join()
        assert not self.failures, self.failures

    @contextmanager
    def paused(self) -> Iterator[None]:
        for lock in self.idle:
            lock.acquire()
        try:
            yield
        finally:
            for lock in self.idle:
                lock.release()

    def _write(self, number: int) -> None:
        chance = random.Random(number)
        with self.server.connect() as connection, connection.cursor() as cursor:
            while not self.over:
                with self.idle[number]:
                    try:
                        self._transaction(cursor, chance, number)
                    except Exception as error:
                        connection.rollback()
                        if error.args[0] not in (1213, 1205):  # deadlocks are part of life
                            self.failures.append(error)
                            return
                time.sleep(0.01)

    def _transaction(self, cursor: Any, chance: random.Random, number: int) -> None:
        cursor.execute("BEGIN")
        for _ in range(chance.randint(1, 4)):
            kind = chance.random()
            if kind < 0.35:
                name = f"{number}-{chance.random()}"
                sql = "INSERT INTO shop.customers (name, email, a, c, e) VALUES (%s, %s, %s, NOW(6), REPEAT(%s, %s))"
                cursor.execute(sql, (name, name, chance.randint(0, 99), "é\\\t", chance.randint(0, 90)))
                sql = "INSERT INTO shop.orders (customer, total, at) VALUES (LAST_INSERT_ID(), %s, NOW(6))"
                cursor.execute(sql, (chance.randint(0, 10**6) / 100,))
            elif kind < 0.6:
                sql = "UPDATE shop.customers SET a = a + 1, d = RAND() * 1000 WHERE id %% 7 = %s AND name LIKE %s"
                cursor.execute(sql, (chance.randint(0, 6), f"{number}-%"))
            elif kind < 0.7:
                sql = "DELETE FROM shop.customers WHERE name LIKE %s ORDER BY id LIMIT 1"
                cursor.execute(sql, (f"{number}-%",))
            elif kind < 0.9:
                cursor.execute("INSERT INTO shop.log VALUES (%s, %s)", (f"writer {number}", chance.randint(0, 9)))
            else:
                cursor.execute("UPDATE shop.log SET n = n + 1 WHERE text = %s LIMIT 3", (f"writer {number}",))
        cursor.execute("ROLLBACK" if chance.random() < 0.1 else "COMMIT")


class Noted:
    """What a server held at a moment, the microsecond (its clock, UTC) at which it did, and the place in its log."""

    def __init__(self, time_us: int, position: Position, content: Any) -> None:
        self.time_us, self.position, self.content = time_us, position, content


class History:
    """One server's backups and slices in a folder."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server = server
        self.archive: Archive = archive_in(folder / "storage")
        self.timeline = str(uuid.uuid4())
        self.manifests: list[Manifest] = []
        with server.connect() as connection:
            for statement in filter(str.strip, TABLES.split(";")):
                connection.query(statement)
            for table in ("dropped", "truncated", "emptied"):
                connection.query(f"INSERT INTO shop.{table} VALUES (1, 'one'), (2, 'two'), (3, 'three')")

    def note(self) -> Noted:
        with self.server.connect() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS UNSIGNED)")
            (time_us,) = cursor.fetchone() or (0,)
            return Noted(int(time_us), mysql.current_position(connection), dump_all(connection))

    def execute(self, sql: str) -> None:
        with self.server.connect(database="shop") as connection:
            connection.query(sql)

    def back_up(self) -> Manifest:
        settings: Any = {"name": f"backup {len(self.manifests)}", "schedule": "", "threads": 2, "run": Quiet()}
        self.manifests.append(
            snapshot(
                source_config(self.server), self.archive, timeline=self.timeline, backup=str(uuid.uuid4()), **settings
            )
        )
        return self.manifests[-1]

    def ship(self) -> SliceIndex | None:
        last = self.archive.last_slice(self.timeline)
        chunks = mysql.capture(
            source_config(self.server),
            last.end if last else self.manifests[0].position,
            replica_uuid=str(uuid.uuid4()),
            interval=60,
            max_bytes=20_000,
            drain=True,
            deadline=None,
            run=Quiet(),
            on_caught_up=lambda _: None,
        )
        return slices.ship(self.archive, self.timeline, chunks, last, lambda _: None)

    # Moments

    @property
    def indexes(self) -> list[SliceIndex]:
        return list(self.archive.slices(self.timeline))

    @property
    def points(self) -> list[SlicePoint]:
        return [slices.point(index, STORAGE) for index in self.indexes]

    def backup_points(self) -> list[BackupPoint]:
        return [manifest.point(STORAGE) for manifest in self.manifests]

    def moment(self, find: Callable[..., Moment], *values: Any) -> Moment:
        load = lambda point: self.archive.read_slice(point.key)  # noqa: E731
        return find(self.points, load, *values, self.backup_points()[0], mysql)

    @property
    def transactions(self) -> list[Transaction]:
        return [item for index in self.indexes for item in index.transactions]

    def plan(self, moment: Moment, backup: str = "") -> Plan:
        return plan(self.backup_points(), self.points, moment.position, mysql.at_or_before, backup)

    def restore(self, target: Server, moment: Moment, backup: str = "", **options: Any) -> RestoreResult:
        found = self.plan(moment, backup)
        (manifest,) = (entry for entry in self.manifests if entry.backup == found.backup.id)
        settings: Any = {"replace": True, "remember": lambda values: None, "run": Quiet(), "threads": 2}
        config = options.pop("config", None) or target_config(target)
        return restore(config, found, manifest, {STORAGE: self.archive}, **(settings | options))
