"""The body of a slice's index: its transactions as columns, so that 100,000 of them take a second and little room.

Every column is a list of small integers: times and offsets as differences, identities as a prefix and a
difference, tables by their place in a dictionary.  zstd does the rest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import accumulate, chain, islice
from operator import add, itemgetter, sub
from typing import Any

from backups.engine.errors import Corrupt
from backups.engine.manifest import data_ref
from backups.engine.typed import typed, whole
from backups.engine.types import Change, Columns, SliceIndex, Transaction

KIND = "slice"

# The shortest prefix that leaves a number without leading zeros, so that prefix + str(number) is the text again.
_identity = re.compile(r"(.*?)(0|[1-9][0-9]{0,17})", re.DOTALL).fullmatch


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
    tables: dict[tuple[str, str], int] = {}
    different = {id(changes): changes for changes in all_changes}  # capture gives equal transactions the same changes
    for changes in different.values():
        for change in changes:
            tables.setdefault((change.schema, change.table), len(tables))
    known = {
        key: (
            [tables[one.schema, one.table] for one in changes],
            [one.inserts for one in changes],
            [one.updates for one in changes],
            [one.deletes for one in changes],
        )
        for key, changes in different.items()
    }
    found = [known[id(changes)] for changes in all_changes]
    return list(tables), [list(chain.from_iterable(map(itemgetter(column), found))) for column in range(4)]


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


def _differences(values: list[int]) -> list[int]:
    return list(map(sub, values, chain([0], values)))


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


def _identities(texts: list[str]) -> list[list[Any]]:
    """[prefixes, prefix of each, number of each as the difference to the last of its prefix, null where none]."""
    prefixes: dict[str, int] = {}
    last: dict[str, int] = {}
    places: list[int] = []
    numbers: list[int | None] = []
    prefix = ""
    for text in texts:
        digits = text.removeprefix(prefix)
        if not (prefix and digits != text and _plain_number(digits)):
            prefix, digits = _split(text)
        places.append(prefixes.setdefault(prefix, len(prefixes)))
        if not digits:
            numbers.append(None)
            continue
        number = int(digits)
        numbers.append(number - last.get(prefix, 0))
        last[prefix] = number
    return [list(prefixes), places, numbers]


def _plain_number(digits: str) -> bool:
    return digits.isdigit() and digits.isascii() and digits[0] != "0" and len(digits) <= 18


def _split(text: str) -> tuple[str, str]:
    """An identity's prefix and number; no number where it does not end in one."""
    prefix = text.rstrip("0123456789")
    digits = text[len(prefix) :]
    if _plain_number(digits):
        return prefix, digits
    match = _identity(text)
    return (match[1], match[2]) if match else (text, "")


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
