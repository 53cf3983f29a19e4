"""Plain values that every part of the engine hands around."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, overload

from backups.engine.identities import Identities

# A place in a server's history.  Opaque outside the engine that made it: JSON, compared for equality
# to prove a chain, and by the engine's `at_or_before` to order it.
# MySQL and MariaDB: {"server": uuid, "file": "binlog.000012", "pos": 1234, "file_id": str, "gtids": str | None}
Position = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Change:
    """Rows of one table that one transaction touched."""

    schema: str
    table: str
    inserts: int = 0
    updates: int = 0
    deletes: int = 0


# Not frozen, though nobody changes one: making a frozen one takes three times as long, and logs have millions.
@dataclass(slots=True, unsafe_hash=True)
class Transaction:
    """What an index keeps of one transaction.

    time_us: commit time, microseconds since the epoch, UTC, as recorded by the server.
    identity: its GTID, or "file:position" of its first event where there is none.
    offset, length: bytes in the decompressed slice.
    ddl: text of its DDL and other statements (first 4,096 characters), empty for pure row changes.
    xa: "" or "prepare X", "commit X", "rollback X" with X the branch's id as the server prints it.
    """

    time_us: int
    identity: str
    offset: int
    length: int
    changes: tuple[Change, ...] = ()
    ddl: str = ""
    xa: str = ""


class Columns(Sequence[Transaction]):
    """Transactions as a list for each of their fields: one is made when it is looked at, as logs have millions."""

    def __init__(self, transactions: Iterable[Transaction] = ()) -> None:
        self.times: list[int] = []
        self.identities = Identities()
        self.offsets: list[int] = []
        self.lengths: list[int] = []
        self.changes: list[tuple[Change, ...]] = []
        self.ddl: list[str] = []
        self.xa: list[str] = []
        for transaction in transactions:
            self.append(transaction)

    @classmethod
    def of(cls, transactions: Iterable[Transaction]) -> Columns:
        """Themselves, where they are columns already."""
        return transactions if isinstance(transactions, Columns) else cls(transactions)

    def append(self, one: Transaction) -> None:
        values = one.time_us, one.identity, one.offset, one.length, one.changes, one.ddl, one.xa
        for column, value in zip(self._all(), values, strict=True):
            column.append(value)

    def extend(self, more: Sequence[Sequence[Any]]) -> None:
        """more: of each field, in a Transaction's order."""
        for column, values in zip(self._all(), more, strict=True):
            column += values

    def _all(self) -> tuple[Any, ...]:
        return self.times, self.identities, self.offsets, self.lengths, self.changes, self.ddl, self.xa

    def __len__(self) -> int:
        return len(self.times)

    def __iter__(self) -> Iterator[Transaction]:
        return map(Transaction, *self._all())

    @overload
    def __getitem__(self, place: int) -> Transaction: ...
    @overload
    def __getitem__(self, place: slice) -> list[Transaction]: ...
    def __getitem__(self, place: int | slice) -> Transaction | list[Transaction]:
        if isinstance(place, slice):
            return list(map(Transaction, *(column[place] for column in self._all())))
        return Transaction(*(column[place] for column in self._all()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)


@dataclass(frozen=True, slots=True)
class DataRef:
    """A data object and the hashes that prove it: SHA-256 of the whole, and of each BLOCK where it has several."""

    key: str
    size: int
    sha256: str
    blocks: tuple[str, ...] = ()


Piece = bytes | memoryview


@dataclass(slots=True)
class Chunk:
    """A whole number of transactions on the way into a slice; the seam between a server and slices.

    payload: the slice file's bytes.  `end` and `transactions` are only right once it is used up: a chunk
    that holds one huge transaction is never in memory as a whole.
    exact_times: True where the server records commit times in microseconds.
    """

    start: Position
    payload: Iterable[Piece]
    end: Position = field(default_factory=dict)
    transactions: Sequence[Transaction] = ()
    exact_times: bool = True


@dataclass(frozen=True, slots=True)
class SliceIndex:
    """The commit marker of one slice, as read from the bucket.

    previous: the index key of the level-0 slice before it in the timeline, "" for the first.
    raw_size: bytes of the decompressed slice file.
    holds: how many slices of level 0 it holds, the first of which has its sequence number.
    """

    key: str
    timeline: str
    level: int
    sequence: int
    previous: str
    start: Position
    end: Position
    data: DataRef
    raw_size: int
    exact_times: bool
    written_us: int
    transactions: Sequence[Transaction]
    holds: int = 1

    @property
    def times(self) -> list[int]:
        """Commit times of all."""
        all_ = self.transactions
        return all_.times if isinstance(all_, Columns) else [one.time_us for one in all_]

    @property
    def last(self) -> int:
        """Sequence number of the last slice of level 0 that it holds."""
        return self.sequence + self.holds - 1


@dataclass(frozen=True, slots=True)
class Check:
    """One line of a preflight or probe."""

    name: str
    state: Literal["pass", "warn", "fail"]
    message: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class BackupPoint:
    """A succeeded backup as plan and retention see it; view_us: when its read view was complete, UTC."""

    id: str
    timeline: str
    position: Position
    view_us: int
    storage: str = ""
    schedule: str = ""
    pinned: bool = False


@dataclass(frozen=True, slots=True)
class SlicePoint:
    """A slice as plan and retention see it: everything but its transactions.

    first_us, last_us: smallest and largest recorded commit time in it (0 and 0 where it holds none).
    written_us: when it, or the last that it holds, was committed, by the worker's clock, 0 where that is not known.
    """

    key: str
    timeline: str
    level: int
    sequence: int
    previous: str
    start: Position
    end: Position
    first_us: int
    last_us: int
    count: int
    size: int
    raw_size: int
    exact_times: bool = True
    storage: str = ""
    written_us: int = 0
    holds: int = 1

    @property
    def last(self) -> int:
        """Sequence number of the last slice of level 0 that it holds."""
        return self.sequence + self.holds - 1


@dataclass(frozen=True, slots=True)
class Moment:
    """A resolved moment: the last transaction that is applied and the first that is not.

    position: the exact place to stop after.  last is None where nothing after the backup is applied;
    next is None where the log known so far ends there.
    """

    position: Position
    last: Transaction | None
    next: Transaction | None


@dataclass(frozen=True, slots=True)
class Plan:
    """Proof of coverage: one backup and the gapless slices from it to the moment, in replay order."""

    backup: BackupPoint
    slices: tuple[SlicePoint, ...]
    position: Position


class Run(Protocol):
    """What a long run asks and tells; a Job, a command line or a test stands behind it."""

    def should_stop(self) -> bool:
        """True once the run is to end soon: raise Stopped at the next safe place (within seconds)."""

    def progress(self, step: str, done: int = 0, total: int = 0, unit: str = "") -> None:
        """Cheap to call often; the receiver writes at most once a second."""

    def log(self, line: str) -> None:
        """One sentence for the person who reads the run's log; no secrets."""


class Quiet:
    """A Run that nobody watches."""

    def should_stop(self) -> bool:
        return False

    def progress(self, step: str, done: int = 0, total: int = 0, unit: str = "") -> None:
        pass

    def log(self, line: str) -> None:
        pass
