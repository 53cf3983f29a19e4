"""What an account must be allowed, as GRANT statements; the tests run under accounts with exactly these."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from backups.engine.errors import Refused
from backups.engine.mysql.server import SYSTEM_SCHEMAS, Connection, rows, value

Role = Literal["source", "target"]

# Measured on MySQL 9.7 and MariaDB 10.11.  A second name is what a series without the first asks for.
_MYSQL_SOURCE = """
    SELECT, SHOW VIEW, TRIGGER, EVENT, LOCK TABLES, PROCESS, REPLICATION CLIENT, REPLICATION SLAVE,
    SHOW_ROUTINE, FLUSH_TABLES, BACKUP_ADMIN, XA_RECOVER_ADMIN"""
_MYSQL_TARGET = """
    SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, ALTER, INDEX, REFERENCES, CREATE TEMPORARY TABLES,
    CREATE VIEW, SHOW VIEW, CREATE ROUTINE, ALTER ROUTINE, EXECUTE, TRIGGER, EVENT, LOCK TABLES, PROCESS, RELOAD,
    CREATE TABLESPACE, REPLICATION CLIENT, REPLICATION SLAVE, SHOW_ROUTINE, XA_RECOVER_ADMIN, REPLICATION_APPLIER,
    SESSION_VARIABLES_ADMIN, SYSTEM_VARIABLES_ADMIN, CONNECTION_ADMIN, SET_ANY_DEFINER, ALLOW_NONEXISTENT_DEFINER,
    SYSTEM_USER"""
_MARIADB_SOURCE = """
    SELECT, SHOW VIEW, TRIGGER, EVENT, RELOAD, LOCK TABLES, PROCESS, BINLOG MONITOR, REPLICATION SLAVE"""
_MARIADB_TARGET = """
    SELECT, INSERT, UPDATE, DELETE, DELETE HISTORY, CREATE, DROP, ALTER, INDEX, REFERENCES, CREATE TEMPORARY TABLES,
    CREATE VIEW, SHOW VIEW, CREATE ROUTINE, ALTER ROUTINE, EXECUTE, TRIGGER, EVENT, LOCK TABLES, PROCESS, RELOAD,
    BINLOG MONITOR, BINLOG ADMIN, BINLOG REPLAY, REPLICATION MASTER ADMIN, REPLICATION SLAVE ADMIN, REPLICATION SLAVE,
    CONNECTION ADMIN, READ_ONLY ADMIN, SET USER, SUPER"""

_LISTS = {
    ("mysql", "source"): _MYSQL_SOURCE,
    ("mysql", "target"): _MYSQL_TARGET,
    ("mariadb", "source"): _MARIADB_SOURCE,
    ("mariadb", "target"): _MARIADB_TARGET,
}

# name -> (first version that has it, what takes its place before)
_SINCE = {
    "FLUSH_TABLES": ((8, 0, 23), "RELOAD"),
    "SHOW_ROUTINE": ((8, 0, 20), "SELECT"),
    "REPLICATION_APPLIER": ((8, 0, 18), "BINLOG_ADMIN"),
    "SESSION_VARIABLES_ADMIN": ((8, 0, 14), "SYSTEM_VARIABLES_ADMIN"),
    "SET_ANY_DEFINER": ((8, 2, 0), "SET_USER_ID"),
    "ALLOW_NONEXISTENT_DEFINER": ((8, 2, 0), "SET_USER_ID"),
}


# Without one of these on every schema a server does not refuse: it answers as if there were less to see.
SEEING = ("SELECT", "TRIGGER", "EVENT")


def privileges(flavour: str, version: Sequence[int], role: Role) -> tuple[str, ...]:
    """Names as GRANT takes them, each once."""
    names = [" ".join(name.split()) for name in _LISTS[flavour, role].split(",")]
    if flavour == "mysql":
        names = [_SINCE[n][1] if n in _SINCE and tuple(version) < _SINCE[n][0] else n for n in names]
    return tuple(dict.fromkeys(names))


def grant(names: Sequence[str], account: str) -> str:
    return f"GRANT {', '.join(names)} ON *.* TO {account}"


def grant_statements(flavour: str, version: Sequence[int], role: Role, account: str) -> list[str]:
    """What to run as an administrator; `account` as SQL, such as 'everest'@'%'."""
    return [grant(privileges(flavour, version, role), account)]


def held(connection: Connection) -> tuple[str, set[str]]:
    """The account, as SQL, and what it holds on every schema, by itself or by its active roles."""
    user, _, host = str(value(connection, "SELECT CURRENT_USER()")).rpartition("@")
    roles = str(value(connection, "SELECT CURRENT_ROLE()") or "NONE")
    # MariaDB lists an active role's grants by itself; MySQL's CURRENT_ROLE() is SQL already: `name`@`host`,...
    using = f" FOR CURRENT_USER() USING {roles}" if "@" in roles else ""
    lines = [str(line) for (line,) in rows(connection, f"SHOW GRANTS{using}")]
    names = _listed(lines, r"GRANT (.+?) ON \*\.\* TO ")
    if "ALL PRIVILEGES" in names:
        names |= _all(connection)
    # MySQL's partial_revokes: taken away again for one schema.
    system = "|".join(SYSTEM_SCHEMAS)
    return f"'{user}'@'{host}'", names - _listed(lines, rf"REVOKE (.+?) ON `(?!(?:{system})`)")


def _listed(lines: Sequence[str], pattern: str) -> set[str]:
    found = [re.match(pattern, line) for line in lines]
    return {name.strip() for match in found if match for name in match[1].split(",")}


def _all(connection: Connection) -> set[str]:
    """What GRANT ALL stands for; MySQL lists its dynamic privileges, written with underscores, beside it."""
    names = {str(row[0]).upper() for row in rows(connection, "SHOW PRIVILEGES")}
    return {name for name in names if "_" not in name or name == "READ_ONLY ADMIN"}


def require_sight(connection: Connection) -> None:
    """Raise Refused where the account may not see every schema, trigger and event: they would be left out silently."""
    account, names = held(connection)
    missing = [name for name in SEEING if name not in names]
    if missing:
        raise Refused(
            f"The account lacks {', '.join(missing)} on all schemas.",
            meaning="What it cannot see would be missing from the backup, so none is taken.",
            next_step=f"Run: {grant(missing, account)};",
        )
