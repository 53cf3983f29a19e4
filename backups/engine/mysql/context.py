"""What a logged statement's meaning depends on, and how a session is brought to it before it runs again.

Pure: no server is asked.  A statement carries its session's variables (statements.Query.status); what it does not
carry it did not use.  Only differences to what the replaying session already has are sent.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Any, Literal

from backups.engine.errors import Corrupt, Refused
from backups.engine.mysql.events import INTVAR, RAND, Event
from backups.engine.mysql.server import quote
from backups.engine.mysql.statements import Query, UserVar, intvar, rand, user_var

Flavour = Literal["mysql", "mariadb"]
Collations = Mapping[int, tuple[str, str]]  # id -> name of the character set, name of the collation

# flags2 of a QUERY event: variable, bit, the value that a set bit stands for.
FLAGS: dict[Flavour, tuple[tuple[str, int, bool], ...]] = {
    "mysql": (
        ("foreign_key_checks", 1 << 26, False),
        ("unique_checks", 1 << 27, False),
        ("sql_auto_is_null", 1 << 14, True),
    ),
    "mariadb": (
        ("foreign_key_checks", 1 << 26, False),
        ("unique_checks", 1 << 27, False),
        ("sql_auto_is_null", 1 << 14, True),
        ("check_constraint_checks", 1 << 15, False),
        ("explicit_defaults_for_timestamp", 1 << 24, True),
        ("sql_if_exists", 1 << 28, True),
        ("system_versioning_insert_history", 1 << 30, True),
    ),
}
# Logged only by servers, and for statements, that know them: their numbers are the variables' values.
_AS_LOGGED = (
    "sql_mode", "explicit_defaults_for_timestamp", "default_collation_for_utf8mb4", "sql_require_primary_key",
    "default_table_encryption", "enable_cascade_triggers",
)  # fmt: skip
UTF8 = "utf8mb4"


def variables(query: Query, timestamp: int, flavour: Flavour) -> dict[str, str]:
    """Session variables, as SQL, under which the statement ran.  timestamp: seconds, of the event's header."""
    status = query.status
    fraction = status.get("microseconds", status.get("hrnow", 0))
    increment, offset = status.get("auto_increment", (1, 1))
    found = {
        "timestamp": f"{timestamp}.{fraction:06}" if fraction else str(timestamp),
        "pseudo_thread_id": str(query.thread_id),  # tells temporary tables of one name apart
        "auto_increment_increment": str(increment),
        "auto_increment_offset": str(offset),
        "lc_time_names": str(status.get("lc_time_names", 0)),
        "collation_database": str(status.get("charset_database", "DEFAULT")),
    }
    for name, bit, meaning in FLAGS[flavour]:
        found[name] = str(int(bool(status.get("flags2", 0) & bit) == meaning))
    if "charset" in status:
        names = ("character_set_client", "collation_connection", "collation_server")
        found.update(zip(names, map(str, status["charset"]), strict=True))
    if "time_zone" in status:
        found["time_zone"] = text(status["time_zone"])
    found.update({name: str(status[name]) for name in _AS_LOGGED if name in status})
    if flavour == "mysql":
        found.setdefault("sql_require_primary_key", "0")
    return found


def text(value: str) -> str:
    """A plain word, such as a zone's name, as SQL."""
    if not re.fullmatch(r"[\w+:/,= -]*", value, re.ASCII):
        raise Corrupt(f"A logged statement carries a name that is none: {value[:80]!r}.")
    return f"'{value}'"


def settings(events: Iterable[Event], collations: Collations) -> list[tuple[str, str]]:
    """What the INTVAR, RAND and USER_VAR events in front of a statement set: variable and value, as SQL."""
    found: list[tuple[str, str]] = []
    for event in events:
        if event.type == INTVAR:
            name, number = intvar(event)
            found.append((name, str(number)))
        elif event.type == RAND:
            first, second = rand(event)
            found += [("rand_seed1", str(first)), ("rand_seed2", str(second))]
        else:
            variable = user_var(event)
            found.append(("@" + quote(variable.name.decode()), literal(variable, collations)))
    return found


def literal(variable: UserVar, collations: Collations) -> str:
    """A user variable's value as SQL of exactly its type."""
    value = variable.value
    if value is None:
        return "NULL"
    if variable.type == 0:
        if variable.collation not in collations:
            raise Refused(
                f"A statement uses collation number {variable.collation}, which the target does not know.",
                next_step="Restore to a server of the source's version.",
            )
        charset, collation = collations[variable.collation]
        return f"_{charset} X'{value.hex()}' COLLATE {collation}"
    if variable.type == 1 and len(value) == 8:
        shown = repr(struct.unpack("<d", value)[0])
        return shown if "e" in shown else f"{shown}e0"
    if variable.type == 2 and len(value) == 8:
        number = int.from_bytes(value, "little", signed=not variable.unsigned)
        return f"CAST({number} AS UNSIGNED)" if variable.unsigned else str(number)
    if variable.type == 4 and len(value) > 2:
        precision, scale = value[0], value[1]
        return f"CAST('{decimal(value[2:], precision, scale)}' AS DECIMAL({precision},{scale}))"
    raise Corrupt(f"A user variable of unknown type {variable.type} with {len(value)} bytes.")


