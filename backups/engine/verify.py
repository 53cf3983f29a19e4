"""Re-reading a timeline: every hash, every link of the chain, and what would be lost where one is broken."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise, product

from backups.engine import layout
from backups.engine.archive import Archive
from backups.engine.errors import Corrupt, EngineError, Refused, Stopped
from backups.engine.levels import held
from backups.engine.manifest import Manifest
from backups.engine.plan import AtOrBefore, cover, in_order, place, utc
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
    archives: Mapping[str, Archive], timeline: str, at_or_before: AtOrBefore, run: Run, every: int = 1, first: int = 0
) -> Report:
    """Prove a timeline over all its storages (by name).

    every: read each n-th data object only, from number `first` on (below n: another one each time reads all of them
    in time); indexes, manifests and the chain are always proven whole.
    Raises Stopped when asked to stop, Transient when a storage does not answer: then nothing is proven.
    """
    return _Verification(timeline, at_or_before, run, every, first).of(archives)


class _Verification:
    def __init__(self, timeline: str, at_or_before: AtOrBefore, run: Run, every: int, first: int) -> None:
        self._timeline = timeline
        self._at_or_before = at_or_before
        self._run = run
        self._every = every
        self._seen = -first
        self._report = Report()

    def of(self, archives: Mapping[str, Archive]) -> Report:
        backups: list[Manifest] = []
        points: list[SlicePoint] = []
        for name, archive in archives.items():
            for manifest in self._manifests(archive):
                backups.append(manifest)
                for ref in manifest.data():
                    self._data(archive, ref)
            for index in self._slices(archive):
                if self._data(archive, index.data, index.raw_size, index.key):
                    points.append(point(index, name))
        ordered = in_order(points)
        self._front(ordered[:1], backups)
        self._chain(list(cover(ordered)))
        self._levels(ordered)
        return self._report

    def _manifests(self, archive: Archive) -> Iterator[Manifest]:
        for backup in archive.backups(self._timeline):
            try:
                yield archive.read_manifest(self._timeline, backup)
            except (Corrupt, Refused) as error:
                self._problem(archive.manifest_key(self._timeline, backup), error)
            self._report.objects += 1

    def _slices(self, archive: Archive) -> Iterator[SliceIndex]:
        for key in self._slice_keys(archive):
            try:
                yield archive.read_slice(key)
            except (Corrupt, Refused) as error:
                if not archive.has(key):
                    continue  # given up since it was listed: where it is missed, the chain tells
                self._problem(key, error)
            self._report.objects += 1

    def _slice_keys(self, archive: Archive) -> Iterator[str]:
        for level in archive.levels(self._timeline):
            yield from archive.slice_keys(self._timeline, level)

    def _data(self, archive: Archive, ref: DataRef, raw_size: int | None = None, marker: str = "") -> bool:
        """Read one object through; False where it was given up with its marker meanwhile.

        Its decompressed size is known for slices only.
        """
        self._stop_where_asked()
        self._seen += 1
        if (self._seen - 1) % self._every:
            return True
        self._run.progress("Reading", self._report.size, unit="bytes")
        try:
            read = sum(len(piece) for piece in archive.read_data(ref))
            if raw_size not in (None, read):
                raise Corrupt(f"It holds {read} bytes, its index says {raw_size}.")
        except (Corrupt, Refused) as error:
            if marker and not archive.has(marker):
                return False
            self._problem(ref.key, error)
        self._report.objects += 1
        self._report.size += ref.size
        return True

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
        """Each slice begins where the one before it ends, and names the one of level 0 before it.

        Those before the first may be given up.
        """
        for before, after in pairwise(points):
            if (after.sequence, dict(after.start)) != (before.last + 1, dict(before.end)) or not _names(after, before):
                self._problem(
                    after.key,
                    f"The log from {place(before.end)} to {place(after.start)} is missing before this slice: moments "
                    f"after {utc(before.last_us)} UTC need a backup from {place(after.start)} on.",
                )

    def _levels(self, ordered: list[SlicePoint]) -> None:
        """A larger slice begins and ends where the ones that it holds and that are still there do."""
        for holder, parts in held(ordered):
            ends = {point.last: point.end for point in parts}
            starts = {point.sequence: point.start for point in parts}
            if (
                dict(starts.get(holder.sequence, holder.start)) != dict(holder.start)
                or dict(ends.get(holder.last, holder.end)) != dict(holder.end)
                or any(point.level >= holder.level for point in parts)
            ):
                self._problem(holder.key, "It does not hold what the smaller slices beside it do.")

    def _problem(self, key: str, what: EngineError | str) -> None:
        self._report.problems.append(Problem(key, str(what)))
        self._run.log(f"{key}: {what}")

    def _stop_where_asked(self) -> None:
        if self._run.should_stop():
            raise Stopped("Verifying was stopped.", meaning="What was not read is not proven.")


def _names(after: SlicePoint, before: SlicePoint) -> bool:
    named = layout.parse(after.previous)
    return bool(named and (named.level, named.sequence) == (0, before.last))
