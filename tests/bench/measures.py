"""What a piece of work costs: time, CPU of its processes and of the servers it uses, memory.

Everest and its peers are measured alike: each in a process of its own, which first prepares (imports, connections to
the bucket, output folders: none of it counted), then works.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

TICKS = os.sysconf("SC_CLK_TCK")
SAMPLE_SECONDS = 0.5  # a look holds the process up while its pages are counted


@dataclass(frozen=True)
class Step:
    """One measured piece of work.

    seconds: on the clock.  cpu: seconds of its own processes.  servers: CPU seconds by name of the servers it used.
    memory, largest: peak bytes (PSS) of all its processes together, and of the largest of them.
    result: what the work returned.
    """

    seconds: float
    cpu: float
    servers: dict[str, float]
    memory: int
    largest: int
    result: Any = None


class Failed(Exception):
    """The work that was to be measured did not succeed."""


def measure(prepare: Callable[..., Callable[[], Any]], *arguments: Any, servers: dict[str, list[int]]) -> Step:
    """Run `prepare(*arguments)` in a new process, and measure the call of what it returns.

    servers: process ids by name, whose CPU is counted beside.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_stage, args=(theirs, prepare, arguments))
    process.start()
    theirs.close()
    try:
        _answer(ours)
        before = _tree_cpu(process.pid), _cpu_of(servers)
        with Memory([process.pid or 0]) as memory:
            ours.send("go")
            seconds, result = _answer(ours)
        cpu = _tree_cpu(process.pid) - before[0]
        used = {name: spent - before[1][name] for name, spent in _cpu_of(servers).items()}
        ours.send("end")
        return Step(seconds, cpu, used, memory.all, memory.largest, result)
    finally:
        ours.close()
        process.join()


def _answer(connection: Connection) -> Any:
    try:
        kind, value = connection.recv()
    except EOFError as error:
        raise Failed("The measured process ended without a word.") from error
    if kind == "failed":
        raise Failed(value)
    return value


def _stage(connection: Connection, prepare: Callable[..., Callable[[], Any]], arguments: tuple[Any, ...]) -> None:
    try:
        work = prepare(*arguments)
        connection.send(("ready", None))
        connection.recv()
        start = time.monotonic()
        result = work()
        connection.send(("done", (time.monotonic() - start, result)))
        connection.recv()
    except EOFError:
        pass  # the other side gave up
    except BaseException:
        connection.send(("failed", traceback.format_exc()))


class Memory:
    """Samples the PSS of process trees until its block ends."""

    def __init__(self, roots: Iterable[int]) -> None:
        self.roots = list(roots)
        self.all = self.largest = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._sample()

    def _run(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            self._sample()

    def _sample(self) -> None:
        sizes = [pss(pid) for root in self.roots for pid in tree(root)]
        self.all = max(self.all, sum(sizes))
        self.largest = max(self.largest, *sizes, 0)


def tree(pid: int) -> list[int]:
    """A process and all below it that live now."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = task.read_text().split()
        except OSError:
            continue
        for child in children:
            found += tree(int(child))
    return found


def pss(pid: int) -> int:
    """Bytes of memory in which shared pages are divided among those who share them; 0 of one that has ended."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) << 10
    except OSError:
        pass
    return 0


def _cpu_of(servers: dict[str, list[int]]) -> dict[str, float]:
    return {name: sum(map(_cpu, pids)) for name, pids in servers.items()}


def _tree_cpu(pid: int | None) -> float:
    return sum(_cpu(one, ended=True) for one in tree(pid or 0))


def _cpu(pid: int, ended: bool = False) -> float:
    """CPU seconds so far; ended: with those of its children that have ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(int(field) for field in fields[11 : 15 if ended else 13]) / TICKS