_DIGIT_BYTES = (0, 1, 1, 2, 2, 3, 3, 4, 4, 4)


def decimal(raw: bytes, precision: int, scale: int) -> str:
    """MySQL's binary DECIMAL: groups of nine digits in four bytes, the sign in the first bit, inverted if negative."""
    whole = precision - scale
    groups = [whole % 9, *[9] * (whole // 9)]
    points = [*[9] * (scale // 9), scale % 9]
    sizes = [_DIGIT_BYTES[digits] for digits in groups + points]
    if sum(sizes) != len(raw) or whole < 0:
        raise Corrupt("A DECIMAL in the log has another length than its precision says.")
    negative = not raw[0] & 0x80
    data = bytes([raw[0] ^ 0x80, *raw[1:]])
    if negative:
        data = bytes(byte ^ 0xFF for byte in data)
    at, digits = 0, []
    for count, size in zip(groups + points, sizes, strict=True):
        digits.append(f"{int.from_bytes(data[at : at + size], 'big'):0{count}}" if count else "")
        at += size
    number = "".join(digits[: len(groups)]) or "0"
    fraction = "".join(digits[len(groups) :])
    return ("-" if negative else "") + number + ("." + fraction if fraction else "")


class Session:
    """What the replaying session has been set to so far.

    names: the variables that the target has; one of another series that it lacks has no meaning there.
    zone: what stands for the source's SYSTEM time zone on the target, None where nothing does.
    """

    def __init__(self, flavour: Flavour, names: Container[str], zone: str | None, collations: Collations) -> None:
        self.flavour = flavour
        self.names = names
        self.zone = zone
        self.collations = collations
        self.known: dict[str, str] = {"character_set_client": UTF8}

    def prepare(self, query: Query, timestamp: int, before: Iterable[Event]) -> Iterator[bytes]:
        """SET statements to run before this statement."""
        names = settings(before, self.collations)
        if not all(name.isascii() for name, _ in names):
            yield from self._set(self.changes({"character_set_client": UTF8}))
            yield from self._set(names)
            names = []
        yield from self._set(names + self.changes(self._wanted(query, timestamp)))

    def readable(self, name: str) -> Iterator[bytes]:
        """SET statements before an identifier is sent that is not plain ASCII."""
        if not name.isascii():
            yield from self._set(self.changes({"character_set_client": UTF8}))

    def schema_changed(self) -> None:
        """USE has reset what depends on the default schema."""
        self.known["collation_database"] = "DEFAULT"

    def rows_applied(self) -> None:
        """BINLOG has left the session at the time of its last row event."""
        self.known.pop("timestamp", None)

    def changes(self, wanted: Mapping[str, str]) -> list[tuple[str, str]]:
        found = [(name, value) for name, value in wanted.items() if self.known.get(name) != value]
        self.known.update(found)
        return found

    def _wanted(self, query: Query, timestamp: int) -> dict[str, str]:
        found = variables(query, timestamp, self.flavour)
        if found.get("time_zone") == "'SYSTEM'":
            if self.zone is None:
                raise Refused(
                    "A statement depends on the source's system time zone, which the target does not have.",
                    next_step="Start the target in the source's time zone, or load its time zone tables.",
                )
            found["time_zone"] = text(self.zone)
        if "charset" in query.status:
            # By name: MariaDB takes only collations below 256 for a character set.
            found["character_set_client"] = self._charset(query.status["charset"][0])
        if pairs := query.status.get("character_set_collations"):
            found["character_set_collations"] = self._pairs(pairs)
        return {name: value for name, value in found.items() if name in self.names}

    def _charset(self, collation: int) -> str:
        return self.collations[collation][0] if collation in self.collations else str(collation)

    def _pairs(self, pairs: Iterable[tuple[int, int]]) -> str:
        try:
            return text(",".join(f"{self.collations[a][0]}={self.collations[b][1]}" for a, b in pairs))
        except (KeyError, Corrupt):
            raise Refused("A statement uses a collation that the target does not know.") from None

    @staticmethod
    def _set(assignments: list[tuple[str, str]]) -> Iterator[bytes]:
        if assignments:
            scoped = ((name if name[0] == "@" else f"SESSION {name}", value) for name, value in assignments)
            yield ("SET " + ", ".join(f"{name} = {value}" for name, value in scoped)).encode()


_ALTER_EVENT = re.compile(rb"(?is)^((?:\s|/\*(?!M?!).*?\*/)*ALTER)(\s+EVENT\b)")


def with_definer(query: Query) -> bytes:
    """The statement's text; an ALTER EVENT, which takes its session's account as definer, names the source's."""
    invoker: Any = query.status.get("invoker")
    if not invoker or not _ALTER_EVENT.match(query.sql):
        return query.sql
    account = f"{quote(invoker[0])}@{quote(invoker[1])}".encode()
    return _ALTER_EVENT.sub(lambda found: found[1] + b" DEFINER=" + account + found[2], query.sql, count=1)
