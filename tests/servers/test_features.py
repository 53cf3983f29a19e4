"""Every feature of features.py comes back the same, through a snapshot and through slices, and works as before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pymysql
import pytest

from everest.demo.servers import Server
from tests.helpers import compare, dump_all, source_config, target_config
from tests.servers import everything, features
from tests.servers.backups import archive_in, back_up, put_back, script
from tests.servers.replaying import Pair

FLAVOURS = pytest.mark.parametrize("flavour", ["mysql", "mariadb", "mariadb_new"])


@pytest.fixture
def servers(flavour: str, request: Any) -> Iterator[tuple[Server, Server]]:
    pair = request.getfixturevalue(f"{flavour}_source"), request.getfixturevalue(f"{flavour}_target")
    for server in pair:
        script(server, ["SET GLOBAL max_allowed_packet = 134217728"])
    yield pair
    for server in pair:
        script(server, ["SET GLOBAL max_allowed_packet = DEFAULT"])
        drop_tablespaces(server)


def tablespaces(server: Server) -> list[str]:
    """As SQL; they are of the server, not of a schema, and outlive what was restored into it."""
    if server.flavour != "mysql":
        return []
    schema, _ = features.of("mysql", server.version)["general tablespaces"]
    return [f"`{schema} ``ts`", f"`{schema} unused`"]


def drop_tablespaces(server: Server) -> None:
    schemas = [schema for schema, _ in features.of(server.flavour, server.version).values()]
    script(server, ["SET foreign_key_checks = 0", *(f"DROP DATABASE IF EXISTS {schema}" for schema in schemas)])
    for name in tablespaces(server):
        with suppress(pymysql.err.OperationalError):
            script(server, [f"DROP TABLESPACE {name}"])


def leave_one_behind(target: Server) -> None:
    """An earlier restore did."""
    script(target, [f"CREATE TABLESPACE {name}" for name in tablespaces(target)[:1]])


def make(server: Server) -> None:
    with server.connect() as connection, connection.cursor() as cursor:
        for name, (schema, feature) in features.of(server.flavour, server.version).items():
            cursor.execute(f"CREATE DATABASE {schema} COLLATE utf8mb4_general_ci")
            for statement in feature.made:
                try:
                    cursor.execute(statement.format(s=schema))
                except Exception as error:
                    raise AssertionError(f"{name}: {statement[:200]}: {error}") from error


def use(server: Server) -> None:
    """What follows on both servers must give the same."""
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SET timestamp = 1700000000, sql_mode = ''")
        for schema, feature in features.of(server.flavour, server.version).values():
            for statement in feature.used:
                cursor.execute(statement.format(s=schema))


def same(source: Server, target: Server) -> None:
    for step in (lambda server: None, use):
        step(source)
        step(target)
        with source.connect() as first, target.connect() as second:
            assert compare(dump_all(first), dump_all(second)) == []


@FLAVOURS
def test_every_feature_through_a_snapshot(servers: tuple[Server, Server], tmp_path: Path) -> None:
    source, target = servers
    make(source)
    leave_one_behind(target)
    archive = archive_in(tmp_path)
    manifest = back_up(source_config(source, tls="off"), archive)
    put_back(target_config(target, tls="off"), target, archive, manifest)
    assert manifest.inexact == ()
    same(source, target)


@FLAVOURS
def test_every_feature_through_slices(servers: tuple[Server, Server]) -> None:
    pair = Pair(*servers)
    make(pair.source)
    leave_one_behind(pair.target)
    pair.replay()
    same(pair.source, pair.target)


@FLAVOURS
def test_every_type_through_slices(servers: tuple[Server, Server]) -> None:
    pair = Pair(*servers)
    everything.fill(pair.source)
    pair.replay()
    with pair.source.connect() as first, pair.target.connect() as second:
        assert compare(dump_all(first), dump_all(second)) == []


def rows_of(server: Server) -> dict[str, Any]:
    """What does not depend on how a version prints it."""
    with server.connect() as connection:
        dump = dump_all(connection)
    return {schema: {name: table["rows"] for name, table in one["tables"].items()} for schema, one in dump.items()}


@pytest.mark.parametrize("way", ["snapshot", "slices"])
def test_a_newer_series_takes_it(way: str, mariadb_source: Server, mariadb_new_target: Server, tmp_path: Path) -> None:
    pair = Pair(mariadb_source, mariadb_new_target)
    everything.fill(pair.source)
    if way == "slices":
        pair.replay()
    else:
        archive = archive_in(tmp_path)
        manifest = back_up(source_config(pair.source, tls="off"), archive)
        put_back(target_config(pair.target, tls="off"), pair.target, archive, manifest)
    assert compare(rows_of(pair.source), rows_of(pair.target)) == []
