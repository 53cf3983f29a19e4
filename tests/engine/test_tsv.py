"""Packets of a result into lines for LOAD DATA, however the network cuts them."""

from __future__ import annotations

import random
from typing import Any

import pymysql
import pytest

from backups.engine.errors import Stopped
from backups.engine.mysql import tsv

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


def packet(payload: bytes) -> bytes:
    full = tsv.FULL_PACKET
    parts = [payload[at : at + full] for at in range(0, len(payload) + 1, full)]
    return b"".join(len(part).to_bytes(3, "little") + b"\x00" + part for part in parts)


def field(value: bytes | None) -> bytes:
    if value is None:
        return b"\xfb"
    for limit, mark, width in ((251, b"", 1), (1 << 16, b"\xfc", 2), (1 << 24, b"\xfd", 3)):
        if len(value) < limit:
            return mark + len(value).to_bytes(width, "little") + value
    return b"\xfe" + len(value).to_bytes(8, "little") + value


def result(rows: list[list[bytes | None]], last: bytes = END) -> bytes:
    header = packet(b"\x02") + packet(b"column") * 2 + packet(END)
    return header + b"".join(packet(b"".join(map(field, row))) for row in rows) + packet(last)


def select(wire: Wire, poll: Any = lambda: None) -> tuple[bytes, int]:
    blocks = list(tsv.select(wire, "SELECT", poll))  # type: ignore[arg-type]
    return b"".join(block for block, _ in blocks), sum(count for _, count in blocks)


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
    lines, count = select(Wire(result(rows), chance))
    assert unescaped(lines) == rows and count == len(rows)


@pytest.mark.parametrize("size", [tsv.FULL_PACKET - 6, tsv.FULL_PACKET - 5, tsv.FULL_PACKET - 4, tsv.FULL_PACKET + 9])
def test_rows_of_several_packets(size: int) -> None:
    rows: list[list[bytes | None]] = [[b"a", b"b"], [None, b"\t" + b"x" * (size - 1)], [b"c", None]]
    lines, count = select(Wire(result(rows), random.Random(1)))
    assert lines == b"a\tb\n\\N\t\\t" + b"x" * (size - 1) + b"\nc\t\\N\n" and count == 3


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
