"""A backup goes into a server whole, or the load says why not."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import zstandard

from backups.engine.archive import Archive
from backups.engine.errors import Corrupt, Refused, Stopped
from backups.engine.manifest import Manifest
from backups.engine.mysql import sqlfile, tsv
from backups.engine.mysql.server import quote
from everest.demo.servers import Server
from tests.helpers import compare, dump_all, source_config, target_config
from tests.servers import everything
from tests.servers.backups import Told, archive_in, back_up, put_back, script

FLAVOURS = pytest.mark.parametrize("flavour", ["mysql", "mariadb"])
SHOP = ("CREATE DATABASE shop", "CREATE TABLE shop.t (id INT PRIMARY KEY, v VARCHAR(10))")
ROWS = "INSERT INTO shop.t VALUES (1, 'a'), (2, 'A'), (3, 'c')"


def pair(request: Any, flavour: str) -> tuple[Server, Server]:
    return request.getfixturevalue(f"{flavour}_source"), request.getfixturevalue(f"{flavour}_target")


def backed_up(source: Server, tmp_path: Path, statements: tuple[str, ...]) -> tuple[Archive, Manifest]:
    script(source, statements)
    archive = archive_in(tmp_path)
    return archive, back_up(source_config(source, tls="off"), archive)


def with_table(manifest: Manifest, **changes: Any) -> Manifest:
    """The manifest with its only table's entry changed."""
    (schema,) = manifest.schemas
    return replace(manifest, schemas=(replace(schema, tables=(replace(schema.tables[0], **changes),)),))


@FLAVOURS
def test_a_missing_row_is_not_a_success(flavour: str, request: Any, tmp_path: Path) -> None:
    source, target = pair(request, flavour)
    archive, manifest = backed_up(source, tmp_path, (*SHOP, ROWS))
    with pytest.raises(Refused, match=r"shop\.t took 3 of its 4 rows"):
        put_back(target_config(target, tls="off"), target, archive, with_table(manifest, rows=4))


def test_a_default_may_come_from_a_sequence_of_a_schema_that_is_made_later(
    mariadb_source: Server, mariadb_target: Server, tmp_path: Path
) -> None:
    statements = (
        "CREATE DATABASE a", "CREATE DATABASE b", "CREATE SEQUENCE b.s", "CREATE SEQUENCE a.s",
        "CREATE TABLE a.t (id INT DEFAULT NEXT VALUE FOR b.s)", "INSERT INTO a.t VALUES (DEFAULT), (DEFAULT)",
        "CREATE TABLE b.t (id INT DEFAULT NEXT VALUE FOR a.s)",
    )  # fmt: skip
    archive, manifest = backed_up(mariadb_source, tmp_path, statements)
    put_back(target_config(mariadb_target, tls="off"), mariadb_target, archive, manifest)
    assert compare(dump_all(mariadb_source.connect()), dump_all(mariadb_target.connect())) == []


@FLAVOURS
def test_rows_the_target_would_alter_or_leave_out_are_refused(flavour: str, request: Any, tmp_path: Path) -> None:
    source, target = pair(request, flavour)
    archive, manifest = backed_up(source, tmp_path, (*SHOP, ROWS))
    config = target_config(target, tls="off")
    objects = manifest.schemas[0].tables[0].objects
    for broken, complaint in (
        ({"objects": objects * 2}, "Duplicate entry"),
        ({"load": f"CHARACTER SET binary {tsv.LINES} (`v`, `id`)"}, "Incorrect integer|Duplicate"),
    ):
        with pytest.raises(Refused, match=complaint):
            put_back(config, target, archive, with_table(manifest, **broken), replace=True)


@FLAVOURS
def test_schemas_of_the_target_go_only_when_told(flavour: str, request: Any, tmp_path: Path) -> None:
    source, target = pair(request, flavour)
    archive, manifest = backed_up(source, tmp_path, (*SHOP, ROWS))
    script(target, ["CREATE DATABASE shop", "CREATE TABLE shop.precious (id INT)", "CREATE DATABASE other"])
    config = target_config(target, tls="off")
    with pytest.raises(Refused, match="shop"):
        put_back(config, target, archive, manifest)
    assert set(dump_all(target.connect())["shop"]["tables"]) == {"precious"}
    put_back(config, target, archive, manifest, replace=True)
    assert compare(dump_all(source.connect()), dump_all(target.connect())) == []


