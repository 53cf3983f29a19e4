"""One server: how to reach it, what it is, and where its log stands."""

from __future__ import annotations

import os
import re
import ssl
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypeAlias
from weakref import WeakValueDictionary

import pymysql
from pymysql.constants import CR, ER

from backups.engine.errors import EngineError, Refused, Transient
from backups.engine.mysql import line
from backups.engine.mysql.unreachable import Unanswered, cannot_connect
from backups.engine.mysql.unreachable import error_code as error_code
from backups.engine.mysql.unreachable import error_text as error_text
from backups.engine.types import Position

Connection: TypeAlias = "pymysql.Connection[Any]"

OLDEST = {"mysql": (8, 0), "mariadb": (10, 6)}
NAMES = {"mysql": "MySQL", "mariadb": "MariaDB"}
ANSWER = 30.0  # seconds that a server has to say that it is there
SYSTEM_SCHEMAS = ("information_schema", "mysql", "performance_schema", "sys", "ndbinfo")

# Kept in the manifest and compared with a target; each exists on one flavour at least.
SETTINGS = (
    "auto_increment_increment", "auto_increment_offset", "binlog_checksum", "binlog_expire_logs_seconds",
    "binlog_format", "binlog_row_image", "binlog_row_value_options", "binlog_transaction_compression",
    "character_set_server", "collation_server", "default_storage_engine", "event_scheduler",
    "expire_logs_days", "explicit_defaults_for_timestamp", "gtid_mode", "gtid_strict_mode", "hostname",
    "innodb_flush_log_at_trx_commit", "innodb_native_foreign_keys", "innodb_page_size", "innodb_strict_mode",
    "local_infile", "log_bin", "log_bin_trust_function_creators", "log_replica_updates", "log_slave_updates",
    "lower_case_table_names", "max_allowed_packet", "port", "read_only", "server_id", "sql_mode",
    "sql_generate_invisible_primary_key", "sql_require_primary_key", "super_read_only", "sync_binlog",
    "system_time_zone", "time_zone", "version_comment",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """How to reach a server.  ca, client_certificate, client_key: PEM text, not file names.

    tls: "verify" checks the certificate and the host's name in it (against `ca`, or the machine's own list
    where that is empty), "required" encrypts without knowing whom it speaks to, "off" does not encrypt.
    """

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    tls: Literal["verify", "required", "off"] = "required"
    ca: str = ""
    client_certificate: str = ""
    client_key: str = field(default="", repr=False)
    unix_socket: str = ""

    @property
    def address(self) -> str:
        return self.unix_socket or f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Identity:
    """What a server is.  gtid: transactions are found by GTID (always so on MariaDB)."""

    flavour: Literal["mysql", "mariadb"]
    version: tuple[int, ...]
    version_text: str
    server_uuid: str
    gtid: bool
    system_time_zone: str
    settings: Mapping[str, str]

    @property
    def name(self) -> str:
        return f"{NAMES[self.flavour]} {'.'.join(map(str, self.version))}"


def quote(name: str) -> str:
    """An identifier as SQL; the only place that does this."""
    return "`" + name.replace("`", "``") + "`"


def connect(config: ServerConfig, *, timeout: float = 10, **options: Any) -> Connection:
    """A session with utf8mb4, autocommit and an empty sql_mode; `options` go to pymysql.connect.

    timeout: seconds for the connection and the sign-in; afterwards `read_timeout` counts.  Without one the session
    waits for as long as the server answers others, which it is asked after `line.SILENCE`.
    Raises Refused where a setting must change, Transient where trying again may help.
    """
    read_timeout = options.pop("read_timeout", None)
    settings = {"charset": "utf8mb4", "autocommit": True, "sql_mode": "", **_tls(config), **options}
    try:
        connection = pymysql.connect(
            host=config.host,
            port=config.port,
            user=config.user,
            password=config.password.encode(),
            unix_socket=config.unix_socket or None,
            connect_timeout=timeout,
            read_timeout=timeout,
            **settings,
        )
    except (pymysql.MySQLError, OSError, UnicodeError) as error:
        raise cannot_connect(config, error) from error
    line.keep_alive(connection._sock)
    if read_timeout is None:
        line.watch(connection, partial(_answers, config))
    else:
        connection._read_timeout = connection._write_timeout = read_timeout
    return connection


def _answers(config: ServerConfig) -> bool:
    """Whether the server lets in a new session, or at least says that it does not."""
    try:
        connect(config, timeout=ANSWER, read_timeout=ANSWER).close()
    except EngineError as error:
        return not isinstance(error, Unanswered)
    return True


# A machine's list of authorities takes 25 ms and 0.6 MB each time: connections that want the same share it.
_contexts: WeakValueDictionary[tuple[str, ...], ssl.SSLContext] = WeakValueDictionary()


def _tls(config: ServerConfig) -> dict[str, Any]:
    if config.tls == "off" or config.unix_socket:
        return {"ssl_disabled": True}
    key = (config.tls, config.ca, config.client_certificate, config.client_key)
    try:
        context = _contexts.get(key)
        if context is None:
            context = _contexts[key] = _context(config)
    except (ssl.SSLError, ValueError) as error:
        raise Refused(
            "The CA certificate, the client certificate or its key could not be read.",
            next_step="Paste each as PEM text, from its BEGIN line to its END line; a key without a passphrase.",
        ) from error
    return {"ssl": context}


def _context(config: ServerConfig) -> ssl.SSLContext:
    if config.tls == "verify":
        context = ssl.create_default_context(cadata=config.ca or None)
    else:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if config.client_certificate:
        _load_client_certificate(context, config)
    return context


def _load_client_certificate(context: ssl.SSLContext, config: ServerConfig) -> None:
    """Python's ssl reads these from files only: a private folder that is gone again at once."""
    with tempfile.TemporaryDirectory(prefix="everest-") as folder:
        path = os.path.join(folder, "client.pem")
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"{config.client_certificate}\n{config.client_key}\n")
        context.load_cert_chain(path, password="")


