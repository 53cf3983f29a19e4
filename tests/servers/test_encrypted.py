"""Servers that encrypt tables and binary log at rest: backups and slices are of what they say, not of their files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from backups.engine.errors import Refused
from backups.engine.mysql.preflight import preflight_source
from everest.demo import servers as demo
from everest.demo.servers import Server
from tests.conftest import installation
from tests.helpers import compare, source_config, target_config
from tests.keyed import keyed
from tests.servers.backups import archive_in, back_up, put_back
from tests.servers.replaying import Pair

FLAVOURS = pytest.mark.parametrize("flavour", ["mysql", "mariadb"])
WORD = b"find-this-word"


@pytest.fixture
def pair(flavour: str, tmp_path: Path) -> Any:
    """Two servers, each with a key of its own."""
    servers = [start(flavour, tmp_path / name) for name in ("source", "target")]
    yield Pair(*servers)
    for server in servers:
        server.kill()


def start(flavour: str, folder: Path) -> Server:
    found, options = keyed(installation(flavour), folder)
    return demo.start(found, folder / "server", options=options)


def make(pair: Pair) -> None:
    encrypted = "ENCRYPTION = 'Y'" if pair.source.flavour == "mysql" else "ENCRYPTED = YES"
    pair.run(
        "CREATE DATABASE shop",
        f"CREATE TABLE shop.t (id INT PRIMARY KEY, v VARCHAR(50)) {encrypted}",
        f"INSERT INTO shop.t VALUES (1, '{WORD.decode()}')",
    )


def logs(server: Server) -> bytes:
    return b"".join(path.read_bytes() for path in (server.folder / "data").glob("binlog.0*"))


@FLAVOURS
def test_encrypted_tables_and_logs(pair: Pair, tmp_path: Path) -> None:
    make(pair)
    archive = archive_in(tmp_path / "bucket")
    manifest = back_up(source_config(pair.source, tls="off"), archive)
    assert WORD not in logs(pair.source)
    pair.replay()
    assert compare(*pair.dumps()) == []
    put_back(target_config(pair.target, tls="off"), pair.target, archive, manifest, replace=True)
    assert compare(*pair.dumps()) == []
    (line,) = [check for check in preflight_source(source_config(pair.source)) if check.name == "Encryption at rest"]
    assert line.state == "warn" and line.message.startswith("shop.t: ")


@FLAVOURS
def test_a_target_without_a_key_refuses_by_name(pair: Pair, flavour: str, request: Any, tmp_path: Path) -> None:
    make(pair)
    archive = archive_in(tmp_path / "bucket")
    manifest = back_up(source_config(pair.source, tls="off"), archive)
    bare: Server = request.getfixturevalue(f"{flavour}_target")
    with pytest.raises(Refused, match=r"Creating in schema shop \(CREATE TABLE `t`"):
        put_back(target_config(bare, tls="off"), bare, archive, manifest)
