"""The only reader and writer of a bucket: data objects, then the record that commits them.

What a store says is translated here, once: later-may-work is Transient, a missing or altered object is Corrupt,
the rest is Refused with the store's hint.
"""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from itertools import islice, takewhile
from typing import IO, Any, TypeVar, cast

import zstandard

from backups.engine import codec, index, layout, manifest
from backups.engine.crypt import Keys, opened, sealed
from backups.engine.errors import Corrupt, LeaseLost, Refused, Transient
from backups.engine.manifest import Manifest
from backups.engine.pieces import AsFile, compressed
from backups.engine.types import BackupPoint, DataRef, Piece, SliceIndex, SlicePoint
from storages.stores.base import AlreadyExists, NotFound, ObjectInfo, ObjectStore, StoreError

BLOCK = 8 << 20  # what is hashed, fetched and proven at once
PIECE = 1 << 20  # what is handed on at once
PAGE = 1000  # keys of one listing
WAITS = (0.5, 2.0)  # seconds between tries of one request; a store has tried several times itself before it says no

T = TypeVar("T")
S = TypeVar("S")


class Archive:
    """One database's part of a bucket.  May be used from several threads.

    keys: with any, everything that is written is encrypted; what was written without is read all the same.
    """

    def __init__(self, store: ObjectStore, database: str, keys: Keys = codec.PLAIN) -> None:
        self.store = store
        self.database = database
        self.keys = keys

    # Data objects

    def put_data(self, key: str, raw: Iterable[Piece]) -> DataRef:
        """Compress, encrypt and upload with bounded memory.

        Where `raw` raises, its error passes through and nothing is left under the key.
        """
        hashes = _Hashes()
        with told(key):
            size = self.store.upload(key, hashes.watch(sealed(compressed(raw), self.keys, key)))
        if size != hashes.size:
            raise Transient(f"{key} arrived with {size} bytes of {hashes.size}.", meaning="It is not used.")
        return DataRef(key, size, hashes.whole.hexdigest(), hashes.blocks())

    def read_data(self, ref: DataRef) -> Iterator[bytes]:
        """The decompressed bytes, each block proven before anything made of it is handed on; raise Corrupt."""
        source = cast(IO[bytes], AsFile(opened(self.blocks(ref), self.keys, ref.key)))
        reader = zstandard.ZstdDecompressor().stream_reader(source, read_across_frames=True)
        try:
            while piece := reader.read(PIECE):
                yield piece
        except zstandard.ZstdError as error:
            raise Corrupt(f"{ref.key} cannot be decompressed ({error}).") from error

    def blocks(self, ref: DataRef) -> Iterator[bytes]:
        """The object's bytes as stored, block by block, each proven; raise Corrupt."""
        hashes, span = (ref.blocks, BLOCK) if ref.blocks else ((ref.sha256,), ref.size)
        if ref.blocks and len(ref.blocks) != -(-ref.size // BLOCK):
            raise Corrupt(f"{ref.key} has {len(ref.blocks)} block hashes for {ref.size} bytes.")
        for number, wanted in enumerate(hashes):
            offset = number * span
            yield self._read(ref.key, offset, min(span, ref.size - offset), partial(_proven, ref.key, wanted))

    # Records

    def put_record(self, key: str, kind: str, body: Any, *, claim: bool, compress: bool = False) -> None:
        """Write one record.

        claim: take the key or raise LeaseLost where somebody else's bytes are there.  Bytes equal to ours are an
        earlier try of our own whose answer was lost.
        """
        data = codec.seal(kind, body, compress, self.keys, key)
        with told(key):
            if not claim:
                _tried(lambda: self.store.put(key, data))
            elif self.store.conditional_put:
                try:
                    _tried(lambda: self.store.put(key, data, if_absent=True))
                except AlreadyExists:
                    self._must_be_ours(key, data)
            elif not self._is_ours(key, data):
                _tried(lambda: self.store.put(key, data))

    def _must_be_ours(self, key: str, data: bytes) -> None:
        if not self._is_ours(key, data):
            raise Transient(f"{key} was taken, and is gone again.", next_step="Nothing was written; it is tried again.")

    def _is_ours(self, key: str, data: bytes) -> bool:
        """Whether our bytes lie under the key already; raise LeaseLost where others do."""
        try:
            found = _tried(lambda: self.store.get(key))
        except NotFound:
            return False
        if found != data:
            raise LeaseLost(
                f"Another worker wrote {key} first.",
                meaning="What it wrote stands; this worker's try is left out, nothing is lost.",
                next_step="See that only one Everest ships this database.",
            )
        return True

    def read_record(self, key: str, kind: str) -> Any:
        """A record's body; raise Corrupt (also where it is missing) or Refused."""
        return self._read(key, 0, None, lambda data: codec.unseal(data, kind, key, self.keys))

    def _read(self, key: str, offset: int, length: int | None, prove: Callable[[bytes], T]) -> T:
        """What `prove` makes of an object's bytes; damage may have happened on the way, so it is fetched twice."""
        with told(key):
            try:
                return prove(_tried(lambda: self.store.get(key, offset, length)))
            except Corrupt:
                return prove(_tried(lambda: self.store.get(key, offset, length)))

    # What a timeline holds

    def write_manifest(self, entry: Manifest) -> None:
        """Commit a backup.  Raises LeaseLost where another run of the same backup was first."""
        key = self.manifest_key(entry.timeline, entry.backup)
        self.put_record(key, manifest.KIND, manifest.to_body(entry), claim=True)

    def read_manifest(self, timeline: str, backup: str) -> Manifest:
        key = self.manifest_key(timeline, backup)
        entry = manifest.from_body(self.read_record(key, manifest.KIND))
        if (entry.database, entry.timeline, entry.backup) != (self.database, timeline, backup):
            raise Corrupt(f"{key} is the manifest of another backup ({entry.database}, {entry.backup}).")
        return entry

    def manifests(self) -> Iterator[Manifest]:
        """Every committed backup, in no order that means anything."""
        for timeline in self.timelines():
            for backup in self.backups(timeline):
                if entry := self._listed(timeline, backup):
                    yield entry

    def _listed(self, timeline: str, backup: str) -> Manifest | None:
        """None where it was given up since it was listed, perhaps by a request that had been on its way for long."""
        try:
            return self.read_manifest(timeline, backup)
        except Corrupt:
            if self.has(self.manifest_key(timeline, backup)):
                raise
            return None

    def backups(self, timeline: str) -> list[str]:
        """The uuids of a timeline's committed backups."""
        folders = _folders(self.store, layout.backups_prefix(self.database, timeline))
        return [backup for backup in folders if self.has(self.manifest_key(timeline, backup))]

    def manifest_key(self, timeline: str, backup: str) -> str:
        return layout.manifest(self.database, timeline, backup)

    def timelines(self) -> list[str]:
        return list(_folders(self.store, layout.database_prefix(self.database)))

    def write_slice(self, entry: SliceIndex) -> None:
        """Commit a slice by claiming its sequence number; raise LeaseLost where it is taken."""
        self.put_record(entry.key, index.KIND, index.to_body(entry, self.database), claim=True, compress=True)

    def read_slice(self, key: str) -> SliceIndex:
        body = self.read_record(key, index.KIND)
        entry = index.from_body(body)
        if (body.get("database"), entry.key) != (self.database, key):
            raise Corrupt(f"{key} is the index of another slice ({entry.key}).")
        return entry

    def find_slice(self, key: str) -> SliceIndex | None:
        """The slice with this index key, None where there is none."""
        return self.read_slice(key) if self.has(key) else None

    def slices(self, timeline: str, level: int = 0, after: int = -1) -> Iterator[SliceIndex]:
        """Committed slices of a level with a sequence above `after`, in order; several are fetched at once."""
        return self.read_slices(self.slice_keys(timeline, level, after))

    def read_slices(self, keys: Iterable[str]) -> Iterator[SliceIndex]:
        return _ahead(self.read_slice, keys)

    def levels(self, timeline: str) -> list[int]:
        """The levels on which there are slices of a timeline."""
        return [level for level in range(layout.LEVELS) if any(self.slice_keys(timeline, level))]

    def slice_keys(self, timeline: str, level: int = 0, after: int = -1) -> Iterator[str]:
        prefix = layout.index_prefix(self.database, timeline, level)
        start = layout.index(self.database, timeline, level, after) if after >= 0 else ""
        with told(prefix):
            yield from (info.key for info in _listing(self.store, prefix, start) if layout.parse(info.key))

    def last_slice(self, timeline: str) -> SliceIndex | None:
        """The newest slice, from the bucket alone.

        Retention takes slices from the front only and always leaves the newest, so "there is one after n" is true
        up to it and false from it on: a few dozen listings find it among millions.
        """
        newest = self._sequence_after(timeline, -1)
        if newest is None:
            return None
        step = PAGE
        while (found := self._sequence_after(timeline, newest + step)) is not None:
            newest, step = found, step * 2
        while (step := step // 2) >= PAGE:
            found = self._sequence_after(timeline, newest + step)
            newest = newest if found is None else found
        rest = deque(self.slice_keys(timeline, after=newest), maxlen=1)
        return self.read_slice(rest.pop() if rest else layout.index(self.database, timeline, 0, newest))

    def _sequence_after(self, timeline: str, after: int) -> int | None:
        key = next(self.slice_keys(timeline, after=min(after, layout.LAST_SEQUENCE)), "")
        parts = layout.parse(key)
        return parts.sequence if parts else None

    # The database itself

    def write_database(self, body: dict[str, Any]) -> None:
        """Replace database.json, the one object that is written more than once."""
        self.put_record(layout.database_record(self.database), "database", body, claim=False)

    def read_database(self) -> dict[str, Any] | None:
        """What database.json says; None where there is none."""
        key = layout.database_record(self.database)
        return dict(self.read_record(key, "database")) if self.has(key) else None

    def has(self, key: str) -> bool:
        """Whether there is an object with exactly this key."""
        with told(key):
            return any(info.key == key for info in islice(_listing(self.store, key), 1))

    # Giving up

    def give_up(
        self, backups: Iterable[BackupPoint] = (), slices: Iterable[SlicePoint] = (), orphans: Iterable[str] = ()
    ) -> None:
        """Delete what `retention` said may go, and nothing else.

        Markers go first, so that a crash leaves data without a marker, which retention finds again; slices go
        oldest first, so that what is left is one run.
        """
        for backup in backups:
            self._delete([self.manifest_key(backup.timeline, backup.id)])
            self._delete(self._keys(layout.backup_prefix(self.database, backup.timeline, backup.id)))
        for (timeline, level), points in _by_level(slices).items():
            data = self._slice_data(timeline, level, {point.sequence for point in points})
            self._delete(point.key for point in points)
            self._delete(data)
        self._delete(orphans)

    def tidy(self, before: datetime) -> int:
        """Give up writes of this database that began before a time and were cut off; return how many."""
        prefix = layout.database_prefix(self.database)
        with told(prefix):
            return self.store.tidy(prefix, before)

    def _slice_data(self, timeline: str, level: int, sequences: set[int]) -> list[str]:
        """Every data object of these slices, of tries that came to nothing too."""
        prefix = layout.slice_data_prefix(self.database, timeline, level)
        with told(prefix):
            keys = (info.key for info in _listing(self.store, prefix, f"{prefix}{min(sequences):012}"))
            numbered = ((key, parts.sequence) for key in keys if (parts := layout.parse(key)))
            wanted = takewhile(lambda pair: pair[1] <= max(sequences), numbered)
            return [key for key, sequence in wanted if sequence in sequences]

    def objects(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Everything of this database below a prefix, by default all of it."""
        with told(prefix):
            yield from _listing(self.store, prefix or layout.database_prefix(self.database))

    def _keys(self, prefix: str) -> Iterator[str]:
        return (info.key for info in self.objects(prefix))

    def _delete(self, keys: Iterable[str]) -> None:
        with told("objects that were given up"):
            self.store.delete(list(keys))


def databases(store: ObjectStore) -> list[str]:
    """The uuids of all databases that have anything in this store."""
    return list(_folders(store, layout.ROOT))


@contextmanager
def told(key: str) -> Iterator[None]:
    """Turn what a store says into the engine's errors."""
    try:
        yield
    except NotFound as error:
        raise Corrupt(
            f"{key} is missing from the storage.",
            meaning="What depends on it cannot be restored.",
            next_step="Look whether a lifecycle rule or a person deleted it; a versioned bucket may still hold it.",
        ) from error
    except StoreError as error:
        kind = Transient if error.transient else Refused
        raise kind(error.message, next_step=error.hint) from error


def _tried(request: Callable[[], T]) -> T:
    """Ask a store, and again where it says 'later', a bounded number of times."""
    for wait in WAITS:
        try:
            return request()
        except StoreError as error:
            if not error.transient:
                raise
        time.sleep(wait)
    return request()


def _listing(store: ObjectStore, prefix: str, after: str = "") -> Iterator[ObjectInfo]:
    """A listing that goes on after its last key where the store says 'later'."""
    for wait in (*WAITS, None):
        try:
            for info in store.list(prefix, after):
                yield info
                after = info.key
            return
        except StoreError as error:
            if not error.transient or wait is None:
                raise
        time.sleep(wait)


def _folders(store: ObjectStore, prefix: str) -> Iterator[str]:
    """The uuids right below a prefix, one listing each however many objects they hold."""
    after = ""
    with told(prefix):
        while info := next(_listing(store, prefix, after), None):
            name, slash, _ = info.key[len(prefix) :].partition("/")
            if slash and layout.is_uuid(name):
                yield name
            after = f"{prefix}{name}0" if slash else info.key  # "0" is the character after "/"


def _ahead(fetch: Callable[[S], T], items: Iterable[S], width: int = 8) -> Iterator[T]:
    """Results in order, `width` of them fetched at once."""
    with ThreadPoolExecutor(width) as pool:
        waiting: deque[Future[T]] = deque()
        for item in items:
            waiting.append(pool.submit(fetch, item))
            if len(waiting) > width:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _by_level(slices: Iterable[SlicePoint]) -> dict[tuple[str, int], list[SlicePoint]]:
    groups: dict[tuple[str, int], list[SlicePoint]] = {}
    for point in sorted(slices, key=lambda point: point.sequence):
        groups.setdefault((point.timeline, point.level), []).append(point)
    return groups


def _proven(key: str, wanted: str, block: bytes) -> bytes:
    if hashlib.sha256(block).hexdigest() != wanted:
        raise Corrupt(
            f"{key} is damaged: its bytes do not give the hash that was noted when it was written.",
            meaning="It is not used; moments that need it are not restorable.",
            next_step="Run verify to see what else is affected.",
        )
    return block


class _Hashes:
    """The hashes of an object that passes by.  The first block's is the whole's as it is there: most have no other."""

    def __init__(self) -> None:
        self.size = 0
        self.whole = hashlib.sha256()
        self._block = hashlib.sha256()  # of the block that is not full yet, from the second on
        self._blocks: list[str] = []

    def watch(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self._cut(memoryview(piece))
            yield piece

    def _cut(self, piece: memoryview) -> None:
        while piece:
            part = piece[: BLOCK - self.size % BLOCK]
            self.whole.update(part)
            if self.size >= BLOCK:
                self._block.update(part)
            self.size += len(part)
            piece = piece[len(part) :]
            if self.size % BLOCK == 0:
                self._blocks.append((self._block if self._blocks else self.whole).hexdigest())
                self._block = hashlib.sha256()

    def blocks(self) -> tuple[str, ...]:
        """One hash a block where there are several, else none: the whole's is enough."""
        last = [self._block.hexdigest()] if self.size % BLOCK else []
        return tuple(self._blocks + last) if self.size > BLOCK else ()
