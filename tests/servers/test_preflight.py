"""The lines a person reads before a backup or restore: what is wrong, and what to run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backups.engine.mysql.preflight import preflight_source, preflight_target
from backups.engine.mysql.preflight_schemas import schema_checks
from backups.engine.mysql.server import connect, identify
from backups.engine.types import Check
from everest.demo.servers import Server
from tests.helpers import source_config, target_config
from tests.servers.backups import archive_in, back_up, script

FLAVOURS = pytest.mark.parametrize("flavour", ["mysql", "mariadb"])


def source(request: Any, flavour: str) -> Server:
    server: Server = request.getfixturevalue(f"{flavour}_source")
    return server


def target(request: Any, flavour: str) -> Server:
    server: Server = request.getfixturevalue(f"{flavour}_target")
    return server


def states(checks: list[Check]) -> dict[str, str]:
    return {check.name: check.state for check in checks}


def line(checks: list[Check], name: str) -> Check:
    return next(check for check in checks if check.name == name)


@FLAVOURS
def test_the_documented_privileges_pass(flavour: str, request: Any) -> None:
    checks = preflight_source(source_config(source(request, flavour)))
    assert [check for check in checks if check.state == "fail"] == []
    assert states(checks)["Privileges"] == "pass"
    checks = preflight_target(target_config(target(request, flavour)), None, None)
    assert [check for check in checks if check.state == "fail"] == []
    assert states(checks)["Privileges"] == "pass"


@FLAVOURS
def test_every_missing_privilege_comes_with_the_grant_that_mends_it(flavour: str, request: Any) -> None:
    server = source(request, flavour)
    config = source_config(server)
    names = ["TRIGGER", "REPLICATION SLAVE", *(["BACKUP_ADMIN"] if flavour == "mysql" else [])]
    script(server, [f"REVOKE {', '.join(names)} ON *.* FROM '{config.user}'@'%'"])
    checks = preflight_source(config)
    assert states(checks)["Privilege TRIGGER"] == states(checks)["Privilege REPLICATION SLAVE"] == "fail"
    assert states(checks).get("Privilege BACKUP_ADMIN", "warn") == "warn"
    script(server, [line(checks, f"Privilege {name}").fix for name in names])
    assert states(preflight_source(config))["Privileges"] == "pass"


def test_privileges_of_a_role_count(mysql_source: Server) -> None:
    config = source_config(mysql_source)
    script(
        mysql_source,
        [
            f"REVOKE EVENT ON *.* FROM '{config.user}'@'%'",
            "CREATE USER 'keeper'@'%' ACCOUNT LOCK",
            "GRANT EVENT ON *.* TO 'keeper'@'%'",
            f"GRANT 'keeper'@'%' TO '{config.user}'@'%'",
            f"SET DEFAULT ROLE ALL TO '{config.user}'@'%'",
        ],
    )
    assert states(preflight_source(config))["Privileges"] == "pass"


@FLAVOURS
def test_an_administrator_has_everything(flavour: str, request: Any) -> None:
    server = source(request, flavour)
    config = replace(source_config(server), user="root", password="", unix_socket=str(server.socket))
    assert states(preflight_source(config))["Privileges"] == "pass"
    assert states(preflight_target(config, None, None))["Privileges"] == "pass"


@FLAVOURS
def test_settings_that_recovery_rests_on(flavour: str, request: Any) -> None:
    server = source(request, flavour)
    config = source_config(server)
    settings = {
        "binlog_row_image": ("'MINIMAL'", "Row image", "warn"),
        "binlog_format": ("'MIXED'", "Binary log format", "warn"),
        "binlog_expire_logs_seconds": ("7200", "Log expiry", "warn"),
        "sync_binlog": ("0", "Durability", "warn"),
    }
    try:
        script(server, [f"SET GLOBAL {name} = {setting}" for name, (setting, _, _) in settings.items()])
        checks = preflight_source(config)
        found = states(checks)
        script(server, ["SET GLOBAL binlog_format = 'STATEMENT'"])
        refused = states(preflight_source(config))
    finally:
        script(server, ["SET GLOBAL binlog_format = 'ROW'", "SET GLOBAL binlog_expire_logs_seconds = 2592000"])
        script(server, ["SET GLOBAL binlog_row_image = 'FULL'", "SET GLOBAL sync_binlog = 1"])
    assert ("REPLACE" in line(checks, "Row image").message) == (flavour == "mariadb")
    assert {name: found[name] for _, name, _ in settings.values()} == {name: s for _, name, s in settings.values()}
    assert refused["Binary log format"] == "fail"


def test_gtids_that_are_off_are_a_warning(mysql_files: Server) -> None:
    assert states(preflight_source(source_config(mysql_files)))["GTIDs"] == "warn"


def test_several_writers_of_one_domain_are_a_warning(mariadb_source: Server) -> None:
    config = source_config(mariadb_source)
    assert states(preflight_source(config))["GTID order"] == "pass"
    script(mariadb_source, ["SET server_id = 4242", "CREATE DATABASE shop"])
    told = line(preflight_source(config), "GTID order")
    script(mariadb_source, ["SET GLOBAL gtid_strict_mode = ON"])
    strict = states(preflight_source(config))["GTID order"]
    script(mariadb_source, ["SET GLOBAL gtid_strict_mode = OFF", "SET sql_log_bin = 0", "DROP DATABASE shop"])
    assert (told.state, strict) == ("warn", "pass") and "domain 0" in told.message and "STRICT" in told.fix.upper()


def test_partial_json_updates_are_a_warning(mysql_source: Server) -> None:
    script(mysql_source, ["SET GLOBAL binlog_row_value_options = 'PARTIAL_JSON'"])
    checks = preflight_source(source_config(mysql_source))
    script(mysql_source, ["SET GLOBAL binlog_row_value_options = ''"])
    assert states(checks)["Row image"] == "warn"


def test_a_server_that_logs_nothing_or_a_part_is_refused(new_server: Any) -> None:
    server = new_server("mysql", gtid=False, options=("--binlog-do-db=shop",))
    config = source_config(server)
    checks = preflight_source(config)
    assert "only shop" in line(checks, "Log filters").message and states(checks)["Log filters"] == "fail"
    server.restart("--skip-log-bin")
    checks = preflight_source(config)
    assert states(checks)["Binary log"] == "fail" and "log_bin" in line(checks, "Binary log").fix


@FLAVOURS
def test_tables_that_are_slow_or_hold_up_writers_are_named(flavour: str, request: Any) -> None:
    server = source(request, flavour)
    script(
        server,
        [
            "CREATE DATABASE shop",
            "CREATE TABLE shop.keyless (id INT)",
            "CREATE TABLE shop.isam (id INT PRIMARY KEY) ENGINE = MyISAM",
            "CREATE TABLE shop.gone (id INT PRIMARY KEY)",
            "CREATE TABLE shop.void (id INT PRIMARY KEY) ENGINE = BLACKHOLE" if flavour == "mysql" else "DO 0",
            "CREATE VIEW shop.lost AS SELECT * FROM shop.gone",
            "DROP TABLE shop.gone",
        ],
    )
    checks = preflight_source(source_config(server))
    assert line(checks, "Primary keys").message.startswith("shop.keyless: ")
    assert line(checks, "Storage engines").message.startswith("shop.isam: ")
    assert line(checks, "Views").message.startswith("shop.lost: ")
    assert flavour == "mariadb" or line(checks, "Rows elsewhere").message.startswith("shop.void: ")


@FLAVOURS
@pytest.mark.parametrize(("name", "told"), [("'b-9'", "('b-9')"), ("X'81ff',X'62ff'", "X'81ff',X'62ff'")])
def test_an_open_xa_branch_is_named_as_xa_commit_takes_it(name: str, told: str, flavour: str, request: Any) -> None:
    server = source(request, flavour)
    script(server, ["CREATE DATABASE shop", "CREATE TABLE shop.t (id INT PRIMARY KEY)"])
    script(server, [f"XA START {name}", "INSERT INTO shop.t VALUES (1)", f"XA END {name}", f"XA PREPARE {name}"])
    message = line(preflight_source(source_config(server)), "XA transactions").message
    assert told.lower() in message.lower()


def test_what_cannot_be_reached_is_one_line(mysql_source: Server) -> None:
    config = replace(source_config(mysql_source), password="wrong")
    for checks in (preflight_source(config), preflight_target(config, None, None)):
        assert states(checks) == {"Reachable": "fail"}
        assert "does not accept user" in checks[0].message and checks[0].fix


def test_an_unencrypted_connection_is_a_warning(mysql_source: Server) -> None:
    assert states(preflight_source(source_config(mysql_source, tls="off")))["TLS"] == "warn"


@FLAVOURS
def test_what_a_target_must_have_in_common_with_the_source(flavour: str, request: Any, tmp_path: Path) -> None:
    manifest = back_up(source_config(source(request, flavour)), archive_in(tmp_path))
    config = target_config(target(request, flavour))
    assert states(preflight_target(config, manifest, None))["Series"] == "pass"
    newer = replace(manifest, version="99.1.0")
    assert states(preflight_target(config, newer, None))["Series"] == "fail"
    other = replace(manifest, flavour="mariadb" if flavour == "mysql" else "mysql", version="8.0.1")
    assert states(preflight_target(config, other, None))["Series"] == "fail"
    cased = replace(manifest, settings={**manifest.settings, "lower_case_table_names": "1"})
    assert states(preflight_target(config, cased, None))["Letter case"] == "fail"
    large = replace(manifest, settings={**manifest.settings, "max_allowed_packet": str(1 << 30)})
    assert states(preflight_target(config, large, None))["Packet size"] == "warn"
    assert states(preflight_target(config, manifest, None))["System time zone"] == "pass"
    elsewhere = replace(manifest, system_time_zone="CEST")
    assert states(preflight_target(config, elsewhere, None))["System time zone"] == "warn"


@FLAVOURS
def test_a_server_can_stand_for_the_backup_that_is_not_there_yet(flavour: str, request: Any) -> None:
    with connect(source_config(source(request, flavour))) as connection:
        identity = identify(connection)
    found = states(preflight_target(target_config(target(request, flavour)), None, identity))
    assert found["Series"] == found["Letter case"] == "pass"


@FLAVOURS
def test_whether_row_events_may_be_replayed_is_really_asked(flavour: str, request: Any) -> None:
    server = target(request, flavour)
    config = target_config(server)
    names = "REPLICATION_APPLIER" if flavour == "mysql" else "BINLOG REPLAY, SUPER"
    script(server, [f"REVOKE {names} ON *.* FROM '{config.user}'@'%'"])
    check = line(preflight_target(config, None, None), "Row events")
    assert check.state == "fail" and "Backups of it work" in check.message


@FLAVOURS
def test_what_is_different_without_a_global_lock_is_said(flavour: str, request: Any) -> None:
    """As on managed servers."""
    server = source(request, flavour)
    config = source_config(server)
    names = ["FLUSH_TABLES", "BACKUP_ADMIN"] if flavour == "mysql" else ["RELOAD"]
    script(server, [f"REVOKE {', '.join(names)} ON *.* FROM '{config.user}'@'%'"])
    checks = preflight_source(config)
    assert [check for check in checks if check.state == "fail"] == []
    assert "lock with LOCK TABLES" in line(checks, f"Privilege {names[0]}").message


@FLAVOURS
def test_definers_that_the_target_lacks_are_named(flavour: str, request: Any, tmp_path: Path) -> None:
    server, other = source(request, flavour), target(request, flavour)
    script(
        server,
        [
            "CREATE DATABASE shop",
            "CREATE DEFINER = `nobody``s`@`here` VIEW shop.v AS SELECT 1 AS one",
            "CREATE DEFINER = gone@`%` PROCEDURE shop.p() SELECT 1",
            "CREATE DEFINER = root@localhost FUNCTION shop.f() RETURNS INT DETERMINISTIC RETURN 1",
        ],
    )
    manifest = back_up(source_config(server), archive_in(tmp_path))
    assert manifest.definers == ("`gone`@`%`", "`nobody``s`@`here`", "`root`@`localhost`")
    config = target_config(other)
    check = line(preflight_target(config, manifest, None), "Definers")
    assert check.state == "warn" and check.message.startswith("`gone`@`%`, `nobody``s`@`here`: ")
    script(other, ["CREATE USER gone", "CREATE USER `nobody``s`@here"])
    assert states(preflight_target(config, manifest, None))["Definers"] == "pass"


@FLAVOURS
def test_what_no_preflight_can_see_is_said(flavour: str, request: Any) -> None:
    assert "sql_log_bin" in line(preflight_source(source_config(source(request, flavour))), "Log filters").message


def test_history_that_an_older_series_cannot_load_is_named(mariadb_source: Server) -> None:
    script(mariadb_source, ["CREATE DATABASE shop", "CREATE TABLE shop.h (id INT) WITH SYSTEM VERSIONING"])
    with connect(source_config(mariadb_source)) as connection:
        older = replace(identify(connection), version=(10, 6, 16))
        checks = list(schema_checks(connection, older))
    assert line(checks, "History").message.startswith("shop.h: ")


def test_a_target_that_feeds_or_follows_others_is_refused(new_server: Any) -> None:
    first, second = new_server("mysql"), new_server("mysql")
    follow = (
        f"CHANGE REPLICATION SOURCE TO SOURCE_HOST = '127.0.0.1', SOURCE_PORT = {first.port}, SOURCE_USER = 'root',"
        " SOURCE_AUTO_POSITION = 1"
    )
    config = target_config(second)
    script(second, ["RESET BINARY LOGS AND GTIDS", follow, "START REPLICA"])
    assert "is itself a replica" in line(preflight_target(config, None, None), "Topology").message


def test_a_replica_that_does_not_log_what_it_applies_is_refused(new_server: Any) -> None:
    first, second = new_server("mysql"), new_server("mysql", options=("--log-replica-updates=OFF",))
    follow = f"SOURCE_HOST = '127.0.0.1', SOURCE_PORT = {first.port}, SOURCE_USER = 'root', SOURCE_AUTO_POSITION = 1"
    config = source_config(second)
    script(second, ["RESET BINARY LOGS AND GTIDS", f"CHANGE REPLICATION SOURCE TO {follow}", "START REPLICA"])
    check = line(preflight_source(config), "Replica")
    assert check.state == "fail" and "log_replica_updates" in check.fix
