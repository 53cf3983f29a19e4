"""Shipping: chunks of a server's log become slices, each committed after the one before it.

While a chunk's data object goes up, the next one is captured.  An index is written once its data is safe and its
predecessor's index is: whatever breaks, what is in the bucket is one gapless run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Semaphore

from backups.engine import layout
from backups.engine.archive import Archive
from backups.engine.errors import Refused
from backups.engine.types import Chunk, Columns, DataRef, Piece, Position, SliceIndex, SlicePoint

IN_FLIGHT = 2  # chunks whose data is on its way; one more may wait in memory


def ship(
    archive: Archive,
    timeline: str,
    chunks: Iterable[Chunk],
    last: SliceIndex | None,
    on_slice: Callable[[SliceIndex], None],
) -> SliceIndex | None:
    """Store every chunk as a slice after `last` and return the newest.

    A chunk that knows its end already is whole in memory and goes up in the background; any other is used up in
    place, which is how a transaction of any size passes through.
    on_slice: called after each commit, in order and never twice at once, from a background thread.
    Raises what `chunks` raises, after everything complete before it is committed; LeaseLost where another worker
    has taken the next sequence number; Transient, Refused for the store.  A slice's own failure goes before the
    error that ended the chunks, which the next run meets again.
    """
    shipment = _Shipment(archive, timeline, last, on_slice)
    try:
        for chunk in chunks:
            shipment.take(chunk)
    finally:
        if isinstance(chunks, Generator):
            chunks.close()  # lets go of the server before waiting for the store
        newest = shipment.finish()
    return newest


def point(index: SliceIndex, storage: str = "") -> SlicePoint:
    """A slice without its transactions; storage: the name of where it lies."""
    times = index.times
    return SlicePoint(
        key=index.key,
        timeline=index.timeline,
        level=index.level,
        sequence=index.sequence,
        previous=index.previous,
        start=index.start,
        end=index.end,
        first_us=min(times, default=0),
        last_us=max(times, default=0),
        count=len(times),
        size=index.data.size,
        raw_size=index.raw_size,
        exact_times=index.exact_times,
        storage=storage,
        written_us=index.written_us,
        holds=index.holds,
    )


class _Shipment:
    """One run's pipeline.  The futures are the order: each commit waits for the one before it."""

    def __init__(
        self, archive: Archive, timeline: str, last: SliceIndex | None, on_slice: Callable[[SliceIndex], None]
    ) -> None:
        self._archive = archive
        self._timeline = timeline
        self._on_slice = on_slice
        self._end: Position | None = last.end if last else None
        self._sequence = last.sequence + 1 if last else 0
        self._newest: Future[SliceIndex | None] = Future()
        self._newest.set_result(last)
        self._slots = Semaphore(IN_FLIGHT)
        self._pool = ThreadPoolExecutor(IN_FLIGHT, "ship")

    def take(self, chunk: Chunk) -> None:
        """Send one chunk on its way, waiting while too many are; raise what stopped an earlier one."""
        self._continues(chunk)
        data = None if chunk.end else self._upload(chunk, self._sequence)
        if not chunk.end:
            raise ValueError("a chunk that was used up does not say where it ends")
        self._slots.acquire()
        if self._newest.done():
            self._newest.result()
        self._newest = self._pool.submit(self._slice, chunk, data, self._sequence, self._newest)
        self._sequence += 1
        self._end = chunk.end

    def finish(self) -> SliceIndex | None:
        """Wait for what is in flight."""
        self._pool.shutdown()
        return self._newest.result()

    def _continues(self, chunk: Chunk) -> None:
        if self._end is not None and dict(chunk.start) != dict(self._end):
            raise Refused(
                f"Captured transactions begin at {dict(chunk.start)}, but the last slice ends at {dict(self._end)}.",
                meaning="Storing them would leave a hole that nobody sees; they were not stored.",
                next_step="Resume from the end of the last slice in the storage.",
            )

    def _slice(
        self, chunk: Chunk, data: tuple[DataRef, int] | None, sequence: int, before: Future[SliceIndex | None]
    ) -> SliceIndex:
        try:
            ref, raw_size = data or self._upload(chunk, sequence)
            index = self._index(chunk, ref, raw_size, sequence, before.result())
            self._archive.write_slice(index)
            self._on_slice(index)
            return index
        finally:
            self._slots.release()

    def _upload(self, chunk: Chunk, sequence: int) -> tuple[DataRef, int]:
        payload = _Counted(chunk.payload)
        key = layout.slice_data(self._archive.database, self._timeline, 0, sequence)
        return self._archive.put_data(key, payload), payload.size

    def _index(
        self, chunk: Chunk, data: DataRef, raw_size: int, sequence: int, before: SliceIndex | None
    ) -> SliceIndex:
        return SliceIndex(
            key=layout.index(self._archive.database, self._timeline, 0, sequence),
            timeline=self._timeline,
            level=0,
            sequence=sequence,
            previous=before.key if before else "",
            start=chunk.start,
            end=chunk.end,
            data=data,
            raw_size=raw_size,
            exact_times=chunk.exact_times,
            written_us=time.time_ns() // 1000,
            transactions=Columns.of(chunk.transactions),
        )


class _Counted:
    """Pieces that are counted as they pass."""

    def __init__(self, pieces: Iterable[Piece]) -> None:
        self._pieces = pieces
        self.size = 0

    def __iter__(self) -> Iterator[Piece]:
        for piece in self._pieces:
            self.size += len(piece)
            yield piece
