"""Packets of a result into lines for LOAD DATA, however the network cuts them."""

from __future__ import annotations

import random
from collections.abc import Iterable
from itertools import count
from typing import Any

import pymysql
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backups.engine.errors import Stopped
from backups.engine.mysql import packets, tsv

END = b"\xfe\x00\x00\x02\x00"
FIELDS = [
    None,
    b"",
    b"a",
    b"\\N",
    b"\\",
    b"\t",
    b"\n",
    b"\t\n\\\x00\r",
    bytes(range(256)),
    b"x" * 250,
    b"y" * 251,
    b"z" * 70_000,
]


class Wire:
    """Stands where PyMySQL's connection and its socket are: hands out bytes in pieces of any size."""

    def __init__(self, data: bytes, sizes: random.Random) -> None:
        self.data = data
        self.at = 0
        self.sizes = sizes
        self._sock = self

    def _execute_command(self, command: int, sql: str) -> None:
        pass

    def settimeout(self, seconds: float) -> None:
        pass

    def recv_into(self, room: memoryview) -> int:
        part = self.data[self.at :][: min(len(room), self.sizes.choice([1, 3, 100, 5000, 100_000]))]
        room[: len(part)] = part
        self.at += len(part)
        return len(part)


def numbered(payloads: Iterable[bytes]) -> bytes:
    """As packets, each with the number that follows."""
    full = packets.FULL_PACKET
    parts = [payload[at : at + full] for payload in payloads for at in range(0, len(payload) + 1, full)]
    numbers = (bytes((number % 256,)) for number in count(1))
    return b"".join(len(part).to_bytes(3, "little") + next(numbers) + part for part in parts)


def field(value: bytes | None) -> bytes:
    if value is None:
        return b"\xfb"
    for limit, mark, width in ((251, b"", 1), (1 << 16, b"\xfc", 2), (1 << 24, b"\xfd", 3)):
        if len(value) < limit:
            return mark + len(value).to_bytes(width, "little") + value
    return b"\xfe" + len(value).to_bytes(8, "little") + value


def result(rows: list[list[bytes | None]], last: bytes = END) -> bytes:
    return numbered([b"\x02", b"column", b"column", END, *(b"".join(map(field, row)) for row in rows), last])


def select(wire: Wire, poll: Any = lambda: None) -> tuple[bytes, int]:
    blocks = list(tsv.select(wire, "SELECT", poll))  # type: ignore[arg-type]
    return b"".join(block for block, _ in blocks), sum(number for _, number in blocks)


def unescaped(lines: bytes) -> list[list[bytes | None]]:
    """What LOAD DATA reads: fields end at a tab, rows at a newline, where no backslash stands before it."""
    rows: list[list[bytes | None]] = [[]]
    current, at = bytearray(), 0
    special = {ord("t"): b"\t", ord("n"): b"\n", ord("\\"): b"\\"}
    null = False
    while at < len(lines):
        byte = lines[at]
        at += 1
        if byte == ord("\\"):
            null = lines[at] == ord("N") and not current
            current += b"" if null else special[lines[at]]
            at += 1
        elif byte in b"\t\n":
            rows[-1].append(None if null else bytes(current))
            current, null = bytearray(), False
            if byte == ord("\n"):
                rows.append([])
        else:
            current.append(byte)
    return rows[:-1]


@pytest.mark.parametrize("seed", range(20))
def test_rows_come_out_as_they_went_in(seed: int) -> None:
    chance = random.Random(seed)
    few = chance.sample(FIELDS, chance.randrange(1, len(FIELDS)))
    rows = [[chance.choice(few), chance.choice(few)] for _ in range(chance.randrange(60))]
    lines, rows_read = select(Wire(result(rows), chance))
    assert unescaped(lines) == rows and rows_read == len(rows)


def test_fields_with_the_bytes_that_separate_them() -> None:
    """Each in a block where all others are plain: what is counted must tell."""
    for odd in (b"\t", b"\n", b"\\", b"a\tb", b"\x00", b"\x08", None):
        rows: list[list[bytes | None]] = [[b"plain", b"text"], [odd, b"x"], [b"x", odd], [b"plain", None]]
        for few in (rows[:2], rows[:3], rows[::2], rows):
            assert unescaped(select(Wire(result(few), random.Random(1)))[0]) == few


