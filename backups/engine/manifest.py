"""What a backup's manifest says, and how it becomes a record's body and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from backups.engine.errors import Corrupt
from backups.engine.typed import typed
from backups.engine.types import BackupPoint, DataRef, Position

KIND = "manifest"


@dataclass(frozen=True, slots=True)
class TableEntry:
    """One table's rows.

    load: what follows `INTO TABLE name` in LOAD DATA: character set, fields, columns, SET.
    objects: its `.tsv.zst` objects; their order does not matter.
    """

    name: str
    engine: str
    rows: int
    load: str
    objects: tuple[DataRef, ...] = ()


@dataclass(frozen=True, slots=True)
class SchemaEntry:
    """One schema: `create` makes it and its tables, `finish` its views, routines, triggers and events."""

    name: str
    create: DataRef
    finish: DataRef | None
    tables: tuple[TableEntry, ...] = ()


@dataclass(frozen=True, slots=True)
class Manifest:
    """The commit marker of a backup.

    view_us: when the read view was complete, by the server's clock; started_us and finished_us by the worker's.
    All three are microseconds since the epoch, UTC.  size: bytes of all data objects as stored.
    settings: the server variables that replay and restore need.  schedule: a uuid, or "".
    accounts: SQL that makes the server's accounts; backups before Everest kept them have none.
    inexact: sentences about what could not be carried exactly.  definers: accounts that views and programs run as, as
    SQL; older backups do not tell them.
    """

    backup: str
    name: str
    database: str
    timeline: str
    schedule: str
    flavour: str
    version: str
    server: str
    position: Position
    view_us: int
    started_us: int
    finished_us: int
    system_time_zone: str
    settings: Mapping[str, str]
    schemas: tuple[SchemaEntry, ...]
    size: int
    rows: int
    accounts: DataRef | None = None
    inexact: tuple[str, ...] = ()
    definers: tuple[str, ...] = ()

    def data(self) -> Iterator[DataRef]:
        """Every data object that this backup needs."""
        for schema in self.schemas:
            yield schema.create
            for table in schema.tables:
                yield from table.objects
            if schema.finish:
                yield schema.finish
        if self.accounts:
            yield self.accounts

    def point(self, storage: str = "", pinned: bool = False) -> BackupPoint:
        """The backup as plan and retention see it."""
        return BackupPoint(self.backup, self.timeline, self.position, self.view_us, storage, self.schedule, pinned)


def to_body(manifest: Manifest) -> dict[str, Any]:
    return asdict(manifest)


def from_body(body: dict[str, Any]) -> Manifest:
    """Raise Corrupt where the body is not a manifest's."""
    try:
        accounts = data_ref(body["accounts"]) if body.get("accounts") else None
        lists = {name: tuple(body.get(name, ())) for name in ("inexact", "definers")}
        more = {"accounts": accounts, **lists}
        return typed(Manifest(**{**body, **more, "schemas": tuple(_schema(entry) for entry in body["schemas"])}))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise Corrupt(f"A manifest does not hold what a manifest holds ({error}).") from error


def _schema(entry: dict[str, Any]) -> SchemaEntry:
    tables = tuple(_table(table) for table in entry["tables"])
    finish = data_ref(entry["finish"]) if entry["finish"] else None
    return typed(SchemaEntry(entry["name"], data_ref(entry["create"]), finish, tables))


def _table(entry: dict[str, Any]) -> TableEntry:
    return typed(TableEntry(**{**entry, "objects": tuple(data_ref(ref) for ref in entry["objects"])}))


def data_ref(entry: dict[str, Any]) -> DataRef:
    return typed(DataRef(entry["key"], entry["size"], entry["sha256"], tuple(entry["blocks"])))
