"""The server that a restore writes to: what it is, what it holds, and how it is kept quiet meanwhile."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass

import pymysql

from backups.engine.errors import Corrupt, Refused
from backups.engine.manifest import Manifest
from backups.engine.mysql.dump import REPORTED
from backups.engine.mysql.schema import is_user
from backups.engine.mysql.server import (
    NAMES,
    Connection,
    Identity,
    ServerConfig,
    connect,
    explain,
    identify,
    rows,
    value,
    variables,
)

Settings = Mapping[str, str]

# Global variables while a restore runs, in the order in which they are set.
# super_read_only would refuse BINLOG; read_only keeps everybody out but accounts such as the restore's.
WANTED = {
    "super_read_only": "OFF",
    "read_only": "ON",
    "event_scheduler": "OFF",
    "local_infile": "ON",
    "log_bin_trust_function_creators": "ON",
    "slave_run_triggers_for_rbr": "NO",
    "slave_exec_mode": "STRICT",
}
PATIENCE_SECONDS = 30
_PUT_BACK_LAST = ("read_only", "super_read_only")
_AS_GOOD = {"event_scheduler": ("DISABLED",)}  # cannot be changed, and need not be


@dataclass(frozen=True, slots=True)
class TargetState:
    """schemas: name and estimated rows of each user schema.

    replicas: servers that replicate from it.  group: it is a member of a group or cluster.
    follows: it replicates from another server.
    """

    identity: Identity
    schemas: tuple[tuple[str, int], ...]
    replicas: bool
    group: bool
    follows: bool


def inspect(config: ServerConfig) -> TargetState:
    """Look, and change nothing."""
    with closing(connect(config)) as connection:
        try:
            identity = identify(connection)
            return TargetState(
                identity,
                tuple(_schemas(connection)),
                _has_replicas(connection, identity),
                _in_group(connection, identity),
                _follows(connection, identity),
            )
        except pymysql.MySQLError as error:
            raise explain(error, "Looking at the target") from error


def _schemas(connection: Connection) -> list[tuple[str, int]]:
    sql = (
        "SELECT s.schema_name, COALESCE(SUM(t.table_rows), 0) FROM information_schema.schemata s"
        " LEFT JOIN information_schema.tables t ON t.table_schema = s.schema_name GROUP BY 1 ORDER BY 1"
    )
    return [(str(name), int(count)) for name, count in rows(connection, sql) if is_user(str(name))]


def _has_replicas(connection: Connection, identity: Identity) -> bool:
    """Everest's own sessions, which read the log as replicas do, are none."""
    listed = rows(connection, _statement(identity, "SHOW REPLICAS", "SHOW SLAVE HOSTS", (8, 0, 22)))
    return any(host != REPORTED.decode() for _, host, *_ in listed)


def _statement(identity: Identity, new: str, old: str, since: tuple[int, ...]) -> str:
    return new if identity.flavour == "mysql" and identity.version >= since else old


def _in_group(connection: Connection, identity: Identity) -> bool:
    if identity.flavour == "mariadb":
        return variables(connection, ("wsrep_on",)).get("wsrep_on") == "ON"
    sql = "SELECT COUNT(*) FROM performance_schema.replication_group_members WHERE member_state <> 'OFFLINE'"
    return bool(value(connection, sql))


def _follows(connection: Connection, identity: Identity) -> bool:
    statement = _statement(identity, "SHOW REPLICA STATUS", "SHOW SLAVE STATUS", (8, 0, 22))
    with connection.cursor(pymysql.cursors.DictCursor) as cursor:
        cursor.execute(statement if identity.flavour == "mysql" else "SHOW ALL SLAVES STATUS")
        return any(
            row.get(f"{role}_{thread}_Running", "No") != "No"  # Connecting, too
            for row in cursor.fetchall()
            for role in ("Replica", "Slave")
            for thread in ("IO", "SQL")
        )


def refuse(state: TargetState, manifest: Manifest, *, replace: bool) -> None:
    """Raise Refused where this backup may not go into this target."""
    identity = state.identity
    if identity.flavour != manifest.flavour:
        raise Refused(
            f"The backup is {NAMES.get(manifest.flavour, manifest.flavour)}'s and the target is {identity.name}.",
            meaning="Nothing was changed.",
            next_step="Choose a target of the same kind.",
        )
    if identity.version[:2] < series(manifest.version):
        raise Refused(
            f"The backup was taken from version {manifest.version}; the target is older: {identity.name}.",
            meaning="An older series does not understand all that a newer one writes. Nothing was changed.",
            next_step="Choose a target of the same series or a newer one.",
        )
    here, there = (settings.get("lower_case_table_names") for settings in (identity.settings, manifest.settings))
    if there is not None and here != there:
        raise Refused(
            f"lower_case_table_names is {here} on the target and {there} at the source.",
            meaning="Names would differ or collide. Nothing was changed.",
            next_step="It can only be set when a server is initialised: choose another target.",
        )
    if state.replicas or state.group or state.follows:
        role = "has replicas" if state.replicas else "is in a group" if state.group else "is itself a replica"
        raise Refused(
            f"The target {role}.",
            meaning="What a restore writes is not logged, so the servers would differ. Nothing was changed.",
            next_step="Detach it from the others first, or choose another target.",
        )
    if state.schemas and not replace:
        held = ", ".join(f"{name} (about {count:,} rows)" for name, count in state.schemas)
        raise Refused(
            f"The target is not empty: {held}.",
            meaning="A restore would drop these schemas. Nothing was changed.",
            next_step="Confirm with the target's name that they may be replaced, or choose an empty target.",
        )


def series(version: str) -> tuple[int, int]:
    """(9, 7) of "9.7.4-2"."""
    found = re.match(r"(\d+)\.(\d+)", version)
    if not found:
        raise Corrupt(f"A manifest says that its server has version {version[:80]!r}.")
    return int(found[1]), int(found[2])


def prepare(config: ServerConfig, remember: Callable[[dict[str, str]], None]) -> dict[str, str]:
    """Keep the application and the event scheduler out, and let the restore in.

    remember: gets the settings that will be changed, as they are now, before any is; what it keeps is for
    `put_back`.  Called again after a crash it is told values that the crashed run set: the first told count.
    """
    with closing(connect(config)) as connection:
        try:
            found = variables(connection, tuple(WANTED))
            before = {
                name: found[name]
                for name, wanted in WANTED.items()
                if name in found and found[name] not in (wanted, *_AS_GOOD.get(name, ()))
            }
            remember(dict(before))
            # read_only waits for LOCK TABLES and running commits of others, and holds up everybody behind it.
            rows(connection, f"SET SESSION lock_wait_timeout = {PATIENCE_SECONDS}")
            for name in before:
                _set(connection, name, WANTED[name])
        except pymysql.MySQLError as error:
            raise explain(error, "Preparing the target") from error
    return before


def put_back(config: ServerConfig, settings: Settings) -> None:
    """Give settings their former values; may be called any number of times.  Raises Transient, Refused."""
    names = [name for name in WANTED if name in settings and name not in _PUT_BACK_LAST]
    names += [name for name in _PUT_BACK_LAST if name in settings]
    with closing(connect(config)) as connection:
        try:
            for name in names:
                _set(connection, name, settings[name])
        except pymysql.MySQLError as error:
            raise explain(error, "Putting the target's settings back") from error


def _set(connection: Connection, name: str, setting: str) -> None:
    rows(connection, f"SET GLOBAL {name} = %s", (setting,))
