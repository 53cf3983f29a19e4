"""What happens on the source: tables with rows before the snapshot, and a history after it."""

from __future__ import annotations

import random
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from everest.demo.servers import Server
from tests.bench.sizes import Size

SCHEMA = "bench"
WRITERS = 4
History = Callable[[Server, Size], None]


@dataclass(frozen=True)
class Workload:
    name: str
    what: str
    prepare: History
    run: History


# sysbench


def sysbench(server: Server, size: Size, script: str, command: str, **options: Any) -> list[str]:
    settings = {"tables": 4, "table_size": size.rows, "threads": size.threads, "time": size.seconds} | options
    return [
        "sysbench", script, "--db-driver=mysql", f"--mysql-socket={server.socket}", "--mysql-user=root",
        f"--mysql-db={SCHEMA}", "--rand-seed=7", *(f"--{name}={value}" for name, value in settings.items()), command,
    ]  # fmt: skip


def quietly(argv: list[str]) -> str:
    ran = subprocess.run(argv, capture_output=True, text=True)
    if ran.returncode:
        raise RuntimeError(f"sysbench: {(ran.stdout + ran.stderr)[-800:]}")
    return ran.stdout


def prepare_oltp(server: Server, size: Size) -> None:
    execute(server, [f"CREATE DATABASE IF NOT EXISTS {SCHEMA}"])
    quietly(sysbench(server, size, "oltp_write_only", "prepare", threads=2))


@contextmanager
def load(server: Server, size: Size, script: str, **options: Any) -> Iterator[None]:
    """sysbench beside the block, for as long as it takes."""
    argv = sysbench(server, size, script, "run", time=0, **options)
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
    try:
        yield
        if process.poll() is not None:
            raise RuntimeError(f"sysbench {script} ended by itself, with {process.returncode}")
    finally:
        process.kill()
        process.wait()


def oltp(server: Server, size: Size) -> None:
    quietly(sysbench(server, size, "oltp_write_only", "run"))


def _inserts(server: Server, size: Size) -> None:
    quietly(sysbench(server, size, "oltp_insert", "run"))


# Others, by a few sessions at once


def execute(server: Server, statements: Iterator[str] | list[str]) -> None:
    with server.connect() as connection:
        for statement in statements:
            connection.query(statement)


