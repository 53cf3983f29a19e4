"""What tests share: waiting, comparing whole servers, accounts with exactly the documented privileges."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import pymysql

from everest.demo import accounts
from everest.demo.compare import Ask, compare, dump_all, quoted, user_schemas
from everest.demo.servers import Server

if TYPE_CHECKING:
    from backups.engine.mysql.server import ServerConfig

__all__ = ["clean", "compare", "dump_all", "source_config", "target_config", "wait_for"]

T = TypeVar("T")
KEPT_ACCOUNTS = ("root", "mariadb.sys", "mysql.sys", "mysql.session", "mysql.infoschema")


def wait_for(condition: Callable[[], T], timeout: float = 10, pause: float = 0.02) -> T:
    """What `condition` returned once that was true; AssertionError when it was not within `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {timeout} s: {getattr(condition, '__qualname__', condition)}"
        time.sleep(pause)


def clean(server: Server) -> None:
    """Leave a server as it was made: no connections, user schemas, accounts, prepared branches, log or settings."""
    with server.connect() as connection:
        ask = Ask(connection)
        if server.flavour == "mysql":
            ask("SET GLOBAL super_read_only = OFF")
        ask("SET GLOBAL read_only = OFF")
        ask("SET GLOBAL local_infile = DEFAULT, GLOBAL log_bin_trust_function_creators = DEFAULT")
        ask("SET lock_wait_timeout = 10, foreign_key_checks = 0")
        _end_other_connections(ask)
        _roll_back_branches(ask, server.flavour)
        for schema in user_schemas(ask):
            ask(f"DROP DATABASE {quoted(schema)}")
        for user, host in ask("SELECT user, host FROM mysql.user", text=True):
            if user == "PUBLIC":  # MariaDB's name for everybody stays once it was given anything
                ask("REVOKE ALL PRIVILEGES, GRANT OPTION FROM PUBLIC")
            elif user not in KEPT_ACCOUNTS:
                ask("DROP USER %s@%s" if host else "DROP ROLE %s", *filter(None, (user, host)))
        wait_for(lambda: _begin_log_anew(ask, server.flavour))


def source_config(server: Server, **changes: Any) -> ServerConfig:
    """A fresh account with exactly the privileges that a source needs."""
    return _account(server, "source", changes)


def target_config(server: Server, **changes: Any) -> ServerConfig:
    """A fresh account with exactly the privileges that a target needs."""
    return _account(server, "target", changes)


def _account(server: Server, role: str, changes: dict[str, Any]) -> ServerConfig:
    from backups.engine.mysql.server import ServerConfig

    user, password = accounts.create(server, role)
    settings = {"host": server.host, "port": server.port, "user": user, "password": password}
    return ServerConfig(**(settings | changes))


def _end_other_connections(ask: Ask) -> None:
    rows = ask("SELECT id, user FROM information_schema.processlist WHERE id <> CONNECTION_ID()", text=True)
    for thread, user in rows:
        if user not in ("system user", "event_scheduler"):
            with suppress(pymysql.err.OperationalError):  # it may be gone by now
                ask(f"KILL {int(thread)}")


def _begin_log_anew(ask: Ask, flavour: str) -> bool:
    """MariaDB refuses while a dump connection that was just ended is still there."""
    try:
        ask("RESET BINARY LOGS AND GTIDS" if flavour == "mysql" else "RESET MASTER")
    except pymysql.err.MySQLError:
        return False
    return True


def _roll_back_branches(ask: Ask, flavour: str) -> None:
    if flavour == "mariadb":
        branches = [branch for *_, branch in ask("XA RECOVER FORMAT='SQL'", text=True)]
    else:
        branches = [_branch(*row) for row in ask("XA RECOVER CONVERT XID", text=True)]
    for branch in branches:
        ask(f"XA ROLLBACK {branch}")


def _branch(format_id: int, gtrid: int, bqual: int, data: str) -> str:
    digits = data.removeprefix("0x")
    return f"X'{digits[: 2 * gtrid]}', X'{digits[2 * gtrid : 2 * (gtrid + bqual)]}', {format_id}"
