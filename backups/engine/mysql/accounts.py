"""Accounts, roles and grants: part of every backup, put back only on request.

They are SQL as SHOW CREATE USER and SHOW GRANTS print it, so that the `mysql` client can run the file too.  What
other sessions change meanwhile, and afterwards in the log, is not followed: accounts are as the backup found them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import closing

import pymysql

from backups.engine.archive import Archive
from backups.engine.errors import Refused
from backups.engine.mysql import sqlfile
from backups.engine.mysql.grants import held
from backups.engine.mysql.server import (
    Connection,
    Identity,
    ServerConfig,
    connect,
    error_code,
    error_text,
    explain,
    flavour_of,
    rows,
    variables,
)
from backups.engine.types import DataRef, Run

SYSTEM = ("mysql.sys", "mysql.session", "mysql.infoschema", "mariadb.sys")
PUBLIC = "PUBLIC"  # MariaDB's name for everybody, from 10.11 on
DEFAULT_ROLE = re.compile(r" DEFAULT ROLE ((?:`(?:[^`]|``)*`@`(?:[^`]|``)*`,?)+)")
TOKEN = re.compile(rb"`(?:[^`]|``)*`|'(?:[^'\\]|''|\\.)*'|\w+|\S", re.DOTALL)
DROPPED = (1133, 1141, 1269, 1396, 3162)
NAMED = (b"TO", b"FROM", b"FOR")  # an account follows


def read(connection: Connection, identity: Identity) -> list[bytes]:
    """Statements that make every account but the server's own: accounts and roles first, then what they may."""
    if variables(connection, ("skip_grant_tables",)).get("skip_grant_tables") == "ON":
        return []
    lines = _mysql(connection) if identity.flavour == "mysql" else _mariadb(connection)
    return [line.encode() for line in lines]


def _mysql(connection: Connection) -> Iterator[str]:
    if variables(connection, ("print_identified_with_as_hex",)):
        connection.query("SET SESSION print_identified_with_as_hex = ON")  # a hash holds any bytes
    names = [_name(*row) for row in rows(connection, f"SELECT user, host FROM mysql.user WHERE {_OWN}", (SYSTEM,))]
    roles = {}
    for name in names:
        for text in _shown(connection, f"SHOW CREATE USER {name}"):
            if found := DEFAULT_ROLE.search(text):
                roles[name] = found[1]
            yield DEFAULT_ROLE.sub("", text, count=1)
    for name in names:
        yield from _grants(connection, name)
    for name, default in roles.items():
        yield f"ALTER USER {name} DEFAULT ROLE {default}"


def _mariadb(connection: Connection) -> Iterator[str]:
    found = rows(connection, f"SELECT user, host, is_role FROM mysql.user WHERE {_OWN}", (SYSTEM,))
    names = [_name(user, host) for user, host, role in found if role != "Y" and user != PUBLIC]
    roles = [_name(user) for user, _, role in found if role == "Y" and user != PUBLIC]
    for name in names:
        yield from _shown(connection, f"SHOW CREATE USER {name}")
    yield from (f"CREATE ROLE {role}" for role in roles)
    public = [PUBLIC] if any(user == PUBLIC for user, _, _ in found) else []
    defaults = []
    for name in (*roles, *names, *public):
        for line in _grants(connection, name):
            if line.startswith("SET DEFAULT ROLE"):
                defaults.append(line)
            else:
                yield line
    yield from defaults


_OWN = "user NOT IN %s ORDER BY 1, 2"


def _name(user: str, host: str | None = None) -> str:
    parts = [user] if host is None else [user, host]
    return "@".join("`" + part.replace("`", "``") + "`" for part in parts)


def _grants(connection: Connection, name: str) -> Iterator[str]:
    """A role's grants hold those of the roles that it has, too: only its own are given again."""
    for line in _shown(connection, f"SHOW GRANTS FOR {name}"):
        if account_of(line.encode()) == name.encode():
            yield line


