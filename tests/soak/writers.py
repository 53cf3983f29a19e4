"""Applications that write all the time, each transaction noted in the Truth as it commits."""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pymysql
from pymysql.constants import CLIENT

from everest.demo.servers import Server
from tests.soak.truth import Change, State, Truth

GTIDS_CHANGED = 3  # kind of a session state change in the server's answer
STATE_CHANGED = 0x4000  # in the answer's status
BUSY = (1205, 1213, 3572)
NO_ANSWER = 2003
BROKEN = (0, NO_ANSWER, 1053, 1927, 2006, 2013, 3169)
SETUP = (
    "CREATE DATABASE shared",
    "CREATE TABLE shared.orders (id BIGINT AUTO_INCREMENT PRIMARY KEY, writer INT NOT NULL, n INT NOT NULL,"
    " what VARCHAR(40), amount DECIMAL(12, 3), data MEDIUMBLOB,"
    " at TIMESTAMP(6) NULL DEFAULT CURRENT_TIMESTAMP(6), KEY (writer))",
    "CREATE TABLE shared.totals (id INT PRIMARY KEY, amount DECIMAL(20, 3) NOT NULL, touched INT NOT NULL, who JSON)",
    "INSERT INTO shared.totals VALUES " + ", ".join(f"({n}, 0, 0, NULL)" for n in range(10)),
    # Without a key: a transaction that is applied twice shows as a second row.
    "CREATE TABLE shared.ledger (writer INT NOT NULL, n INT NOT NULL, note VARCHAR(40), KEY (writer, n))",
    "CREATE DATABASE moving",
)
DOCS = "(id INT PRIMARY KEY, version INT NOT NULL, body TEXT CHARACTER SET utf8mb4)"
WORDS = ("snow", "Öl", "字", "😀", "", "it's", 'a "b"', "\\", "\t\n", "x" * 200)
ORDERS_KEPT = 150  # of one writer
DOCS_KEPT = 60


def set_up(server: Server, writers: int) -> None:
    with server.connect() as connection:
        for statement in SETUP:
            connection.query(statement)
        for number in range(1, writers + 1):
            connection.query(f"CREATE DATABASE w{number}")
            connection.query(f"CREATE TABLE w{number}.docs {DOCS}")


