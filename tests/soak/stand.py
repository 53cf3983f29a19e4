"""What a soak runs on: a source with its replica, a target, an S3 store, and an Everest installation of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from everest.demo import accounts, ceph
from everest.demo import servers as demo
from everest.demo.servers import Server
from tests.soak.proxy import HttpProxy, Proxy
from tests.soak.truth import Truth
from tests.soak.writers import Gate, Migrator, Writer, now_us, read_state, rows, set_up

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0  # seconds for a server to follow, or to answer
KEEPING = ("--innodb-flush-log-at-trx-commit=1", "--sync-binlog=1", "--max-binlog-size=16M")
REPLICA = ("--skip-replica-start", "--replica-parallel-workers=1")
FOLLOWER = ("CREATE USER follower@'%' IDENTIFIED BY 'Follow-1'", "GRANT REPLICATION SLAVE ON *.* TO follower@'%'")
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)  # Debian's package faketime
TIMES = {
    "EVEREST_TICK_SECONDS": "1",
    "EVEREST_LEASE_SECONDS": "8",
    "EVEREST_RING_AGAIN_SECONDS": "4",
    "EVEREST_SILENCE_SECONDS": "20",
    "EVEREST_STOP_SECONDS": "10",
    "EVEREST_SHIP_SECONDS": "10",
    "EVEREST_CHECK_SECONDS": "60",
}


def environment(folder: Path) -> dict[str, str]:
    """Of an installation whose metadata lie in `folder`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("EVEREST_")}
    return inherited | TIMES | {
        "DJANGO_SETTINGS_MODULE": "tests.soak.settings",
        "EVEREST_DATA": str(folder),
        "EVEREST_LOG_LEVEL": "INFO",
        "EVEREST_HTTPS": "0",
        "EVEREST_SHORT_WORKERS": "4",
        "PYTHONUNBUFFERED": "1",
    }  # fmt: skip


class Machine:
    """One process of Everest with all it starts; its output goes to a log of its own."""

    def __init__(self, name: str, folder: Path, *arguments: str) -> None:
        self.name, self.folder, self.arguments = name, folder, arguments
        self.extra: dict[str, str] = {}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with open(self.folder / f"{self.name}.log", "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *self.arguments], cwd=ROOT, stdout=log, stderr=log, start_new_session=True,
                env=environment(self.folder) | self.extra | {"EVEREST_SOAK": f"{self.folder}/{self.name}"},
            )  # fmt: skip

    def tree(self) -> list[int]:
        """Its living processes, as their environment tells, in whatever group they are."""
        mark = f"EVEREST_SOAK={self.folder}/{self.name}".encode()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
                if state != "Z" and mark in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
            except OSError:
                continue
        return sorted(found)

    def kill(self) -> None:
        """The main process alone, as the kernel's out-of-memory killer does."""
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def end(self) -> None:
        self.kill()
        deadline = time.monotonic() + 10
        while (left := self.tree()) and time.monotonic() < deadline:
            for pid in left:
                kill(pid)
            time.sleep(0.1)


def kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


class Stand:
    """A context manager: everything runs until it ends."""

    def __init__(self, folder: Path, seed: str, writers: int, pause: float) -> None:
        self.folder, self.stack = folder, ExitStack()
        self.data = folder / "everest"
        self.data.mkdir(parents=True)
        self.truth, self.gate = Truth(), Gate()
        self.restoring = threading.Lock()
        installation = demo.mysql(minimum=(9, 7))
        self.version = installation.version
        self.source = self._server(installation, "first", (*KEEPING, *REPLICA))
        self.replica = self._server(installation, "second", (*KEEPING, *REPLICA))
        self.target = self._server(installation, "target", ())
        self.ceph = ceph.start(folder / "ceph")
        self.stack.callback(self.ceph.stop)
        self.to_source, self.to_target = self._proxy(Proxy(self.source.port)), self._proxy(Proxy(self.target.port))
        self.to_s3: HttpProxy = self._proxy(HttpProxy(self.ceph.port))
        self.worker = self._machine("worker", "manage.py", "worker")
        self.other = self._machine("other", "manage.py", "worker")
        port = demo.free_port()
        self.web = self._machine("web", "-m", "gunicorn", "everest.wsgi", "--threads=4", f"--bind=127.0.0.1:{port}")
        self.url = f"http://127.0.0.1:{port}"
        set_up(self.source, writers)
        self.accounts = accounts.create(self.source, "source"), accounts.create(self.target, "target")
        for statement in FOLLOWER:
            execute(self.source, statement)
        self.follow()
        self.truth.begin(read_state(self.source), 0)
        given = (seed, self.truth, self.gate, lambda: self.source, pause)
        self.writers = [Writer(number, *given) for number in range(1, writers + 1)]
        self.writers.append(Migrator(seed, self.truth, self.gate, lambda: self.source, 40 * pause))

    def __enter__(self) -> Stand:
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def _server(self, installation: demo.Installation, name: str, options: tuple[str, ...]) -> Server:
        server = demo.start(installation, self.folder / name, options=options)
        self.stack.callback(server.kill)
        return server

    def _proxy(self, proxy: Any) -> Any:
        self.stack.callback(proxy.close)
        return proxy

    def _machine(self, name: str, *arguments: str) -> Machine:
        machine = Machine(name, self.data, *arguments)
        self.stack.callback(machine.end)
        return machine

    # The pair of sources

    def follow(self) -> None:
        """Let the replica follow the source from where it is."""
        execute(self.replica, "STOP REPLICA")
        execute(
            self.replica,
            f"CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT={self.source.port},"
            " SOURCE_USER='follower', SOURCE_PASSWORD='Follow-1', SOURCE_SSL=1, SOURCE_AUTO_POSITION=1,"
            " SOURCE_CONNECT_RETRY=1, SOURCE_RETRY_COUNT=100000, GET_SOURCE_PUBLIC_KEY=1",
        )
        execute(self.replica, "START REPLICA")

    def caught_up(self) -> None:
        """Wait until the replica has all that the source has now; raise where it cannot."""
        with self.source.connect() as connection:
            ((gtids,),) = rows(connection, "SELECT @@global.gtid_executed")
        with self.replica.connect() as connection:
            ((late,),) = rows(connection, "SELECT WAIT_FOR_EXECUTED_GTID_SET(%s, %s)", (gtids, PATIENCE))
            if late:
                raise RuntimeError(f"The replica does not follow: {rows(connection, 'SHOW REPLICA STATUS')}")

    def switch(self) -> None:
        """The replica takes over, and the source follows it; the address stays."""
        with self.gate.closed():
            self.caught_up()
            execute(self.replica, "STOP REPLICA", "RESET REPLICA ALL")
            self.source, self.replica = self.replica, self.source
            self.truth.take_over()
            self.to_source.upstream = self.source.port
            self.to_source.cut()
            self.follow()

    def reset(self) -> None:
        """The log of both begins anew: GTIDs are counted from one again."""
        with self.gate.closed():
            self.caught_up()
            execute(self.replica, "STOP REPLICA", "RESET REPLICA ALL", "RESET BINARY LOGS AND GTIDS")
            execute(self.source, "RESET BINARY LOGS AND GTIDS")
            self.truth.begin(read_state(self.source), now_us())
            self.follow()

    def failures(self) -> Iterator[str]:
        for writer in self.writers:
            if writer.failure:
                yield f"{writer.name} ended: {writer.failure!r}"


def execute(server: Server, *statements: str) -> None:
    with server.connect() as connection:
        for statement in statements:
            connection.query(statement)