@FLAVOURS
def test_the_targets_log_gets_nothing_of_a_load(flavour: str, request: Any, tmp_path: Path) -> None:
    source, target = pair(request, flavour)
    archive, manifest = backed_up(source, tmp_path, (*SHOP, ROWS, "CREATE VIEW shop.v AS SELECT * FROM shop.t"))
    config = target_config(target, tls="off")
    before = position(target)
    put_back(config, target, archive, manifest)
    assert position(target) == before


def position(server: Server) -> Any:
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SHOW MASTER STATUS" if server.flavour == "mariadb" else "SHOW BINARY LOG STATUS")
        return cursor.fetchall()


@FLAVOURS
def test_triggers_do_not_fire_and_keys_are_not_checked_while_rows_load(
    flavour: str, request: Any, tmp_path: Path
) -> None:
    source, target = pair(request, flavour)
    statements = (
        *SHOP,
        ROWS,
        "CREATE TABLE shop.seen (id INT)",
        "CREATE TRIGGER shop.noted AFTER INSERT ON shop.t FOR EACH ROW INSERT INTO shop.seen VALUES (NEW.id)",
        "CREATE TABLE shop.orphans (t INT, FOREIGN KEY (t) REFERENCES shop.t (id))",
        "SET foreign_key_checks = 0",
        "INSERT INTO shop.orphans VALUES (99)",
    )
    archive, manifest = backed_up(source, tmp_path, statements)
    put_back(target_config(target, tls="off"), target, archive, manifest)
    assert compare(dump_all(source.connect()), dump_all(target.connect())) == []


@FLAVOURS
def test_settings_of_the_target_do_not_change_what_is_stored(flavour: str, request: Any, tmp_path: Path) -> None:
    source, target = pair(request, flavour)
    statements = (
        *SHOP,
        "CREATE TABLE shop.no_key (a INT, ts TIMESTAMP NOT NULL DEFAULT '2020-01-01 00:00:00')",
        "SET sql_mode = 'NO_AUTO_VALUE_ON_ZERO'",
        "INSERT INTO shop.no_key VALUES (1, '2023-10-29 02:30:00')",
        "CREATE TABLE shop.zero (id INT AUTO_INCREMENT PRIMARY KEY, d DATE NOT NULL DEFAULT '0000-00-00')",
        "INSERT INTO shop.zero VALUES (0, '0000-00-00')",
    )
    archive, manifest = backed_up(source, tmp_path, statements)
    settings = {
        "sql_mode": "'ANSI_QUOTES,NO_BACKSLASH_ESCAPES,STRICT_ALL_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE'",
        "time_zone": "'-05:00'",
        "auto_increment_increment": "7",
    }
    if flavour == "mysql":
        settings |= {"sql_require_primary_key": "ON", "sql_generate_invisible_primary_key": "ON"}
    config = target_config(target, tls="off")
    try:
        script(target, [f"SET GLOBAL {name} = {value}" for name, value in settings.items()])
        put_back(config, target, archive, manifest)
    finally:
        script(target, [f"SET GLOBAL {name} = DEFAULT" for name in settings])
    assert compare(dump_all(source.connect()), dump_all(target.connect())) == []


@FLAVOURS
def test_a_view_that_was_broken_at_the_source_is_left_out_and_named(flavour: str, request: Any, tmp_path: Path) -> None:
    source, target = pair(request, flavour)
    statements = (*SHOP, "CREATE TABLE shop.gone (id INT)", "CREATE VIEW shop.lost AS SELECT * FROM shop.gone")
    archive, manifest = backed_up(source, tmp_path, (*statements, "DROP TABLE shop.gone"))
    run = Told()
    counts = put_back(target_config(target, tls="off"), target, archive, manifest, run=run)
    assert len(counts.broken) == 1 and "lost" in counts.broken[0]
    assert list(counts.broken) == [line for line in run.lines if "broken at the source" in line]
    with target.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SHOW TABLES IN shop")
        assert cursor.fetchall() == (("t",),)