class Gate:
    """Writers pass for one transaction at a time; who changes servers closes it and has all of them outside."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._closed = False

    @contextmanager
    def passed(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._closed)
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    @contextmanager
    def closed(self) -> Iterator[None]:
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: not self._inside)
        try:
            yield
        finally:
            with self._changed:
                self._closed = False
                self._changed.notify_all()


class Writer(threading.Thread):
    """server: who is the source now.  pause: seconds between two transactions, on average."""

    def __init__(
        self, number: int, seed: str, truth: Truth, gate: Gate, server: Callable[[], Server], pause: float
    ) -> None:
        super().__init__(daemon=True, name=f"writer {number}")
        self.number, self.truth, self.gate, self.server, self.pause = number, truth, gate, server, pause
        self.random = random.Random(f"{seed} {number}")
        self.stopped = threading.Event()
        self.failure: BaseException | None = None
        self.n = 0
        self.orders: list[int] = []
        self.docs: dict[int, int] = {}
        self.connection: Any = None
        self.connected_to: Server | None = None
        self.changes: list[Change] = []

    def run(self) -> None:
        try:
            while not self.stopped.wait(self.random.expovariate(1 / self.pause)):
                with self.gate.passed():
                    self._transaction()
            self._end()
        except BaseException as error:
            self.failure = error
            raise

    def _transaction(self) -> None:
        self._commit(self._change)

    def _end(self) -> None:
        """A last order that commits: only the source knows what ids it gave to orders that did not."""
        while not self._commit(self._last_order):
            pass

    def _commit(self, change: Callable[[Any], None]) -> bool:
        """A transaction that commits and is noted, or leaves nothing."""
        self.n += 1
        before = list(self.orders), dict(self.docs)
        began = 0
        try:
            connection = self._connected()
            self.changes = []
            change(connection)
            began = now_us()
            connection.query("COMMIT")
            identity = own_gtid(connection)
        except (pymysql.MySQLError, OSError) as error:
            identity = self._after(error, began)
        if identity:
            self.truth.note(identity, self.changes, began, now_us())
        else:
            self.orders, self.docs = before
        return bool(identity)

    def _after(self, error: Exception, began: int) -> str:
        """The GTID of a transaction whose commit was not answered and counts; "" where it left nothing."""
        if code_of(error) in BUSY:
            self.connection.rollback()
            return ""
        if code_of(error) not in BROKEN:
            raise error
        self.connection = None
        return self._found() if began else ""

    def _found(self) -> str:
        """What the server's own log says, once it is back."""
        while True:
            try:
                connection = self._connected()
                if not rows(connection, f"SELECT 1 FROM shared.ledger WHERE writer = {self.number} AND n = {self.n}"):
                    return ""
                return logged(connection, self._mark)
            except (pymysql.MySQLError, OSError):
                self.connection = None
                time.sleep(0.1)

    @property
    def _mark(self) -> str:
        return f"INSERT INTO shared.ledger VALUES ({self.number}, {self.n},"

    def _connected(self) -> Any:
        server = self.server()
        if self.connection is None or self.connected_to is not server:
            self.connection = tracked(server)
            self.connected_to = server
        return self.connection

    # What an application does

    def _change(self, connection: Any) -> None:
        connection.query("BEGIN")
        for _ in range(self.random.choice((1, 1, 2, 3, 8))):
            self.random.choice((self._order, self._order, self._total, self._doc, self._doc))(connection)
        if len(self.orders) > ORDERS_KEPT:
            self._forget(connection)
        self._sign(connection)

    def _last_order(self, connection: Any) -> None:
        connection.query("BEGIN")
        self._order(connection)
        self._sign(connection)

    def _sign(self, connection: Any) -> None:
        """Leave what the transaction can be found by."""
        connection.query(f"{self._mark} '{self.random.random()}')")
        self._left(connection, "shared.ledger", "writer = %s AND n = %s", (self.number, self.n))

    def _order(self, connection: Any) -> None:
        size = self.random.choice((0, 20, 300, 300, 5000, 5000, 60_000))
        values = (self.number, self.n, self.random.choice(WORDS)[:40], self.random.uniform(-9, 99999))
        sql = "INSERT INTO shared.orders (writer, n, what, amount, data) VALUES (%s, %s, %s, %s, %s)"
        key = execute(connection, sql, (*values, self.random.randbytes(size)))
        self.orders.append(key)
        self._left(connection, "shared.orders", "id = %s", (key,))

    def _forget(self, connection: Any) -> None:
        gone, self.orders = self.orders[:40], self.orders[40:]
        execute(connection, "DELETE FROM shared.orders WHERE id IN %s", (gone,))
        self.changes += [Change("shared.orders", (key,)) for key in gone]

    def _total(self, connection: Any) -> None:
        key = self.random.randrange(10)
        sets = "amount = amount + %s, touched = touched + 1, who = JSON_OBJECT('w', %s, 'n', %s)"
        sql = f"UPDATE shared.totals SET {sets} WHERE id = %s"
        execute(connection, sql, (self.random.randrange(-999, 9999), self.number, self.n, key))
        self._left(connection, "shared.totals", "id = %s", (key,))

    def _doc(self, connection: Any) -> None:
        key, table = self.random.randrange(DOCS_KEPT), f"w{self.number}.docs"
        if key in self.docs and self.random.random() < 0.3:
            execute(connection, f"DELETE FROM {table} WHERE id = %s", (key,))
            del self.docs[key]
            self.changes.append(Change(table, (key,)))
            return
        version = self.docs[key] = self.docs.get(key, 0) + 1
        body = "".join(self.random.choices(WORDS, k=self.random.randrange(12)))
        verb = "UPDATE" if version > 1 else "INSERT INTO"
        where = f" WHERE id = {key}" if version > 1 else ""
        execute(connection, f"{verb} {table} SET id = %s, version = %s, body = %s{where}", (key, version, body))
        self._left(connection, table, "id = %s", (key,))

    def _left(self, connection: Any, table: str, where: str, values: tuple[Any, ...]) -> None:
        """Note the row as this transaction shows it; its lock is held."""
        for row in rows(connection, f"SELECT * FROM {table} WHERE {where}", values):
            self.changes.append(Change(table, key_of(table, row), row))


