"""One read view for several connections at one exact place of the binlog, under a lock of milliseconds.

MySQL manual: "FLUSH TABLES WITH READ LOCK", "START TRANSACTION WITH CONSISTENT SNAPSHOT", "LOCK INSTANCE FOR BACKUP".
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import pymysql
from pymysql.constants import COMMAND, ER

from backups.engine.errors import EngineError, Refused, Stopped, Transient
from backups.engine.mysql.continuity import last_of_each
from backups.engine.mysql.grants import grant
from backups.engine.mysql.gtid import IN_ORDER, DomainSet
from backups.engine.mysql.schema import Reader, Schema
from backups.engine.mysql.server import (
    DENIED,
    Connection,
    Identity,
    branches,
    error_code,
    explain,
    position_now,
    processes,
    quote,
    rows,
    value,
)
from backups.engine.types import Position, Quiet, Run

PATIENCE = 60.0  # seconds that a backup waits for a quiet moment before it gives up
LONG_QUERY = 2  # seconds a query may have run when the lock is asked for: it would wait for its end, writers too
PAUSE = 0.5
LOCK_PAUSE = 5.0  # seconds between tries of a lock: writers waited for each
NO_LIMIT = 31_536_000

Sequences = dict[tuple[str, str], tuple[int, int]]


@dataclass(frozen=True, slots=True)
class View:
    """What was read under the lock.  view_us: the server's clock once every connection's view was open.

    definitions_wait: nobody can change a definition until the control connection closes.
    """

    position: Position
    view_us: int
    held_us: int
    counters: dict[str, int]
    ids: dict[str, int]
    sequences: Sequences
    definitions_wait: bool


def prepare(connection: Connection, identity: Identity) -> None:
    """A session that reads what is stored: no conversion, no limits, UTC, the dump's own pace."""
    # Without the second one MySQL tells a table's size as it was up to a day ago.
    limits = {
        "mysql": "max_execution_time = 0, information_schema_stats_expiry = 0",
        "mariadb": "max_statement_time = 0, idle_transaction_timeout = 0",
    }
    run(connection, "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    run(
        connection,
        "SET SESSION time_zone = '+00:00', sql_mode = '', sql_select_limit = 18446744073709551615,"
        f" sql_quote_show_create = 1, wait_timeout = {NO_LIMIT}, net_read_timeout = 3600, net_write_timeout = 3600,"
        f" {limits[identity.flavour]}",
    )
    if identity.flavour == "mysql" and identity.version >= (8, 0, 30):
        run(connection, "SET SESSION show_gipk_in_create_table_and_information_schema = ON")


def run(connection: Connection, sql: str) -> None:
    connection.query(sql)


def together(connections: Sequence[Connection], sql: str) -> None:
    """The same statement everywhere at the cost of one round trip: the lock is not held for each in turn."""
    for connection in connections:
        connection._execute_command(COMMAND.COM_QUERY, sql)
    for connection in connections:
        connection._read_query_result()


def hold_definitions(control: Connection, identity: Identity, watcher: Run) -> bool:
    """Make DDL wait until `control` closes, where the server can and the account may.  MySQL's backup lock."""
    if identity.flavour != "mysql":
        return False
    try:
        run(control, "LOCK INSTANCE FOR BACKUP")
    except pymysql.MySQLError as error:
        if error_code(error) not in DENIED:
            raise
        watcher.log("Without BACKUP_ADMIN a change of definitions does not wait: each table is checked instead.")
        return False
    return True


@contextmanager
def definitions_held(control: Connection, identity: Identity) -> Iterator[None]:
    """Where it can be had: no definition changes inside the block."""
    run(control, f"SET SESSION lock_wait_timeout = {int(PATIENCE)}")
    try:
        waits = hold_definitions(control, identity, Quiet())
    except pymysql.MySQLError as error:
        raise explain(error, "Waiting for a running change of definitions") from error
    yield
    if waits:
        run(control, "UNLOCK INSTANCE")