BROKEN = (CR.CR_SERVER_GONE_ERROR, CR.CR_SERVER_LOST, ER.SERVER_SHUTDOWN, 1077, 1080, 1317, 1927, 0)
BUSY = (ER.LOCK_WAIT_TIMEOUT, ER.LOCK_DEADLOCK, ER.CON_COUNT_ERROR, 1041, 1203, 3024, 1969)
DENIED = (1044, 1045, 1142, 1143, 1227, 1370, 1401, 1419, 1698, 3619)


def explain(error: Exception, doing: str) -> EngineError:
    """The server's error as a sentence: "<doing> failed: ...".  Transient where trying again may help."""
    code, text = error_code(error), error_text(error)
    if isinstance(error, EngineError):
        return error
    if isinstance(error, line.Silent):
        return Transient(
            f"{doing} failed: the server hangs, {text}.",
            meaning="What it was doing then is given up.",
            next_step="See whether its process stands still, its disk is full or stuck, or a firewall lies between.",
        )
    if code in BROKEN or isinstance(error, OSError):
        return Transient(f"{doing} failed: the connection to the server broke ({text or 'closed'}).")
    if code in BUSY:
        return Transient(f"{doing} failed: {text} (error {code}).")
    if code in DENIED:
        return Refused(
            f"{doing} was not allowed: {text} (error {code}).",
            next_step="Run the GRANT statements that the database's check lists for this account.",
        )
    return Refused(f"{doing} failed: {text} (error {code}).")


@contextmanager
def _told(doing: str) -> Iterator[None]:
    """What the server or the network says, as one of the engine's errors."""
    try:
        yield
    except (pymysql.MySQLError, OSError) as error:
        raise explain(error, doing) from error


def flavour_of(connection: Connection) -> Literal["mysql", "mariadb"]:
    return "mariadb" if "mariadb" in connection.get_server_info().lower() else "mysql"


def version_of(connection: Connection) -> tuple[int, ...]:
    """(9, 7, 4); MariaDB's greeting hides its own behind "5.5.5-"."""
    text = connection.get_server_info().removeprefix("5.5.5-")
    found = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(part) for part in found.groups("0")) if found else (0, 0, 0)


def identify(connection: Connection) -> Identity:
    """What the server is; raises Refused where it is older than what Everest knows, Transient where it is gone."""
    with _told("Asking the server what it is"):
        return _identified(connection)


