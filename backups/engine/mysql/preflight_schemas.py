"""What a server's schemas hold that a person should know before relying on a backup of them: a part of preflight."""

from __future__ import annotations

from collections.abc import Iterator

import pymysql

from backups.engine.mysql.schema import ROWLESS, is_user
from backups.engine.mysql.server import DENIED, SYSTEM_SCHEMAS, Connection, Identity, error_code, rows
from backups.engine.mysql.wide import UNREADABLE
from backups.engine.types import Check

MANY = 5  # names shown of a longer list

Checks = Iterator[Check]

# A question for names, by what they are named under, why, and what to do.  Nothing of it is in a backup.
BESIDE: dict[str, tuple[str, str, str, str]] = {
    "Loadable functions": (
        "both",
        "SELECT name FROM mysql.func ORDER BY 1",
        "their libraries are files of this server, so they are not in a backup",
        "Install the same libraries and functions on a target before a restore.",
    ),
    "Foreign servers": (
        "both",
        "SELECT Server_name FROM mysql.servers ORDER BY 1",
        "made with CREATE SERVER, so they are not in a backup",
        "Run the same CREATE SERVER on a target.",
    ),
    "Spatial reference systems": (
        "mysql",
        "SELECT SRS_ID FROM information_schema.ST_SPATIAL_REFERENCE_SYSTEMS"
        " WHERE SRS_ID BETWEEN 32768 AND 59999999 OR SRS_ID > 69999999 ORDER BY 1",
        "your own, so they are not in a backup, and tables that use them need them first",
        "Run the same CREATE SPATIAL REFERENCE SYSTEM on a target before a restore.",
    ),
    "Folders": (
        "mysql",
        "SELECT FILE_NAME FROM information_schema.FILES"
        " WHERE FILE_TYPE = 'TABLESPACE' AND FILE_NAME NOT LIKE './%' ORDER BY 1",
        "outside of the data folder: DATA DIRECTORY stays in the definitions",
        "A target needs the same folders, empty, and in its innodb_directories.",
    ),
    "Folders of tables": (
        "mariadb",
        "SELECT CONCAT(TABLE_SCHEMA, '.', TABLE_NAME) FROM information_schema.TABLES"
        " WHERE CREATE_OPTIONS LIKE '%DIRECTORY%' ORDER BY 1",
        "outside of the data folder: DATA DIRECTORY stays in the definitions",
        "A target needs the same folders, empty.",
    ),
    "JSON without primary keys": (
        "mysql",
        "SELECT DISTINCT CONCAT(TABLE_SCHEMA, '.', TABLE_NAME) FROM information_schema.COLUMNS c"
        " JOIN information_schema.TABLES t USING (TABLE_SCHEMA, TABLE_NAME)"
        " WHERE DATA_TYPE = 'json' AND TABLE_TYPE = 'BASE TABLE' AND NOT EXISTS (SELECT 1 FROM"
        " information_schema.STATISTICS s WHERE s.TABLE_SCHEMA = c.TABLE_SCHEMA AND s.TABLE_NAME = c.TABLE_NAME"
        f" AND INDEX_NAME = 'PRIMARY') AND TABLE_SCHEMA NOT IN ({', '.join(map(repr, SYSTEM_SCHEMAS))}) ORDER BY 1",
        "after a backup, changes of rows whose JSON holds a DECIMAL, a date or bytes made by SQL cannot be replayed",
        "Add primary keys. Each backup counts such rows.",
    ),
    "Encryption at rest": (
        "both",
        "SELECT CONCAT(TABLE_SCHEMA, '.', TABLE_NAME) FROM information_schema.TABLES"
        " WHERE CREATE_OPTIONS LIKE '%ENCRYPT%' AND CREATE_OPTIONS NOT LIKE '%''N''%' ORDER BY 1",
        "encrypted here, and readable in the storage, where Everest encrypts nothing",
        "Use the bucket's own encryption; a target needs a keyring (MariaDB: a key management plugin).",
    ),
}


def schema_checks(connection: Connection, identity: Identity) -> Checks:
    yield from _tables(connection, identity)
    for name, (flavour, question, why, fix) in BESIDE.items():
        if flavour in ("both", identity.flavour):
            found = [str(row[0]) for row in _allowed(connection, question)]
            if found:
                yield _list(name, found, why, fix)
    yield _accounts(connection)
    yield from _returned(connection)
    yield from _own_numbers(connection, identity)


