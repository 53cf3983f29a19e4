"""What is measured on: a source, targets that begin as copies of one another, and a bucket in Ceph."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import zstandard

from backups.engine import mysql
from backups.engine.manifest import Manifest
from backups.engine.mysql.server import ServerConfig
from backups.engine.types import Position
from everest.demo import ceph
from everest.demo import servers as demo
from everest.demo.servers import Server
from storages.stores.base import StoreConfig
from tests.bench import product
from tests.bench.measures import Step, measure, pss
from tests.bench.peers import FOLLOWER, PASSWORD
from tests.bench.product import Place
from tests.bench.sizes import Size
from tests.helpers import clean, source_config, target_config

CEPH_BYTES = 1 << 30
WARM_SECONDS = 60
WARM = ("completed", "not started", "Cannot open")  # the last two: there is nothing to load


class Stand:
    """A context manager: its servers run until it ends."""

    def __init__(self, folder: Path, size: Size) -> None:
        self.folder, self.size = folder, size
        self.stack = ExitStack()
        self.largest: dict[str, int] = {}  # bytes of Everest's largest process, by the work it did
        self.installation = demo.mysql(minimum=(9, 7))

    def __enter__(self) -> Stand:
        self.ceph = ceph.start(self.folder / "ceph")
        try:
            self.source = self.start("source")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.ceph.stop()
        self.stack.close()

    def start(self, name: str, *options: str) -> Server:
        server = demo.start(self.installation, self.folder / name, options=(*self.size.settings, *options))
        self.stack.callback(server.kill)
        return server

    # Places and accounts.  Nobody uses TLS here: the peers would pay for it, too.

    def place(self) -> Place:
        """An empty bucket for a new database.  Others may be gone: Ceph keeps what is deleted for hours, in memory."""
        if pss(self.ceph.processes["osd"].pid) > CEPH_BYTES:
            self.ceph.stop()
            self.ceph = ceph.start(self.folder / "ceph")
        config = StoreConfig(
            type="s3", name="ceph", bucket=self.ceph.new_bucket(), region=self.ceph.region, path_style=True,
            endpoint=self.ceph.endpoint, access_key=self.ceph.access_key, secret_key=self.ceph.secret_key,
            conditional_put=True,
        )  # fmt: skip
        return Place(config, str(uuid.uuid4()), str(uuid.uuid4()))

    def fresh_source(self) -> ServerConfig:
        """The source, empty, with a log that begins here."""
        clean(self.source)
        with self.source.connect() as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE USER {FOLLOWER} IDENTIFIED BY '{PASSWORD}'")
            cursor.execute(f"GRANT REPLICATION SLAVE ON *.* TO {FOLLOWER}")
        return replace(source_config(self.source), tls="off")

    def position(self) -> Position:
        with self.source.connect() as connection:
            return mysql.current_position(connection)

    def new_log_file(self) -> Position:
        """Where the source's next log file begins: nothing of what was before is in it."""
        with self.source.connect() as connection, connection.cursor() as cursor:
            cursor.execute("FLUSH BINARY LOGS")
        return self.position()

    def log_files(self, since: Position) -> list[str]:
        """The source's log files from that position's on."""
        with self.source.connect() as connection, connection.cursor() as cursor:
            cursor.execute("SHOW BINARY LOGS")
            names = [str(row[0]) for row in cursor.fetchall()]
        return names[names.index(str(since["file"])) :]

    # Targets

    def base(self, place: Place, manifest: Manifest, name: str) -> Server:
        """A server that holds the backup, stopped: what targets are copies of."""
        server = self.start(name)
        config = replace(target_config(server), tls="off")
        self.measured(product.loaded, config, place, manifest, server=server)
        server.stop()
        return server

    @contextmanager
    def target(self, base: Server | None = None) -> Iterator[tuple[Server, ServerConfig]]:
        """A running server that holds what `base` does, as warm as that was, and an account on it."""
        folder = self.folder / f"target-{uuid.uuid4().hex[:8]}"
        if base:
            (folder / "data").parent.mkdir()
            subprocess.run(["cp", "-a", "--reflink=auto", str(base.folder / "data"), str(folder / "data")], check=True)
            (folder / "data" / "auto.cnf").unlink()
            os.sync()  # the copy is not written out while something is measured
        server = self.start(folder.name, "--skip-replica-start", "--log-replica-updates=OFF")
        try:
            _warm(server)
            yield server, replace(target_config(server), tls="off")
        finally:
            server.kill()
            shutil.rmtree(folder)

    def measured(self, *work: Any, server: Server | None = None) -> Step:
        """A step that uses this server (by default the source) and the bucket."""
        pids = {
            "server": [(server or self.source).pid],
            "S3": [process.pid for process in self.ceph.processes.values()],
        }
        step = measure(*work, servers=pids)
        function = next(part for part in reversed(work) if inspect.isfunction(part))
        if function.__module__ == product.__name__:
            self.largest[function.__name__] = max(step.largest, self.largest.get(function.__name__, 0))
        print(f"  {function.__name__}: {step.seconds:.2f} s", flush=True)
        return step

    def versions(self) -> dict[str, str]:
        """Of everything that takes part."""
        found = {"MySQL": self.installation.version}
        programs = [name for name in ("sysbench", "zstd", "mydumper") if shutil.which(name)]
        for name in programs:
            said = subprocess.run([name, "--version"], capture_output=True, text=True).stdout
            found[name] = re.search(r"\d+[.][\w.]+", said)[0]
        found |= {"boto3": boto3.__version__, "python-zstandard": zstandard.__version__}
        found["Ceph"] = self.ceph.version
        return found


def _warm(server: Server) -> None:
    """Wait until the pages that the base had in memory are in memory again."""
    deadline = time.monotonic() + WARM_SECONDS
    with server.connect() as connection, connection.cursor() as cursor:
        while time.monotonic() < deadline:
            cursor.execute("SHOW STATUS LIKE 'Innodb_buffer_pool_load_status'")
            status = str(cursor.fetchone()[1])
            if any(words in status for words in WARM):
                return
            time.sleep(0.02)
