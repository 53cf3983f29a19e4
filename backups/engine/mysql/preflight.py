"""Whether a server can be backed up, or restored into: one Check for each thing that decides it.

"fail" stops a backup or restore, "warn" does not; every fix is a sentence or a statement to run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

import pymysql

from backups.engine.errors import EngineError
from backups.engine.manifest import Manifest
from backups.engine.mysql import accounts
from backups.engine.mysql.applier import zone_for
from backups.engine.mysql.continuity import last_of_each
from backups.engine.mysql.grants import Role, grant, held, privileges
from backups.engine.mysql.gtid import IN_ORDER
from backups.engine.mysql.preflight_schemas import MANY, schema_checks
from backups.engine.mysql.server import (
    DENIED,
    NAMES,
    Connection,
    Identity,
    ServerConfig,
    branches,
    connect,
    error_code,
    explain,
    identify,
    processes,
    rows,
    value,
)
from backups.engine.mysql.target import inspect, series
from backups.engine.types import Check

DAY = 86_400
MEBIBYTE = 1 << 20

# What a backup can do without, and what then is different.
OPTIONAL = {
    "BACKUP_ADMIN": "changes of definitions will not wait for a backup; one that meets a change starts again",
    "FLUSH_TABLES": "backups lock with LOCK TABLES and wait for every open writing transaction",
    "RELOAD": "backups lock with LOCK TABLES and wait for every open writing transaction",
}
# A privilege that holds another.
COVERED = {"FLUSH_TABLES": ("RELOAD",), "REPLICATION CLIENT": ("SUPER",), "REPLICATION_APPLIER": ("SUPER",)}

Checks = Iterator[Check]


def preflight_source(config: ServerConfig) -> list[Check]:
    """Look, and change nothing; never raises for what the server or the network does."""
    return list(_run(config, _source))


def preflight_target(config: ServerConfig, manifest: Manifest | None, source: Identity | None) -> list[Check]:
    """Whether a backup (of `manifest`, else of a server like `source`) could be restored into this server."""
    return list(_run(config, lambda c, i: _target(config, c, i, manifest, source)))


def _run(config: ServerConfig, checks: Callable[[Connection, Identity], Checks]) -> Checks:
    try:
        connection = connect(config)
    except EngineError as error:
        yield _failed("Reachable", error)
        return
    with closing(connection):
        yield Check("Reachable", "pass", f"{config.address} answers.")
        yield _encryption(config)
        try:
            identity = identify(connection)
        except EngineError as error:
            yield _failed("Version", error)
            return
        yield Check("Version", "pass", f"{identity.name} ({identity.version_text}).")
        try:
            yield from checks(connection, identity)
        except (EngineError, pymysql.MySQLError) as error:
            yield _failed("Server", explain(error, "Looking at the server"))


def _failed(name: str, error: EngineError) -> Check:
    return Check(name, "fail", " ".join(part for part in (error.what, error.meaning) if part), error.next_step)


def _encryption(config: ServerConfig) -> Check:
    if config.tls == "off" and not config.unix_socket:
        fix = "Set TLS to 'verify' with the server's CA certificate, or to 'required'."
        return Check("TLS", "warn", "The connection is not encrypted: whoever listens can read data and password.", fix)
    return Check("TLS", "pass", f"TLS is {config.tls}." if not config.unix_socket else "A local socket needs no TLS.")


def _source(connection: Connection, identity: Identity) -> Checks:
    yield from _privileges(connection, identity, "source")
    yield from _binlog(connection, identity)
    yield _expiry(identity)
    yield _durability(identity)
    yield from schema_checks(connection, identity)
    yield from _branches(connection)


# Privileges


def _privileges(connection: Connection, identity: Identity, role: Role) -> Checks:
    account, granted = held(connection)
    wanted = privileges(identity.flavour, identity.version, role)
    missing = [name for name in wanted if not granted & {name, *COVERED.get(name, ())}]
    for name in missing:
        optional = role == "source" and name in OPTIONAL and (name == "BACKUP_ADMIN" or "LOCK TABLES" in granted)
        message = f"Without {name} {OPTIONAL[name]}." if optional else f"The account lacks {name}."
        yield Check(f"Privilege {name}", "warn" if optional else "fail", message, f"{grant([name], account)};")
    if not missing:
        yield Check("Privileges", "pass", f"The account has all {len(wanted)} privileges that a {role} needs.")


# The binary log


def _binlog(connection: Connection, identity: Identity) -> Checks:
    settings = identity.settings
    if settings.get("log_bin") != "ON":
        fix = "Set log_bin and a server_id of its own in the server's configuration, and restart it."
        yield Check("Binary log", "fail", "The server writes no binary log (log_bin is OFF).", fix)
        return
    yield Check("Binary log", "pass", "log_bin is ON.")
    yield _format(settings.get("binlog_format", ""))
    yield _row_image(identity)
    yield _gtid(identity)
    if identity.flavour == "mariadb":
        yield _order(connection)
    yield _filters(connection, identity)
    yield _replica(connection, identity)


def _format(form: str) -> Check:
    fix = "SET GLOBAL binlog_format = 'ROW'; and set it in the server's configuration too."
    if form == "ROW":
        return Check("Binary log format", "pass", "binlog_format is ROW.")
    if form == "MIXED":
        message = "binlog_format is MIXED: some changes are logged as statements, and replaying them may differ."
        return Check("Binary log format", "warn", message, fix)
    message = f"binlog_format is {form}: changes are logged as statements, which need not replay to the same rows."
    return Check("Binary log format", "fail", message, fix)


def _row_image(identity: Identity) -> Check:
    image, options = identity.settings.get("binlog_row_image"), identity.settings.get("binlog_row_value_options")
    if image != "FULL":
        message = f"binlog_row_image is {image}: rows can only be replayed one by one, on exactly the same base."
        if identity.flavour == "mariadb":
            message += (
                " MariaDB then leaves columns of a row that REPLACE or LOAD DATA REPLACE put in another's place out of"
                " the log: they are lost in a restore, as on a replica."
            )
        return Check("Row image", "warn", message, "SET GLOBAL binlog_row_image = 'FULL';")
    if options:
        message = f"binlog_row_value_options is {options}: JSON changes are logged in part."
        return Check("Row image", "warn", message, "SET GLOBAL binlog_row_value_options = '';")
    return Check("Row image", "pass", "Whole rows are logged.")


def _gtid(identity: Identity) -> Check:
    if identity.gtid:
        return Check("GTIDs", "pass", "Transactions have GTIDs: recovery goes on after a failover.")
    mode = identity.settings.get("gtid_mode", "OFF")
    message = f"gtid_mode is {mode}: places in the log are file names, and a failover ends what can be recovered."
    return Check(
        "GTIDs", "warn", message, "Switch gtid_mode on step by step (MySQL manual: Enabling GTID Transactions)."
    )


def _order(connection: Connection) -> Check:
    """MariaDB: whether numbers can go back, which ends what can be recovered."""
    strict = value(connection, "SELECT @@GLOBAL.gtid_strict_mode")
    writers = Counter(domain for domain, _ in last_of_each(connection))
    shared = [domain for domain, count in writers.items() if count > 1]
    if strict or not shared:
        return Check("GTID order", "pass", "Each transaction of a domain has a higher number than the one before it.")
    return Check(
        "GTID order",
        "warn",
        f"Several servers have written transactions of domain {', '.join(map(str, shared))}, and gtid_strict_mode is"
        " OFF: if they write at the same time, numbers go back, and recovery ends there.",
        IN_ORDER,
    )


def _filters(connection: Connection, identity: Identity) -> Check:
    new_name = identity.flavour == "mysql" and identity.version >= (8, 2)
    found = rows(connection, "SHOW BINARY LOG STATUS" if new_name else "SHOW MASTER STATUS")
    only, ignored = (str(text or "") for text in found[0][2:4]) if found else ("", "")
    if only or ignored:
        what = f"only {only}" if only else f"everything but {ignored}"
        return Check(
            "Log filters",
            "fail",
            f"The binary log holds {what}: changes elsewhere could not be recovered.",
            "Remove binlog_do_db and binlog_ignore_db from the server's configuration and restart it.",
        )
    message = "Every schema is logged. Only what a session writes with sql_log_bin = 0 is in no log: a backup holds it,"
    return Check("Log filters", "pass", f"{message} a moment after that backup does not.")


def _replica(connection: Connection, identity: Identity) -> Check:
    settings = identity.settings
    logs = settings.get("log_replica_updates", settings.get("log_slave_updates"))
    applies = value(
        connection,
        f"SELECT COUNT(*) FROM {processes(identity)} WHERE USER = 'system user' AND COMMAND <> 'Daemon'",
    )
    if applies and logs != "ON":
        return Check(
            "Replica",
            "fail",
            "This server is a replica and does not log what it applies (log_replica_updates is OFF).",
            "Set log_replica_updates (MariaDB: log_slave_updates) in its configuration and restart it.",
        )
    return Check("Replica", "pass", "A replica that logs what it applies." if applies else "Not a replica.")


def _expiry(identity: Identity) -> Check:
    seconds = float(identity.settings.get("binlog_expire_logs_seconds", "0"))
    if not seconds:
        seconds = float(identity.settings.get("expire_logs_days", "0")) * DAY
    if not seconds:
        return Check("Log expiry", "pass", "The server keeps its binary log until somebody purges it.")
    state = f"The server keeps its binary log for {seconds / 3600:.0f} hours"
    if seconds < DAY:
        message = f"{state}: a stop of Everest or of the storage that lasts longer makes a gap."
        return Check("Log expiry", "warn", message, f"SET GLOBAL binlog_expire_logs_seconds = {3 * DAY};")
    return Check("Log expiry", "pass", f"{state}.")


def _durability(identity: Identity) -> Check:
    names = ("sync_binlog", "innodb_flush_log_at_trx_commit")
    loose = [f"{name} = {identity.settings[name]}" for name in names if identity.settings.get(name, "1") != "1"]
    if loose:
        message = f"{', '.join(loose)}: a crash of the server may lose transactions that were already shipped."
        return Check("Durability", "warn", message, "Set both to 1, unless you accept a new timeline after a crash.")
    return Check("Durability", "pass", "Commits survive a crash of the server.")


def _branches(connection: Connection) -> Checks:
    try:
        found = branches(connection)
    except pymysql.MySQLError as error:
        if error_code(error) not in (*DENIED, 1401):
            raise
        return  # the missing privilege has a line of its own
    if found:
        message = f"Prepared XA transactions are open ({', '.join(found[:MANY])}): a backup waits for their end."
        yield Check("XA transactions", "warn", message, "XA COMMIT or XA ROLLBACK them, if nobody else will.")


# The target of a restore


def _target(
    config: ServerConfig, connection: Connection, identity: Identity, manifest: Manifest | None, source: Identity | None
) -> Checks:
    settings = manifest.settings if manifest else source.settings if source else {}
    flavour = manifest.flavour if manifest else source.flavour if source else identity.flavour
    oldest = series(manifest.version) if manifest else source.version[:2] if source else identity.version[:2]
    yield from _privileges(connection, identity, "target")
    yield _same_kind(identity, flavour, oldest)
    yield _letter_case(identity, settings.get("lower_case_table_names"))
    yield _packet(identity, int(settings.get("max_allowed_packet", 0)))
    yield _row_events(connection)
    yield _writable(identity)
    yield _topology(config)
    yield _zones(connection)
    yield _system_zone(identity, manifest.system_time_zone if manifest else source.system_time_zone if source else "")
    yield _definers(connection, manifest.definers if manifest else ())
    yield _during(identity)


def _same_kind(identity: Identity, flavour: str, oldest: tuple[int, ...]) -> Check:
    wanted = f"{NAMES.get(flavour, flavour)} {'.'.join(map(str, oldest))}"
    if identity.flavour != flavour or identity.version[:2] < oldest:
        fix = f"Choose a target with {wanted} or newer."
        return Check("Series", "fail", f"The backup is of {wanted}, this server is {identity.name}.", fix)
    return Check("Series", "pass", f"{identity.name} takes what {wanted} wrote.")


def _letter_case(identity: Identity, wanted: str | None) -> Check:
    here = identity.settings.get("lower_case_table_names")
    if wanted is not None and here != wanted:
        message = f"lower_case_table_names is {here} here and {wanted} at the source: names would differ or collide."
        return Check("Letter case", "fail", message, "It can only be set when a server is initialised: choose another.")
    return Check("Letter case", "pass", f"lower_case_table_names is {here}.")


def _packet(identity: Identity, source: int) -> Check:
    here = int(identity.settings.get("max_allowed_packet", 0))
    if here < max(source, 16 * MEBIBYTE):
        message = f"max_allowed_packet is {here / MEBIBYTE:.0f} MiB, the source's {source / MEBIBYTE:.0f} MiB."
        fix = "SET GLOBAL max_allowed_packet = 1073741824; a change larger than three quarters of it is refused."
        return Check("Packet size", "warn", message, fix)
    return Check("Packet size", "pass", f"max_allowed_packet is {here / MEBIBYTE:.0f} MiB.")


def _row_events(connection: Connection) -> Check:
    """Really ask: BINLOG with nothing in it is a syntax error where it is allowed, a refusal where it is not."""
    try:
        connection.query("BINLOG ''")
    except pymysql.MySQLError as error:
        if error_code(error) in DENIED:
            fix = "Grant REPLICATION_APPLIER (MariaDB: BINLOG REPLAY). A managed server may not offer it at all."
            message = "The server does not let this account replay row events, so nothing that happened after a backup"
            message += " could be restored into it. Backups of it work, and so does loading one by hand (FORMAT.md)."
            return Check("Row events", "fail", message, fix)
    return Check("Row events", "pass", "The account may replay row events (BINLOG).")


def _writable(identity: Identity) -> Check:
    if identity.settings.get("super_read_only") == "ON":
        message = "super_read_only is ON: it is lifted for the time of the restore."
        return Check("Writable", "warn", message, "See that this server is not a standby that must stay as it is.")
    return Check("Writable", "pass", "The server takes writes.")


def _topology(config: ServerConfig) -> Check:
    state = inspect(config)
    roles = {"has replicas": state.replicas, "is in a group": state.group, "is itself a replica": state.follows}
    held = [role for role, is_so in roles.items() if is_so]
    if held:
        message = f"This server {' and '.join(held)}: what a restore writes is not logged, so they would differ."
        return Check("Topology", "fail", message, "Detach it from the others first, or choose another target.")
    return Check("Topology", "pass", "No replicas, no group.")


def _zones(connection: Connection) -> Check:
    if value(connection, "SELECT CONVERT_TZ('2020-07-01 00:00:00', '+00:00', 'Europe/Berlin')") is None:
        message = "The time-zone tables are empty: events and statements with a named zone cannot be replayed."
        return Check("Time zones", "warn", message, "mysql_tzinfo_to_sql /usr/share/zoneinfo | mysql mysql")
    return Check("Time zones", "pass", "Named time zones are known.")


def _system_zone(identity: Identity, source: str) -> Check:
    """A statement that used the zone SYSTEM means the source's; row events need none."""
    if zone_for(source, identity.system_time_zone) is None:
        message = f"The source's system time zone is {source}, this server's {identity.system_time_zone}: "
        message += "a logged statement that used it cannot be replayed here. Changes of rows can."
        return Check("System time zone", "warn", message, "Start the target in the source's time zone.")
    return Check("System time zone", "pass", "What the source's system time zone means is known here.")


