"""What sessions set before they do anything: formats, modes, zones, charsets, times."""

from __future__ import annotations

from tests.torture.history import CONTEXTS, Context

# Whose sql_mode means the same for every literal that is made here.
MODES = (
    "ANSI_QUOTES,PIPES_AS_CONCAT,IGNORE_SPACE",
    "NO_BACKSLASH_ESCAPES",
    "NO_ZERO_IN_DATE,ALLOW_INVALID_DATES,HIGH_NOT_PRECEDENCE",
    "NO_AUTO_VALUE_ON_ZERO,NO_UNSIGNED_SUBTRACTION,REAL_AS_FLOAT",
)


def _session(name: str, value: str, only: str = "", kind: str = "") -> Context:
    return Context(f"SET SESSION {name} = {value}", f"SET SESSION {name} = DEFAULT", only, kind)


CONTEXTS |= {
    "statement format": _session("binlog_format", "STATEMENT", kind="statement"),
    "mixed format": _session("binlog_format", "MIXED", kind="statement"),
    "minimal row images": _session("binlog_row_image", "MINIMAL", kind="partial"),
    "noblob row images": _session("binlog_row_image", "NOBLOB", kind="partial"),
    "compressed transactions": _session("binlog_transaction_compression", "ON", "mysql"),
    "rows with their query": _session("binlog_rows_query_log_events", "ON", "mysql"),
    "tagged GTIDs": Context("SET gtid_next = 'AUTOMATIC:torture'", "SET gtid_next = 'AUTOMATIC'", "mysql", gtids=True),
    "compressed events": Context(
        "SET GLOBAL log_bin_compress = ON, log_bin_compress_min_len = 10",
        "SET GLOBAL log_bin_compress = OFF, log_bin_compress_min_len = 256",
        "mariadb",
    ),
    "two-phase ALTER": _session("binlog_alter_two_phase", "ON", "mariadb"),
    "another GTID domain": Context("SET SESSION gtid_domain_id = 7", "SET SESSION gtid_domain_id = 0", "mariadb"),
    "another server id": Context("SET SESSION server_id = 77", "SET SESSION server_id = DEFAULT", "mariadb"),
    "skip_parallel_replication": _session("skip_parallel_replication", "ON", "mariadb"),
    "annotated rows": _session("binlog_annotate_row_events", "OFF", "mariadb"),
    "check constraints off": _session("check_constraint_checks", "OFF", "mariadb"),
    "time zone": _session("time_zone", "'+05:45'"),
    "time in the past": _session("timestamp", "1234567890.123456", kind="clock"),
    "time in the future": _session("timestamp", "2140000000", kind="clock"),
    "foreign keys off": _session("foreign_key_checks", "0"),
    "unique checks off": _session("unique_checks", "0"),
    "AUTO_INCREMENT in steps": Context(
        "SET SESSION auto_increment_increment = 10, auto_increment_offset = 3",
        "SET SESSION auto_increment_increment = 1, auto_increment_offset = 1",
    ),
    "language of times": _session("lc_time_names", "'de_DE'"),
    "sql_auto_is_null": _session("sql_auto_is_null", "1"),
    "explicit defaults for timestamp": _session("explicit_defaults_for_timestamp", "0", "mysql"),
    "default collation of utf8mb4": _session("default_collation_for_utf8mb4", "utf8mb4_general_ci", "mysql"),
    "collation of the server": _session("collation_server", "latin1_german1_ci"),
    "collation of the connection": _session("collation_connection", "utf8mb4_bin"),
    "isolation": _session("transaction_isolation", "'READ-COMMITTED'", "mysql"),
    "names latin1": Context("SET NAMES latin1", "SET NAMES utf8mb4", kind="names"),
    "names sjis": Context("SET NAMES sjis", "SET NAMES utf8mb4", kind="names"),
    "names cp1251": Context("SET NAMES cp1251", "SET NAMES utf8mb4", kind="names"),
    **{f"sql_mode {mode}": Context(f"SET SESSION sql_mode = '{mode}'", "SET SESSION sql_mode = ''") for mode in MODES},
}
