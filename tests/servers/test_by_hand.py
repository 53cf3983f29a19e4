"""No lock-in: the commands that FORMAT.md gives restore a backup and its log, with Everest nowhere in sight."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

import backups.engine
import backups.engine.mysql as engine
from backups.engine import merging
from backups.engine.archive import Archive
from backups.engine.levels import Group
from backups.engine.manifest import Manifest
from backups.engine.mysql.stream import capture
from backups.engine.slices import point, ship
from backups.engine.types import Position, Quiet
from everest.demo.servers import Server
from tests.helpers import compare, dump_all, source_config
from tests.servers import everything
from tests.servers.backups import archive_in, back_up, script
from tests.servers.replaying import position

FORMAT = Path(backups.engine.__file__ or "").with_name("FORMAT.md")
PROGRAMS = ("mysql", "mysqlbinlog")
# What is in the log before the backup; on MariaDB a table needs a schema that comes after its own.
EARLIER = {
    "mysql": ["DELETE FROM shop.numbers WHERE id = -1"],
    "files": ["CREATE TABLE shop.early (a INT)", "INSERT INTO shop.early VALUES (1)"],
    "mariadb": [
        "CREATE DATABASE zz", "CREATE SEQUENCE zz.s START WITH 7",
        "CREATE TABLE shop.early (a INT, b BIGINT DEFAULT NEXTVAL(zz.s)) WITH SYSTEM VERSIONING",
        "INSERT INTO shop.early (a) VALUES (1)", "SET timestamp = 1700000000", "INSERT INTO shop.early (a) VALUES (2)",
        "DELETE FROM shop.early WHERE a = 2", "SET timestamp = DEFAULT",
    ],
}  # fmt: skip


def commands(kind: str) -> str:
    """All of FORMAT.md's shell that is for every server or for this kind of one, in order."""
    return "\n".join(re.findall(rf"^```sh(?: {kind})?\n(.*?)^```", FORMAT.read_text(), re.MULTILINE | re.DOTALL))


def ship_all(server: Server, archive: Archive, manifest: Manifest, start: Position) -> None:
    chunks = capture(
        source_config(server, tls="off"),
        start,
        replica_uuid=archive.database,
        interval=60,
        max_bytes=2048,
        drain=True,
        deadline=None,
        run=Quiet(),
        on_caught_up=lambda position: None,
    )
    ship(archive, manifest.timeline, chunks, archive.last_slice(manifest.timeline), lambda index: None)


def merge_some(archive: Archive, timeline: str) -> None:
    """Two merged slices, one in place of what it holds, one beside it, and small ones between and after them."""
    small = [point(one) for one in archive.slices(timeline)]
    assert len(small) > 5
    for parts in (small[:2], small[3:5]):
        assert merging.merge(archive, Group(1, tuple(parts)), engine, Quiet())
    archive.give_up(slices=small[:2])


def person(server: Server, folder: Path) -> dict[str, str]:
    """The environment of a person whose programs and options file are for this server."""
    (folder / "bin").mkdir()
    for program in PROGRAMS:
        path = folder / "bin" / program
        path.write_text(f'#!/bin/sh\nexec {shlex.join(server.installation.command(program))} "$@"\n')
        path.chmod(0o755)
    (folder / ".my.cnf").write_text(f"[client]\nuser=root\nsocket={server.socket}\n")
    return {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "HOME": str(folder), "LC_ALL": "C.UTF-8"}


@pytest.mark.parametrize("kind", ["mysql", "files", "mariadb"])
def test_the_commands_of_the_format_restore_to_just_before_a_drop(kind: str, request: Any, tmp_path: Path) -> None:
    names = {"mysql": ("mysql_source", "mysql_target"), "files": ("mysql_files", "mysql_target")}
    source, target = map(request.getfixturevalue, names.get(kind, ("mariadb_source", "mariadb_target")))
    everything.fill(source)
    (tmp_path / "copy").mkdir()
    archive = archive_in(tmp_path / "copy")
    start = position(source)
    script(source, EARLIER[kind])
    manifest = back_up(source_config(source, tls="off"), archive)
    inserts = [f"INSERT INTO shop.drafts VALUES ({n}, 'é😀')" for n in range(60)]
    create = "CREATE TABLE shop.drafts (id INT PRIMARY KEY, note VARCHAR(9))"
    script(source, [create, *inserts, "FLUSH BINARY LOGS", "UPDATE shop.numbers SET t = 1", "DELETE FROM shop.choices"])
    before = dump_all(source.connect())
    script(source, ["DROP TABLE shop.drafts", "DELETE FROM shop.numbers"])
    ship_all(source, archive, manifest, start)
    if kind == "mysql":
        merge_some(archive, manifest.timeline)

    script(target, ["SET GLOBAL local_infile = ON", "SET GLOBAL log_bin_trust_function_creators = ON"])
    settings = {
        "copy": str(tmp_path / "copy"),
        "database": archive.database,
        "timeline": manifest.timeline,
        "backup": manifest.backup,
        "mistake": "DROP TABLE `shop`.`drafts`",
    }
    done = subprocess.run(
        ["bash", "-c", commands(kind)],
        env=person(target, tmp_path) | settings,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert compare(before, dump_all(target.connect())) == []
