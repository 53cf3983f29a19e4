"""Readers, and strategies for bytes that nearly are what they read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import zstandard
from hypothesis import strategies as st

from backups.engine import codec, crypt, index, manifest
from backups.engine.errors import EngineError
from backups.engine.manifest import Manifest, SchemaEntry, TableEntry
from backups.engine.mysql import changes, events, sqlfile
from backups.engine.mysql.gtid import GtidSet, at_or_before
from backups.engine.mysql.skipped import is_skipped
from backups.engine.mysql.statements import Query
from backups.engine.mysql.transactions import Grouper, tables_of
from backups.engine.mysql.values import Declared
from backups.engine.slices import point
from backups.engine.types import Change, DataRef, Transaction
from tests.engine import histories
from tests.fuzz.captures import captures, read_capture
from tests.fuzz.damage import EDITS, damaged, edited

GOLDEN = Path(__file__).parent.parent / "golden"
KEYS = crypt.Keys({"00" * 8: bytes(32)})
Strategy = st.SearchStrategy[bytes]


@dataclass(frozen=True)
class Target:
    """read: anything but an EngineError that it raises is a finding."""

    read: Callable[[bytes], object]
    made: Strategy

    def __call__(self, data: bytes) -> None:
        with suppress(EngineError):
            self.read(data)


# --- binary logs ----------------------------------------------------------------------------------------------


@cache
def logs() -> list[list[events.Event]]:
    """Format description and one transaction, of every transaction in the captured logs, without checksums."""
    made = []
    for path in sorted(GOLDEN.glob("*.binlog")):
        first, *rest = events.read([path.read_bytes()])
        rest = [event for event in rest if event.type not in events.STRUCTURE]
        one: list[events.Event] = []
        for event in rest:
            if event.type in events.GTIDS and one:
                made.append([first, *one])
                one = []
            one.append(event)
        made.append([first, *one])
    return made


@st.composite
def log_files(draw: Any) -> bytes:
    """A transaction whose bodies are damaged, with sizes and checksums that are right again."""
    chosen = draw(st.sampled_from(logs()))
    wrong = draw(st.lists(st.integers(1, len(chosen) - 1), min_size=1, max_size=2))
    parts = [events.MAGIC, bytes(chosen[0].raw)]
    trailer = events.format_description(chosen[0]).trailer
    for number, event in enumerate(chosen[1:], 1):
        body = edited(bytes(event.body), draw(EDITS)) if number in wrong else bytes(event.body)
        kind = draw(st.sampled_from([event.type, event.type, *events.ROWS])) if number in wrong else event.type
        parts.append(bytes(events.with_checksum(kind, event, body, trailer).raw))
    return b"".join(parts)


def read_log(data: bytes) -> None:
    """As shipping, the transaction list and the page of rows do."""
    grouper, offset = None, len(events.MAGIC)
    for event in events.read([data]):
        if event.type == events.FORMAT_DESCRIPTION:
            grouper = Grouper(events.format_description(event), event.server_id)
        elif grouper and event.type not in events.STRUCTURE:
            grouper.feed(event, offset, f"binlog.000001:{offset}")
        offset += event.size


def read_rows(data: bytes) -> None:
    declared = [Declared(f"c{n}", labels=("a", "b")) for n in range(37)]
    for known in ((), declared):
        changes.changed_rows([data], len(events.MAGIC), len(data), lambda schema, table, known=known: known)


def raw_logs() -> list[bytes]:
    return [events.MAGIC + b"".join(bytes(event.raw) for event in one) for one in logs()]


# --- records --------------------------------------------------------------------------------------------------


@cache
def bodies(kind: str) -> list[Any]:
    ref = DataRef("v1/x", 5, "0" * 64, ("1" * 64,))
    if kind == manifest.KIND:
        tables = (TableEntry("t", "InnoDB", 3, "(a)", (ref,)),)
        schemas = (SchemaEntry("s", ref, ref, tables), SchemaEntry("u", ref, None))
        position = {"server": "a", "file": "b.000001", "pos": 4, "file_id": "x", "gtids": None}
        numbers = (1, 2, 3)
        made = Manifest("b", "n", "d", "t", "", "mysql", "9.7", "u", position, *numbers, "UTC", {}, schemas, 1, 3, ref)
        return [json.loads(json.dumps(manifest.to_body(made)))]
    if kind == index.KIND:
        plain = histories.index(0, [5, 6], 0)
        full = replace(plain, transactions=(
            Transaction(7, "a-b:3", 0, 9, (Change("s", "t", 1, 2, 3), Change("s", "u"))),
            Transaction(9, "odd", 12, 9, (), "DROP TABLE x", "prepare X'00'"),
        ))  # fmt: skip
        return [json.loads(json.dumps(index.to_body(one, histories.DATABASE))) for one in (plain, full)]
    return [{"name": "shop", "server": {"uuid": "x"}, "timelines": [{"id": "t", "start": {}}], "pins": ["b"]}]


ODD = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.sampled_from([2**60, -1, 0, 1e300]), st.text(max_size=4),
    st.lists(st.integers(-1, 3), max_size=3), st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)  # fmt: skip


def places(body: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield at
    inside = body.items() if isinstance(body, dict) else enumerate(body) if isinstance(body, list) else ()
    for name, value in inside:
        yield from places(value, (*at, name))


@st.composite
def odd_bodies(draw: Any, kind: str) -> bytes:
    """A body with a value or two in which something else stands, or nothing."""
    body = json.loads(json.dumps(draw(st.sampled_from(bodies(kind)))))
    for _ in range(draw(st.integers(1, 2))):
        *way, last = draw(st.sampled_from([one for one in places(body) if one] or [("x",)]))
        inside = body
        for name in way:
            inside = inside[name]
        if draw(st.booleans()):
            inside[last] = draw(ODD)
        else:
            del inside[last]
        if not isinstance(body, dict) or not body:
            break
    return json.dumps(draw(st.sampled_from([body] * 9 + [[], None, "x", 5]))).encode()


def read_manifest(body: Any) -> None:
    entry = manifest.from_body(body)
    manifest.to_body(entry)
    sum(ref.size + len(ref.blocks) for ref in entry.data())


def read_index(body: Any) -> None:
    entry = index.from_body(body)
    index.to_body(entry, "x")
    point(entry, "s")


def records() -> list[bytes]:
    made = [codec.seal(kind, bodies(kind)[-1], packed, keys, "name")[: -codec.HASH_LINE]
            for kind in (manifest.KIND, index.KIND, "database") for packed in (True, False)
            for keys in (codec.PLAIN, KEYS)]  # fmt: skip
    header = b'{"everest":1,"kind":"slice","features":[],"codec":"json+zstd","key":null}\n'
    bomb = zstandard.ZstdCompressor(write_content_size=False).compress(b"[" * (1 << 22))
    return [*made, header + bomb + b"\n", header + b"(\xb5/\xfd\xe0" + b"\xff" * 16 + b"\n"]


def read_record(data: bytes) -> None:
    """With the hash that it would have: only then is anything of it looked at."""
    whole = data + hashlib.sha256(data).hexdigest().encode() + b"\n"
    for kind in (manifest.KIND, index.KIND, "database"):
        try:
            body = codec.unseal(whole, kind, "name", KEYS)
        except EngineError:
            continue
        if kind == manifest.KIND:
            read_manifest(body)
        elif kind == index.KIND:
            read_index(body)


def encrypted() -> list[bytes]:
    return [b"".join(crypt.sealed([b"x" * size], KEYS, "name")) for size in (0, 9, crypt.CHUNK, crypt.CHUNK + 1)]


# --- texts ----------------------------------------------------------------------------------------------------

WORDS = ("DROP TABLE", "/*!50001 ", "/* ", "*/", "-- x\n", "`", '"', "a.b", " , ", "TO", "'", "#", "\n", "IF EXISTS ",
         "RENAME TABLE",
         "GRANT", "SET PASSWORD", "INSERT INTO", "mysql.user", " ", "é", "\\", "CREATE OR REPLACE ")  # fmt: skip
texts = st.lists(st.sampled_from(WORDS) | st.text(max_size=5), max_size=60).map(lambda parts: "".join(parts).encode(
    errors="replace"))  # fmt: skip


def read_text(data: bytes) -> None:
    list(tables_of(data.decode("latin-1")))
    is_skipped(Query("shop", data, 0, 0, 0))


SETS = ("3e11fa47-71ca-11e1-9e33-c80aa9429562", ":", ":1-5", "-", ",", "1", ":tag:7", "0-1-7",
        "0-1-18446744073709551615", "²", ":9999999999999999999999", "\n", " ", ":0", ":5-1", "x")  # fmt: skip
sets = st.lists(st.sampled_from(SETS), max_size=8).map(lambda parts: "".join(parts).encode())


def read_set(data: bytes) -> None:
    text = data.decode()
    GtidSet.parse(text).encode()
    for gtids in (text, "0-1-7", "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5"):
        place = {"server": "a", "file": "binlog.000001", "pos": 4, "file_id": "", "gtids": gtids}
        at_or_before({**place, "gtids": text}, place)


def sql_files() -> list[bytes]:
    return [b"".join(sqlfile.render([b"SET NAMES utf8mb4", b"CREATE TABLE `t` (\n  `a` enum('x','y')\n)"]))]


def read_sql(data: bytes) -> None:
    changes.declared_in([data])


TARGETS: dict[str, Target] = {
    "log": Target(read_log, log_files()),
    "log-raw": Target(read_log, damaged(raw_logs)),
    "rows": Target(read_rows, log_files()),
    "capture": Target(read_capture, captures()),
    "record": Target(read_record, damaged(records)),
    "manifest": Target(lambda data: read_manifest(json.loads(data)), odd_bodies(manifest.KIND)),
    "index": Target(lambda data: read_index(json.loads(data)), odd_bodies(index.KIND)),
    "encrypted": Target(lambda data: list(crypt.opened([data], KEYS, "name")), damaged(encrypted)),
    "statement": Target(read_text, texts),
    "gtids": Target(read_set, sets),
    "sql-file": Target(read_sql, damaged(sql_files)),
}
