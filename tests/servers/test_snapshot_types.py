"""What a backup holds comes back byte for byte: every type, charset and kind of object, on both flavours."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backups.engine.errors import Refused
from backups.engine.manifest import Manifest
from backups.engine.mysql.schema import ambiguous
from everest.demo.servers import Server
from tests.helpers import clean, compare, dump_all, source_config, target_config
from tests.servers import everything
from tests.servers.backups import archive_in, back_up, put_back


@pytest.mark.parametrize("flavour", ["mysql", "mariadb"])
def test_everything_comes_back_as_it_was(flavour: str, request: Any, tmp_path: Path) -> None:
    source, target = (request.getfixturevalue(f"{flavour}_{role}") for role in ("source", "target"))
    everything.fill(source)
    archive = archive_in(tmp_path)
    manifest = back_up(source_config(source, tls="off"), archive)
    counts = put_back(target_config(target, tls="off"), target, archive, manifest)
    assert compare(dump_all(source.connect()), dump_all(target.connect())) == []
    assert counts.broken == ()
    assert counts.rows == manifest.rows > 40


ODD = (
    "SET SESSION sql_mode = ''",
    "CREATE DATABASE shop",
    "CREATE TABLE shop.odd (id INT PRIMARY KEY,"
    " twice ENUM('x', 'X', 'y') CHARACTER SET latin1 COLLATE latin1_swedish_ci,"
    " lost ENUM('😀', '😎', '2') CHARACTER SET latin1,"
    " none ENUM('', 'a'), bad ENUM('a', 'b') NOT NULL,"
    " several SET('x', 'X') CHARACTER SET latin1 COLLATE latin1_swedish_ci, plain ENUM('a', 'b'))",
    "INSERT INTO shop.odd VALUES (1, 1, 1, 0, 'zzz', 1, 1), (2, 2, 2, 1, 1, 2, 2), (3, 3, 3, 2, 2, 3, NULL),"
    " (4, NULL, NULL, NULL, 0, NULL, 'nothing')",
)
NUMBERS = "SELECT id, twice + 0, lost + 0, none + 0, bad + 0, several + 0, plain + 0 FROM shop.odd ORDER BY id"


@pytest.mark.parametrize("flavour", ["mysql", "mariadb"])
def test_elements_of_equal_text_and_values_that_are_no_element(flavour: str, request: Any, tmp_path: Path) -> None:
    """Outside of strict mode a server takes both."""
    source, target = (request.getfixturevalue(f"{flavour}_{role}") for role in ("source", "target"))
    with source.connect() as connection, connection.cursor() as cursor:
        for statement in ODD:
            cursor.execute(statement)
        cursor.execute(NUMBERS)
        wanted = cursor.fetchall()
    assert [row[1:] for row in wanted][:2] == [(1, 1, 0, 0, 1, 1), (2, 2, 1, 1, 2, 2)]
    archive = archive_in(tmp_path)
    manifest = back_up(source_config(source, tls="off"), archive)
    put_back(target_config(target, tls="off"), target, archive, manifest)
    with target.connect() as connection, connection.cursor() as cursor:
        cursor.execute(NUMBERS)
        assert cursor.fetchall() == wanted
    clean(target)
    with pytest.raises(Refused, match=r"would not take rows of shop\.odd as they are: 1 values were truncated"):
        put_back(target_config(target, tls="off"), target, archive, _with_a_set_that_is_none(manifest))


def _with_a_set_that_is_none(manifest: Manifest) -> Manifest:
    (schema,) = manifest.schemas
    (table,) = schema.tables
    other = replace(table, load=table.load.replace("CAST(@c5 AS UNSIGNED)", "IF(id = 1, 'zzz', 'x')"))
    return replace(manifest, schemas=(replace(schema, tables=(other,)),))


def test_history_of_one_instant_with_values_that_are_no_element(
    mariadb_source: Server, mariadb_target: Server, tmp_path: Path
) -> None:
    with mariadb_source.connect() as connection, connection.cursor() as cursor:
        for statement in (
            "SET SESSION sql_mode = ''",
            "CREATE DATABASE shop",
            "CREATE TABLE shop.h (id INT PRIMARY KEY, e ENUM('a', 'b') NOT NULL) WITH SYSTEM VERSIONING",
            "INSERT INTO shop.h VALUES (1, 'none'), (2, 'a')",
            "UPDATE shop.h SET e = 'neither' WHERE id = 2",
            "SET SESSION timestamp = 1700000000",
            "INSERT INTO shop.h VALUES (3, 'none')",
            "DELETE FROM shop.h WHERE id = 3",
        ):
            cursor.execute(statement)
    archive = archive_in(tmp_path)
    manifest = back_up(source_config(mariadb_source, tls="off"), archive)
    put_back(target_config(mariadb_target, tls="off"), mariadb_target, archive, manifest)
    assert compare(dump_all(mariadb_source.connect()), dump_all(mariadb_target.connect())) == []


@pytest.mark.parametrize(
    ("elements", "numbered"),
    [
        ("", False),
        ("enum('a','b')", False),
        ("set('a','b','it''s, so')", False),
        ("enum('a','A')", True),
        ("enum('a','a ')", True),
        ("enum('','a')", True),
        ("enum('?','a')", True),
        ("enum('a','ä')", True),
        ("enum('a\\\\b')", True),
        ("enum('in','jn')", True),
    ],
)
def test_which_elements_are_told_by_number(elements: str, numbered: bool) -> None:
    assert ambiguous(elements) is numbered


def test_an_event_of_a_mode_that_does_not_parse_how_events_are_printed(
    mysql_source: Server, mysql_target: Server, tmp_path: Path
) -> None:
    with mysql_source.connect(init_command="SET NAMES utf8mb4") as connection, connection.cursor() as cursor:
        cursor.execute("CREATE DATABASE shop")
        cursor.execute("SET SESSION sql_mode = 'HIGH_NOT_PRECEDENCE'")
        cursor.execute("CREATE EVENT shop.`日本``x` ON SCHEDULE EVERY 3 DAY STARTS '2036-01-01' DO DELETE FROM t")
    archive = archive_in(tmp_path)
    manifest = back_up(source_config(mysql_source, tls="off"), archive)
    put_back(target_config(mysql_target, tls="off"), mysql_target, archive, manifest)
    assert compare(dump_all(mysql_source.connect()), dump_all(mysql_target.connect())) == []