def _allowed(connection: Connection, question: str) -> tuple[tuple[object, ...], ...]:
    """Rows, none where the account may not see the `mysql` schema: a line of its own says that."""
    try:
        return rows(connection, question)
    except pymysql.MySQLError as error:
        if error_code(error) in DENIED:
            return ()
        raise


def _accounts(connection: Connection) -> Check:
    if _allowed(connection, "SELECT COUNT(*) FROM mysql.user"):
        return Check("Accounts", "pass", "Accounts and grants are part of a backup, for a restore that asks for them.")
    message = "The account may not read the `mysql` schema, so accounts and grants are not part of a backup."
    return Check("Accounts", "warn", message, "Grant it SELECT on mysql.*, if you want to restore accounts, too.")


def _returned(connection: Connection) -> Checks:
    """A function's ENUM is printed in three-byte characters only, and there is no other way to ask for it."""
    found = [f"{schema}.{name}" for schema, name in rows(connection, UNREADABLE) if is_user(schema)]
    if found:
        why = "functions that return an ENUM or SET with '?', which may stand for a character beyond U+FFFF"
        fix = "Have them return VARCHAR: until then no backup is taken, as it could alter them."
        yield Check("Functions", "fail", f"{', '.join(found[:MANY])}: {why}.", fix)


def _own_numbers(connection: Connection, identity: Identity) -> Checks:
    if identity.flavour != "mariadb":
        return
    found = rows(
        connection,
        "SELECT CONCAT(TABLE_SCHEMA, '.', TABLE_NAME) FROM information_schema.COLUMNS"
        " WHERE GENERATION_EXPRESSION = 'ROW START' AND DATA_TYPE = 'bigint' ORDER BY 1",
    )
    if found:
        names = ", ".join(str(name) for (name,) in found[:MANY])
        message = (
            f"{names}: their history is told in transaction numbers, which no other server has: no backup is taken."
        )
        yield Check("Transaction history", "fail", message, "Give them ROW START and ROW END columns of TIMESTAMP(6).")


def _tables(connection: Connection, identity: Identity) -> Checks:
    found = [
        (f"{schema}.{table}", engine, kind)
        for schema, table, engine, kind in rows(
            connection, "SELECT TABLE_SCHEMA, TABLE_NAME, ENGINE, TABLE_TYPE FROM information_schema.TABLES"
        )
        if is_user(schema) and kind in ("BASE TABLE", "SYSTEM VERSIONED")
    ]
    keyed = {
        f"{schema}.{table}"
        for schema, table in rows(
            connection,
            "SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.STATISTICS WHERE INDEX_NAME = 'PRIMARY'",
        )
    }
    unkeyed = [name for name, engine, _ in found if engine == "InnoDB" and name not in keyed]
    yield _list("Primary keys", unkeyed, "no primary key, so replaying their changes is slow", "Add primary keys.")
    locked = [name for name, engine, _ in found if engine != "InnoDB" and engine not in ROWLESS]
    yield _list(
        "Storage engines",
        locked,
        "not InnoDB, so they are read under the lock, and writers wait that long",
        "ALTER TABLE ... ENGINE = InnoDB;",
    )
    rowless = [name for name, engine, _ in found if engine in ROWLESS]
    if rowless:
        yield _list("Rows elsewhere", rowless, "no rows of their own, so only definitions are kept", "")
    if identity.flavour == "mariadb" and identity.version < (10, 11):
        versioned = [name for name, _, kind in found if kind == "SYSTEM VERSIONED"]
        yield _list(
            "History", versioned, "system-versioned, and history loads on MariaDB 10.11 and newer only", "Upgrade."
        )
    broken = [
        f"{schema}.{view}"
        for schema, view in rows(
            connection,
            "SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLES"
            " WHERE TABLE_TYPE = 'VIEW' AND TABLE_COMMENT LIKE %s AND TABLE_ROWS IS NULL",  # MariaDB looks only then
            ("%references invalid%",),
        )
        if is_user(schema)
    ]
    yield _list("Views", broken, "what they refer to is gone, so a restore leaves them out", "Drop or mend them.")


def _list(name: str, found: list[str], why: str, fix: str) -> Check:
    if not found:
        return Check(name, "pass", "Nothing to mention.")
    more = f" and {len(found) - MANY} more" if len(found) > MANY else ""
    return Check(name, "warn", f"{', '.join(found[:MANY])}{more}: {why}.", fix)
