"""Values of row images as people read them.

mysql-replication decodes each value by itself, from a row event made for it alone: one that it cannot read, or does
not know the type of, is shown as its bytes and takes no other with it.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from pymysql.protocol import MysqlPacket
from pymysqlreplication.column import Column
from pymysqlreplication.packet import BinLogPacketWrapper
from pymysqlreplication.row_event import WriteRowsEvent, find_charset
from pymysqlreplication.table import Table

from backups.engine.mysql.events import HEADER, HEADER_SIZE, WRITE_ROWS_V1, Cursor
from backups.engine.mysql.rows import JSON, TableMap

SHOWN = 2000  # characters of one value
BINARY = 63  # the character set of what is no text
_NUMBERS = frozenset({1, 2, 3, 4, 5, 8, 9, 13, 246})
_TEXTS = frozenset({15, 252, 253, 254})
_DATE, _YEAR, _BIT, _TIMESTAMP, _DATETIME, _TIME, _FLOAT = 10, 13, 16, 17, 18, 19, 4
_VECTOR, _ENUM, _SET, _STRING, _GEOMETRY = 242, 247, 248, 254, 255
_SIGNEDNESS, _DEFAULT_CHARSET, _CHARSETS, _NAMES, _SETS, _ENUMS = 1, 2, 3, 4, 5, 6  # optional metadata


class Value(NamedTuple):
    """kind: "" decoded, "null", "bytes" (of a binary column), "unread" (bytes nobody could decode), "absent" (the row
    image does not hold it)."""

    text: str
    kind: str = ""


NULL, ABSENT = Value("NULL", "null"), Value("not logged", "absent")


@dataclass(frozen=True, slots=True)
class Declared:
    """A column as a CREATE TABLE declares it."""

    name: str
    unsigned: bool = False
    binary: bool = False
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Described:
    """All that is known of one column of a table map.  charset: a collation's number, None where not known."""

    name: str
    type: int
    metadata: int
    unsigned: bool
    charset: int | None
    labels: tuple[str, ...]
    mariadb: bool = False


_COLUMN = re.compile(r"^  `((?:[^`]|``)+)` (\w+)(\([^\n']*?\)|\((?:'(?:[^']|'')*',?)+\))?( unsigned)?", re.MULTILINE)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
_LABEL = re.compile(r"'((?:[^']|'')*)'")


def declared(definition: bytes) -> tuple[Declared, ...]:
    """The columns of a CREATE TABLE as SHOW CREATE TABLE prints it, in order."""
    return tuple(
        Declared(
            name.replace("``", "`"),
            unsigned=bool(unsigned),
            binary=kind.endswith(("blob", "binary")),
            labels=tuple(one.replace("''", "'") for one in _LABEL.findall(detail)) if kind in ("enum", "set") else (),
        )
        for name, kind, detail, unsigned in _COLUMN.findall(definition.decode(errors="replace"))
    )


def describe(table: TableMap, known: Sequence[Declared] = (), mariadb: bool = False) -> tuple[Described, ...]:
    """From what the log says of the columns; what it leaves out, from a declaration that has as many."""
    optional = _optional(table.optional)
    types = [_real_type(kind, detail) for kind, detail in zip(table.types, table.metadata, strict=True)]
    fits = known if len(known) == len(types) else [Declared("")] * len(types)
    signs = _signs(types, optional.get(_SIGNEDNESS))
    charsets = _charsets(types, optional, mariadb)
    names = _texts(optional.get(_NAMES, b""))
    enums, sets = (iter(_label_lists(optional.get(kind, b""))) for kind in (_ENUMS, _SETS))
    found = []
    for number, (kind, hint) in enumerate(zip(types, fits, strict=True)):
        labels = next(enums, ()) if kind == _ENUM else next(sets, ()) if kind == _SET else ()
        found.append(
            Described(
                name=names[number] if number < len(names) else hint.name or f"column {number + 1}",
                type=kind,
                metadata=table.metadata[number],
                unsigned=signs.get(number, hint.unsigned),
                charset=charsets.get(number, BINARY if hint.binary else None),
                labels=labels or hint.labels,
                mariadb=mariadb,
            )
        )
    return tuple(found)


def _real_type(kind: int, metadata: int) -> int:
    """ENUM and SET hide in the metadata of STRING."""
    hidden = metadata & 0xFF
    return hidden if kind == _STRING and hidden in (_ENUM, _SET) else kind


