"""Everything that goes wrong, each as one function: it does its harm, lets it work for a while, and ends it."""

from __future__ import annotations

import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pymysql

from tests.helpers import wait_for
from tests.soak.everest import Everest
from tests.soak.proxy import Proxy
from tests.soak.stand import FAKETIME, PATIENCE, ROOT, Stand, environment, execute, kill
from tests.soak.writers import now_us, rows

ROOM = 16 << 10  # bytes that a file may have on a full disk
HITS = 20.0  # seconds that a fault waits for something to hit
STEPS = (-7200, -600, -45, -5, 5, 45, 600, 7200)  # seconds of a clock
UNSHIPPED = 20  # transactions that a purge takes along, at least

Fault = Callable[["Faults", float], None]
FAULTS: dict[str, Fault] = {}


def fault(function: Fault) -> Fault:
    FAULTS[function.__name__.replace("_", " ")] = function
    return function


class Faults:
    def __init__(self, stand: Stand, everest: Everest, seed: str) -> None:
        self.stand, self.everest = stand, everest
        self.random = random.Random(f"{seed} faults")
        self.losses: list[tuple[int, int]] = []  # microseconds between which the log lost something

    def inject(self, name: str, seconds: float) -> None:
        FAULTS[name](self, seconds)

    # Processes

    @fault
    def worker_killed(self, seconds: float) -> None:
        """Whoever supervises it starts it again."""
        self.stand.worker.kill()
        time.sleep(seconds)

    @fault
    def one_process_killed(self, seconds: float) -> None:
        wait_for(lambda: len(self.stand.worker.tree()) > 1, PATIENCE, 0.1)  # another fault may have killed it just now
        for pid in self.random.sample(self.stand.worker.tree(), 2):
            kill(pid)
            time.sleep(seconds / 2)

    @fault
    def web_server_killed(self, seconds: float) -> None:
        self.stand.web.end()
        wait_for(self.everest.page_answers, PATIENCE, 0.5)

    @fault
    def mysql_killed(self, seconds: float) -> None:
        self.stand.source.kill()
        time.sleep(seconds / 2)
        self.stand.source.run()

    @fault
    def target_killed(self, seconds: float) -> None:
        self._wait_for_restore()
        with self.stand.restoring:  # not while it is compared
            self.stand.target.kill()
            time.sleep(seconds / 2)
            self.stand.target.run()

    @fault
    def gateway_killed(self, seconds: float) -> None:
        self.stand.ceph.kill_gateway()
        time.sleep(seconds / 2)
        self.stand.ceph.start_gateway()

    # Connections

    @fault
    def mysql_cut(self, seconds: float) -> None:
        self._mysql("cut", seconds)

    @fault
    def mysql_slow(self, seconds: float) -> None:
        self._mysql("slow", 2 * seconds)

    @fault
    def mysql_stalled(self, seconds: float) -> None:
        self._mysql("stall", 2 * seconds)

    @fault
    def target_cut(self, seconds: float) -> None:
        self._wait_for_restore()
        self.stand.to_target.set("cut")
        time.sleep(seconds / 2)
        self.stand.to_target.set("")

    @fault
    def s3_cut(self, seconds: float) -> None:
        self._s3("cut", seconds)

    @fault
    def s3_slow(self, seconds: float) -> None:
        self._s3("slow", 2 * seconds)

    @fault
    def s3_stalled(self, seconds: float) -> None:
        self._s3("stall", 2 * seconds)

    @fault
    def s3_answers_500(self, seconds: float) -> None:
        self._s3("500", seconds)

    @fault
    def s3_answers_503(self, seconds: float) -> None:
        self._s3("503", seconds)

    @fault
    def s3_answers_403(self, seconds: float) -> None:
        self._s3("403", seconds)

    @fault
    def s3_bodies_truncated(self, seconds: float) -> None:
        self._s3("truncated", 2 * seconds)

    @fault
    def s3_answers_lost(self, seconds: float) -> None:
        self._s3("lost", seconds)

    def _mysql(self, mode: str, seconds: float) -> None:
        self._disturb(self.stand.to_source, mode, seconds)

    def _s3(self, mode: str, seconds: float) -> None:
        self.stand.to_s3.every = self.random.choice((1, 2, 3))
        self._disturb(self.stand.to_s3, mode, seconds)

    def _disturb(self, proxy: Proxy, mode: str, seconds: float) -> None:
        """For a time, and until something was hit."""
        known = proxy.met[mode]
        proxy.set(mode)
        time.sleep(seconds)
        deadline = time.monotonic() + HITS
        while proxy.met[mode] == known and time.monotonic() < deadline:
            time.sleep(0.1)
        proxy.set("")

    # The machine

    @fault
    def disk_full(self, seconds: float) -> None:
        """No file of the worker may grow: its metadata, its log."""
        self._limit(ROOM)
        time.sleep(seconds)
        self._limit(resource.RLIM_INFINITY)

    def _limit(self, size: int) -> None:
        for pid in self.stand.worker.tree():
            with suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    @fault
    def clock_stepped(self, seconds: float) -> None:
        """A second machine, whose clock is wrong and then wrong in another way, shares the work."""
        other, clock = self.stand.other, self.stand.data / "clock"
        self._set(clock)
        other.extra = {
            "LD_PRELOAD": str(FAKETIME), "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }  # fmt: skip
        other.start()
        wait_for(lambda: len(other.tree()) > 8, PATIENCE)
        time.sleep(2 * seconds)
        self._set(clock)
        time.sleep(seconds)
        other.end()
        self.everest.correct_schedule()

    def _set(self, clock: Path) -> None:
        """At once: who looks at the clock reads the file, and an empty one tells no time."""
        new = clock.with_suffix(".new")
        new.write_text(f"{self.random.choice(STEPS):+d}")
        new.replace(clock)

    # The queue

    @fault
    def task_delivered_twice(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        self.everest.verify()
        while time.monotonic() < deadline:
            self.everest.ring_everything_twice()
            time.sleep(1)

    @fault
    def two_shippers(self, seconds: float) -> None:
        """The lease is taken from who holds it, and a command in the foreground ships besides."""
        argv = [sys.executable, "manage.py", "ship", "soak"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        by_hand = subprocess.Popen(argv, cwd=ROOT, env=environment(self.stand.data), **quiet)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline or by_hand.poll() is None:
            self.everest.release_ship_lease()
            self.everest.ring_ship_twice()
            time.sleep(2)
            if time.monotonic() > deadline + PATIENCE:
                by_hand.kill()

    # The log

    @fault
    def log_rotated(self, seconds: float) -> None:
        for _ in range(self.random.randrange(1, 4)):
            execute(self.stand.source, "FLUSH BINARY LOGS")
            time.sleep(0.3)

    @fault
    def log_purged(self, seconds: float) -> None:
        """What is shipped already, and no more."""
        execute(self.stand.source, "FLUSH BINARY LOGS")
        time.sleep(seconds / 2)
        position = self.everest.shipped_to()
        with self.stand.source.connect() as connection:
            ((uuid,),) = rows(connection, "SELECT @@server_uuid")
            if position and position["server"] == uuid:
                with suppress(pymysql.MySQLError):  # it may be gone already
                    connection.query(f"PURGE BINARY LOGS TO '{position['file']}'")

    @fault
    def unshipped_log_purged(self, seconds: float) -> None:
        """The hole must be told, and the next backup begins anew."""
        self.stand.to_source.set("cut")
        began = now_us()
        time.sleep(1)
        count = self.stand.truth.count
        wait_for(lambda: self.stand.truth.count > count + UNSHIPPED, PATIENCE, 0.1)
        with self.stand.gate.closed():
            execute(self.stand.source, "FLUSH BINARY LOGS")
            self.stand.caught_up()
            with self.stand.source.connect() as connection:
                newest = rows(connection, "SHOW BINARY LOGS")[-1][0]
                wait_for(lambda: self._purged(connection, newest), PATIENCE, 0.2)
        self.losses.append((began, now_us()))
        self.stand.to_source.set("")
        self.everest.begin_anew_after_loss()

    def _purged(self, connection: pymysql.Connection, newest: str) -> bool:
        """The replica's connection may keep a file for a moment."""
        connection.query(f"PURGE BINARY LOGS TO '{newest}'")
        return rows(connection, "SHOW BINARY LOGS")[0][0] == newest

    @fault
    def log_reset(self, seconds: float) -> None:
        began = now_us()
        self.stand.reset()
        self.losses.append((began, now_us()))
        self.everest.begin_anew_after_loss()

    @fault
    def replica_took_over(self, seconds: float) -> None:
        self.stand.switch()
        time.sleep(seconds / 2)

    def _wait_for_restore(self) -> None:
        """So that there is something to disturb; without one it is done all the same."""
        deadline = time.monotonic() + 20
        while not self.everest.restore_runs() and time.monotonic() < deadline:
            time.sleep(0.2)


def heal(stand: Stand) -> None:
    """As if nothing had been injected."""
    for proxy in (stand.to_source, stand.to_target, stand.to_s3):
        proxy.set("")
    assert os.path.exists(stand.data)