@FLAVOURS
def test_a_damaged_object_is_found_out(flavour: str, request: Any, tmp_path: Path) -> None:
    source, target = pair(request, flavour)
    archive, manifest = backed_up(source, tmp_path, (*SHOP, ROWS))
    path = tmp_path / manifest.schemas[0].tables[0].objects[0].key
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(Corrupt):
        put_back(target_config(target, tls="off"), target, archive, manifest)


@FLAVOURS
def test_a_stop_ends_a_load(flavour: str, request: Any, tmp_path: Path) -> None:
    source, target = pair(request, flavour)
    archive, manifest = backed_up(source, tmp_path, (*SHOP, ROWS, "CREATE VIEW shop.v AS SELECT 1"))
    with pytest.raises(Stopped, match="do not use it"):
        put_back(target_config(target, tls="off"), target, archive, manifest, run=Told(stop_at="load"))


@FLAVOURS
def test_the_mysql_client_alone_can_put_a_backup_back(flavour: str, request: Any, tmp_path: Path) -> None:
    source, target = pair(request, flavour)
    everything.fill(source)
    archive = archive_in(tmp_path / "bucket")
    manifest = back_up(source_config(source, tls="off"), archive)
    script(target, ["SET GLOBAL local_infile = ON", "SET GLOBAL log_bin_trust_function_creators = ON"])
    for schema in manifest.schemas:
        run_client(target, sql_of(archive, schema.create))
    run_client(target, "\n".join(load_statements(archive, manifest, tmp_path)).encode())
    for _ in range(2):  # an object may need one of a later schema
        for schema in manifest.schemas:
            if schema.finish:
                run_client(target, sql_of(archive, schema.finish), "--force", check=False)
    assert compare(dump_all(source.connect()), dump_all(target.connect())) == []


def load_statements(archive: Archive, manifest: Manifest, folder: Path) -> Iterator[str]:
    yield "SET foreign_key_checks = 0, time_zone = '+00:00', sql_mode = 'NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES';"
    if manifest.flavour == "mariadb":
        yield "SET system_versioning_insert_history = 1;"
    for schema in manifest.schemas:
        for table in schema.tables:
            for ref in table.objects:
                lines = folder / ref.sha256
                lines.write_bytes(sql_of(archive, ref))
                name = f"{quote(schema.name)}.{quote(table.name)}"
                yield f"LOAD DATA LOCAL INFILE '{lines}' INTO TABLE {name} {table.load};"


def sql_of(archive: Archive, ref: Any) -> bytes:
    """What the `zstd` program makes of the stored object."""
    return zstandard.ZstdDecompressor().stream_reader(archive.store.get(ref.key), read_across_frames=True).read()


def run_client(server: Server, text: bytes, *options: str, check: bool = True) -> None:
    client = [*server.installation.command("mysql"), "--no-defaults", "--user=root", f"--socket={server.socket}"]
    more = ("--default-character-set=utf8mb4", "--local-infile=1", "--binary-mode", "--comments", *options)
    done = subprocess.run([*client, *more], input=text, capture_output=True)
    assert not check or done.returncode == 0, done.stderr.decode()


def test_a_statement_file_is_whole_or_corrupt() -> None:
    statements = [b"SELECT ';'", b"CREATE x\nBEGIN; $$ END", "SELECT 'ä'".encode("latin1")]
    text = b"".join(sqlfile.render(statements))
    assert list(sqlfile.parse([text])) == statements
    for broken in (text[:-1], text[1:], b"", text.replace(b"DELIMITER", b"DELIMITED"), text + b"DROP DATABASE x"):
        with pytest.raises(Corrupt):
            list(sqlfile.parse([broken]))


def test_the_connection_never_hands_out_a_file_of_this_machine(mysql_target: Server) -> None:
    """A server may ask for any file at any time; what reads results must not obey."""
    load_module = import_module("backups.engine.mysql.load")
    script(mysql_target, [*SHOP, "SET GLOBAL local_infile = ON"])
    connection = load_module._session(target_config(mysql_target, tls="off"))
    with pytest.raises(RuntimeError, match="LOAD_LOCAL"):
        connection.query("LOAD DATA LOCAL INFILE '/etc/hostname' INTO TABLE shop.t")
    connection.close()
