"""What happened on a server, for a person who looks for the moment of a mistake: short Jobs, a page at a time.

Their results hold what the page shows, rows of data included; the tick deletes those within hours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile
from typing import Any

from django.db.models import F

from backups import moments
from backups.engine import moments as engine_moments
from backups.engine import plan
from backups.engine.errors import EngineError, Refused, Stopped
from backups.engine.times import AROUND
from backups.engine.types import SliceIndex, Transaction
from backups.models import Backup, Database, Job, Slice
from backups.models.timeline import from_us
from backups.queue import JobRun

PAGE = 100  # transactions, or rows, at a time
MOST_SLICES = 400  # whose indexes one Job reads: some seconds from a bucket
MOST_TEXT = 1_000_000  # characters of rows in one page
TABLES_SHOWN = 12
END_OF_TIME = 2**62

# What follows a place in the list is older: {"timeline": number, "sequence": of the slice, "identity": what lies before
# this transaction}.  Slices may be merged between two pages, so no place in one is kept.
Cursor = dict[str, Any]


def transactions(job: Job, run: JobRun) -> dict[str, Any]:
    """The newest page of what was asked for, and where the next one begins."""
    found: list[dict[str, Any]] = []
    looked = 0
    for row, matching in _newest_first(job.database, job.arguments):
        looked += 1
        run.progress("Reading what happened", looked, 0, "slices")
        if run.should_stop():
            raise Stopped("Cancelled.")
        for transaction in matching:
            if len(found) == PAGE:
                return {"transactions": found, "next": found[-1]["cursor"], "looked": looked}
            found.append(_listed(row, transaction))
        if looked >= MOST_SLICES:
            return {"transactions": found, "next": _cursor(row, _first(job.database, row)), "looked": looked}
    return {"transactions": found, "next": None, "looked": looked}


def _newest_first(database: Database, asked: dict[str, Any]) -> Iterator[tuple[Slice, list[Transaction]]]:
    load = moments.loader(database.archives())
    since, until = asked.get("since_us") or 0, asked.get("until_us") or END_OF_TIME
    after: Cursor | None = asked.get("after")
    for timeline in database.timelines.order_by("-number"):
        if after and timeline.number > after["timeline"]:
            continue
        here = after if after and after["timeline"] == timeline.number else None
        rows = {row.key: row for row in _slices(timeline, here)}
        points = list(plan.cover(plan.in_order(row.point() for row in rows.values())))
        filters = asked.get("table", ""), asked.get("kind", "")
        for point, found in engine_moments.newest_first(points, load, since, until, *filters):
            row = rows[point.key]
            if here is None or point.last < here["sequence"]:
                yield row, found
            elif point.sequence <= here["sequence"] and (before := _before(load(point), here["identity"])):
                yield row, [one for one in found if one.offset <= before[-1].offset]


def _before(index: SliceIndex, identity: str) -> list[Transaction]:
    """A slice's transactions before one, all where it is not in it."""
    return list(takewhile(lambda one: one.identity != identity, index.transactions))


def _slices(timeline: Any, here: Cursor | None) -> Any:
    """Where times are guessed from their neighbours, some slices behind the place count, too."""
    rows = timeline.slices.select_related("storage", "timeline").order_by("sequence")
    return rows.filter(sequence__lte=here["sequence"] + AROUND) if here else rows


def _cursor(row: Slice, identity: str) -> Cursor:
    return {"timeline": row.timeline.number, "sequence": row.sequence, "identity": identity}


def _first(database: Database, row: Slice) -> str:
    transactions = database.archive(row.storage).read_slice(row.key).transactions
    return transactions[0].identity if transactions else ""


