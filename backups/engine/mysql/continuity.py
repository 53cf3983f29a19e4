"""Proof, before a byte is read, that what a server still has joins on to what was shipped."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pymysql

from backups.engine.errors import Forked, Gap
from backups.engine.mysql import server
from backups.engine.mysql.gtid import DomainSet, GtidSet, domain_state, file_number, out_of_order
from backups.engine.mysql.server import Identity
from backups.engine.types import Position

_NEW_TIMELINE = "What was shipped before stays restorable."
_TAKE_BACKUP = "Take a backup: a new timeline starts with it."


def prove(connection: pymysql.Connection[Any], identity: Identity, start: Position, born: Callable[[str], str]) -> None:
    """Gap where log after `start` is gone; Forked where the server does not have what lies before it.

    born: a log file's id, asked of the server.
    """
    if start.get("gtids") is None:
        _prove_file(connection, identity, start)
    elif identity.flavour == "mariadb":
        _prove_domains(connection, DomainSet.parse(start["gtids"]))
    else:
        _prove_gtids(connection, identity, start)
    if start.get("gtids") is not None and start["server"] == identity.server_uuid:
        _prove_not_begun_anew(connection, start, born)


def _prove_not_begun_anew(connection: pymysql.Connection[Any], start: Position, born: Callable[[str], str]) -> None:
    """A server that was reset, or lost its log's end in a crash, gives the same numbers to other transactions."""
    files, name = _files(connection), str(start["file"])
    newest = list(files)[-1]
    if name not in files:
        begun_anew = _kin(newest, name) and file_number(newest) < file_number(name)
    else:
        known = start.get("file_id")
        begun_anew = files[name] < start["pos"] or bool(known and born(name) != known)
    if begun_anew:
        raise Forked(
            f"The server's log is not the one that was shipped up to {name}:{start['pos']}: it was reset, or lost its "
            "end in a crash, and numbers that were shipped may stand for other transactions now.",
            meaning=_NEW_TIMELINE,
            next_step=_TAKE_BACKUP,
        )


def _kin(a: str, b: str) -> bool:
    return a.rpartition(".")[0] == b.rpartition(".")[0]


def _prove_gtids(connection: pymysql.Connection[Any], identity: Identity, start: Position) -> None:
    if not identity.gtid:
        raise Gap(
            "The server has switched its GTIDs off.",
            meaning=f"Its log cannot be joined to what was shipped. {_NEW_TIMELINE}",
            next_step=f"{_TAKE_BACKUP} Or set gtid_mode=ON again before anything is written.",
        )
    known = GtidSet.parse(start["gtids"])
    executed = GtidSet.parse(str(server.value(connection, "SELECT @@global.gtid_executed")))
    if extra := known.subtract(executed):
        raise _forked(identity, known, executed, extra)
    purged = GtidSet.parse(str(server.value(connection, "SELECT @@global.gtid_purged")))
    if missing := purged.subtract(known):
        raise _gap(str(missing))


def _forked(identity: Identity, known: GtidSet, executed: GtidSet, extra: GtidSet) -> Forked:
    if not known.uuids() & executed.uuids():
        return Forked(
            "This is another server: it has none of the transactions that were shipped.",
            meaning=_NEW_TIMELINE,
            next_step="Check host and port; if the change is wanted, take a backup: a new timeline starts with it.",
        )
    if identity.server_uuid in extra.uuids():
        what = f"The server has lost transactions that it wrote and that were already shipped: {_short(str(extra))}."
    else:
        what = f"The server lacks transactions that were already shipped from another: {_short(str(extra))}."
    return Forked(
        what,
        meaning=f"Its history goes on from an earlier place than the shipped one. {_NEW_TIMELINE}",
        next_step="If this is a replica that lags, wait for it. Else take a backup: a new timeline starts with it.",
    )


def _gap(missing: str) -> Gap:
    return Gap(
        f"The server has purged binlog that was not shipped yet: {_short(missing)} is missing.",
        meaning=f"Moments from here to the next backup are lost for recovery. {_NEW_TIMELINE}",
        next_step=f"{_TAKE_BACKUP} Keep binlogs longer (binlog_expire_logs_seconds) than shipping may stand still.",
    )