def together(server: Server, size: Size, statements: Callable[[random.Random, int], Iterator[str]]) -> None:
    """WRITERS sessions, each with its share of the transactions."""
    failed: list[BaseException] = []

    def write(number: int) -> None:
        try:
            wanted = statements(random.Random(number), size.transactions // WRITERS)
            execute(server, wanted)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


def _prepare_wide(server: Server, size: Size) -> None:
    columns = ", ".join(f"c{number} VARCHAR(100), n{number} DECIMAL(20, 4)" for number in range(20))
    execute(server, [
        f"CREATE DATABASE {SCHEMA}",
        f"CREATE TABLE {SCHEMA}.wide (id INT PRIMARY KEY AUTO_INCREMENT, {columns}, content LONGBLOB, KEY (n0))",
        f"INSERT INTO {SCHEMA}.wide (c0, n0, content) SELECT UUID(), n, {_content(random.Random(7))}"
        f" FROM {_numbers(500)}",
    ])  # fmt: skip


def _numbers(last: int) -> str:
    return f"(WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < {last}) SELECT n FROM r) AS r"


def _content(choice: random.Random) -> str:
    return f"REPEAT(RANDOM_BYTES(1024), {choice.randrange(2, 32)})"


def _wide(choice: random.Random, count: int) -> Iterator[str]:
    for _ in range(count):
        row = choice.randrange(1, 500)
        yield choice.choice((
            f"UPDATE {SCHEMA}.wide SET content = {_content(choice)}, n1 = n1 + 1 WHERE id = {row}",
            f"UPDATE {SCHEMA}.wide SET c1 = UUID(), n2 = RAND() * 1e6, c9 = REPEAT('x', 90) WHERE id = {row}",
            f"INSERT INTO {SCHEMA}.wide (c0, c5, n0, content) VALUES (UUID(), 'new', {row}, {_content(choice)})",
            f"DELETE FROM {SCHEMA}.wide WHERE id = {row + 400}",
        ))  # fmt: skip


def _prepare_keyless(server: Server, size: Size) -> None:
    execute(server, [
        f"CREATE DATABASE {SCHEMA}",
        f"CREATE TABLE {SCHEMA}.keyless (a INT, b VARCHAR(50), c DOUBLE)",
        f"INSERT INTO {SCHEMA}.keyless SELECT n, UUID(), RAND() FROM {_numbers(1000)}",
    ])  # fmt: skip


def _keyless(choice: random.Random, count: int) -> Iterator[str]:
    for _ in range(count):
        row = choice.randrange(1, 1000)
        yield choice.choice((
            f"UPDATE {SCHEMA}.keyless SET b = UUID(), c = c + 1 WHERE a = {row}",
            f"INSERT INTO {SCHEMA}.keyless VALUES ({row}, UUID(), RAND())",
            f"DELETE FROM {SCHEMA}.keyless WHERE a = {row} LIMIT 1",
        ))  # fmt: skip


def _statements(choice: random.Random, count: int) -> Iterator[str]:
    yield "SET SESSION binlog_format = STATEMENT"
    for _ in range(count):
        table, row = choice.randrange(1, 5), choice.randrange(1, 10_000)
        yield choice.choice((
            f"UPDATE {SCHEMA}.sbtest{table} SET k = k + 1 WHERE id = {row}",
            f"INSERT INTO {SCHEMA}.sbtest{table} (k, c, pad) VALUES ({row}, REPEAT('c', 100), 'new')",
            f"DELETE FROM {SCHEMA}.sbtest{table} WHERE id = {row}",
        ))  # fmt: skip


def _prepare_many(server: Server, size: Size) -> None:
    tables = range(size.tables)
    execute(server, [
        f"CREATE DATABASE {SCHEMA}",
        *(f"CREATE TABLE {SCHEMA}.t{n} (id INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(50), n INT)" for n in tables),
        *(f"INSERT INTO {SCHEMA}.t{n} (v, n) VALUES ('a', 1), ('b', 2), ('c', 3)" for n in tables),
    ])  # fmt: skip


def _many(size: Size) -> Callable[[random.Random, int], Iterator[str]]:
    def statements(choice: random.Random, count: int) -> Iterator[str]:
        for _ in range(count):
            table, row = choice.randrange(size.tables), choice.randrange(1, 4)
            yield choice.choice((
                f"UPDATE {SCHEMA}.t{table} SET n = n + 1 WHERE id = {row}",
                f"INSERT INTO {SCHEMA}.t{table} (v, n) VALUES (UUID(), {row})",
            ))  # fmt: skip

    return statements


def _large(server: Server, size: Size) -> None:
    """One transaction of many rows: inserted, changed, some deleted."""
    execute(server, [
        "SET SESSION cte_max_recursion_depth = 100000000",
        f"CREATE TABLE {SCHEMA}.large (id INT PRIMARY KEY, v VARCHAR(60), n INT, KEY (n))",
        "BEGIN",
        f"INSERT INTO {SCHEMA}.large SELECT n, UUID(), n % 1000 FROM {_numbers(size.large_rows)}",
        f"UPDATE {SCHEMA}.large SET n = n + 1, v = UUID() WHERE id % 2 = 0",
        f"DELETE FROM {SCHEMA}.large WHERE id % 10 = 0",
        f"UPDATE {SCHEMA}.sbtest1 SET k = k + 1",
        "COMMIT",
    ])  # fmt: skip


def _ddl(server: Server, size: Size) -> None:
    """Small changes of rows with a change of definitions after each hundred."""
    execute(server, _mixed(random.Random(7), size))


def _mixed(choice: random.Random, size: Size) -> Iterator[str]:
    changes = _definitions()
    for number in range(size.transactions):
        table, row = choice.randrange(1, 5), choice.randrange(1, size.rows)
        yield f"UPDATE {SCHEMA}.sbtest{table} SET k = k + 1, c = UUID() WHERE id = {row}"
        if number % 100 == 99:
            yield next(changes)


def _definitions() -> Iterator[str]:
    number = 0
    while True:
        number += 1
        yield f"ALTER TABLE {SCHEMA}.sbtest1 ADD COLUMN extra{number} INT DEFAULT {number}"
        yield f"CREATE TABLE {SCHEMA}.made{number} (id INT PRIMARY KEY, v TEXT)"
        yield f"CREATE INDEX pad{number} ON {SCHEMA}.sbtest2 (pad)"
        yield f"DROP INDEX pad{number} ON {SCHEMA}.sbtest2"
        yield f"DROP TABLE {SCHEMA}.made{number}"
        yield f"ALTER TABLE {SCHEMA}.sbtest1 DROP COLUMN extra{number}"


def _by(statements: Callable[[random.Random, int], Iterator[str]]) -> History:
    return lambda server, size: together(server, size, statements)


WORKLOADS = (
    Workload("oltp", "OLTP (hot keys)", prepare_oltp, oltp),
    Workload("insert", "insert-only", prepare_oltp, _inserts),
    Workload("wide", "wide rows with blobs", _prepare_wide, _by(_wide)),
    Workload("keyless", "no primary key", _prepare_keyless, _by(_keyless)),
    Workload("statement", "statement format", prepare_oltp, _by(_statements)),
    Workload("many", "many small tables", _prepare_many, lambda server, size: together(server, size, _many(size))),
    Workload("large", "one very large transaction", prepare_oltp, _large),
    Workload("ddl", "DDL mixed in", prepare_oltp, _ddl),
)
