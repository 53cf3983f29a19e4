"""Re-reading a timeline: every hash, every link of the chain, and what would be lost where one is broken."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise, product

from backups.engine.archive import Archive
from backups.engine.errors import Corrupt, EngineError, Refused, Stopped
from backups.engine.manifest import Manifest
from backups.engine.plan import AtOrBefore, place, utc
from backups.engine.slices import point
from backups.engine.types import DataRef, Run, SliceIndex, SlicePoint


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.  key: the object it was found at; what: a sentence."""

    key: str
    what: str


@dataclass(slots=True)
class Report:
    """What was read, and what was wrong with it.  size: bytes of data objects as stored."""

    objects: int = 0
    size: int = 0
    problems: list[Problem] = field(default_factory=list)

    def __iadd__(self, other: Report) -> Report:
        self.objects += other.objects
        self.size += other.size
        self.problems += other.problems
        return self


def verify(
    archives: Mapping[str, Archive], timeline: str, at_or_before: AtOrBefore, run: Run, every: int = 1
) -> Report:
    """Prove a timeline over all its storages (by name).

    every: read each n-th data object only; indexes, manifests and the chain are always proven whole.
    Raises Stopped when asked to stop, Transient when a storage does not answer: then nothing is proven.
    """
    return _Verification(timeline, at_or_before, run, every).of(archives)


class _Verification:
    def __init__(self, timeline: str, at_or_before: AtOrBefore, run: Run, every: int) -> None:
        self._timeline = timeline
        self._at_or_before = at_or_before
        self._run = run
        self._every = every
        self._seen = 0
        self._report = Report()

    def of(self, archives: Mapping[str, Archive]) -> Report:
        backups: list[Manifest] = []
        points: list[SlicePoint] = []
        for name, archive in archives.items():
            for manifest in self._manifests(archive):
                backups.append(manifest)
                for ref in manifest.data():
                    self._data(archive, ref, None)
            for index in self._slices(archive):
                points.append(point(index, name))
                self._data(archive, index.data, index.raw_size)
        points.sort(key=lambda one: one.sequence)
        self._front(points[:1], backups)
        self._chain(points)
        return self._report

    def _manifests(self, archive: Archive) -> Iterator[Manifest]:
        for backup in archive.backups(self._timeline):
            try:
                yield archive.read_manifest(self._timeline, backup)
            except (Corrupt, Refused) as error:
                self._problem(archive.manifest_key(self._timeline, backup), error)
            self._report.objects += 1

    def _slices(self, archive: Archive) -> Iterator[SliceIndex]:
        for key in archive.slice_keys(self._timeline):
            try:
                yield archive.read_slice(key)
            except (Corrupt, Refused) as error:
                self._problem(key, error)
            self._report.objects += 1

    def _data(self, archive: Archive, ref: DataRef, raw_size: int | None) -> None:
        """Read one object through; its decompressed size is known for slices only."""
        self._stop_where_asked()
        self._seen += 1
        if self._seen % self._every:
            return
        self._run.progress("Reading", self._report.size, unit="bytes")
        try:
            read = sum(len(piece) for piece in archive.read_data(ref))
            if raw_size not in (None, read):
                raise Corrupt(f"It holds {read} bytes, its index says {raw_size}.")
        except (Corrupt, Refused) as error:
            self._problem(ref.key, error)
        self._report.objects += 1
        self._report.size += ref.size

    def _front(self, first: list[SlicePoint], backups: list[Manifest]) -> None:
        """Retention gives up only slices that end at or before every backup, so none may lie before the first."""
        for slice_, backup in product(first, backups):
            if slice_.previous and not self._at_or_before(slice_.start, backup.position):
                self._problem(
                    slice_.key,
                    f"The slices between backup {backup.name} ({place(backup.position)}) and this one are missing: "
                    "that backup can be restored only as it is.",
                )

    def _chain(self, points: list[SlicePoint]) -> None:
        """Each slice names the one before it and begins where that ends; the first one's may be given up."""
        for before, after in pairwise(points):
            if (after.previous, dict(after.start)) != (before.key, dict(before.end)):
                self._problem(
                    after.key,
                    f"The log from {place(before.end)} to {place(after.start)} is missing before this slice: moments "
                    f"after {utc(before.last_us)} UTC need a backup from {place(after.start)} on.",
                )

    def _problem(self, key: str, what: EngineError | str) -> None:
        self._report.problems.append(Problem(key, str(what)))
        self._run.log(f"{key}: {what}")

    def _stop_where_asked(self) -> None:
        if self._run.should_stop():
            raise Stopped("Verifying was stopped.", meaning="What was not read is not proven.")
