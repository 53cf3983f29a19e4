"""A whole installation in a folder: its own metadata, its own workers, killed in every way."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import wait_for

ROOT = Path(__file__).parents[2]
PATIENCE = 60  # seconds, where a machine has other things to do
TIMES = {
    "EVEREST_TICK_SECONDS": "0.5",
    "EVEREST_LEASE_SECONDS": "3",
    "EVEREST_RING_AGAIN_SECONDS": "2",
    "EVEREST_SILENCE_SECONDS": "4",
    "EVEREST_STOP_SECONDS": "10",
    "EVEREST_SHIP_SECONDS": "4",
    "EVEREST_CHECK_SECONDS": "3600",
}


class Installation:
    """Runs Everest's commands in processes of their own and looks at its metadata from outside."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.diary = folder / "diary"
        self.diary.touch()
        self.workers: list[subprocess.Popen[bytes]] = []
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("EVEREST_")},
            "DJANGO_SETTINGS_MODULE": "tests.crash.settings",
            "EVEREST_DATA": str(folder),
            "EVEREST_LOG_LEVEL": "WARNING",
            **TIMES,
            **environment,
        }

    def run(self, code: str) -> str:
        """Python inside the installation; what it prints."""
        start = "import django; django.setup()\nfrom backups.models import *\nfrom storages.models import *\n"
        done = subprocess.run(
            [sys.executable, "-c", start + code], cwd=ROOT, env=self.environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        with sqlite3.connect(self.folder / "everest.sqlite3", timeout=20) as connection:
            found = connection.execute(sql, values).fetchall()
        connection.close()
        return found

    def start_worker(self) -> subprocess.Popen[bytes]:
        """Start `manage.py worker` and wait until all its clusters take tasks."""
        known = set(self.clusters())
        worker = self.launch_worker()
        wait_for(lambda: len(set(self.clusters()) - known) >= 3, PATIENCE)
        return worker

    def launch_worker(self) -> subprocess.Popen[bytes]:
        worker = subprocess.Popen([sys.executable, "manage.py", "worker"], cwd=ROOT, env=self.environment)
        self.workers.append(worker)
        return worker

    def clusters(self) -> list[str]:
        return [name for (name,) in self.rows("SELECT name FROM backups_workerstate WHERE name LIKE 'cluster %-%'")]

    def stop_worker(self, worker: subprocess.Popen[bytes]) -> None:
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(PATIENCE) == 0

    def slow_job(self, **options: Any) -> int:
        return self.slow_jobs(1, **options)[0]

    def slow_jobs(self, count: int, seconds: float = 0, waits: bool = False, ring: bool = True) -> list[int]:
        """Jobs that take so many seconds and, if they wait, until `go`."""
        (self.folder / "go").unlink(missing_ok=True)
        arguments = {"seconds": seconds, "waits": waits, "diary": str(self.diary)}
        enqueue = f"print(Job.enqueue('verify', ring={ring}, arguments={arguments}).pk)"
        return [int(line) for line in self.run(f"for _ in range({count}): {enqueue}").split()]

    def go(self) -> None:
        (self.folder / "go").touch()

    def job(self, pk: int) -> dict[str, Any]:
        names = ("state", "attempts", "error", "owner", "cancel_requested")
        return dict(
            zip(names, self.rows(f"SELECT {', '.join(names)} FROM backups_job WHERE id = ?", pk)[0], strict=True)
        )

    def words(self, word: str, pk: int) -> list[int]:
        """Processes that wrote `word` about this Job into the diary."""
        lines = [line.split() for line in self.diary.read_text().splitlines()]
        return [int(pid) for said, job, pid in lines if (said, int(job)) == (word, pk)]

    def wait_for_start(self, pk: int, times: int = 1) -> int:
        return wait_for(lambda: len(self.words("start", pk)) >= times and self.words("start", pk)[-1], PATIENCE)

    def wait_for_end(self, pk: int) -> None:
        wait_for(lambda: self.job(pk)["state"] == "succeeded", PATIENCE)
        assert len(self.words("end", pk)) == 1

    def processes(self, queue: str = "") -> dict[int, int]:
        """pid -> parent of all living processes of this installation's clusters (of one queue)."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                variables = (folder / "environ").read_bytes().decode(errors="replace").split("\0")
                state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
                name = (folder / "comm").read_text()
            except OSError:
                continue
            if name.startswith(f"everest {queue}") and f"EVEREST_DATA={self.folder}" in variables and state != "Z":
                found[int(folder.name)] = int(parent)
        return found

    def below(self, worker: int) -> set[int]:
        """The living processes of one worker's clusters."""
        processes, found = self.processes(), {worker}
        while more := {pid for pid, parent in processes.items() if parent in found} - found:
            found |= more
        return found - {worker}

    def main_process(self, queue: str) -> int:
        """The one of a queue, once a cluster that was replaced has gone."""
        wait_for(lambda: len(self._main_processes(queue)) == 1, PATIENCE)
        return self._main_processes(queue)[0]

    def _main_processes(self, queue: str) -> list[int]:
        processes = self.processes(queue)
        return [pid for pid, parent in processes.items() if parent not in processes]

    def pool(self, queue: str, workers: int) -> list[int]:
        """The pool's processes: the sentinel starts them before its two others."""
        processes = self.processes(queue)
        sentinel = next(pid for pid, parent in processes.items() if parent == self.main_process(queue))
        return sorted(pid for pid, parent in processes.items() if parent == sentinel)[:workers]

    def end(self) -> None:
        for worker in self.workers:
            if worker.poll() is None:
                worker.kill()
                worker.wait()
        wait_for(lambda: not self.processes() or self._kill_all(), 10)

    def _kill_all(self) -> None:
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    installation = Installation(tmp_path_factory.mktemp("migrated"))
    installation.run("from django.core.management import call_command\ncall_command('migrate', verbosity=0)")
    assert installation.rows("PRAGMA wal_checkpoint(TRUNCATE)")
    return (installation.folder / "everest.sqlite3").read_bytes()


def installed(folder: Path, migrated: bytes) -> Iterator[Installation]:
    (folder / "everest.sqlite3").write_bytes(migrated)
    made = Installation(folder)
    yield made
    made.end()


@pytest.fixture
def installation(tmp_path: Path, migrated: bytes) -> Iterator[Installation]:
    yield from installed(tmp_path, migrated)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, migrated: bytes) -> Iterator[Installation]:
    """One with a worker, which the tests of a module share: whatever they break mends itself."""
    for made in installed(tmp_path_factory.mktemp("running"), migrated):
        made.start_worker()
        yield made
