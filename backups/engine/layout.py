"""Object keys: the only place that builds or takes them apart.  FORMAT.md has the grammar.

No human name is ever part of a key: two installations, or two databases of one name, never mix and never tell.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass

ROOT = "v1/"
LAST_SEQUENCE = 10**12 - 1
LEVELS = 10  # of slices: one digit in their keys

_UUID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_NAME = "[a-z0-9]+(?:-[a-z0-9]+)*"
_KEY = re.compile(
    rf"v1/(?P<database>{_UUID})/(?:"
    rf"(?P<record>database\.json)"
    rf"|(?P<timeline>{_UUID})/(?:"
    rf"backups/(?P<backup>{_UUID})/(?:(?P<manifest>manifest\.json)|{_NAME}-[0-9a-f]{{16}}\.(?:sql|tsv)\.zst)"
    rf"|slices/(?P<level>[0-9])/(?:index/(?P<index>[0-9]{{12}})\.idx"
    rf"|data/(?P<data>[0-9]{{12}})-[0-9a-f]{{16}}\.binlog\.zst)"
    r"))"
)


@dataclass(frozen=True, slots=True)
class Key:
    """A key taken apart.  kind: "database", "manifest", "backup data", "index" or "slice data"."""

    kind: str
    database: str
    timeline: str = ""
    backup: str = ""
    level: int = 0
    sequence: int = -1


def parse(key: str) -> Key | None:
    """The parts of a key, or None for a key that is not Everest's."""
    match = _KEY.fullmatch(key)
    if match is None:
        return None
    database, timeline = match["database"], match["timeline"] or ""
    if match["record"]:
        return Key("database", database)
    if match["backup"]:
        return Key("manifest" if match["manifest"] else "backup data", database, timeline, match["backup"])
    kind = "index" if match["index"] else "slice data"
    return Key(kind, database, timeline, level=int(match["level"]), sequence=int(match["index"] or match["data"]))


def database_prefix(database: str) -> str:
    return f"{ROOT}{_uuid(database)}/"


def database_record(database: str) -> str:
    return f"{database_prefix(database)}database.json"


def timeline_prefix(database: str, timeline: str) -> str:
    return f"{database_prefix(database)}{_uuid(timeline)}/"


def backups_prefix(database: str, timeline: str) -> str:
    return f"{timeline_prefix(database, timeline)}backups/"


def backup_prefix(database: str, timeline: str, backup: str) -> str:
    return f"{backups_prefix(database, timeline)}{_uuid(backup)}/"


def manifest(database: str, timeline: str, backup: str) -> str:
    return f"{backup_prefix(database, timeline, backup)}manifest.json"


def backup_data(database: str, timeline: str, backup: str, name: str, kind: str) -> str:
    """A new key for a backup's data object.  name: `a-z 0-9 -` and no human name; kind: "sql" or "tsv"."""
    if not re.fullmatch(_NAME, name) or kind not in ("sql", "tsv"):
        raise ValueError(f"{name!r} with {kind!r} does not make a key")
    return f"{backup_prefix(database, timeline, backup)}{name}-{secrets.token_hex(8)}.{kind}.zst"


def index_prefix(database: str, timeline: str, level: int = 0) -> str:
    return f"{_level_prefix(database, timeline, level)}index/"


def index(database: str, timeline: str, level: int, sequence: int) -> str:
    return f"{index_prefix(database, timeline, level)}{_sequence(sequence)}.idx"


def slice_data_prefix(database: str, timeline: str, level: int = 0) -> str:
    return f"{_level_prefix(database, timeline, level)}data/"


def slice_data(database: str, timeline: str, level: int, sequence: int) -> str:
    """A new key for a slice's data object: the random part lets two tries at one sequence live side by side."""
    return f"{slice_data_prefix(database, timeline, level)}{_sequence(sequence)}-{secrets.token_hex(8)}.binlog.zst"


def _level_prefix(database: str, timeline: str, level: int) -> str:
    if not 0 <= level < LEVELS:
        raise ValueError(f"{level} is not a level")
    return f"{timeline_prefix(database, timeline)}slices/{level}/"


def _sequence(sequence: int) -> str:
    if not 0 <= sequence <= LAST_SEQUENCE:
        raise ValueError(f"{sequence} is not a sequence number")
    return f"{sequence:012}"


def is_uuid(text: str) -> bool:
    return re.fullmatch(_UUID, text) is not None


def _uuid(text: str) -> str:
    if not is_uuid(text):
        raise ValueError(f"{text!r} is not a uuid in its canonical form")
    return text