def _short(text: str) -> str:
    return text if len(text) <= 300 else f"{text[:300]}..."


def _prove_domains(connection: pymysql.Connection[Any], known: DomainSet) -> None:
    """MariaDB streams from its oldest file for a domain that it is not told of, and calls that right."""
    newest = DomainSet.parse(str(server.value(connection, "SELECT @@global.gtid_binlog_pos")))
    state = last_of_each(connection)
    if extra := known.subtract(newest):
        if extra.within(state):
            raise out_of_order(str(newest), str(known))
        raise Forked(
            f"The server does not have transactions that were already shipped: {_short(str(extra))}.",
            meaning=f"It lost them, was reset, or is another server. {_NEW_TIMELINE}",
            next_step="Check host and port. " + _TAKE_BACKUP,
        )
    strangers = [f"{domain}-{origin}" for domain, (origin, _) in known.last.items() if (domain, origin) not in state]
    if strangers:
        raise Forked(
            f"The server never had transactions of domain and server {', '.join(strangers)}, which were shipped.",
            meaning=f"This is another server or another history. {_NEW_TIMELINE}",
            next_step="Check host and port. " + _TAKE_BACKUP,
        )
    if missing := _before_oldest(connection).subtract(known):
        raise _gap(f"everything up to {missing} that was not shipped")


def last_of_each(connection: pymysql.Connection[Any]) -> dict[tuple[int, int], int]:
    """MariaDB: the last number that is logged of each domain and server."""
    return domain_state(str(server.value(connection, "SELECT @@global.gtid_binlog_state")))


def _before_oldest(connection: pymysql.Connection[Any]) -> DomainSet:
    """What was written before the oldest log file that is left."""
    files = _files(connection)
    if not files:
        return DomainSet()
    sql = "SHOW BINLOG EVENTS IN %s LIMIT 3"
    for row in server.rows(connection, sql, (next(iter(files)),)):
        if row[2] == "Gtid_list":
            return DomainSet.parse(",".join(re.findall(r"\d+-\d+-\d+", str(row[5]))))
    raise Gap("The oldest binlog file does not say what came before it.", next_step=_TAKE_BACKUP)


def _files(connection: pymysql.Connection[Any]) -> dict[str, int]:
    """Log files, oldest first, with their bytes."""
    return {str(row[0]): int(row[1]) for row in server.rows(connection, "SHOW BINARY LOGS")}


def _prove_file(connection: pymysql.Connection[Any], identity: Identity, start: Position) -> None:
    if start["server"] != identity.server_uuid:
        raise Forked(
            "This is another server than the one that was shipped, and without GTIDs nothing joins the two.",
            meaning=_NEW_TIMELINE,
            next_step="Check host and port; if the change is wanted, take a backup. GTIDs would survive a failover.",
        )
    size = _files(connection).get(start["file"])
    if size is None:
        raise _gap(f"everything after {start['file']}:{start['pos']}")
    if size < start["pos"]:
        raise another_file(start)


def another_file(start: Position) -> Gap:
    return Gap(
        f"The server's {start['file']} is not the file that was shipped up to position {start['pos']}.",
        meaning=f"The binlog was reset or lost its end. {_NEW_TIMELINE}",
        next_step=_TAKE_BACKUP,
    )


ROTATE_BYTES = 512  # more than a ROTATE event ever has


def reachable(connection: pymysql.Connection[Any], start: Position) -> tuple[str, int]:
    """File and position to ask for without GTIDs.

    The request has 32 bits for a position.  A log file is only larger where one transaction made it so, and ends
    right after that one: what follows begins in the next file.
    """
    if start["pos"] < 1 << 32:
        return start["file"], start["pos"]
    files = _files(connection)
    names = list(files)
    following = names[names.index(start["file"]) + 1 :]
    if following and files[start["file"]] - start["pos"] <= ROTATE_BYTES:
        return following[0], 4
    raise Gap(
        f"The log after {start['file']}:{start['pos']} is out of reach: the protocol counts to 4 GiB without GTIDs.",
        meaning=_NEW_TIMELINE,
        next_step=f"Run FLUSH BINARY LOGS, then ship again; if that does not help: {_TAKE_BACKUP} Switch GTIDs on.",
    )
