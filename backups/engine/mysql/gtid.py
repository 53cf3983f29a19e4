"""Sets of GTIDs, and positions: how they are ordered and what lies within them.

MySQL: "uuid:1-5:7,uuid:tag:1-3"; a set of everything executed, holes included.
MariaDB: "0-1-100,1-2-5": of each domain the last, which stands for all before it.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from backups.engine.errors import Corrupt, Gap
from backups.engine.mysql.events import Cursor, Event, parser
from backups.engine.mysql.gtid_events import uuid_text
from backups.engine.types import Position, SliceIndex, Transaction

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TAG = re.compile(r"[a-z_][a-z0-9_]{0,31}")
_DOMAIN = re.compile(r"(\d{1,20})-(\d{1,20})-(\d{1,20})")
_NUMBER = re.compile(r"[0-9]{1,19}")
_LAST = 2**63 - 1
IN_ORDER = "SET GLOBAL gtid_strict_mode = ON on each server that writes, each with a gtid_domain_id of its own."
Source = tuple[str, str]  # uuid, tag
Interval = tuple[int, int]  # first, last: both included


class GtidSet:
    """A set of MySQL GTIDs.  Immutable from outside but for `add`."""

    def __init__(self, intervals: dict[Source, list[Interval]] | None = None) -> None:
        self.intervals = intervals or {}

    @classmethod
    def parse(cls, text: str) -> GtidSet:
        """Corrupt where the text is no GTID set."""
        result = cls()
        for part in text.replace("\n", "").split(","):
            if part.strip():
                result._add_part(part.strip().lower())
        return result

    def _add_part(self, part: str) -> None:
        uuid, *rest = (piece.strip() for piece in part.split(":"))
        if not _UUID.fullmatch(uuid) or not rest:
            raise Corrupt(f"No GTID set: {part[:80]!r}.")
        tag = ""
        for piece in rest:
            if _TAG.fullmatch(piece):
                tag = piece
                continue
            first, dash, last = piece.partition("-")
            if not _NUMBER.fullmatch(first) or (dash and not _NUMBER.fullmatch(last)):
                raise Corrupt(f"No GTID set: {part[:80]!r}.")
            self._add_interval((uuid, tag), int(first), int(last or first))

    def _add_interval(self, source: Source, first: int, last: int) -> None:
        if not 1 <= first <= last <= _LAST:
            raise Corrupt(f"No GTID interval: {first}-{last}.")
        runs = self.intervals.setdefault(source, [])
        if not runs or first > runs[-1][1] + 1:
            runs.append((first, last))
        elif runs[-1][0] <= first:  # the usual case: the next number of the last run
            runs[-1] = (runs[-1][0], max(runs[-1][1], last))
        else:
            self.intervals[source] = _merged([*runs, (first, last)])

    def add(self, identity: str) -> None:
        """One more GTID, "uuid:7" or "uuid:tag:7"."""
        source, _, number = identity.rpartition(":")
        uuid, _, tag = source.partition(":")
        self._add_interval((uuid, tag), int(number), int(number))

    def add_run(self, uuid: str, first: int, last: int) -> None:
        """One source's, without a tag, from `first` to `last`."""
        self._add_interval((uuid, ""), first, last)

    def contains(self, other: GtidSet) -> bool:
        return not other.subtract(self)

    def has(self, identity: str) -> bool:
        source, _, number = identity.rpartition(":")
        uuid, _, tag = source.partition(":")
        runs = self.intervals.get((uuid.lower(), tag.lower()), [])
        at = bisect_right(runs, int(number), key=lambda run: run[0]) - 1
        return at >= 0 and int(number) <= runs[at][1]

    def union(self, other: GtidSet) -> GtidSet:
        sources = self.intervals.keys() | other.intervals.keys()
        return GtidSet({s: _merged(self.intervals.get(s, []) + other.intervals.get(s, [])) for s in sources})

    def subtract(self, other: GtidSet) -> GtidSet:
        result = {}
        for source, runs in self.intervals.items():
            if left := list(_without(runs, other.intervals.get(source, []))):
                result[source] = left
        return GtidSet(result)

    def uuids(self) -> set[str]:
        return {uuid for uuid, _ in self.intervals}

    def copy(self) -> GtidSet:
        return GtidSet({source: list(runs) for source, runs in self.intervals.items()})

    def __bool__(self) -> bool:
        return any(self.intervals.values())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GtidSet) and self.intervals == other.intervals

    def __hash__(self) -> int:
        return hash(str(self))

    def __str__(self) -> str:
        """As the server prints it, on one line."""
        lines: dict[str, str] = {}
        for (uuid, tag), runs in sorted(self.intervals.items()):
            text = ":".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
            lines[uuid] = lines.get(uuid, uuid) + (f":{tag}" if tag else "") + f":{text}"
        return ",".join(lines.values())

    def encode(self) -> bytes:
        """As COM_BINLOG_DUMP_GTID wants it; the form with tags only where there are some (8.0 knows no other)."""
        tagged = any(tag for _, tag in self.intervals)
        count = len(self.intervals)
        head = b"\1" + count.to_bytes(6, "little") + b"\1" if tagged else count.to_bytes(8, "little")
        return head + b"".join(_encode(*item, tagged) for item in sorted(self.intervals.items()))


