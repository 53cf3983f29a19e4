"""The body of a slice's index: its transactions as columns, so that 100,000 of them take a second and little room.

Every column is a list of small integers: times and offsets as differences, identities as a prefix and a
difference, tables by their place in a dictionary.  zstd does the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, chain, islice
from operator import add, sub
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backups.engine.errors import Corrupt
from backups.engine.identities import Identities
from backups.engine.manifest import data_ref
from backups.engine.typed import typed, whole
from backups.engine.types import Change, Columns, SliceIndex, Transaction

KIND = "slice"


def to_body(index: SliceIndex, database: str) -> dict[str, Any]:
    data = index.data
    return {
        "database": database,
        "timeline": index.timeline,
        "level": index.level,
        "sequence": index.sequence,
        "holds": index.holds,
        "key": index.key,
        "previous": index.previous,
        "start": dict(index.start),
        "end": dict(index.end),
        "data": {"key": data.key, "size": data.size, "sha256": data.sha256, "blocks": list(data.blocks)},
        "raw_size": index.raw_size,
        "exact_times": index.exact_times,
        "written_us": index.written_us,
        "transactions": _columns(index.transactions),
    }


def from_body(body: dict[str, Any]) -> SliceIndex:
    """Raise Corrupt where the body is not an index's."""
    try:
        entry = SliceIndex(
            key=body["key"],
            timeline=body["timeline"],
            level=body["level"],
            sequence=body["sequence"],
            previous=body["previous"],
            start=body["start"],
            end=body["end"],
            data=data_ref(body["data"]),
            raw_size=body["raw_size"],
            exact_times=body["exact_times"],
            written_us=body["written_us"],
            transactions=_transactions(body["transactions"]),
            holds=body.get("holds", 1),
        )
        return typed(entry)
    except (AttributeError, KeyError, TypeError, ValueError, IndexError, StopIteration) as error:
        raise Corrupt(f"A slice's index does not hold what an index holds ({error!r}).") from error


def _columns(transactions: Sequence[Transaction]) -> dict[str, Any]:
    of = Columns.of(transactions)
    tables, change = _change_columns(of.changes)
    ends = chain([0], map(add, of.offsets, of.lengths))
    return {
        "time": _differences(of.times),
        "identity": _identities(of.identities),
        "skip": list(map(sub, of.offsets, ends)),
        "length": of.lengths,
        "tables": tables,
        "changes": list(map(len, of.changes)),
        "change": change,
        "ddl": [[place, text] for place, text in enumerate(of.ddl) if text],
        "xa": [[place, text] for place, text in enumerate(of.xa) if text],
    }


def _change_columns(all_changes: Sequence[tuple[Change, ...]]) -> tuple[list[tuple[str, str]], list[list[int]]]:
    """The tables, and each change's table, inserts, updates and deletes."""
    ids = np.fromiter(map(id, all_changes), np.int64, len(all_changes))  # capture gives equal ones the same changes
    _, firsts, of = np.unique(ids, return_index=True, return_inverse=True)
    order = np.argsort(firsts)
    different = [all_changes[place] for place in firsts[order].tolist()]
    tables: dict[tuple[str, str], int] = {}
    rows = [
        (tables.setdefault((one.schema, one.table), len(tables)), one.inserts, one.updates, one.deletes)
        for changes in different
        for one in changes
    ]
    counts = np.fromiter(map(len, different), np.int64, len(different))
    of = np.argsort(order)[of]
    return list(tables), np.array(rows, np.int64).reshape(-1, 4)[_spans(counts, of)].T.tolist()


def _spans(counts: NDArray[np.int64], of: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of things that lie side by side, so many for each owner: the places of those of some owners."""
    wanted = counts[of]
    ends = np.cumsum(wanted)
    starts = (np.cumsum(counts) - counts)[of]
    return np.arange(wanted.sum()) + np.repeat(starts - ends + wanted, wanted)


def _transactions(columns: dict[str, Any]) -> tuple[Transaction, ...]:
    counts = columns["changes"]
    whole(chain(counts, columns["time"], columns["skip"], columns["length"]))
    changes = iter(_changes(columns["tables"], columns["change"]))
    ddl, xa = _texts(columns["ddl"]), _texts(columns["xa"])
    fields = zip(
        accumulate(columns["time"]),
        _identity_texts(columns["identity"]),
        _offsets(columns["skip"], columns["length"]),
        columns["length"],
        (tuple(islice(changes, count)) for count in counts),
        (ddl.get(place, "") for place in range(len(counts))),
        (xa.get(place, "") for place in range(len(counts))),
        strict=True,
    )
    return tuple(Transaction(*values) for values in fields)


def _texts(column: list[list[Any]]) -> dict[int, str]:
    found = dict(column)
    whole(found)
    if not all(isinstance(text, str) for text in found.values()):
        raise TypeError("a text that is none")
    return found


def _differences(values: list[int], before: int = 0) -> list[int]:
    return list(map(sub, values, chain([before], values)))


def _offsets(skips: list[int], lengths: list[int]) -> Iterator[int]:
    end = 0
    for skip, length in zip(skips, lengths, strict=True):
        yield end + skip
        end += skip + length


def _changes(tables: list[list[str]], columns: list[list[int]]) -> list[Change]:
    made: dict[tuple[int, ...], Change] = {}  # most rows repeat: one Change serves them all
    changes = []
    for row in zip(*columns, strict=True):
        change = made.get(row)
        if change is None:
            whole(row)
            change = made[row] = typed(Change(*tables[row[0]], *row[1:]))
        changes.append(change)
    return changes


def _identities(identities: Identities) -> list[list[Any]]:
    """[prefixes, prefix of each, number of each as the difference to the last of its prefix, null where none]."""
    prefixes: dict[str, int] = {}
    last: dict[str, int] = {}
    places: list[int] = []
    found: list[int | None] = []
    for prefix, numbers in identities.runs:
        places += [prefixes.setdefault(prefix, len(prefixes))] * len(numbers)
        known = [number for number in numbers if number is not None]
        steps = iter(_differences(known, last.get(prefix, 0)))
        found += [None if number is None else next(steps) for number in numbers] if None in numbers else steps
        last[prefix] = known[-1] if known else last.get(prefix, 0)
    return [list(prefixes), places, found]


def _identity_texts(column: list[list[Any]]) -> Iterator[str]:
    prefixes, places, numbers = column
    whole(numbers, type(None))
    last = [0] * len(prefixes)
    for place, number in zip(places, numbers, strict=True):
        if number is None:
            yield str(prefixes[place])
        else:
            last[place] += number
            yield f"{prefixes[place]}{last[place]}"
