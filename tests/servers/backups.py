"""What tests of backups share: an archive in a folder, one call to back up, one to put back."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from backups.engine.archive import Archive
from backups.engine.manifest import Manifest
from backups.engine.mysql.load import LoadedCounts, load
from backups.engine.mysql.server import ServerConfig
from backups.engine.mysql.snapshot import snapshot
from backups.engine.types import Quiet, Run
from everest.demo.servers import Server
from storages.stores import open_store
from storages.stores.base import StoreConfig


class Told(Quiet):
    """A Run that keeps what it is told, and stops when asked to."""

    def __init__(self, stop_at: str = "") -> None:
        self.lines: list[str] = []
        self.steps: list[tuple[str, int, int, str]] = []
        self.stop_at = stop_at

    def should_stop(self) -> bool:
        return bool(self.stop_at) and any(self.stop_at in line for line in [*self.lines, *(s[0] for s in self.steps)])

    def progress(self, step: str, done: int = 0, total: int = 0, unit: str = "") -> None:
        self.steps.append((step, done, total, unit))

    def log(self, line: str) -> None:
        self.lines.append(line)


def archive_in(folder: Path) -> Archive:
    folder.mkdir(exist_ok=True)
    return Archive(open_store(StoreConfig(type="local", name="folder", bucket=str(folder))), str(uuid.uuid4()))


def back_up(
    config: ServerConfig, archive: Archive, *, threads: int = 2, rate: int = 0, run: Run | None = None
) -> Manifest:
    return snapshot(
        config,
        archive,
        timeline=str(uuid.uuid4()),
        backup=str(uuid.uuid4()),
        name="backup",
        schedule="",
        threads=threads,
        rate=rate,
        run=run or Quiet(),
    )


def put_back(
    config: ServerConfig, server: Server, archive: Archive, manifest: Manifest, **options: Any
) -> LoadedCounts:
    """Load as a restore does, with the two settings that it changes on the target for that time."""
    script(server, ["SET GLOBAL local_infile = ON", "SET GLOBAL log_bin_trust_function_creators = ON"])
    return load(config, archive, manifest, **{"threads": 2, "run": Quiet(), **options})


def script(server: Server, statements: Iterable[str]) -> None:
    with server.connect() as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