def _identified(connection: Connection) -> Identity:
    flavour, version = flavour_of(connection), version_of(connection)
    if version < OLDEST[flavour]:
        oldest = ".".join(map(str, OLDEST[flavour]))
        raise Refused(
            f"This server is {NAMES[flavour]} {'.'.join(map(str, version))}.",
            meaning=f"Everest needs {NAMES[flavour]} {oldest} or newer.",
            next_step="Upgrade the server.",
        )
    settings = variables(connection, SETTINGS)
    return Identity(
        flavour,
        version,
        connection.get_server_info().removeprefix("5.5.5-"),
        _server_uuid(connection, flavour),
        flavour == "mariadb" or settings.get("gtid_mode") == "ON",
        settings.get("system_time_zone", ""),
        settings,
    )


def _server_uuid(connection: Connection, flavour: str) -> str:
    if flavour == "mysql":
        return str(value(connection, "SELECT @@server_uuid"))
    uid = variables(connection, ("server_uid",)).get("server_uid")
    return uid or str(value(connection, "SELECT CONCAT_WS(':', @@hostname, @@port, @@datadir)"))


def processes(identity: Identity) -> str:
    """The table of sessions.  MySQL's older one fails (3854) as soon as one runs a text with an emoji in it."""
    newer = identity.flavour == "mysql" and identity.version >= (8, 0, 22)
    return "performance_schema.processlist" if newer else "information_schema.PROCESSLIST"


def rows(connection: Connection, sql: str, parameters: Any = None) -> tuple[tuple[Any, ...], ...]:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return tuple(cursor.fetchall())


def value(connection: Connection, sql: str, parameters: Any = None) -> Any:
    """The first column of the first row, None where there is no row."""
    found = rows(connection, sql, parameters)
    return found[0][0] if found else None


def branches(connection: Connection) -> list[str]:
    """Prepared XA branches as XA COMMIT takes them; asked for in digits, as their names need be no text."""
    if flavour_of(connection) == "mariadb":
        return [str(row[3]) for row in rows(connection, "XA RECOVER FORMAT='SQL'")]
    return [_branch(*row) for row in rows(connection, "XA RECOVER CONVERT XID")]


def _branch(form: int, first: int, second: int, digits: str) -> str:
    raw = bytes.fromhex(digits[2:])
    parts = [raw[:first], raw[first : first + second]] if second or form != 1 else [raw[:first]]
    names = [f"'{part.decode()}'" if re.fullmatch(rb"[ -&(-~]*", part) else f"X'{part.hex()}'" for part in parts]
    return ",".join(names if form == 1 else [*names, str(form)])


def variables(connection: Connection, names: tuple[str, ...]) -> dict[str, str]:
    """Global settings by name; one that this server does not have is left out."""
    return dict(rows(connection, "SHOW GLOBAL VARIABLES WHERE Variable_name IN %s", (names,)))


def current_position(connection: Connection) -> Position:
    """Where the server's binlog ends now, a moment's truth; under a lock `position_now` is exact.

    Raises Refused where the binlog is off.
    """
    identity = identify(connection)
    with _told("Asking the server where its log ends"):
        position = position_now(connection, identity)
        for _ in range(5):
            # File and GTIDs are not read as one: two equal answers in a row belong together.
            again = position_now(connection, identity)
            if again == position:
                break
            position = again
        return position


def position_now(connection: Connection, identity: Identity) -> Position:
    """One look, with as few questions as can be: this runs under a lock that holds up every writer."""
    new_name = identity.flavour == "mysql" and identity.version >= (8, 2)
    found = rows(connection, "SHOW BINARY LOG STATUS" if new_name else "SHOW MASTER STATUS")
    if not found:
        raise Refused(
            "The server writes no binary log.",
            meaning="Without it there is no exact position for a backup, and no recovery to a moment.",
            next_step="Set log_bin and server_id in the server's configuration and restart it.",
        )
    gtids = None
    if identity.flavour == "mariadb":
        gtids = str(value(connection, "SELECT @@global.gtid_binlog_pos"))
    elif identity.gtid:
        gtids = str(found[0][4]).replace("\n", "")
    return {
        "server": identity.server_uuid,
        "file": str(found[0][0]),
        "pos": int(found[0][1]),
        "file_id": "",
        "gtids": gtids,
    }
