"""Copies of this process that work beside it: Python computes in one thread of a process at a time.

A copy is made with `fork`, so it has at once all that is in memory here and need not be told anything.  It must be made
while no other thread holds what the copy will want; threads that only beat now and then see to that by themselves
(`os.register_at_fork`).
"""

from __future__ import annotations

import ctypes
import gc
import os
import pickle
import signal
import tempfile
import threading
import traceback
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from mmap import mmap
from multiprocessing.connection import Connection, Pipe, wait
from struct import Struct
from typing import Any, Generic, NoReturn, TypeVar

from backups.engine.errors import EngineError, Transient
from backups.engine.types import Quiet

T = TypeVar("T")


def cores() -> int:
    """How many processes can compute at once here."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Parent(Quiet):
    """The Run of a fork, to be made before it: it is to stop where the process it was forked from is gone."""

    def __init__(self) -> None:
        self.pid = os.getpid()

    def should_stop(self) -> bool:
        return os.getppid() != self.pid


_NUMBER = Struct("<I")


class Shared:
    """What a process and its forks have in common: numbers that each goes to one of them, sums, and a sign to stop.

    process: 0 here; a fork sets its own, below `processes`.
    Without locks, as one that a process held when it was killed would never open: each has a place of its own.
    """

    def __init__(self, numbers: int, processes: int = 1) -> None:
        self.process = 0
        self._sums = memoryview(mmap(-1, 8 * processes)).cast("q")
        self._failed = mmap(-1, 1)
        self._left, path = tempfile.mkstemp()
        os.unlink(path)
        os.pwrite(self._left, b"".join(map(_NUMBER.pack, range(numbers))), 0)

    def __enter__(self) -> Shared:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._left)

    def next(self) -> int | None:
        """A number that nobody else gets, None where none is left."""
        # A file has one offset for all forks, and a read moves it on before another begins (POSIX: fork, read).
        taken = os.read(self._left, _NUMBER.size)
        return int(_NUMBER.unpack(taken)[0]) if taken else None

    def add(self, size: int) -> None:
        """Only ever in one thread of a process at a time."""
        self._sums[self.process] += size

    @property
    def done(self) -> int:
        """What all have added."""
        return sum(self._sums)

    def fail(self) -> None:
        self._failed[0] = 1

    @property
    def failed(self) -> bool:
        return bool(self._failed[0])


Fail = Callable[[BaseException], None]


class Fork(Generic[T]):
    """One copy, which does `work` and ends.  To be ended with `end`, whatever happened; it ends with this process, too.

    work: may tell of an error before it has come to its end, and is not listened to any more then.
    Connections that were open before belong either to the copy or to this process from then on.
    """

    def __init__(self, work: Callable[[Fail], T]) -> None:
        self._pipe, theirs = Pipe(duplex=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # from Python 3.12 on, where there are threads
            self.pid = _forked(work, theirs)
        theirs.close()

    def result(self) -> T:
        """Wait for what the work returned, or raise what it raised; Transient where the copy was ended."""
        try:
            good, value = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise Transient(
                "A process of Everest was ended from outside.",
                meaning="What it was to do is not done.",
                next_step="See whether the machine ran out of memory (its kernel's log tells), then try again.",
            ) from error
        if not good:
            raise value
        return value  # type: ignore[no-any-return]

    def end(self) -> None:
        """No trace of it is left; what it was doing is cut off."""
        self._pipe.close()
        with suppress(ChildProcessError):
            os.kill(self.pid, signal.SIGKILL)  # it is waited for below only, so the number is still its own
            os.waitpid(self.pid, 0)


def answered(forks: Iterable[Fork[T]], seconds: float) -> list[Fork[T]]:
    """Those whose `result` is there, at once or after a while; empty where none is by then."""
    pipes = {fork._pipe: fork for fork in forks}
    return [pipes[pipe] for pipe in wait(list(pipes), seconds) if isinstance(pipe, Connection)]


def _forked(work: Callable[[Fail], Any], pipe: Connection) -> int:
    parent = os.getpid()
    try:
        pid = os.fork()
        if not pid:
            _be(work, pipe, parent)
        return pid
    except OSError as error:
        raise Transient(
            f"No process could be started ({error.strerror}).",
            next_step="See how many processes and how much memory Everest may have on this machine.",
        ) from error


_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


def _be(work: Callable[[Fail], Any], pipe: Connection, parent: int) -> NoReturn:
    """The copy's whole life."""
    try:
        if hasattr(_LIBC, "prctl"):  # Linux: what it holds of the server's is let go when its parent is killed
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == parent:
            _Copy(pipe).run(work)
    finally:
        os._exit(0)  # nothing of this process is the copy's to clean up


class _Copy:
    """The copy's end of the pipe, on which it says one thing."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe
        self.lock = threading.Lock()
        self.said = False

    def run(self, work: Callable[[Fail], Any]) -> None:
        gc.freeze()  # what was there before is shared memory: collecting garbage would write to it
        try:
            self._say(True, work(self.fail))
        except BaseException as error:
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        self._say(False, _portable(error))

    def _say(self, good: bool, value: Any) -> None:
        with self.lock:
            if not self.said:
                self.pipe.send((good, value))
                self.said = True


def _portable(error: BaseException) -> BaseException:
    """The error as another process can have it; with its trace where it was not foreseen."""
    if not isinstance(error, EngineError):
        error.add_note("".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
    return error
