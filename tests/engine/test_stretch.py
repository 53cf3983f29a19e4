"""Transactions taken many at once become the same steps as one by one, whatever is among them and wrong with them."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from itertools import chain
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backups.engine.errors import Corrupt, EngineError
from backups.engine.mysql import batch, events, rows, stretch
from backups.engine.mysql.compaction import Shape
from backups.engine.mysql.events import HEADER
from backups.engine.mysql.finder import Finder
from backups.engine.mysql.gtid_events import gtid
from backups.engine.mysql.step import Gathered
from backups.engine.mysql.steps import Steps
from backups.engine.mysql.stretch import Stretch
from backups.engine.types import Transaction
from tests.engine.played import history, sealed
from tests.engine.test_events import FILES

replay = importlib.import_module("backups.engine.mysql.replay")  # its package has a function of this name
UUID = bytes(range(16))
SOURCE = "00010203-0405-0607-0809-0a0b0c0d0e0f"
INT, VARCHAR, BLOB = 3, 15, 252
TABLES = {  # types, metadata, key, column of AUTO_INCREMENT
    "numbers": ((INT, VARCHAR, BLOB), bytes([200, 0, 2]), (0,), 0),
    "words": ((VARCHAR, INT), bytes([44, 1]), (0,), -1),
    "pairs": ((INT, INT, INT), b"", (0, 2), -1),
}
HEAD = history("mysql-9.7", ())[0][0]


def event(kind: int, body: bytes) -> bytes:
    raw = HEADER.pack(1, kind, 1, events.HEADER_SIZE + len(body) + 4, 0, 0) + body
    return sealed(raw + bytes(4), 4)


def bare(raw: bytes) -> bytes:
    """The event without its checksum."""
    return raw[:9] + (len(raw) - 4).to_bytes(4, "little") + raw[13:-4]


def table_map(name: str, schema: bytes = b"shop") -> bytes:
    types, metadata, *_ = TABLES[name]
    body = _number(name).to_bytes(6, "little") + b"\1\0" + bytes([len(schema)]) + schema + b"\0"
    body += bytes([len(name)]) + name.encode() + b"\0" + bytes([len(types), *types, len(metadata)]) + metadata
    return event(events.TABLE_MAP, body + b"\xff")


def _number(name: str) -> int:
    return 100 + list(TABLES).index(name)


def row_event(name: str, kind: int, images: Sequence[bytes], end: bool = True) -> bytes:
    columns = bytes([(1 << len(TABLES[name][0])) - 1]) * (2 if kind == events.UPDATE_ROWS else 1)
    head = _number(name).to_bytes(6, "little") + bytes([end, 0]) + b"\2\0" + bytes([len(TABLES[name][0])]) + columns
    return event(kind, head + b"".join(images))


def image(name: str, key: int, text: bytes | None) -> bytes:
    number = key.to_bytes(4, "little")
    if name == "pairs":
        return b"\xf8" + number + len(text or b"").to_bytes(4, "little") + number
    if name == "words":
        word = str(key).encode()
        return b"\xfc" + len(word).to_bytes(2, "little") + word + len(text or b"").to_bytes(4, "little")
    if text is None:
        return b"\xfe" + number
    return b"\xf8" + number + bytes([len(text)]) + text + len(text).to_bytes(2, "little") + text


def gtid_event(number: int, kind: int = events.GTID, clock: int = 2) -> bytes:
    body = b"\1" + UUID + number.to_bytes(8, "little") + bytes([clock]) + bytes(16) + bytes(7) + b"\0" + bytes(4)
    return event(kind, body)


BEGIN = event(events.QUERY, bytes(13) + b"\0BEGIN")
XID = event(events.XID, bytes(8))


def transaction(number: int, changes: Sequence[bytes]) -> bytes:
    return b"".join((gtid_event(number), BEGIN, *changes, XID))


STEPS = st.tuples(
    st.sampled_from(list(TABLES)), st.sampled_from(["put", "drop", "move"]), st.integers(0, 9),
    st.none() | st.binary(max_size=60),
)  # fmt: skip
EVENTS = st.lists(STEPS, min_size=1, max_size=3)
HISTORIES = st.lists(st.lists(EVENTS, min_size=1, max_size=3), min_size=1, max_size=40)


class Rows:
    """A made-up source: what its tables hold."""

    def __init__(self) -> None:
        self.held: dict[tuple[str, int], bytes] = {}

    def events(self, wanted: Sequence[tuple[str, str, int, bytes | None]]) -> list[bytes]:
        """One statement for one table: an event for each kind of change that is possible there."""
        name = wanted[0][0]
        found: list[bytes] = []
        for kind in (events.WRITE_ROWS, events.UPDATE_ROWS, events.DELETE_ROWS):
            images = [part for _, what, key, text in wanted if (part := self._change(kind, name, what, key, text))]
            if images:
                found.append(row_event(name, kind, images, False))
        return [table_map(name), *found[:-1], _ended(found[-1])] if found else []

    def _change(self, kind: int, name: str, what: str, key: int, text: bytes | None) -> bytes:
        old, new = self.held.get((name, key)), image(name, key, text)
        if kind == events.WRITE_ROWS and old is None:
            self.held[name, key] = new
            return new
        if kind == events.DELETE_ROWS and what == "drop" and old is not None:
            return self.held.pop((name, key))
        if kind == events.UPDATE_ROWS and what != "drop" and old is not None:
            moves = what == "move" and name != "numbers" and (name, key + 100) not in self.held
            other = key + 100 if moves else key  # with an AUTO_INCREMENT key it would not be compacted
            del self.held[name, key]
            self.held[name, other] = image(name, other, text)
            return old + self.held[name, other]
        return b""


def _ended(raw: bytes) -> bytes:
    changed = bytearray(raw)
    changed[25] |= 1
    return sealed(changed, 4)


def log_of(wanted: Sequence[Sequence[Sequence[Any]]]) -> list[bytes]:
    source = Rows()
    made = []
    for statements in wanted:
        changes = list(chain.from_iterable(source.events(statement) for statement in statements))
        if changes:
            made.append(transaction(len(made) + 1, changes))
    return made


def look(schema: str, name: str) -> Shape | batch.How:
    if name not in TABLES:
        return Shape(width=SHAPES.get((schema, name), 1), key=(0,))
    types, _, key, counter = TABLES[name]
    return Shape(width=len(types), key=key, counter=counter)


SHAPES: dict[tuple[str, str], int] = {}


def told(step: Any) -> Any:
    if not isinstance(step, Gathered):
        return step
    tables = {}
    for name, changes in step.batch.tables.items():
        tables[name] = changes and (changes.rows, changes.size, changes.top, changes.last, changes.heads)
    return tables, list(step.batch._log), step.batch.size, step.batch.compacted, sorted(step.batch.unfit), step.place


def said(parts: Sequence[bytes], places: Sequence[str], head: bytes = HEAD) -> tuple[list[Any], Any]:
    """The steps, and what was seen or the error that ended them."""
    steps, found, error = Steps(1 << 20, look), [], ""
    ends = [sum(map(len, parts[: number + 1])) for number in range(len(parts))]
    try:
        found += steps.format(events.parse(memoryview(head), 0))
        found += map(told, steps.side_by_side(places, b"".join(parts), ends))
        found += map(told, steps.finish())
    except EngineError as raised:
        error = repr(raised)
    seen = steps.seen.row_events, steps.seen.statements, steps.seen.skipped
    steps.close()
    return found, error or seen


def compared(
    parts: Sequence[bytes], places: Sequence[str], head: bytes = HEAD, *, nonsense: bool = False
) -> tuple[list[Any], int]:
    """The same both ways, and how many transactions were taken together.

    nonsense: there may be some under a right checksum.  It may then be met in another order.
    """
    taken = 0
    take = batch.Batch.add_all

    def counted(self: batch.Batch, stretch: Stretch, first: int, last: int) -> int:
        nonlocal taken
        taken += last - first
        return take(self, stretch, first, last)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch, "SMALL", 0)
        patch.setattr(Stretch, "reach", lambda self, first: first)
        one_by_one = said(parts, places, head)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch, "SMALL", 0)
        patch.setattr(batch, "FEW", 1)
        patch.setattr(stretch, "FEWEST", 1)
        patch.setattr(stretch, "FEW", 1)
        patch.setattr(batch.Batch, "add_all", counted)
        together = said(parts, places, head)
    if not (nonsense and isinstance(one_by_one[1], str)):
        assert together == one_by_one
    return one_by_one[0], taken


def numbered(count: int) -> list[str]:
    return [f"{SOURCE}:{number + 1}" for number in range(count)]


@settings(max_examples=200, deadline=None)
@given(HISTORIES)
def test_any_history_becomes_the_same_steps(wanted):
    parts = log_of(wanted)
    found, taken = compared(parts, numbered(len(parts)))
    assert taken >= len(parts) - 1
    assert all(table for step in found if isinstance(step, tuple) for table in step[0].values())


@settings(max_examples=300, deadline=None)
@given(HISTORIES, st.data())
def test_damage_is_told_alike_with_and_without_a_right_checksum(wanted, data):
    parts = log_of(wanted)
    number = data.draw(st.integers(0, len(parts) - 1))
    raw = bytearray(parts[number])
    starts = list(_starts(raw))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    nonsense = data.draw(st.booleans())
    if nonsense:
        for start, end in zip(starts, [*starts[1:], len(raw)], strict=True):
            raw[start:end] = sealed(raw[start:end], 4)
    parts[number] = bytes(raw)
    compared(parts, numbered(len(parts)), nonsense=nonsense)


def _starts(raw: bytes) -> Any:
    at = 0
    while at < len(raw):
        yield at
        at += int.from_bytes(raw[at + 9 : at + 13], "little")


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(FILES)), st.integers(0, 999), st.integers(1, 30))
def test_captured_logs_become_the_same_steps(name, first, count):
    head, log = history(name, range(first, first + count))
    trailer = head[0][-5]
    parts = [b"".join(sealed(raw, trailer) for raw in group) for group in log]
    for raw in chain.from_iterable(log):
        if raw[4] == events.TABLE_MAP:
            found = rows.table_map(events.parse(memoryview(bytes(raw)), trailer))
            SHAPES[found.schema, found.table] = len(found.types)
    compared(parts, [_identity(group[0]) for group in log], head[0])


def _identity(raw: bytearray) -> str:
    return gtid(events.parse(memoryview(bytes(raw)), 0)).identity


CHANGE = [table_map("numbers"), row_event("numbers", events.WRITE_ROWS, [image("numbers", 1, b"a")])]
SECOND = [table_map("words"), row_event("words", events.WRITE_ROWS, [image("words", 1, b"a")])]
SYSTEM = [table_map("words", b"mysql"), SECOND[1]]
COMMENT = event(events.ROWS_QUERY, b"\1x")
OPEN = row_event("numbers", events.WRITE_ROWS, [image("numbers", 1, b"a")], False)


@pytest.mark.parametrize(
    ("changes", "plain"),
    [
        (CHANGE, True),
        ([*CHANGE, *SECOND], True),
        ([SECOND[0], *CHANGE], True),
        ([CHANGE[0], SECOND[0], CHANGE[1], SECOND[1]], False),  # not the map just before it
        (SYSTEM, False),
        ([*CHANGE, *SYSTEM], False),
        ([COMMENT, *CHANGE], False),
        ([CHANGE[0], OPEN], False),
        ([CHANGE[1]], False),
        ([CHANGE[0]], False),
        ([], False),
    ],
)
def test_what_is_plain(monkeypatch, changes, plain):
    monkeypatch.setattr(stretch, "FEW", 1)
    parts = [transaction(1, CHANGE), transaction(2, changes), transaction(3, CHANGE)]
    ends = [len(parts[0]), len(parts[0]) + len(parts[1]), sum(map(len, parts))]
    assert Stretch(b"".join(parts), numbered(3), ends, 4).plain.tolist() == [True, plain, True]


def is_plain(place: str, *parts: bytes) -> bool:
    raw = b"".join(parts)
    return bool(Stretch(raw, [place], [len(raw)], 4).plain.all())


def test_what_begins_and_ends_a_plain_transaction(monkeypatch):
    monkeypatch.setattr(stretch, "FEW", 1)
    (place,), first = numbered(1), gtid_event(1)
    assert is_plain(place, first, BEGIN, *CHANGE, XID)
    assert not is_plain(place, gtid_event(2), BEGIN, *CHANGE, XID)
    assert not is_plain(place, first, event(events.QUERY, bytes(14) + b"DO 1"), *CHANGE, XID)
    assert not is_plain(place, first, event(events.ROWS_QUERY, b"\0BEGIN"), *CHANGE, XID)
    assert not is_plain(place, first, BEGIN, *CHANGE, event(events.QUERY, bytes(14) + b"COMMIT"))
    assert not is_plain(place, first, BEGIN, *CHANGE, XID[:-1] + b"?")
    assert not is_plain(place, first, BEGIN, *CHANGE, XID, b"more")
    anonymous = "binlog.000001:4"
    assert is_plain(anonymous, gtid_event(1, events.ANONYMOUS_GTID), BEGIN, *CHANGE, XID)
    assert not is_plain(anonymous, gtid_event(1, events.ANONYMOUS_GTID, 3), BEGIN, *CHANGE, XID)


def test_without_checksums_an_event_must_end_with_its_transaction(monkeypatch):
    monkeypatch.setattr(stretch, "FEW", 1)
    raw = bytearray(b"".join(map(bare, (gtid_event(1), BEGIN, *CHANGE, XID))))
    assert Stretch(bytes(raw), numbered(1), [len(raw)], 0).plain.all()
    raw[13 - len(XID)] += 1  # its size
    assert not Stretch(bytes(raw), numbered(1), [len(raw)], 0).plain.any()


def test_a_header_that_ends_behind_its_event_is_left_to_the_server():
    broken = bytearray(CHANGE[1])
    broken[27:29] = b"\xff\xff"
    parts = [transaction(1, CHANGE), transaction(2, [CHANGE[0], sealed(broken, 4), *SECOND])]
    (step,) = (step for step in compared(parts, numbered(2))[0] if isinstance(step, tuple))
    assert step[0]["shop", "numbers"] is None


def test_an_image_that_ends_in_its_null_bits_is_damage():
    table = rows.table_map(events.parse(memoryview(CHANGE[0]), 4))
    with pytest.raises(Corrupt):
        Finder(table, b"\7", (0,)).find(b"", 0)


def test_groups_end_where_something_lies_between_and_where_they_are_large(monkeypatch):
    items = [Transaction(0, str(offset), offset, 10) for offset in (0, 10, 25, 35, 45)]
    monkeypatch.setattr(replay, "TOGETHER", 20)
    assert [len(group) for group in replay._side_by_side(items)] == [2, 2, 1]


@pytest.mark.parametrize(
    ("numbers", "wanted"),
    [((5, 6, 7), True), ((4, 5), False), ((9, 10, 11), False), ((5, 7), True), ((7, 5, 4), False), ((5, 5), False)],
)
def test_a_group_is_taken_where_the_target_lacks_all_of_it_and_should_hold_it(numbers, wanted):
    start, stop = ({"gtids": f"{SOURCE}:1-{last}"} for last in (4, 10))
    window = replay.Window(start, stop)
    group = [Transaction(0, f"{SOURCE}:{number}", 0, 1) for number in numbers]
    assert window.lacks_all(group) is wanted
    window.passed_all(group)
    assert (window.count, window.last) == (len(numbers), group[-1].identity)
    assert all(window.before(item) for item in group)
    assert not window.before(Transaction(0, f"{SOURCE}:8", 0, 1))


def test_a_table_whose_rows_do_not_fit_is_given_up_and_the_others_are_not():
    twice = [transaction(1, [*CHANGE, *SECOND]), transaction(2, CHANGE)]
    (step,) = (step for step in compared(twice, numbered(2))[0] if isinstance(step, tuple))
    assert step[0]["shop", "numbers"] is None and step[0]["shop", "words"] is not None
