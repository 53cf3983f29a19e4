"""Does a storage do all that Everest needs?  One step each, with an error of its own."""

from __future__ import annotations

import dataclasses
import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from storages.stores.base import (
    AlreadyExists,
    Conflict,
    NotFound,
    ObjectStore,
    StoreConfig,
    StoreError,
    Unreachable,
    Untrusted,
)
from storages.stores.local import LocalStore
from storages.stores.s3 import MIB, S3Store

SMALLEST_PART = 5 * MIB  # the least that S3 takes before the last part
RACERS = 8
REACH, BUCKET, CONDITIONAL = "Reach the endpoint", "Bucket", "Conditional write"
RACES = 3


@dataclass(frozen=True, slots=True)
class ProbeStep:
    """One line of the answer; a store may do without a step that is not required."""

    name: str
    ok: bool
    message: str
    required: bool = True


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What `probe` found; ok: usable.  conditional_put: to be remembered in the storage's StoreConfig."""

    steps: list[ProbeStep]
    conditional_put: bool
    ok: bool


def probe(config: StoreConfig, time_limit: float = 20) -> ProbeResult:
    """Try everything in a corner of the storage, within `time_limit` seconds in all; never raises StoreError.

    The work goes on in a thread of its own that, when the time is up, is left to clean up behind itself.
    """
    run = _Probe(config, time.monotonic() + time_limit)
    thread = threading.Thread(target=run.all_steps, name="probe", daemon=True)
    thread.start()
    run.settled.wait(time_limit)
    finished, steps = run.finished, list(run.steps)
    if not finished and all(step.ok for step in steps if step.required):
        steps.append(ProbeStep(run.current, False, run.excuse(time_limit)))
    good = all(step.ok for step in steps if step.required)
    return ProbeResult(steps, any(step.name == CONDITIONAL and step.ok for step in steps), good)


class _Probe:
    def __init__(self, config: StoreConfig, deadline: float) -> None:
        self._config = dataclasses.replace(config, conditional_put=True)
        self._deadline = deadline
        self._place = f"everest-probe/{secrets.token_hex(8)}"
        self._data = secrets.token_bytes(1000)
        self._keys = [f"{self._place}/{name}" for name in ("a", "b", "multipart", *map(str, range(RACES)))]
        self.current = REACH
        self.finished = False
        self.settled = threading.Event()
        self.steps: list[ProbeStep] = []

    def all_steps(self) -> None:
        try:
            store = self._reach()
            if store is None:
                return
            try:
                self._use(store)
            finally:
                self.settled.set()  # nobody need wait for the cleaning up
                with suppress(StoreError):  # the steps have said what is wrong with the store
                    store.delete(self._keys)
        finally:
            self.settled.set()

    def excuse(self, time_limit: float) -> str:
        """Why the steps end with one that is neither done nor failed."""
        if time.monotonic() < self._deadline:
            return "An error that Everest did not expect: see its log, and report it."
        return f"Not done within {time_limit:g} s in all. The storage, or the way to it, is too slow."

    def _reach(self) -> ObjectStore | None:
        """The store, where its endpoint answers and its bucket is there."""
        store: LocalStore | S3Store
        try:
            store = LocalStore(self._config) if self._config.type == "local" else _impatient(self._config)
        except StoreError as error:
            self.steps.append(ProbeStep(REACH, False, str(error)))
            return None
        try:
            store.check()
        except (Unreachable, Untrusted) as error:
            self.steps.append(ProbeStep(REACH, False, str(error)))
            return None
        except StoreError as error:
            self.steps += [ProbeStep(REACH, True, "It answers."), ProbeStep(BUCKET, False, str(error))]
            return None
        self.steps += [ProbeStep(REACH, True, "It answers."), ProbeStep(BUCKET, True, "It is there.")]
        return store

    def _use(self, store: ObjectStore) -> None:
        must: list[tuple[str, Callable[[ObjectStore], str]]] = [
            ("Write", self._write),
            ("Read", self._read),
            ("List", self._list),
            ("Multipart upload", self._multipart),
            ("Delete", self._delete),
        ]
        if all(self._step(name, step, store) for name, step in must):
            self._step(CONDITIONAL, self._conditional, store, required=False)
            self.finished = time.monotonic() < self._deadline

    def _step(self, name: str, step: Callable[[ObjectStore], str], store: ObjectStore, required: bool = True) -> bool:
        self.current = name
        if time.monotonic() > self._deadline:
            return False
        try:
            self.steps.append(ProbeStep(name, True, step(store), required))
        except StoreError as error:
            self.steps.append(ProbeStep(name, False, str(error), required))
        return self.steps[-1].ok

    def _write(self, store: ObjectStore) -> str:
        store.put(self._keys[1], self._data)
        store.put(self._keys[0], b"")
        return "An object was written."

    def _read(self, store: ObjectStore) -> str:
        _same(store.get(self._keys[1]), self._data, "An object")
        _same(store.get(self._keys[1], 100, 200), self._data[100:300], "A part of an object")
        _same(store.get(self._keys[0]), b"", "An empty object")
        return "What was written was read back, whole and in part."

    def _list(self, store: ObjectStore) -> str:
        for after, wanted in (("", self._keys[:2]), (self._keys[0], self._keys[1:2])):
            found = [info.key for info in store.list(f"{self._place}/", after)]
            if found != wanted:
                raise StoreError("A listing did not show exactly what was written.", hint="Use another store.")
        return "What was written is listed at once, in order."

    def _multipart(self, store: ObjectStore) -> str:
        blocks = [secrets.token_bytes(SMALLEST_PART), self._data]
        size = store.upload(self._keys[2], blocks)
        _same(store.get(self._keys[2], SMALLEST_PART - 100, 200), blocks[0][-100:] + self._data[:100], "An upload")
        _same(store.get(self._keys[2], size - 1), self._data[-1:], "An upload's end")
        return "An upload in two parts was written and read back."

    def _delete(self, store: ObjectStore) -> str:
        store.delete(self._keys[:3])
        for key in self._keys[:3]:
            with suppress(NotFound):
                store.get(key, 0, 1)
                raise StoreError("A deleted object was read.", hint="Use another store: this one forgets late.")
        return "Objects were deleted."

    def _conditional(self, store: ObjectStore) -> str:
        """Of several that race for one key exactly one must win: on some stores all do, on some now and then two."""
        for key in self._keys[3:]:
            with ThreadPoolExecutor(RACERS, "probe") as pool:
                won = sum(pool.map(lambda number, key=key: _wins(store, key, number), range(RACERS)))
            if won != 1:
                raise StoreError(
                    "Of several writers of one key not exactly one won.",
                    hint="Everest then relies on its leases alone.",
                )
        return "Of several writers of one key exactly one wins."


def _impatient(config: StoreConfig) -> S3Store:
    """The same client as always, but somebody is waiting for the answer."""
    return S3Store(config, attempts=2, timeout=3, part_size=SMALLEST_PART)


def _same(found: bytes, wanted: bytes, what: str) -> None:
    if found != wanted:
        raise StoreError(f"{what} came back altered.", hint="Use another store, or see what lies between.")


def _wins(store: ObjectStore, key: str, number: int) -> bool:
    try:
        store.put(key, str(number).encode(), if_absent=True)
    except (AlreadyExists, Conflict):
        return False
    return True
