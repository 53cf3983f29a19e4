"""What every command of Everest shares: its outcome, progress, JSON, times, and how it is stopped.

The result goes to standard output, as text or with --json as JSON; progress and log lines to standard error.
"""

from __future__ import annotations

import json
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Any, TextIO
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.db import connection

from backups.engine.errors import EngineError
from backups.models import Database, Job
from backups.queue import run_job_now
from backups.when import read_moment
from everest.models import Event
from everest.secrets import SecretLost
from storages.models import BackupStorage
from storages.stores.base import StoreError

WHO = "command line"
EXPLICIT = re.compile(r"(Z|UTC|[+-]\d\d:?\d\d)$", re.IGNORECASE)


class Exit(IntEnum):
    """The exit codes, the same for every command (README.md repeats them)."""

    DONE = 0
    FAILED = 1  # for a reason that the message tells
    USAGE = 2  # the command line is wrong: an option, a name, a time
    REFUSED = 3  # nothing was changed, and trying again changes nothing until a person does
    UNREACHABLE = 4  # a server or storage does not answer now: trying again may help
    DAMAGED = 5  # stored data, or the server's log, is damaged or has a gap
    STOPPED = 130  # by Ctrl-C or SIGTERM, or cancelled on a page


KINDS = {
    "Refused": Exit.REFUSED,
    "NotCovered": Exit.REFUSED,
    "LeaseLost": Exit.REFUSED,
    "Denied": Exit.REFUSED,
    "SecretLost": Exit.REFUSED,
    "Transient": Exit.UNREACHABLE,
    "Unreachable": Exit.UNREACHABLE,
    "Corrupt": Exit.DAMAGED,
    "Gap": Exit.DAMAGED,
    "Forked": Exit.DAMAGED,
    "Stopped": Exit.STOPPED,
}


class Failure(CommandError):
    """Ends the command with this sentence, this code, and what is known of the result so far."""

    def __init__(self, message: str, code: Exit, result: dict[str, Any] | None = None) -> None:
        super().__init__(message, returncode=code)
        self.result = result or {}


class Terminal:
    """The engine's Run in the foreground: a progress bar where somebody looks, log lines always."""

    def __init__(self, stream: TextIO, stop: threading.Event) -> None:
        self.stream, self.stop = stream, stop
        self.interactive = stream.isatty()
        self._lock, self._drawn, self._width = threading.Lock(), 0.0, 0

    def should_stop(self) -> bool:
        return self.stop.is_set()

    def progress(self, step: str, done: int = 0, total: int = 0, unit: str = "") -> None:
        if self.interactive and (time.monotonic() - self._drawn > 0.1 or done == total):
            self._write(bar(step, done, total, unit), end="")
            self._drawn = time.monotonic()

    def log(self, line: str) -> None:
        self._write(line, end="\n")

    def close(self) -> None:
        """Wipe the bar."""
        if self._width:
            self._write("", end="")

    def _write(self, text: str, end: str) -> None:
        with self._lock:
            wipe = f"\r{' ' * self._width}\r" if self._width else ""
            self.stream.write(f"{wipe}{text}{end}")
            self.stream.flush()
            self._width = 0 if end else len(text)


