"""What every row must be at every moment, told by the writers alone: never by Everest.

A writer notes each transaction as it commits: its GTID from the server's answer, and the rows it left (their images
as the server showed them before the commit, while they were locked).  Of one server GTIDs count up in commit order,
so the state at a GTID is what the transactions up to it left, one after the other.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

Rows = dict[Any, tuple[Any, ...]]
State = dict[str, Rows]  # table -> key -> row


@dataclass(frozen=True)
class Change:
    """One row after a transaction, None where it is gone; without a table's rows: the table is made or dropped."""

    table: str
    key: Any = None
    row: tuple[Any, ...] | None = None
    made: bool | None = None


@dataclass(frozen=True, order=True)
class Written:
    """A committed transaction.  began_us, ended_us: around its commit, this machine's clock."""

    place: tuple[int, int]  # how many servers had taken over before, number of its GTID
    identity: str = field(compare=False)
    changes: tuple[Change, ...] = field(compare=False)
    began_us: int = field(compare=False)
    ended_us: int = field(compare=False)


class History:
    """One unbroken run of GTIDs: until the log is reset, or a server that lacks some takes over."""

    def __init__(self, base: State, began_us: int) -> None:
        self.base = base
        self.began_us = began_us
        self.server = 0  # how many took over
        self.written: list[Written] = []  # in commit order
        self.by_identity: dict[str, Written] = {}

    def state(self, last: Written | None) -> State:
        """Every row just after `last`."""
        state = {table: dict(rows) for table, rows in self.base.items()}
        for one in self.up_to(last):
            for change in one.changes:
                _apply(state, change)
        return state

    def up_to(self, last: Written | None) -> Iterator[Written]:
        for one in self.written:
            if last is None or last < one:
                return
            yield one

    def last_in(self, gtids: dict[str, list[tuple[int, int]]]) -> tuple[Written | None, list[str]]:
        """The last transaction of a GTID set {uuid: [(first, last)]}, and what the set lacks before it."""
        inside = [_holds(gtids, one.identity) for one in self.written]
        if not any(inside):
            return None, []
        last = len(inside) - 1 - inside[::-1].index(True)
        missing = [self.written[at].identity for at in range(last) if not inside[at]]
        return self.written[last], [f"the set lacks {missing[:5]}"] if missing else []

    def between(self, first: Written, last: Written) -> list[Written]:
        """Both included."""
        start = bisect_left(self.written, first)
        return self.written[start : bisect_left(self.written, last, start) + 1]

    def before(self, one: Written) -> Written | None:
        at = bisect_left(self.written, one)
        return self.written[at - 1] if at else None


def _holds(gtids: dict[str, list[tuple[int, int]]], identity: str) -> bool:
    uuid, _, number = identity.rpartition(":")
    return any(first <= int(number) <= last for first, last in gtids.get(uuid, []))


def _apply(state: State, change: Change) -> None:
    if change.made is not None:
        if change.made:
            state[change.table] = {}
        else:
            del state[change.table]
    elif change.row is None:
        del state[change.table][change.key]
    else:
        state[change.table][change.key] = change.row


class Truth:
    """All histories, newest last.  Writers note under the lock; it is never held while a server is waited for."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.histories: list[History] = []

    @property
    def now(self) -> History:
        return self.histories[-1]

    def begin(self, base: State, began_us: int) -> None:
        with self.lock:
            self.histories.append(History(base, began_us))

    def take_over(self) -> None:
        """Another server goes on with the same history; one may come back later."""
        with self.lock:
            self.now.server += 1

    def note(self, identity: str, changes: Iterable[Change], began_us: int, ended_us: int) -> None:
        with self.lock:
            place = self.now.server, int(identity.rpartition(":")[2])
            written = Written(place, identity, tuple(changes), began_us, ended_us)
            assert identity not in self.now.by_identity, f"{identity} was noted twice"
            insort(self.now.written, written)
            self.now.by_identity[identity] = written

    def find(self, identity: str, time_us: int) -> tuple[History, Written] | None:
        """The transaction of this GTID that was committed at this time: after a reset numbers are used again."""
        with self.lock:
            for history in self.histories:
                one = history.by_identity.get(identity)
                if one and one.began_us <= time_us <= one.ended_us:
                    return history, one
        return None

    def history_at(self, time_us: int) -> History:
        """The one that a view of this time belongs to."""
        with self.lock:
            return next(one for one in reversed(self.histories) if one.began_us <= time_us)

    def within(self, first_us: int, last_us: int) -> list[Written]:
        """What was committed between two times, whatever the clocks' last digits say; of all histories."""
        with self.lock:
            everything = [one for history in self.histories for one in history.written]
        return [one for one in everything if first_us < one.began_us and one.ended_us < last_us]

    @property
    def count(self) -> int:
        return sum(len(history.written) for history in self.histories)


def differences(wanted: State, found: State) -> list[str]:
    """One line a table or row that is not as it must be."""
    lines = [f"{table}: is missing" for table in sorted(wanted.keys() - found.keys())]
    lines += [f"{table}: should not be there" for table in sorted(found.keys() - wanted.keys())]
    for table in sorted(wanted.keys() & found.keys()):
        if wanted[table] == found[table]:
            continue
        first, second = Counter(wanted[table].items()), Counter(found[table].items())
        lines += [f"{table}: missing {item!r}" for item in list(first - second)[:5]]
        lines += [f"{table}: not wanted {item!r}" for item in list(second - first)[:5]]
    return lines
