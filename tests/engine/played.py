"""Capture of what a server might have sent: real events in any order and portions, with and without the fast path."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from backups.engine.errors import EngineError
from backups.engine.mysql import bulk, events, rowcounts
from backups.engine.mysql.dump import Packets
from backups.engine.mysql.server import Identity
from backups.engine.mysql.stream import Cutter, Reader
from backups.engine.types import Chunk, Quiet
from tests.engine.test_events import FILES

EOF = b"\xfe\0\0\2\0"


class Played:
    """A socket that gives what was recorded in portions, then ends."""

    def __init__(self, data: bytes, portions: Iterable[int]) -> None:
        self.data, self.portions, self.at = data, itertools.cycle(portions), 0
        self.timeout = 0.0

    def settimeout(self, seconds: float) -> None:
        self.timeout = seconds

    def recv_into(self, view: memoryview) -> int:
        if not self.timeout:
            raise BlockingIOError
        size = min(next(self.portions), len(view), len(self.data) - self.at)
        view[:size] = self.data[self.at : self.at + size]
        self.at += size
        return size


def history(name: str, picks: Iterable[int]) -> tuple[list[bytes], list[list[bytearray]]]:
    """(format description, the log's own transactions in any order, numbered and placed anew), each as its events."""
    head: list[bytes] = []
    groups: list[list[bytes]] = []
    for event in events.read([FILES[name]]):
        if event.type in events.GTIDS:
            groups.append([])
        if event.type not in events.STRUCTURE or not groups:
            (groups[-1] if groups else head).append(bytes(event.raw))
    log = [[bytearray(raw) for raw in groups[pick % len(groups)]] for pick in picks]
    for number, group in enumerate(log, 1):
        if group[0][4] == events.GTID:
            group[0][36:44] = number.to_bytes(8, "little")
    place(log, 4 + sum(map(len, head)))
    return head, log


def place(log: Iterable[Iterable[bytearray]], pos: int) -> None:
    """Tell each event where it ends in the log file."""
    for raw in itertools.chain.from_iterable(log):
        pos += len(raw)
        raw[13:17] = pos.to_bytes(4, "little")


def sealed(raw: bytes | bytearray, trailer: int) -> bytes:
    """The event with the checksum that its bytes give, where the log has any."""
    return bytes(raw[:-4]) + zlib.crc32(raw[:-4]).to_bytes(4, "little") if trailer else bytes(raw)


def wire(raws: Iterable[bytes]) -> bytes:
    """The events as a server sends them, and that there are no more."""
    return b"".join(len(one).to_bytes(3, "little") + b"\1" + one for one in [*(b"\0" + raw for raw in raws), EOF])


@dataclass(frozen=True)
class How:
    """How a log comes in.  portions: bytes that each look at the socket gives, again and again."""

    portions: Sequence[int] = (1 << 20,)
    max_bytes: int = 1 << 20
    gtids: str | None = ""
    flavour: str = "mysql"


def chunks(data: bytes, how: How, told: list[Any]) -> Iterator[Chunk]:
    """What a capture hands out.  told: is given the positions at which nothing more was there."""
    identity = Identity(how.flavour, (9, 7), "9.7", "server", True, "UTC", {})  # type: ignore[arg-type]
    start = {"server": "server", "file": "binlog.000001", "pos": 4, "file_id": "", "gtids": how.gtids}
    reader = Reader(Packets(Played(data, how.portions)), identity, start)
    return Cutter(reader, start, 60, how.max_bytes, None, Quiet(), lambda end: told.append(dict(end))).chunks()


def said(data: bytes, how: How) -> list[Any]:
    """All that a capture hands out, and how it ends."""
    told: list[Any] = []
    try:
        for chunk in chunks(data, how, told):
            told.append((b"".join(chunk.payload), chunk.start, chunk.end, chunk.transactions))
    except EngineError as error:
        told.append((type(error), str(error)))
    return told


def compared(data: bytes, how: How) -> tuple[list[Any], int]:
    """The same both ways, and how many batches were taken."""
    taken = []
    take = bulk.Bulk.take

    def counted(self: bulk.Bulk, *given: Any) -> Any:
        found = take(self, *given)
        taken.append(found[0] is not None)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bulk, "FEWEST", 1 << 40)
        slow = said(data, how)
        patch.setattr(bulk, "FEWEST", 1)
        patch.setattr(rowcounts, "FEW", 0)
        patch.setattr(bulk.Bulk, "take", counted)
        assert said(data, how) == slow
    return slow, sum(taken)