def _shown(connection: Connection, sql: str) -> list[str]:
    """The lines of an answer, none where the account was dropped since it was listed."""
    try:
        return [str(row[0]) for row in rows(connection, sql)]
    except pymysql.MySQLError as error:
        if error_code(error) in DROPPED:
            return []
        raise


def account_of(statement: bytes) -> bytes:
    """Whom a statement makes or gives something, quoted as the servers print it."""
    tokens = TOKEN.findall(statement)
    if tokens[:2] in ([b"CREATE", b"USER"], [b"ALTER", b"USER"], [b"CREATE", b"ROLE"]):
        at = 2
    else:
        at = next(place for place, token in enumerate(tokens) if token in NAMED) + 1
    return b"".join(tokens[at : at + 3]) if tokens[at + 1 : at + 2] == [b"@"] else bytes(tokens[at])


def require(config: ServerConfig, ref: DataRef | None) -> None:
    """Raise Refused where accounts cannot be put back: the backup has none, or the account may not make any."""
    if ref is None:
        raise Refused(
            "The backup holds no accounts.",
            meaning="Nothing was changed.",
            next_step="Restore without accounts, or from a backup that a newer Everest took.",
        )
    with closing(connect(config)) as connection:
        try:
            account, names = held(connection)
            lines = [str(line) for (line,) in rows(connection, "SHOW GRANTS")]
        except pymysql.MySQLError as error:
            raise explain(error, "Looking at the account's own grants") from error
    passes_on = any(re.match(r"GRANT .* ON \*\.\* TO .* WITH GRANT OPTION$", line) for line in lines)
    if "CREATE USER" not in names or not passes_on:
        raise Refused(
            "The account may not make accounts and give them privileges.",
            meaning="Nothing was changed.",
            next_step=f"Run: GRANT ALL PRIVILEGES ON *.* TO {account} WITH GRANT OPTION; or restore without accounts.",
        )


def restore(config: ServerConfig, archive: Archive, ref: DataRef, run: Run) -> tuple[str, ...]:
    """Make the backup's accounts.  Those that the target has already stay as they are, PUBLIC gains what it had.

    Returns a sentence for each statement that the target refused.  Nothing of it is logged.
    """
    with closing(connect(config)) as connection:
        try:
            return tuple(_made(connection, sqlfile.parse(archive.read_data(ref)), run))
        except pymysql.MySQLError as error:
            raise explain(error, "Restoring accounts") from error


def _made(connection: Connection, statements: Iterable[bytes], run: Run) -> Iterator[str]:
    connection.query("SET SESSION sql_log_bin = 0")
    kept = existing(connection)
    made, left = 0, set()
    for statement in statements:
        account = account_of(statement)
        if account in kept:
            left.add(account.decode())
            continue
        try:
            connection.query(statement)
            made += statement.startswith(b"CREATE ")
        except pymysql.MySQLError as error:
            sentence = f"Account {account.decode()}: the target refused a {_kind(statement)}: {error_text(error)}."
            run.log(sentence)
            yield sentence
    run.log(f"{made} accounts and roles were made.")
    if left:
        run.log(f"The target had these accounts already, they stay as they are: {', '.join(sorted(left))}.")


def existing(connection: Connection) -> set[bytes]:
    """Every account and role, quoted as the servers print it."""
    if flavour_of(connection) == "mysql":
        return {_name(*row).encode() for row in rows(connection, "SELECT user, host FROM mysql.user")}
    found = rows(connection, "SELECT user, host, is_role FROM mysql.user")
    return {_name(user, None if role == "Y" else host).encode() for user, host, role in found if user != PUBLIC}


def _kind(statement: bytes) -> str:
    """Its first words, never more: the rest of it may hold a password's hash."""
    return b" ".join(TOKEN.findall(statement)[:2]).decode("utf-8", "replace")