def successive(identities: Sequence[str]) -> GtidSet | None:
    """GTIDs of one source, without a tag, each the next one's predecessor, as a set; None for any others."""
    uuid, _, number = identities[0].partition(":")
    if not _UUID.fullmatch(uuid) or not _NUMBER.fullmatch(number):
        return None
    first = int(number)
    if any(identity != f"{uuid}:{number}" for number, identity in enumerate(identities, first)):
        return None
    return GtidSet({(uuid, ""): [(first, first + len(identities) - 1)]})


def _merged(runs: list[Interval]) -> list[Interval]:
    result: list[Interval] = []
    for first, last in sorted(runs):
        if result and first <= result[-1][1] + 1:
            result[-1] = (result[-1][0], max(result[-1][1], last))
        else:
            result.append((first, last))
    return result


def _without(runs: list[Interval], holes: list[Interval]) -> Iterator[Interval]:
    at = 0
    for first, last in runs:
        while at < len(holes) and holes[at][1] < first:
            at += 1
        for low, high in holes[at:]:
            if low > last:
                break
            if first < low:
                yield first, low - 1
            first = high + 1
        if first <= last:
            yield first, last


def _encode(source: Source, runs: list[Interval], tagged: bool) -> bytes:
    uuid, tag = source
    parts = [bytes.fromhex(uuid.replace("-", ""))]
    if tagged:
        parts.append(bytes([len(tag) << 1]) + tag.encode())
    parts.append(len(runs).to_bytes(8, "little"))
    parts += [first.to_bytes(8, "little") + (last + 1).to_bytes(8, "little") for first, last in runs]
    return b"".join(parts)


@parser
def decode(body: memoryview) -> GtidSet:
    """What `GtidSet.encode` and a PREVIOUS_GTIDS event hold."""
    cursor = Cursor(body)
    head = cursor.copy(8)
    tagged = head[7] == 1
    count = int.from_bytes(head[1:7] if tagged else head, "little")
    result = GtidSet()
    for _ in range(count):
        uuid = uuid_text(cursor.copy(16))
        tag = cursor.copy(cursor.varint()).decode("ascii") if tagged else ""
        for _ in range(cursor.number(8)):
            result._add_interval((uuid, tag), cursor.number(8), cursor.number(8) - 1)
    return result


def previous_gtids(event: Event) -> GtidSet:
    """What was executed before this log file began."""
    return decode(event.body)


class DomainSet:
    """MariaDB: the last GTID of each domain, in binlog order."""

    def __init__(self, last: dict[int, tuple[int, int]] | None = None) -> None:
        self.last = last or {}  # domain -> (server id, number)

    @classmethod
    def parse(cls, text: str) -> DomainSet:
        """Corrupt where the text is no list of GTIDs; of several in one domain the highest counts."""
        result = cls()
        for part in filter(None, (piece.strip() for piece in text.split(","))):
            domain, server, number = _triple(part)
            if domain not in result.last or number > result.last[domain][1]:
                result.last[domain] = server, number
        return result

    def add(self, identity: str) -> None:
        """Raise Gap where its number is not above the last of its domain: what lies before it could not be told."""
        domain, server, number = _triple(identity)
        last = self.last.get(domain)
        if last and number <= last[1]:
            raise out_of_order(identity, f"{domain}-{last[0]}-{last[1]}")
        self.last[domain] = server, number

    def contains(self, other: DomainSet) -> bool:
        return not other.subtract(self)

    def has(self, identity: str) -> bool:
        domain, _, number = _triple(identity)
        return domain in self.last and self.last[domain][1] >= number

    def subtract(self, other: DomainSet) -> DomainSet:
        """The domains in which this one is further."""
        return DomainSet({d: (s, n) for d, (s, n) in self.last.items() if d not in other.last or other.last[d][1] < n})

    def within(self, state: Mapping[tuple[int, int], int]) -> bool:
        """Whether a log with this `domain_state` has them all."""
        return all(state.get((domain, server), -1) >= number for domain, (server, number) in self.last.items())

    def copy(self) -> DomainSet:
        return DomainSet(dict(self.last))

    def __bool__(self) -> bool:
        return bool(self.last)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DomainSet) and self.last == other.last

    def __hash__(self) -> int:
        return hash(str(self))

    def __str__(self) -> str:
        return ",".join(f"{domain}-{server}-{number}" for domain, (server, number) in sorted(self.last.items()))