def _listed(row: Slice, one: Transaction) -> dict[str, Any]:
    tables = [
        {
            "name": f"{change.schema}.{change.table}",
            "inserts": change.inserts,
            "updates": change.updates,
            "deletes": change.deletes,
        }
        for change in one.changes
    ]
    return {
        "cursor": _cursor(row, one.identity),
        "timeline": str(row.timeline_id),
        "time_us": one.time_us,
        "identity": one.identity,
        "tables": tables[:TABLES_SHOWN],
        "more": max(len(tables) - TABLES_SHOWN, 0),
        "rows": sum(one["inserts"] + one["updates"] + one["deletes"] for one in tables),
        "ddl": one.ddl,
        "xa": one.xa,
    }


def rows(job: Job, run: JobRun) -> dict[str, Any]:
    """Changed rows of one transaction, before and after."""
    database, asked = job.database, job.arguments
    one = asked["transaction"]
    row = _holder(database, one)
    run.progress("Reading the slice", 0, row.size, "bytes")
    archive = database.archive(row.storage)
    index = archive.read_slice(row.key)
    place = next((known for known in index.transactions if known.identity == one["identity"]), None)
    if place is None:
        raise _gone()
    names = Names(database, one["time_us"])
    data = archive.read_data(index.data)
    changed = database.module.changed_rows(data, place.offset, place.length, names, asked["first"], PAGE)
    shown, size = [], 0
    for change in changed:
        shown.append(_row(change))
        size += sum(len(text) for cell in shown[-1]["cells"] for text in cell[1::2])
        if size > MOST_TEXT:
            break
    return {"rows": shown, "names": names.backup}


def _holder(database: Database, one: dict[str, Any]) -> Slice:
    """The slice that holds a listed transaction now: the one it was found in, or a larger one."""
    sequence = one["cursor"]["sequence"]
    rows = Slice.objects.filter(timeline=one["timeline"], timeline__database=database)
    holding = rows.filter(sequence__lte=sequence, sequence__gt=sequence - F("holds"))
    row = holding.select_related("storage").order_by("-level").first()
    if row is None:
        raise _gone()
    return row


def _gone() -> Refused:
    return Refused("The slice with this transaction is no longer stored.", next_step="Look the list up again.")


def _row(change: Any) -> dict[str, Any]:
    """cells: [column, text before, its kind, text after, its kind]."""
    nothing = [("", "none")] * len(change.columns)
    pairs = zip(change.columns, change.before or nothing, change.after or nothing, strict=True)
    cells = [[name, *before, *after] for name, before, after in pairs]
    return {"table": f"{change.schema}.{change.table}", "kind": change.kind, "cells": cells}


class Names:
    """Columns as the newest backup before a moment declares them, for logs that hold no names; read when asked for."""

    def __init__(self, database: Database, time_us: int) -> None:
        self.backup = ""  # the name of the backup that was asked
        self._open = lambda: self._manifest(database, time_us)
        self._known: dict[str, dict[str, Sequence[Any]]] = {}
        self._read: Callable[[str], dict[str, Sequence[Any]]] | None = None

    def __call__(self, schema: str, table: str) -> Sequence[Any]:
        if schema not in self._known:
            self._known[schema] = self._schema(schema)
        return self._known[schema].get(table, ())

    def _schema(self, schema: str) -> dict[str, Sequence[Any]]:
        try:
            self._read = self._read or self._open()
            return self._read(schema)
        except EngineError:  # names are a help: without them columns are numbered
            self.backup = ""
            return {}

    def _manifest(self, database: Database, time_us: int) -> Callable[[str], dict[str, Sequence[Any]]]:
        taken = database.backups.filter(state=Backup.SUCCEEDED).order_by("-view_at")
        backup = taken.filter(view_at__lte=from_us(time_us)).first() or taken.last()
        if backup is None:
            return lambda schema: {}
        archive = database.archive(backup.storage)
        entries = {one.name: one for one in archive.read_manifest(str(backup.timeline_id), str(backup.pk)).schemas}
        self.backup = backup.name

        def read(schema: str) -> dict[str, Sequence[Any]]:
            entry = entries.get(schema)
            return database.module.declared_in(archive.read_data(entry.create)) if entry else {}

        return read
