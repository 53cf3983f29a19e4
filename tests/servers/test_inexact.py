"""What text cannot carry is found while rows and definitions are read, and named."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from backups.engine.errors import Refused
from backups.engine.mysql.preflight import preflight_source
from everest.demo.servers import Server
from tests.helpers import source_config, target_config
from tests.servers.backups import archive_in, back_up, put_back, script

FLAVOURS = pytest.mark.parametrize("flavour", ["mysql", "mariadb"])


def test_json_numbers_of_type_decimal_are_named(mysql_source: Server, mysql_target: Server, tmp_path: Path) -> None:
    script(
        mysql_source,
        [
            "CREATE DATABASE shop",
            "CREATE TABLE shop.prices (id INT PRIMARY KEY, j JSON, k JSON, b BLOB)",
            "CREATE TABLE shop.fine (id INT PRIMARY KEY, j JSON, d DECIMAL(9,2))",
            "INSERT INTO shop.prices VALUES (1, JSON_OBJECT('p', 19.90), NULL, NULL), (2, '[19.9, 1.0]', '{}', X'FF'),"
            " (3, NULL, JSON_ARRAY(12345678901234567890.5), NULL)",
            """INSERT INTO shop.fine VALUES (1, '{"p": 19.90, "at": "2020-01-01 00:00:00.000000"}', 19.90)""",
        ],
    )
    archive = archive_in(tmp_path)
    manifest = back_up(source_config(mysql_source, tls="off"), archive)
    (sentence,) = manifest.inexact
    assert sentence.startswith("2 rows of shop.prices hold JSON numbers of type DECIMAL")
    put_back(target_config(mysql_target, tls="off"), mysql_target, archive, manifest)
    with mysql_target.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT j FROM shop.prices ORDER BY id")
        assert [text for (text,) in cursor.fetchall()] == ['{"p": 19.9}', "[19.9, 1.0]", None]


def test_json_that_a_later_change_would_not_find_is_named(mysql_source: Server, tmp_path: Path) -> None:
    """Without a key a row is found by its bytes; what is no JSON text has other bytes after a restore."""
    odd = ("CAST(5 AS DECIMAL)", "DATE'2020-01-02'", "X'00FF'", "CAST(19.9 AS DECIMAL(3, 1))")
    plain = ("""'{"a": [1, 2.5, {"b": "2020-01-02"}], "c": null}'""", "'[]'", "'null'", "NULL")
    values = ", ".join(f"({value})" for value in plain)
    nested = [f"(JSON_ARRAY(1, JSON_OBJECT('a', {value})))" for value in odd]
    script(
        mysql_source,
        [
            "CREATE DATABASE shop",
            "CREATE TABLE shop.keyless (j JSON, k JSON)",
            f"INSERT INTO shop.keyless (k) VALUES {values}, {', '.join(nested)}, (JSON_ARRAY(REPEAT('x', 70000), 1.5))",
            "CREATE TABLE shop.keyed (id INT NOT NULL, j JSON, UNIQUE KEY (id))",
            f"INSERT INTO shop.keyed VALUES (1, JSON_ARRAY({odd[0]}))",
            "CREATE TABLE shop.loose (id INT, j JSON, UNIQUE KEY (id))",
            "INSERT INTO shop.loose SELECT id, j FROM shop.keyed",
        ],
    )
    config = source_config(mysql_source, tls="off")
    told = back_up(config, archive_in(tmp_path)).inexact
    assert [sentence.partition(" hold ")[0] for sentence in told] == [
        "1 rows of shop.loose, which has no primary key,",
        "5 rows of shop.keyless, which has no primary key,",
    ]
    warned = beside(mysql_source)["JSON without primary keys"]
    assert warned.startswith("shop.keyed, shop.keyless, shop.loose: ")


@FLAVOURS
def test_bytes_that_are_no_text_are_refused_by_name(flavour: str, request: Any, tmp_path: Path) -> None:
    """As they come from old servers: nothing but a table's own file takes them."""
    source: Server = request.getfixturevalue(f"{flavour}_source")
    script(
        source,
        [
            "CREATE DATABASE shop",
            "CREATE TABLE shop.old (v VARCHAR(40) CHARACTER SET latin1, b BLOB) ENGINE = MyISAM",
            "CREATE TABLE shop.new (v VARCHAR(10) CHARACTER SET utf8mb4, b BLOB) ENGINE = MyISAM",
            "INSERT INTO shop.old VALUES ('plain', X'FF00'), (_latin1 X'61FF62', 'x')",
            "FLUSH TABLES",
        ],
    )
    for kind in ("MYD", "MYI"):
        shutil.copy(source.folder / "data" / "shop" / f"old.{kind}", source.folder / "data" / "shop" / f"new.{kind}")
    script(source, ["FLUSH TABLES"])
    with pytest.raises(Refused, match=r"shop.new: column v holds bytes that are no utf8mb4 text \(0x61ff62\)"):
        back_up(source_config(source, tls="off"), archive_in(tmp_path))