class Migrator(Writer):
    """Changes definitions: each statement a transaction of its own, named so that the log can be asked for it."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(0, *arguments)
        self.tables: dict[str, int] = {}  # name -> columns that were added

    def _transaction(self) -> None:
        self.n += 1
        name = self.random.choice([*self.tables, ""])
        act = self.random.choice((self._fill, self._fill, self._widen, self._truncate, self._drop))
        if not name or len(self.tables) < 2:
            name, act = f"t{self.n}", self._make
        act(name)

    def _end(self) -> None:
        """A statement commits by itself."""

    def _make(self, name: str) -> None:
        if self._carry_out(f"CREATE TABLE moving.{name} (id INT PRIMARY KEY, what VARCHAR(99))", name, made=True):
            self.tables[name] = 0

    def _fill(self, name: str) -> None:
        key = self.n
        self._carry_out(f"INSERT INTO moving.{name} (id, what) VALUES ({key}, 'filled {key}')", name, key=key)

    def _widen(self, name: str) -> None:
        added = f"c{self.n}"
        if self._carry_out(f"ALTER TABLE moving.{name} ADD COLUMN {added} INT NOT NULL DEFAULT {self.n}", name):
            self.tables[name] += 1

    def _truncate(self, name: str) -> None:
        self._carry_out(f"TRUNCATE TABLE moving.{name}", name, made=True)

    def _drop(self, name: str) -> None:
        if self._carry_out(f"DROP TABLE moving.{name}", name, made=False):
            del self.tables[name]

    def _carry_out(self, sql: str, name: str, made: bool | None = None, key: int | None = None) -> bool:
        table, mark = f"moving.{name}", f"/* m{self.n} */"
        began = now_us()
        try:
            connection = self._connected()
            connection.query(f"{sql} {mark}" if not sql.startswith("DROP") else sql)
            identity = own_gtid(connection)
        except (pymysql.MySQLError, OSError) as error:
            identity = self._after_statement(error, sql, name, mark)
            if not identity:
                return False
        self.truth.note(identity, self._image(table, made, key), began, now_us())
        return True

    def _after_statement(self, error: Exception, sql: str, name: str, mark: str) -> str:
        if code_of(error) in BUSY:
            return ""
        if code_of(error) not in BROKEN:
            raise error
        self.connection = None
        if code_of(error) == NO_ANSWER:
            return ""
        while True:
            try:
                return logged(self._connected(), f"DROP TABLE `moving`.`{name}`" if sql.startswith("DROP") else mark)
            except (pymysql.MySQLError, OSError):
                self.connection = None
                time.sleep(0.1)

    def _image(self, table: str, made: bool | None, key: int | None) -> list[Change]:
        """All rows of a table that only this writer changes; the server may be away."""
        changes = [] if made is None else [Change(table, made=made)]
        if made is False:
            return changes
        while True:
            try:
                found = rows(self._connected(), f"SELECT * FROM {table}")
                return changes + [Change(table, key_of(table, row), row) for row in found]
            except (pymysql.MySQLError, OSError):
                self.connection = None
                time.sleep(0.1)


def now_us() -> int:
    return time.time_ns() // 1000


def tracked(server: Server) -> Any:
    """A session whose answers name the GTID of each commit."""
    connection = server.connect(client_flag=CLIENT.SESSION_TRACK, autocommit=True, connect_timeout=5)
    connection.query("SET SESSION session_track_gtids = OWN_GTID, binlog_rows_query_log_events = ON")
    connection.query("SET SESSION innodb_lock_wait_timeout = 10, lock_wait_timeout = 20")
    return connection


def own_gtid(connection: Any) -> str:
    """The GTID in the answer to the last statement."""
    status, data = connection._result.server_status, connection._result.message
    assert status & STATE_CHANGED, "the server's answer names no GTID"
    _, data = _string(data)
    changes, _ = _string(data)
    while changes:
        kind = changes[0]
        value, changes = _string(changes[1:])
        if kind == GTIDS_CHANGED:
            return _string(value[1:])[0].decode()
    raise AssertionError("the server's answer names no GTID")


def _string(data: bytes) -> tuple[bytes, bytes]:
    """A length-encoded string, and what follows it."""
    size, at = data[0], 1
    if size == 0xFC:
        size, at = int.from_bytes(data[1:3], "little"), 3
    return data[at : at + size], data[at + size :]


def logged(connection: Any, mark: str) -> str:
    """The GTID under which the server logged a statement; "" where it did not."""
    for name, *_ in reversed(rows(connection, "SHOW BINARY LOGS")[-4:]):
        identity = ""
        for event in rows(connection, "SHOW BINLOG EVENTS IN %s", (name,)):
            if event[2] == "Gtid":
                identity = re.search(r"'([^']+)'", event[5])[1]
            elif mark in str(event[5]):
                return identity
    return ""


def code_of(error: Exception) -> int:
    return 0 if isinstance(error, OSError) or not error.args else int(error.args[0])


def rows(connection: Any, sql: str, values: Any = None) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        return list(cursor.fetchall())


def execute(connection: Any, sql: str, values: Any) -> int:
    """The id that it gave out, if any."""
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        return cursor.lastrowid


def key_of(table: str, row: tuple[Any, ...]) -> tuple[Any, ...]:
    """What tells a row from the others of its table."""
    return row[:2] if table == "shared.ledger" else row[:1]


def read_state(server: Server) -> State:
    """Every row of every user table as the server holds it now; a row that is there twice has two keys."""
    with server.connect() as connection:
        tables = rows(
            connection,
            "SELECT table_schema, table_name FROM information_schema.tables WHERE table_type = 'BASE TABLE'"
            " AND table_schema NOT IN ('mysql', 'sys', 'performance_schema', 'information_schema')",
        )
        state: State = {}
        for schema, name in tables:
            table = state[f"{schema}.{name}"] = {}
            for row in rows(connection, f"SELECT * FROM `{schema}`.`{name}`"):
                key = key_of(f"{schema}.{name}", row)
                while key in table:
                    key = (*key, "again")
                table[key] = row
        return state
