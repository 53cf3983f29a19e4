"""Runs taken at once say the same as their events one by one, however they come in and whatever is wrong with them."""

import itertools
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backups.engine.errors import EngineError
from backups.engine.mysql import bulk, events, rowcounts
from backups.engine.mysql.dump import Packets
from backups.engine.mysql.server import Identity
from backups.engine.mysql.stream import Cutter, Reader
from backups.engine.types import Quiet
from tests.engine.test_events import FILES

EOF = b"\xfe\0\0\2\0"


class Played:
    """A socket that gives what was recorded in portions, then ends."""

    def __init__(self, data, portions):
        self.data, self.portions, self.at = data, itertools.cycle(portions), 0

    def settimeout(self, seconds):
        self.timeout = seconds

    def recv_into(self, view):
        if not self.timeout:
            raise BlockingIOError
        size = min(next(self.portions), len(view), len(self.data) - self.at)
        view[:size] = self.data[self.at : self.at + size]
        self.at += size
        return size


def history(name, picks):
    """(format description, the log's own transactions in any order, placed anew), each a list of bytes."""
    head, groups = [], []
    for event in events.read([FILES[name]]):
        if event.type in events.GTIDS:
            groups.append([])
        if event.type not in events.STRUCTURE or not groups:
            (groups[-1] if groups else head).append(bytes(event.raw))
    pos = 4 + sum(map(len, head))
    log = []
    for number, pick in enumerate(picks, 1):
        for raw in groups[pick % len(groups)]:
            pos += len(raw)
            changed = bytearray(raw)
            changed[13:17] = pos.to_bytes(4, "little")
            if raw[4] == events.GTID:
                changed[36:44] = number.to_bytes(8, "little")
            log.append(changed)
    return head, log


def sealed(raw, trailer):
    return bytes(raw[:-4]) + zlib.crc32(raw[:-4]).to_bytes(4, "little") if trailer else bytes(raw)


def said(name, raws, portions, max_bytes, gtids):
    """All that a capture hands out, and how it ends."""
    data = b"".join(len(one).to_bytes(3, "little") + b"\1" + one for one in [*(b"\0" + raw for raw in raws), EOF])
    identity = Identity("mariadb" if "maria" in name else "mysql", (9, 7), "9.7", "server", True, "UTC", {})
    start = {"server": "server", "file": "binlog.000001", "pos": 4, "file_id": "", "gtids": gtids}
    reader = Reader(Packets(Played(data, portions)), identity, start)
    cutter = Cutter(reader, start, 60, max_bytes, None, Quiet(), lambda position: None)
    told = []
    try:
        for chunk in cutter.chunks():
            told.append((b"".join(chunk.payload), chunk.start, chunk.end, chunk.transactions))
    except EngineError as error:
        told.append((type(error), str(error)))
    return told


def compared(monkeypatch, *arguments):
    """The same both ways, and how many batches were taken."""
    taken = []
    take = bulk.Bulk.take

    def counted(self, *given):
        found = take(self, *given)
        taken.append(found[0] is not None)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(bulk, "FEWEST", 1 << 40)
        slow = said(*arguments)
        patch.setattr(bulk, "FEWEST", 1)
        patch.setattr(rowcounts, "FEW", 0)
        patch.setattr(bulk.Bulk, "take", counted)
        assert said(*arguments) == slow
    return slow, sum(taken)


NAMES = st.sampled_from([name for name in FILES if "mysql" in name])
PICKS = st.lists(st.integers(0, 999), min_size=1, max_size=30)
PORTIONS = st.lists(st.integers(1, 9000), min_size=1, max_size=5)


@settings(max_examples=80, deadline=None)
@given(NAMES, PICKS, PORTIONS, st.integers(200, 20_000), st.sampled_from(["", None]))
def test_any_history_in_any_portions_is_summarised_as_by_its_events(name, picks, portions, max_bytes, gtids):
    with pytest.MonkeyPatch.context() as patch:
        head, log = history(name, picks)
        trailer = head[0][-5]
        raws = [*head, *(sealed(raw, trailer) for raw in log)]
        told, _ = compared(patch, name, raws, portions, max_bytes, gtids)
        assert b"".join(chunk[0][len(head[0]) + 4 :] for chunk in told) == b"".join(raws[len(head) :])


@settings(max_examples=120, deadline=None)
@given(NAMES, PICKS, PORTIONS, st.data())
def test_damage_is_found_at_the_same_place_with_and_without_a_right_checksum(name, picks, portions, data):
    with pytest.MonkeyPatch.context() as patch:
        head, log = history(name, picks)
        trailer = head[0][-5]
        raws = [*head, *(sealed(raw, trailer) for raw in log)]
        at = data.draw(st.integers(len(head), len(raws) - 1))
        broken = bytearray(raws[at])
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
        raws[at] = sealed(broken, trailer and data.draw(st.booleans())) if len(broken) > 4 else bytes(broken)
        compared(patch, name, raws, portions, 5000, "")


def test_a_run_of_ordinary_transactions_is_taken_at_once(monkeypatch):
    head, log = history("mysql-9.7", range(60))
    raws = [*head, *(sealed(raw, 1) for raw in log)]
    told, taken = compared(monkeypatch, "mysql-9.7", raws, [1 << 20], 1 << 20, "")
    assert len(told) == 1 and taken