@FLAVOURS
def test_bytes_that_are_no_text_of_another_charset_are_refused(flavour: str, request: Any, tmp_path: Path) -> None:
    source: Server = request.getfixturevalue(f"{flavour}_source")
    config = source_config(source, tls="off")
    columns = "(v TEXT CHARACTER SET {}, w TEXT CHARACTER SET utf32) ENGINE = MyISAM"
    folder = source.folder / "data" / "shop"
    script(
        source,
        [
            "CREATE DATABASE shop",
            f"CREATE TABLE shop.fine {columns.format('sjis')}",
            "INSERT INTO shop.fine VALUES (_sjis X'8140A1', '😀'), (NULL, '')",
            f"CREATE TABLE shop.old {columns.format('latin1')}",
            "INSERT INTO shop.old VALUES ('fine', ''), (_latin1 X'61A1', NULL)",
        ],
    )
    assert back_up(config, archive_in(tmp_path / "fine")).rows == 4
    for charset in ("eucjpms", "gbk"):
        new = f"CREATE TABLE shop.new {columns.format(charset)}"
        script(source, ["DROP TABLE IF EXISTS shop.new", new, "FLUSH TABLES"])
        for kind in ("MYD", "MYI"):
            shutil.copy(folder / f"old.{kind}", folder / f"new.{kind}")
        script(source, ["FLUSH TABLES"])
        with pytest.raises(Refused, match=rf"shop.new: column v holds bytes that are no {charset} text \(0x61a1\)"):
            back_up(config, archive_in(tmp_path / charset))


@FLAVOURS
def test_a_type_that_nobody_can_read_is_refused_by_name(flavour: str, request: Any, tmp_path: Path) -> None:
    source: Server = request.getfixturevalue(f"{flavour}_source")
    script(
        source,
        [
            "CREATE DATABASE shop",
            "CREATE FUNCTION shop.mood() RETURNS ENUM('😀', 'b') CHARSET utf8mb4 DETERMINISTIC RETURN 'b'",
        ],
    )
    config = source_config(source, tls="off")
    with pytest.raises(Refused, match=r"shop\.mood"):
        back_up(config, archive_in(tmp_path))
    assert [check.state for check in preflight_source(config) if check.name == "Functions"] == ["fail"]


def beside(server: Server) -> dict[str, str]:
    found = preflight_source(source_config(server, tls="off"))
    return {check.name: check.message for check in found if check.state == "warn"}


@FLAVOURS
def test_what_lies_beside_the_schemas_is_named(flavour: str, request: Any, tmp_path: Path) -> None:
    source: Server = request.getfixturevalue(f"{flavour}_source")
    axes = 'AXIS["Lat",NORTH],AXIS["Lon",EAST]'
    spheroid = 'DATUM["W",SPHEROID["W",6378137,298.257223563]],PRIMEM["G",0],UNIT["degree",0.017453292519943278]'
    own = {
        "mysql": (f"CREATE SPATIAL REFERENCE SYSTEM 1000000 NAME 'm' DEFINITION 'GEOGCS[\"m\",{spheroid},{axes}]'",),
        "mariadb": ("CREATE DATABASE shop", f"CREATE TABLE shop.far (a INT) DATA DIRECTORY = '{tmp_path}'"),
    }
    assert "Foreign servers" not in beside(source)
    try:
        script(source, ["CREATE SERVER away FOREIGN DATA WRAPPER mysql OPTIONS (HOST 'x')", *own[flavour]])
        told = beside(source)
    finally:
        script(source, ["DROP SERVER IF EXISTS away"])
        if flavour == "mysql":
            script(source, ["DROP SPATIAL REFERENCE SYSTEM IF EXISTS 1000000"])
    assert told["Foreign servers"].startswith("away: ")
    other = "Spatial reference systems" if flavour == "mysql" else "Folders of tables"
    assert told[other].startswith({"mysql": "1000000: ", "mariadb": "shop.far: "}[flavour])


def test_history_in_transaction_numbers_is_refused_by_name(mariadb_source: Server, tmp_path: Path) -> None:
    script(
        mariadb_source,
        [
            "CREATE DATABASE shop",
            "CREATE TABLE shop.h (id INT PRIMARY KEY, s BIGINT UNSIGNED GENERATED ALWAYS AS ROW START,"
            " e BIGINT UNSIGNED GENERATED ALWAYS AS ROW END, PERIOD FOR SYSTEM_TIME (s, e)) WITH SYSTEM VERSIONING",
        ],
    )
    config = source_config(mariadb_source, tls="off")
    with pytest.raises(Refused, match=r"shop\.h"):
        back_up(config, archive_in(tmp_path))
    assert [check.state for check in preflight_source(config) if check.name == "Transaction history"] == ["fail"]
