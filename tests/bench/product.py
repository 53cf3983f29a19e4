"""Everest's side of each comparison, in the form that `measures.measure` runs: prepare, and return the work."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from backups.engine import mysql, slices
from backups.engine.archive import Archive
from backups.engine.manifest import Manifest
from backups.engine.mysql.server import ServerConfig
from backups.engine.types import Chunk, Position, Quiet, SliceIndex
from storages.stores import open_store
from storages.stores.base import StoreConfig

GENTLE_RATE = 20 << 20
SLICE_BYTES = 16 << 20  # as a ship run cuts them at most


@dataclass(frozen=True)
class Place:
    """Where a database's backups and slices lie."""

    store: StoreConfig
    database: str
    timeline: str

    def archive(self) -> Archive:
        return Archive(open_store(self.store), self.database)

    def elsewhere(self) -> Place:
        """An empty timeline of the same database."""
        return Place(self.store, self.database, str(uuid.uuid4()))


def chunks(config: ServerConfig, start: Position, *, interval: float = 60, seconds: float = 0) -> Iterator[Chunk]:
    """seconds: 0 for what the log holds now, else how long to follow it."""
    return mysql.capture(
        config, start, replica_uuid=str(uuid.uuid4()), interval=interval, max_bytes=SLICE_BYTES, drain=not seconds,
        deadline=time.monotonic() + seconds if seconds else None, run=Quiet(), on_caught_up=lambda position: None,
    )  # fmt: skip


def captured(config: ServerConfig, start: Position) -> Callable[[], int]:
    """Everything that was logged since `start`, read and thrown away; returns the bytes."""

    def work() -> int:
        return sum(len(piece) for chunk in chunks(config, start) for piece in chunk.payload)

    return work


def shipped(config: ServerConfig, start: Position, place: Place) -> Callable[[], int]:
    """Everything that was logged since `start`, as slices in the bucket; returns their bytes."""
    archive = place.archive()
    archive.last_slice(place.timeline)  # as a ship run asks the bucket before it asks the server
    sizes: list[int] = []

    def work() -> int:
        slices.ship(archive, place.timeline, chunks(config, start), None, lambda index: sizes.append(index.data.size))
        return sum(sizes)

    return work


def followed(config: ServerConfig, start: Position, place: Place, seconds: float) -> Callable[[], list[float]]:
    """Ship for a while at an interval of a second; returns the seconds from commit to the bucket, in no order.

    Of each transaction that was committed meanwhile: those before had to wait for the shipping to begin.
    """
    archive = place.archive()
    seen: list[tuple[float, float]] = []

    def safe(index: SliceIndex) -> None:
        now = time.time()
        seen.extend((transaction.time_us / 1e6, now) for transaction in index.transactions)

    def work() -> list[float]:
        began = time.time()
        slices.ship(archive, place.timeline, chunks(config, start, interval=1, seconds=seconds), None, safe)
        return [stored - committed for committed, stored in seen if committed >= began]

    return work


def snapshot(config: ServerConfig, place: Place, **options: Any) -> Callable[[], Manifest]:
    """A backup into the bucket."""
    archive = place.archive()

    def work() -> Manifest:
        return mysql.snapshot(
            config, archive, timeline=place.timeline, backup=str(uuid.uuid4()), name="bench", schedule="", run=Quiet(),
            **options,
        )  # fmt: skip

    return work


def snapshot_gently(config: ServerConfig, place: Place) -> Callable[[], Manifest]:
    """A backup by one connection that reads so many bytes a second."""
    return snapshot(config, place, threads=1, rate=GENTLE_RATE)


def loaded(config: ServerConfig, place: Place, manifest: Manifest) -> Callable[[], Any]:
    """The backup into an empty server."""
    archive = place.archive()
    before = mysql.prepare_target(config, lambda settings: None)

    def work() -> Any:
        counts = mysql.load(config, archive, manifest, run=Quiet())
        mysql.put_back(config, before)
        return counts

    return work


def replayed(config: ServerConfig, place: Place, manifest: Manifest, **options: Any) -> Callable[[], Any]:
    """All slices onto the loaded backup."""
    archive = place.archive()
    last = archive.last_slice(place.timeline)
    if last is None:
        raise ValueError("there are no slices")
    before = mysql.prepare_target(config, lambda settings: None)

    def work() -> Any:
        stored = ((index, archive.read_data(index.data)) for index in archive.slices(place.timeline))
        source = {**manifest.settings, "system_time_zone": manifest.system_time_zone}
        result = mysql.replay(
            config, stored, start=manifest.position, stop=last.end, run=Quiet(), source=source, **options
        )
        mysql.put_back(config, before)
        return result

    return work
