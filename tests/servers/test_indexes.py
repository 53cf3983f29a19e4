"""Indexes that are built after the rows: the same definitions, the same refusals, and none where that is in doubt."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backups.engine.errors import Refused, Stopped
from backups.engine.mysql import indexes
from backups.engine.mysql.server import connect
from everest.demo.servers import Server
from tests.helpers import compare, dump_all, source_config, target_config, wait_for
from tests.servers.backups import Told, archive_in, back_up, put_back, script

FLAVOURS = pytest.mark.parametrize("flavour", ["mysql", "mariadb"])
BOTH = {
    # What each table keeps while its rows load, of the indexes i1, i2 and so on.
    "plain": ("a INT, b VARCHAR(30), UNIQUE KEY i1 (a), KEY i2 (b(3), a), KEY i3 (a) COMMENT 'it''s'", ""),
    "counted": ("a INT NOT NULL AUTO_INCREMENT, b INT, KEY i1 (a, b), KEY i2 (b)", "i1"),
    "asked": ("a INT, KEY i1 (a), KEY i2 (a) COMMENT 'why?', KEY i3 (a)", "i1 i2"),
    "searched": ("a INT, t TEXT, KEY i1 (a), FULLTEXT KEY i2 (t)", "i1 i2"),
    "placed": ("a INT, p POINT NOT NULL, KEY i1 (a), SPATIAL KEY i2 (p)", "i1 i2"),
    "made": ("a INT, g INT AS (a + 1) VIRTUAL, KEY i1 (a), KEY i2 (g)", "i1 i2"),
    "parent": ("a INT, b INT, UNIQUE KEY i1 (b), UNIQUE KEY i2 (a), KEY i3 (b, a)", "i1 i2"),
    "child": ("a INT, b INT, KEY i1 (b), KEY i2 (a), KEY i3 (b, a), CONSTRAINT f FOREIGN KEY (a) REFERENCES parent (a),"
              " CONSTRAINT c CHECK (b <> 7)", "i1 i2"),
}  # fmt: skip
KEYLESS = "CREATE TABLE s.keyless (a INT NOT NULL, b INT, UNIQUE KEY i1 (a), KEY i2 (b))"
PARTED = "CREATE TABLE s.parted (id INT PRIMARY KEY, a INT, KEY i1 (a)) PARTITION BY HASH (id) PARTITIONS 2"
ONE = {
    "mysql": {
        "sorted": ("a INT, b INT, KEY i1 (a DESC, b), KEY i2 (b) /*!80000 INVISIBLE */", ""),
        "computed": ("a INT, b INT, KEY i1 (b), KEY i2 ((a + b))", "i1 i2"),
    },
    "mariadb": {"ignored": ("a INT, b INT, KEY i1 (b), KEY i2 (a) IGNORED, KEY i3 (b)", "i1 i2")},
}
WAIT = {
    "mysql": {"plain", "counted", "asked", "parent", "child", "keyless", "sorted"},
    "mariadb": {"plain", "counted", "asked", "parent", "child", "keyless", "ignored"},
}


def tables(flavour: str) -> list[str]:
    made = [
        f"CREATE TABLE s.{name} ({columns}" + ("" if name == "counted" else ", id INT PRIMARY KEY") + ")"
        for name, (columns, _) in (BOTH | ONE[flavour]).items()
    ]
    return ["CREATE DATABASE s", *made, KEYLESS, PARTED]


def kept(server: Server, name: str) -> str:
    """The indexes of a table but for its primary key."""
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute(f"SHOW INDEX FROM s.{name} WHERE Key_name LIKE 'i_' AND Seq_in_index = 1")
        return " ".join(row[2] for row in cursor.fetchall())


@FLAVOURS
def test_only_indexes_wait_that_nothing_else_needs(flavour: str, request: Any) -> None:
    target = request.getfixturevalue(f"{flavour}_target")
    script(target, tables(flavour))
    with target.connect() as connection:
        foreign = indexes.foreign_columns(connection)
        wanted = {name: keep for name, (_, keep) in (BOTH | ONE[flavour]).items()}
        wanted |= {"keyless": "i1", "parted": "i1"}
        waiting = {name for name in wanted if indexes.defer(connection, "s", name, foreign)}
    assert waiting == WAIT[flavour]
    assert {name: kept(target, name) for name in wanted} == wanted


@FLAVOURS
def test_every_definition_and_row_is_the_same_afterwards(
    flavour: str, request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = (request.getfixturevalue(f"{flavour}_{role}") for role in ("source", "target"))
    monkeypatch.setattr(indexes, "BIG", 1)
    script(source, tables(flavour))
    more = [name for name in (*BOTH, *ONE[flavour], "parted") if name not in ("plain", "counted", "placed")]
    script(source, [f"INSERT INTO s.{name} (a, id) VALUES (1, 1)" for name in more])
    script(source, ["INSERT INTO s.plain (a, b, id) VALUES (1, 'x', 1), (2, 'y', 2), (NULL, NULL, 3)"])
    script(source, ["INSERT INTO s.counted (b) VALUES (1), (2)", "INSERT INTO s.keyless VALUES (1, 1), (2, 1)"])
    archive, run = archive_in(tmp_path), Told()
    manifest = back_up(source_config(source, tls="off"), archive)
    put_back(target_config(target, tls="off"), target, archive, manifest, run=run)
    built = [line for line in run.lines if "Building" in line]
    assert {line.split(" of s.")[-1].strip(".") for line in built} == WAIT[flavour]
    assert compare(dump_all(source.connect()), dump_all(target.connect())) == []


@FLAVOURS
def test_a_duplicate_is_found_by_an_index_that_is_built_later(
    flavour: str, request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = (request.getfixturevalue(f"{flavour}_{role}") for role in ("source", "target"))
    monkeypatch.setattr(indexes, "BIG", 1)
    create = "CREATE TABLE s.t (id INT PRIMARY KEY, a INT, UNIQUE KEY (a))"
    script(source, ["CREATE DATABASE s", create, "INSERT INTO s.t VALUES (1, 1), (2, 2)"])
    archive = archive_in(tmp_path)
    manifest = back_up(source_config(source, tls="off"), archive)
    (schema,) = manifest.schemas
    wrong = archive.put_data(schema.tables[0].objects[0].key.replace("rows", "wrong"), [b"1\t1\n2\t1\n"])
    table = replace(schema.tables[0], objects=(wrong,))
    with pytest.raises(Refused, match=r"Building the indexes of s\.t failed: Duplicate entry"):
        put_back(
            target_config(target, tls="off"), target, archive,
            replace(manifest, schemas=(replace(schema, tables=(table,)),)),
        )  # fmt: skip


@FLAVOURS
def test_a_stop_ends_what_the_server_is_building(flavour: str, request: Any) -> None:
    target = request.getfixturevalue(f"{flavour}_target")
    config = target_config(target, tls="off")

    def stop() -> None:
        raise Stopped("stop")

    with closing(connect(config)) as connection:
        with pytest.raises(Stopped):
            indexes._patiently(config, connection, "DO SLEEP(60)", stop)
        wait_for(lambda: connection.thread_id() not in sessions(target))


def sessions(server: Server) -> list[int]:
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT id FROM information_schema.processlist")
        return [row[0] for row in cursor.fetchall()]