@pytest.mark.parametrize("size", [packets.FULL_PACKET + more for more in (-6, -5, -4, 9)])
def test_rows_of_several_packets(size: int) -> None:
    rows: list[list[bytes | None]] = [[b"a", b"b"], [None, b"\t" + b"x" * (size - 1)], [b"c", None]]
    lines, rows_read = select(Wire(result(rows), random.Random(1)))
    assert lines == b"a\tb\n\\N\t\\t" + b"x" * (size - 1) + b"\nc\t\\N\n" and rows_read == 3


def test_an_error_in_the_middle_is_raised() -> None:
    error = b"\xff" + (1412).to_bytes(2, "little") + b"#HY000Table definition has changed"
    with pytest.raises(pymysql.MySQLError, match="1412"):
        select(Wire(result([[b"a", b"b"]], error), random.Random(1)))


def test_a_cut_connection_is_an_error_and_not_the_end() -> None:
    with pytest.raises(pymysql.err.OperationalError, match="closed"):
        select(Wire(result([[b"a", b"b"]])[:-3], random.Random(1)))


def test_a_stop_is_seen_between_blocks() -> None:
    def poll() -> None:
        raise Stopped("stop")

    with pytest.raises(Stopped):
        select(Wire(result([]), random.Random(1)), poll)


def one_by_one(data: bytes, at: int, end: int) -> tuple[list[int], int]:
    starts = []
    while at < end - packets.HEADER:
        size = packets.HEADER + int.from_bytes(data[at : at + 3], "little")
        if at + size > end:
            break
        starts.append(at)
        at += size
    return starts, at


def assert_walked(data: bytes, at: int, end: int) -> None:
    """As it is, and where it is searched however many zeros there are."""
    for sparse in (packets.SPARSE, 0):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(packets, "SPARSE", sparse)
            starts, stop = packets.walked(bytearray(data), at, end)
        assert (starts.tolist(), stop) == one_by_one(data, at, end)


# Little else than what headers are made of: payloads are full of what looks like one.
LIKE_HEADERS = st.lists(
    st.sampled_from([b"\0", b"\1", b"\2", b"\3", b"\4", b"\7", b"\xff", b"x"]), min_size=1, max_size=40
)


@given(st.lists(LIKE_HEADERS.map(b"".join), max_size=30), st.integers(0, 5), st.integers(0, 60))
def test_packets_are_found_whatever_is_in_them(payloads: list[bytes], before: int, missing: int) -> None:
    data = b"x" * before + numbered(payloads)
    assert_walked(data + b"\0" * 9, before, max(len(data) - missing, before))


@given(st.integers(1, 300), st.integers(1, 900), st.integers(0, 4000))
def test_packets_are_found_however_they_are_cut(rows: int, size: int, missing: int) -> None:
    data = numbered(bytes((65 + number % 26,)) * (size + number % 3) for number in range(rows))
    assert_walked(data, 0, max(len(data) - missing, 0))


def test_packets_are_found_wherever_the_buffer_ends() -> None:
    data = numbered([b"text"] * 4)
    for end in range(len(data)):
        assert_walked(data, 0, end)


def test_a_payload_that_holds_packets_is_one_packet() -> None:
    within = numbered([b"a", b"b", b"c"])
    data = numbered([b"first", within, b"x" + within, b"last"])
    assert_walked(data, 0, len(data))
    assert_walked(data, packets.HEADER + len(b"first"), len(data))


def test_numbers_that_do_not_follow_and_large_packets_are_found_too() -> None:
    plain, large = numbered([b"text"] * 5), numbered([b"y" * 70_000, b"z" * 65_536, b"end"])
    assert_walked(plain + plain + large + plain, 0, 2 * len(plain) + len(large) + len(plain))


def test_large_rows_are_found_at_once_and_small_ones_are_walked() -> None:
    """All but the last, behind which nothing shows that it ends there."""
    large = numbered([b"\x03abc\xc8" + b"y" * 200 + b"\x00\xfb"] * 1000)
    small = numbered([b"\x03abc\x05defgh\x00\xfb"] * 1000)
    assert len(packets._chain(bytearray(large), 0, len(large))) == 999
    assert len(packets._chain(bytearray(small), 0, len(small))) == 0
