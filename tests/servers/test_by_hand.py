"""No lock-in: the commands that FORMAT.md gives restore a backup and its log, with Everest nowhere in sight."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import backups.engine
import backups.engine.mysql as engine
from backups.engine import merging
from backups.engine.archive import Archive
from backups.engine.levels import Group
from backups.engine.manifest import Manifest
from backups.engine.mysql.stream import capture
from backups.engine.slices import point, ship
from backups.engine.types import Quiet
from everest.demo.servers import Server
from tests.helpers import compare, dump_all, source_config
from tests.servers import everything
from tests.servers.backups import archive_in, back_up, script

FORMAT = Path(backups.engine.__file__ or "").with_name("FORMAT.md")
PROGRAMS = ("mysql", "mysqlbinlog")


def commands() -> str:
    """All of FORMAT.md's shell, in order."""
    return "\n".join(re.findall(r"^```sh\n(.*?)^```", FORMAT.read_text(), re.MULTILINE | re.DOTALL))


def ship_all(server: Server, archive: Archive, manifest: Manifest) -> None:
    chunks = capture(
        source_config(server, tls="off"),
        manifest.position,
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


def test_the_commands_of_the_format_restore_to_just_before_a_drop(
    mysql_source: Server, mysql_target: Server, tmp_path: Path
) -> None:
    everything.fill(mysql_source)
    (tmp_path / "copy").mkdir()
    archive = archive_in(tmp_path / "copy")
    manifest = back_up(source_config(mysql_source, tls="off"), archive)
    inserts = [f"INSERT INTO shop.drafts VALUES ({n}, 'é😀')" for n in range(60)]
    create = "CREATE TABLE shop.drafts (id INT PRIMARY KEY, note VARCHAR(9))"
    script(mysql_source, [create, *inserts, "UPDATE shop.numbers SET t = 1", "DELETE FROM shop.choices"])
    before = dump_all(mysql_source.connect())
    script(mysql_source, ["DROP TABLE shop.drafts", "DELETE FROM shop.numbers"])
    ship_all(mysql_source, archive, manifest)
    merge_some(archive, manifest.timeline)

    script(mysql_target, ["SET GLOBAL local_infile = ON", "SET GLOBAL log_bin_trust_function_creators = ON"])
    settings = {
        "copy": str(tmp_path / "copy"),
        "database": archive.database,
        "timeline": manifest.timeline,
        "backup": manifest.backup,
        "mistake": "DROP TABLE `shop`.`drafts`",
    }
    done = subprocess.run(
        ["bash", "-c", commands()],
        env=person(mysql_target, tmp_path) | settings,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert compare(before, dump_all(mysql_target.connect())) == []