def _optional(data: bytes) -> dict[int, bytes]:
    cursor, fields = Cursor(memoryview(data)), {}
    while cursor.left():
        kind = cursor.number(1)
        fields[kind] = cursor.copy(cursor.packed())
    return fields


def _signs(types: list[int], bits: bytes | None) -> dict[int, bool]:
    """Whether each number is unsigned: one bit each, the highest first."""
    if bits is None:
        return {}
    numbers = [place for place, kind in enumerate(types) if kind in _NUMBERS]
    return {place: bool(bits[n >> 3] >> (7 - n % 8) & 1) for n, place in enumerate(numbers) if n >> 3 < len(bits)}


def _charsets(types: list[int], optional: dict[int, bytes], mariadb: bool) -> dict[int, int]:
    texts = [place for place, kind in enumerate(types) if kind in _TEXTS or (mariadb and kind == _GEOMETRY)]
    if _CHARSETS in optional:
        return dict(zip(texts, _integers(optional[_CHARSETS]), strict=False))
    if _DEFAULT_CHARSET not in optional:
        return {}
    default, *others = _integers(optional[_DEFAULT_CHARSET])
    differing = dict(zip(others[::2], others[1::2], strict=True))
    return {place: differing.get(number, default) for number, place in enumerate(texts)}


def _integers(data: bytes) -> list[int]:
    cursor, found = Cursor(memoryview(data)), []
    while cursor.left():
        found.append(cursor.packed())
    return found


def _texts(data: bytes) -> list[str]:
    cursor, found = Cursor(memoryview(data)), []
    while cursor.left():
        found.append(cursor.copy(cursor.packed()).decode(errors="replace"))
    return found


def _label_lists(data: bytes) -> list[tuple[str, ...]]:
    cursor, found = Cursor(memoryview(data)), []
    while cursor.left():
        count = cursor.packed()
        found.append(tuple(cursor.copy(cursor.packed()).decode(errors="replace") for _ in range(count)))
    return found


# --- one value ------------------------------------------------------------------------------------------------


def read(column: Described, raw: bytes) -> Value:
    """A value that is not NULL, from its bytes in the image, a length in front of them included."""
    try:
        special = _special(column, raw)
        return special if special is not None else _shown(column, _decoded(column, raw))
    except Exception:  # whatever the library trips over: the value is shown as it lies in the log, and said to be
        return unread(raw)