def domain_state(text: str) -> dict[tuple[int, int], int]:
    """The last number of each domain and server, from gtid_binlog_state."""
    found = map(_triple, filter(None, (part.strip() for part in text.split(","))))
    return {(domain, server): number for domain, server, number in found}


def out_of_order(later: str, earlier: str) -> Gap:
    """MariaDB Knowledge Base, "gtid_strict_mode": without it servers that write side by side use a number twice."""
    return Gap(
        f"The server's log numbers transactions out of order: {later} comes after {earlier}.",
        meaning="By such numbers nobody can tell which transactions a backup holds, so recovery ends before the first."
        " What was shipped before stays restorable.",
        next_step=f"{IN_ORDER} Then take a backup: a new timeline starts with it.",
    )


def _triple(identity: str) -> tuple[int, int, int]:
    match = _DOMAIN.fullmatch(identity)
    if not match:
        raise Corrupt(f"No MariaDB GTID: {identity[:80]!r}.")
    return int(match[1]), int(match[2]), int(match[3])


# --- positions ----------------------------------------------------------------------------------------------


def executed(gtids: str, like: str = "") -> GtidSet | DomainSet:
    """The set in a position; `like`, another set or GTID, tells the kind of an empty one."""
    sample = gtids or like
    return DomainSet.parse(gtids) if _DOMAIN.match(sample) and not _UUID.match(sample) else GtidSet.parse(gtids)


def at_or_before(a: Position, b: Position) -> bool:
    """True where everything that lies before `a` lies before `b` too.  Two places may be neither way round."""
    if a.get("gtids") is not None and b.get("gtids") is not None:
        first, second = executed(a["gtids"], b["gtids"]), executed(b["gtids"], a["gtids"])
        if isinstance(first, DomainSet):
            return isinstance(second, DomainSet) and second.contains(first)
        return isinstance(second, GtidSet) and second.contains(first)
    return a["server"] == b["server"] and _same_file(a, b) and _place(a) <= _place(b)


def _same_file(a: Position, b: Position) -> bool:
    """False where two files of one name are known to be different ones."""
    ids = a.get("file_id"), b.get("file_id")
    return a["file"] != b["file"] or not all(ids) or ids[0] == ids[1]


def _place(position: Position) -> tuple[int, int]:
    """Files are numbered; after 999999 the names no longer sort."""
    return file_number(position["file"]), int(position["pos"])


def file_number(name: str) -> int:
    number = name.rpartition(".")[2]
    if not number.isdecimal():
        raise Corrupt(f"No name of a binlog file: {name[:80]!r}.")
    return int(number)


def contains(position: Position, transaction: Transaction) -> bool:
    """True where the transaction lies before the position: a snapshot taken there has it."""
    if position.get("gtids") is not None and not _is_place(transaction.identity):
        return executed(position["gtids"], transaction.identity).has(transaction.identity)
    name, _, start = transaction.identity.rpartition(":")
    return (file_number(name), int(start) + transaction.length) <= _place(position)


def _is_place(identity: str) -> bool:
    return not _UUID.match(identity) and not _DOMAIN.fullmatch(identity)


def position_after(index: SliceIndex, transaction: Transaction) -> Position:
    """The place just after one transaction of a slice."""
    last = index.transactions[-1]
    if transaction.offset >= last.offset:
        return index.end
    position: dict[str, Any] = dict(index.start)
    if index.start.get("gtids") is None:
        name, _, start = transaction.identity.rpartition(":")
        known = [place["file_id"] for place in (index.end, index.start) if place["file"] == name]
        place = {"file": name, "pos": int(start) + transaction.length, "file_id": known[0] if known else ""}
        return position | place
    gtids = executed(index.start["gtids"], transaction.identity)
    for item in index.transactions:
        if item.offset > transaction.offset:
            break
        gtids.add(item.identity)
    # Of the file only GTIDs speak here: a slice may hold a part of what its file has.
    return position | {"server": index.end["server"], "file": "", "pos": 0, "file_id": "", "gtids": str(gtids)}