def bar(step: str, done: int, total: int, unit: str, width: int = 30) -> str:
    """One line: `Loading [######      ] 12,345 of 60,000 rows`."""
    if not total:
        return f"{step} {done:,} {unit}".rstrip() if done else step
    filled = min(width, done * width // total)
    return f"{step} [{'#' * filled}{' ' * (width - filled)}] {done:,} of {total:,} {unit}".rstrip()


class EverestCommand(BaseCommand):
    """A command gives `arguments(parser)`, `work(options) -> result` and `text(result) -> lines`."""

    requires_migrations_checks = True

    def add_arguments(self, parser):
        parser.add_argument("--json", action="store_true", help="Print the result as JSON")
        self.arguments(parser)

    def arguments(self, parser) -> None:
        pass

    def work(self, options: dict[str, Any]) -> dict[str, Any]:
        raise NotImplementedError

    def text(self, result: dict[str, Any]) -> Iterable[str]:
        raise NotImplementedError

    def handle(self, *args, **options):
        stop = threading.Event()
        self.run = Terminal(sys.stderr, stop)
        try:
            with on_signals(stop.set), told():
                result = self.work(options)
        except Failure as failure:
            if options["json"]:
                self.print_json({"error": str(failure), "code": int(failure.returncode)} | failure.result)
            raise
        finally:
            self.run.close()
        if options["json"]:
            self.print_json(result)
        else:
            self.stdout.writelines(f"{line}\n" for line in self.text(result))

    def print_json(self, value: Any) -> None:
        self.stdout.write(json.dumps(value, default=str, ensure_ascii=False))

    # -- what the commands use

    def execute_job(self, job: Job) -> Job:
        """Run a Job here; a signal cancels it as a person's Cancel would.  Failure where it did not succeed."""
        with cancelled_by(self.run.stop, job):
            job = run_job_now(job, self.run)
        if job.state == Job.SUCCEEDED:
            return job
        waiting = job.state in Job.OPEN
        if waiting:
            job.cancel(WHO)  # it went back into the queue, but who asked does not wait for it
        if self.run.stop.is_set() or (job.state == Job.CANCELLED and not waiting):
            raise Failure(why(job) or f"{job} was stopped.", Exit.STOPPED)
        if waiting:
            raise Failure("It cannot begin yet, and nothing was done. Try again later.", Exit.UNREACHABLE)
        raise Failure(why(job), KINDS.get((job.result or {}).get("error", ""), Exit.FAILED))


@contextmanager
def told() -> Iterator[None]:
    """Errors that have a sentence for the person, as a Failure with the code of their kind."""
    try:
        yield
    except ValidationError as error:
        raise Failure(" ".join(error.messages), Exit.REFUSED) from error
    except (EngineError, StoreError, SecretLost) as error:
        raise Failure(str(error), code_of(error)) from error


def code_of(error: Exception) -> Exit:
    return next((KINDS[kind.__name__] for kind in type(error).__mro__ if kind.__name__ in KINDS), Exit.FAILED)


@contextmanager
def on_signals(act: Callable[[], None]) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM calls `act`; a second one ends the process at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {which: signal.getsignal(which) for which in (signal.SIGINT, signal.SIGTERM)}

    def handle(*_: object) -> None:
        act()
        for which in before:
            signal.signal(which, signal.SIG_DFL)

    for which in before:
        signal.signal(which, handle)
    try:
        yield
    finally:
        for which, handler in before.items():
            signal.signal(which, handler)


@contextmanager
def cancelled_by(stop: threading.Event, job: Job) -> Iterator[None]:
    """While inside, `stop` cancels the Job: a thread asks, as the run itself never speaks with the metadata."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.1):
            if stop.is_set():
                job_cancel(job.pk)
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def job_cancel(pk: int) -> None:
    try:
        Job.objects.get(pk=pk).cancel(WHO)
    finally:
        connection.close()


def why(job: Job) -> str:
    """The sentence that its Backup or Restore keeps, as that tells the target's state too, else its own."""
    subject = job.restore or job.backup
    if subject:
        subject.refresh_from_db()
    return (subject and subject.error) or job.error


def database_named(name: str) -> Database:
    return _named(Database.objects, "database", name)


def storage_named(name: str) -> BackupStorage:
    return _named(BackupStorage.objects, "storage", name)


def _named(manager, what, name):
    found = manager.filter(name=name).first()
    if found is None:
        names = ", ".join(manager.values_list("name", flat=True)) or "none yet"
        raise Failure(f"There is no {what} named {name}. There is: {names}.", Exit.USAGE)
    return found


def time_us(text: str) -> int:
    """Microseconds since the epoch of "2026-11-22 18:30:05.25Z", "... +01:00" or "... Europe/Berlin"."""
    typed, _, name = text.strip().rpartition(" ")
    try:
        if EXPLICIT.search(text.strip()):
            return read_moment(text, ZoneInfo("UTC"))
        return read_moment(typed, ZoneInfo(name))
    except ValidationError as error:
        raise Failure(f"{text}: {' '.join(error.messages)}", Exit.USAGE) from error
    except (ZoneInfoNotFoundError, ValueError) as error:
        hint = "Put Z, an offset such as +01:00, or a zone such as Europe/Berlin behind it."
        raise Failure(f"{text} does not say in which time zone it is. {hint}", Exit.USAGE) from error


def note(action: str, subject: object, detail: str = "") -> None:
    Event.note(WHO, action, subject, detail)


def utc(moment) -> str:
    """2026-11-22 18:30:05 UTC, or a dash."""
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC" if moment else "-"


def utc_us(us: int) -> str:
    """As `utc`, of microseconds since the epoch, with the fraction."""
    from backups.models.timeline import from_us

    return f"{from_us(us):%Y-%m-%d %H:%M:%S.%f} UTC"