@contextmanager
def locked_view(
    control: Connection, readers: Sequence[Connection], reader: Reader, schemas: Sequence[Schema], watcher: Run
) -> Iterator[View]:
    """Open every reader's view at one position; the lock is held until the block ends.

    Raises Refused (no lock may be taken, a prepared XA branch stays), Transient (a long query stays), Stopped.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        _wait_for_queries(control, reader.identity, deadline, watcher)
        waits = _locked(control, reader.identity, schemas, deadline, watcher)
        if waits is not None:
            try:
                view = _open(control, readers, reader, schemas, waits)
                prepared = branches(control)
                if not prepared:
                    yield view
                    return
            finally:
                if control.open:
                    run(control, "UNLOCK TABLES")
            if waits:
                run(control, "UNLOCK INSTANCE")
            _wait_for_branches(prepared, deadline, watcher)
            _pause(watcher, PAUSE)
        else:
            _pause(watcher, LOCK_PAUSE)


def _locked(
    control: Connection, identity: Identity, schemas: Sequence[Schema], deadline: float, watcher: Run
) -> bool | None:
    """Take the lock within a second, for that long every writer waits too; None where it did not come.

    True: definitions wait besides, until `control` closes.
    """
    run(control, "SET SESSION lock_wait_timeout = 1")
    try:
        return _lock(control, identity, schemas, watcher)
    except pymysql.MySQLError as error:
        if not control.open:
            raise
        # MySQL keeps the global lock of a FLUSH TABLES that gave up waiting for a table: without this, writers hang.
        run(control, "UNLOCK TABLES")
        if identity.flavour == "mysql":
            with suppress(pymysql.MySQLError):  # an account that may not have it holds none
                run(control, "UNLOCK INSTANCE")
        if error_code(error) != ER.LOCK_WAIT_TIMEOUT:
            raise explain(error, "Locking the tables for an instant") from error
        if time.monotonic() > deadline:
            raise Transient(
                f"No lock was had within {PATIENCE:.0f} seconds: transactions or queries kept the tables.",
                meaning="Nothing was backed up.",
                next_step="Run the backup at a quieter time, or end the long-running queries.",
            ) from error
        return None


def _lock(control: Connection, identity: Identity, schemas: Sequence[Schema], watcher: Run) -> bool:
    """In this order: DDL that waits for the backup lock holds what FLUSH TABLES wants, and MySQL would end it with
    error 1213; and DDL that waits for a table of LOCK TABLES holds what LOCK INSTANCE wants."""
    try:
        run(control, "FLUSH TABLES WITH READ LOCK")
        return hold_definitions(control, identity, watcher)
    except pymysql.MySQLError as error:
        if error_code(error) not in DENIED:
            raise
    waits = hold_definitions(control, identity, watcher)
    tables = [f"{quote(schema.name)}.{quote(table.name)} READ" for schema in schemas for table in schema.tables]
    try:
        run(control, f"LOCK TABLES {', '.join(tables)}" if tables else "DO 0")
    except pymysql.MySQLError as error:
        if error_code(error) not in DENIED:
            raise
        raise _no_lock(control) from error
    return waits


def _no_lock(control: Connection) -> EngineError:
    user, _, host = str(value(control, "SELECT CURRENT_USER()")).rpartition("@")
    account = f"'{user}'@'{host}'"
    return Refused(
        "The account may neither FLUSH TABLES WITH READ LOCK nor LOCK TABLES.",
        meaning="Without a lock a backup would belong to no exact moment, so none is taken.",
        next_step=f"Run: {grant(['RELOAD'], account)}; where that is not to be had: {grant(['LOCK TABLES'], account)}",
    )


def _open(
    control: Connection, readers: Sequence[Connection], reader: Reader, schemas: Sequence[Schema], waits: bool
) -> View:
    identity = reader.identity
    started = time.monotonic()
    together(readers, "START TRANSACTION WITH CONSISTENT SNAPSHOT")
    position = position_now(control, identity)
    if identity.flavour == "mariadb":
        _refuse_if_numbers_went_back(control, position)
    view_us = int(value(control, "SELECT CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS UNSIGNED)"))
    sequences = {
        (schema.name, table.name): reader.sequence(schema.name, table.name)
        for schema in schemas
        for table in schema.tables
        if table.kind == "SEQUENCE"
    }
    counters, ids = reader.counters(), reader.table_ids()
    return View(position, view_us, int((time.monotonic() - started) * 1e6), counters, ids, sequences, waits)


def _refuse_if_numbers_went_back(control: Connection, position: Position) -> None:
    """The last transaction's number stands for all before it, so none of them may have a higher one."""
    last = DomainSet.parse(position["gtids"]).last
    higher = [
        f"{domain}-{server}-{number}"
        for (domain, server), number in last_of_each(control).items()
        if domain in last and server != last[domain][0] and number >= last[domain][1]
    ]
    if higher:
        raise Refused(
            f"The server's log numbers transactions out of order: {position['gtids']} comes after {', '.join(higher)}.",
            meaning="A backup at this place would be taken for one of an earlier moment, so none is taken.",
            next_step=f"{IN_ORDER} After the next transaction of this server a backup can be taken.",
        )


def _wait_for_branches(prepared: list[str], deadline: float, watcher: Run) -> None:
    names = ", ".join(prepared)
    if time.monotonic() > deadline:
        raise Refused(
            f"A prepared XA transaction stays open: {names}.",
            meaning="It is in no consistent view and not in the log after it, so a backup would lose it.",
            next_step="End it with XA COMMIT or XA ROLLBACK (XA RECOVER lists it), then run the backup again.",
        )
    watcher.log(f"Waiting for a prepared XA transaction: {names}.")


def _wait_for_queries(control: Connection, identity: Identity, deadline: float, watcher: Run) -> None:
    """Let long queries end, for at most half of the time there is: the lock would wait for them and all writers too."""
    until = deadline - PATIENCE / 2  # after that it is tried all the same
    told = False
    while time.monotonic() < until:
        found = rows(
            control,
            f"SELECT ID, TIME FROM {processes(identity)} WHERE COMMAND = 'Query' AND TIME >= %s"
            " AND ID <> CONNECTION_ID() AND STATE NOT IN ('User sleep', 'Waiting for backup lock')",
            (LONG_QUERY,),
        )
        if not found:
            return
        if not told:
            watcher.log(f"Waiting for a query that has been running for {found[0][1]} seconds (id {found[0][0]}).")
            told = True
        _pause(watcher, PAUSE)


def _pause(watcher: Run, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if watcher.should_stop():
            raise Stopped("The backup was stopped before its view was open.")
        time.sleep(PAUSE)