def _definers(connection: Connection, wanted: Sequence[str]) -> Check:
    """Kept as they are, whether the account exists or not; what runs as one that does not exist fails when used."""
    try:
        here = accounts.existing(connection) if wanted else set()
    except pymysql.MySQLError as error:
        if error_code(error) not in DENIED:
            raise
        message = "The account may not read mysql.user, so nobody can say whether the backup's definers exist here."
        return Check("Definers", "warn", message, "Grant it SELECT on mysql.*.")
    missing = [name for name in wanted if name.encode() not in here]
    if missing:
        more = f" and {len(missing) - MANY} more" if len(missing) > MANY else ""
        message = f"{', '.join(missing[:MANY])}{more}: views, routines, triggers or events of the backup run as these"
        message += " accounts, which this server lacks. They are restored as they are, and fail when they are used."
        return Check("Definers", "warn", message, "Restore accounts, too, or make these by hand.")
    return Check("Definers", "pass", "The accounts that the backup's views and programs run as are here.")


def _during(identity: Identity) -> Check:
    """What a restore changes for its own time and then puts back."""
    wanted = {
        "local_infile": "ON",
        "log_bin_trust_function_creators": "ON",
        "read_only": "ON",
        "event_scheduler": "OFF",
    }
    changed = [name for name, setting in wanted.items() if identity.settings.get(name, setting) != setting]
    if changed:
        return Check("Settings", "pass", f"Changed during a restore and put back after it: {', '.join(changed)}.")
    return Check("Settings", "pass", "No setting needs to change for a restore.")