def unread(raw: bytes) -> Value:
    return Value(_cut("0x" + raw[: SHOWN // 2].hex(), 2 + 2 * len(raw)), "unread")


def _special(column: Described, raw: bytes) -> Value | None:
    """What mysql-replication leaves out or gets wrong: zero dates, labels it does not know, negative TIME fractions."""
    kind, digits = column.type, column.metadata
    if kind in (_ENUM, _SET) and not column.labels:
        return Value(f"{'label' if kind == _ENUM else 'labels, as bits:'} {int.from_bytes(raw, 'little')}")
    if kind == _ENUM and not any(raw):
        return Value("")  # what the server keeps of a value that is none of the labels
    if kind == _DATE and not any(raw):
        return Value("0000-00-00")
    if kind == _YEAR and not any(raw):
        return Value("0000")
    if kind == _DATETIME and raw[:5] == b"\x80\0\0\0\0":
        return Value("0000-00-00 00:00:00")
    if kind == _TIMESTAMP and not any(raw):
        return Value("0000-00-00 00:00:00")
    if kind == _TIME and raw[0] < 0x80:
        return Value(_negative_time(raw, digits))
    if kind == _SET and not any(raw):
        return Value("")
    if kind == _VECTOR:
        return Value(f"[{', '.join(_float(one) for (one,) in struct.iter_unpack('<f', raw[digits:]))}]")
    return None


def _negative_time(raw: bytes, digits: int) -> str:
    """Kept as the two's complement of all its bytes, the fraction's included."""
    whole = (1 << (8 * len(raw) - 1)) - int.from_bytes(raw, "big")
    fraction_bits = 8 * (len(raw) - 3)
    time, fraction = whole >> fraction_bits, whole & ((1 << fraction_bits) - 1)
    text = f"-{time >> 12 & 0x3FF:02}:{time >> 6 & 0x3F:02}:{time & 0x3F:02}"
    return f"{text}.{fraction:0{2 * (len(raw) - 3)}}"[: len(text) + 1 + digits] if digits else text


class _Connection:
    """What mysql-replication asks of one; nothing is connected."""

    charset = "utf8mb4"

    def _get_dbms(self) -> str:
        return "mysql"


_OPTIONS: dict[str, Any] = {
    "ctl_connection": _Connection(), "mysql_version": (8, 0, 0), "use_checksum": False,
    "allowed_events": [WriteRowsEvent], "only_tables": None, "ignored_tables": None, "only_schemas": None,
    "ignored_schemas": None, "freeze_schema": False, "ignore_decode_errors": False, "verify_checksum": False,
    "optional_meta_data": False, "enable_logging": False,
}  # fmt: skip
_ONE_ROW = b"\1\0\0\0\0\0" + b"\0\0" + b"\1" + b"\1" + b"\0"  # table 1, no flags, one column, logged, not NULL


def _decoded(column: Described, raw: bytes) -> Any:
    """Of a row event that holds this value alone."""
    body = _ONE_ROW + raw
    header = HEADER.pack(0, WRITE_ROWS_V1, 0, HEADER_SIZE + len(body), 0, 0)
    table = Table(1, "", "", [_column(column)])
    packet = BinLogPacketWrapper(MysqlPacket(b"\0" + header + body, "utf8"), {1: table}, **_OPTIONS)
    rows = packet.event.rows
    if len(rows) != 1 or packet.read_bytes != len(body) or rows[0]["values"]["value"] is None:
        raise ValueError("not read to its end")
    return rows[0]["values"]["value"]


def _column(column: Described) -> Column:
    low, high = column.metadata & 0xFF, column.metadata >> 8
    size = column.metadata
    if column.type == _STRING:  # lengths over 255 hide two bits in the type, inverted
        size = high | ((low & 0x30) ^ 0x30) << 4
    kind = 15 if column.type == 253 else column.type
    return Column(
        name="value", type=kind, is_primary=False, unsigned=column.unsigned, max_length=size, length_size=size,
        fsp=size, precision=low, decimals=high, bits=high * 8 + low, bytes=(high * 8 + low + 7) // 8,
        size=high or 1, character_set_name=_encoding(column), enum_values=("", *column.labels),
        set_values=column.labels, collation_name=None, visibility=True,
    )  # fmt: skip


def _encoding(column: Described) -> str | None:
    if column.charset is None:
        return "utf8"
    if column.charset == BINARY:
        return "binary"
    name = find_charset(str(column.charset), dbms="mariadb" if column.mariadb else "mysql")[0]
    return str(name) if name else None


def _shown(column: Described, value: Any) -> Value:
    if isinstance(value, bytes) and column.type != JSON:
        return Value(_cut("0x" + value[: SHOWN // 2].hex(), 2 + 2 * len(value)), "bytes")
    text = _text(column, value)
    if column.charset is None and isinstance(value, str) and _CONTROL.search(text):
        raise ValueError("no text")  # only a guess made it one
    return Value(_cut(text[:SHOWN], len(text)))


def _text(column: Described, value: Any) -> str:
    if column.type == JSON:
        return json.dumps(_plain(value), ensure_ascii=False, default=str)
    if isinstance(value, datetime):
        text = f"{value:%Y-%m-%d %H:%M:%S.%f}"
        text = text[: 20 + column.metadata] if column.metadata else text[:19]
        return f"{text} UTC" if column.type == _TIMESTAMP else text
    if isinstance(value, timedelta):
        return _time(value, column.metadata)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return f"{value:.{column.metadata >> 8}f}"
    if isinstance(value, float):
        return _float(value) if column.type == _FLOAT else repr(value)
    if isinstance(value, set):
        return ",".join(label for label in column.labels if label in value)
    return str(value)


def _plain(value: Any) -> Any:
    """JSON as mysql-replication gives it, with texts for bytes."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, dict):
        return {_plain(name): _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list) else value


def _time(value: timedelta, digits: int) -> str:
    seconds = value.days * 86_400 + value.seconds
    text = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return f"{text}.{value.microseconds:06}"[: len(text) + 1 + digits] if digits else text


def _float(value: float) -> str:
    """The shortest text that is this FLOAT and no other."""
    exact = struct.pack("<f", value)
    texts = (f"{value:.{digits}g}" for digits in range(6, 10))
    return next((text for text in texts if struct.pack("<f", float(text)) == exact), repr(value))


def _cut(text: str, length: int) -> str:
    return f"{text}… ({length:,} characters)" if length > len(text) else text
