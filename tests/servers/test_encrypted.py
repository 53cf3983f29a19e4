"""Servers that encrypt tables and binary log at rest: backups and slices are of what they say, not of their files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backups.engine.errors import Refused
from backups.engine.mysql.preflight import preflight_source
from everest.demo import servers as demo
from everest.demo.servers import Server
from tests.conftest import installation
from tests.helpers import compare, source_config, target_config
from tests.servers.backups import archive_in, back_up, put_back
from tests.servers.replaying import Pair

FLAVOURS = pytest.mark.parametrize("flavour", ["mysql", "mariadb"])
WORD = b"find-this-word"


@pytest.fixture
def pair(flavour: str, tmp_path: Path) -> Any:
    """Two servers, each with a key of its own."""
    start = {"mysql": start_mysql, "mariadb": start_mariadb}[flavour]
    servers = [start(tmp_path / name) for name in ("source", "target")]
    yield Pair(*servers)
    for server in servers:
        server.kill()


def start_mysql(folder: Path) -> Server:
    """A keyring component is named by a file beside the program: a copy of the installation made of links."""
    found = installation("mysql")
    assert found.root, "this needs the MySQL of the cache: one on the machine cannot be given a keyring"
    root, plugins = folder / "root", folder / "plugins"
    for path in (found.root / "usr").iterdir():
        if path.name != "sbin":
            link(root / "usr" / path.name, path)
    link(root / "usr/sbin/mysqld", found.root / "usr/sbin/mysqld")
    (root / "usr/sbin/mysqld.my").write_text(json.dumps({"components": "file://component_keyring_file"}))
    for path in (found.root / "usr/lib/mysql/plugin").iterdir():
        link(plugins / path.name, path)
    settings = {"path": str(folder / "ring"), "read_only": False}
    (plugins / "component_keyring_file.cnf").write_text(json.dumps(settings))
    options = [f"--plugin-dir={plugins}", "--binlog-encryption=ON"]
    return demo.start(replace(found, root=root), folder / "server", options=options)


def link(new: Path, old: Path) -> None:
    new.parent.mkdir(parents=True, exist_ok=True)
    new.symlink_to(old)


def start_mariadb(folder: Path) -> Server:
    folder.mkdir()
    keys = folder / "keys"
    keys.write_text("1;770A8A65DA156D24EE2A093277530142\n")
    options = ["--plugin-load-add=file_key_management", f"--file-key-management-filename={keys}", "--encrypt-binlog=ON"]
    return demo.start(installation("mariadb"), folder / "server", options=options)


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
