"""Slices of one log, one after the other, as one binlog file: when that can be, and the proof that it is one.

A slice begins with the magic number and the format description of the log file that it came from; everything after
it is read as that description says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from backups.engine.errors import Corrupt
from backups.engine.mysql import events as ev
from backups.engine.mysql.events import Event
from backups.engine.mysql.gtid_events import gtid
from backups.engine.types import SliceIndex

_SIZE = slice(9, 13)  # of an event, in its header


def split_head(chunks: Iterable[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """What a slice begins with, and the bytes of its transactions; Corrupt where it is no binlog file."""
    source = iter(chunks)
    start, least = b"", len(ev.MAGIC) + ev.HEADER_SIZE
    size = least
    while len(start) < size:
        piece = next(source, b"")
        if not piece:
            raise Corrupt("This is no slice: it ends inside its format description.")
        start += piece
        if len(start) >= least:
            size = len(ev.MAGIC) + int.from_bytes(start[len(ev.MAGIC) :][_SIZE], "little")
    _description(start[:size])
    return start[:size], _rest(start[size:], source)


def _rest(first: bytes, source: Iterator[bytes]) -> Iterator[bytes]:
    if first:
        yield first
    yield from source


def may_follow(first: SliceIndex, head: bytes, index: SliceIndex, other: bytes) -> bool:
    """Whether the events of a slice can be read after those of `first`, without `other`, its own head, between them.

    Both heads must say the same, but for the place and birth of the file that they tell: the server leaves these out
    for whoever begins to read in the middle.  Where the server started with the second file, a reader drops temporary
    tables, so that one stays.  Where transactions are named by their place in a file, all must be of one file.
    """
    ours, theirs = _description(head), _description(other)
    one, two = ev.format_description(ours), ev.format_description(theirs)
    alike = (ours.server_id, one._replace(created=0)) == (theirs.server_id, two._replace(created=0))
    by_place = first.start.get("gtids") is None
    return alike and two.created in (0, one.created) and (not by_place or _file(first) == _file(index))


def _file(index: SliceIndex) -> str:
    """The log file that a slice without GTIDs comes from."""
    return index.transactions[0].identity.rpartition(":")[0] if index.transactions else str(index.end["file"])


def _description(head: bytes) -> Event:
    if not head.startswith(ev.MAGIC):
        raise Corrupt("This is no slice: it does not begin with the magic number of a binlog file.")
    event = ev.parse(memoryview(head)[len(ev.MAGIC) :], 0)
    if event.type != ev.FORMAT_DESCRIPTION:
        raise Corrupt("This is no slice: it does not begin with a format description.")
    ev.verify(event)
    return event


def prove(index: SliceIndex, chunks: Iterable[bytes]) -> None:
    """Read a slice through: one format description, sound events, each transaction where its index says; or Corrupt."""
    items = iter(index.transactions)
    item = next(items, None)
    at = end = len(ev.MAGIC)  # of the event; of the transaction that began last
    for event in ev.read(chunks):
        if item and at == item.offset and at >= end:
            sound = event.type in ev.GTIDS and gtid(event).identity in ("", item.identity)
            end, item = at + item.length, next(items, None)
        else:
            sound = event.type not in ev.GTIDS and (event.type != ev.FORMAT_DESCRIPTION or at == len(ev.MAGIC))
        if not sound or at < end < at + event.size:
            raise _another(index, at)
        at += event.size
    if item or at < end or at != index.raw_size:
        raise _another(index, at)


def _another(index: SliceIndex, at: int) -> Corrupt:
    return Corrupt(f"Slice {index.key} does not hold at byte {at} what its index says.")
