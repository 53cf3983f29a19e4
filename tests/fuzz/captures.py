"""Logs as a server sends them, damaged: runs that are taken at once must say what their events one by one do."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import chain, pairwise
from typing import Any

from hypothesis import strategies as st

from backups.engine.mysql import events
from tests.engine.played import How, compared, history, place, sealed, wire
from tests.fuzz.damage import EDITS, NUMBERS, edited

FILES = ["mysql-9.7"] * 4 + ["mysql-9.7-plain", "mariadb-10.11"]  # the fast path leaves those without checksums
TYPE, SERVER, SIZE, PLACE, FLAGS = slice(4, 5), slice(5, 9), slice(9, 13), slice(13, 17), slice(17, 19)
TIMES = events.HEADER_SIZE + 42  # in a GTID event: the commit time, the original one where it differs, the length
KINDS = st.sampled_from([*sorted(events.STRUCTURE), *sorted(events.GTIDS), *sorted(events.ROWS), events.INCIDENT,
                         events.QUERY, events.XID, events.TABLE_MAP, 255])  # fmt: skip

Log = list[bytearray]


@st.composite
def captures(draw: Any) -> bytes:
    """A line that says how it comes in, and the bytes of the connection."""
    name = draw(st.sampled_from(FILES))
    head, groups = history(name, draw(st.lists(st.integers(0, 999), min_size=1, max_size=12)))
    log, trailer = list(chain.from_iterable(groups)), head[0][-5]
    for change in draw(st.lists(st.sampled_from(CHANGES), min_size=1, max_size=3)):
        change(draw, log, trailer)
    if draw(st.booleans()):
        _lengthen(log)
        place([log], 4 + sum(map(len, head)))
    unproven = draw(st.sets(st.integers(0, len(log)), max_size=1))
    raws = [bytes(raw) if at in unproven else sealed(raw, trailer) for at, raw in enumerate(log)]
    data = wire([*head, *raws])
    if draw(st.integers(0, 4)) == 0:
        data = edited(data, draw(EDITS))
    how = {
        "portions": draw(st.lists(st.integers(1, 9000), min_size=1, max_size=4)),
        "max_bytes": draw(st.integers(200, 20_000)),
        "gtids": draw(st.sampled_from(["", "", None])),
        "flavour": "mariadb" if "maria" in name else "mysql",
    }
    return json.dumps(how).encode() + b"\n" + data


def _body(draw: Any, log: Log, trailer: int) -> None:
    raw = draw(st.sampled_from(log))
    end = len(raw) - events.CHECKSUM_SIZE * bool(trailer)
    raw[events.HEADER_SIZE : end] = edited(bytes(raw[events.HEADER_SIZE : end]), draw(EDITS))
    raw[SIZE] = len(raw).to_bytes(4, "little")


def _number(draw: Any, log: Log, trailer: int) -> None:
    raw, number = draw(st.sampled_from(log)), draw(NUMBERS)
    at = draw(st.integers(min(events.HEADER_SIZE, len(raw) - 1), len(raw) - 1))
    raw[at : at + len(number)] = number[: len(raw) - at]


def _header(draw: Any, log: Log, trailer: int) -> None:
    raw, part = draw(st.sampled_from(log)), draw(st.sampled_from([TYPE, TYPE, SERVER, SIZE, PLACE, FLAGS]))
    size = part.stop - part.start
    near = st.integers(-9, 9).map(lambda more: (int.from_bytes(raw[part], "little") + more) % (1 << 8 * size))
    raw[part] = draw(KINDS if part is TYPE else near | st.integers(0, (1 << 8 * size) - 1)).to_bytes(size, "little")


def _drop(draw: Any, log: Log, trailer: int) -> None:
    if len(log) > 1:
        log.pop(draw(st.integers(0, len(log) - 1)))


def _double(draw: Any, log: Log, trailer: int) -> None:
    """An event comes again, anywhere."""
    again = bytearray(draw(st.sampled_from(log)))
    log.insert(draw(st.integers(0, len(log))), again)


def _structure(draw: Any, log: Log, trailer: int) -> None:
    """A server that waits, or goes on in another file."""
    at = draw(st.integers(0, len(log)))
    pos = int.from_bytes(log[at - 1][PLACE], "little") if at else 0
    name = draw(st.sampled_from([b"binlog.000001", b"binlog.000002"]))
    kind = draw(st.sampled_from([events.HEARTBEAT, events.ROTATE, events.STOP, events.INCIDENT]))
    body = (4).to_bytes(8, "little") + name if kind == events.ROTATE else name
    flags = draw(st.sampled_from([0, events.FLAG_ARTIFICIAL]))
    size = events.HEADER_SIZE + len(body) + events.CHECKSUM_SIZE
    header = b"".join([bytes(4), bytes([kind]), bytes(4), size.to_bytes(4, "little"), pos.to_bytes(4, "little"),
                       flags.to_bytes(2, "little")])  # fmt: skip
    log.insert(at, bytearray(header + body + bytes(events.CHECKSUM_SIZE)))


CHANGES: list[Callable[[Any, Log, int], None]] = [_body, _body, _number, _header, _drop, _double, _structure]


def _lengthen(log: Log) -> None:
    """Let each transaction be as long as its first event says."""
    starts = [at for at, raw in enumerate(log) if raw[4] in (events.GTID, events.ANONYMOUS_GTID)]
    for start, end in pairwise([*starts, len(log)]):
        raw = log[start]
        at = TIMES + (14 if raw[TIMES + 6 : TIMES + 7] > b"\x7f" else 7)
        if at + 4 < len(raw):
            width = {252: 3, 253: 4, 254: 9}.get(raw[at], 1)
            raw[at : at + width] = bytes(4)
            raw[SIZE] = len(raw).to_bytes(4, "little")
            size = sum(map(len, log[start:end]))
            raw[at : at + 4] = b"\xfd" + size.to_bytes(3, "little")


def read_capture(data: bytes) -> None:
    line, _, sent = data.partition(b"\n")
    compared(sent, How(**json.loads(line)))
