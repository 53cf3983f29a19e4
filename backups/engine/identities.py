"""The identities of transactions: text that mostly counts up, kept as the numbers that it counts with."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

MOST_DIGITS = 18  # of a number that is kept as one

# The shortest prefix that leaves a number without leading zeros, so that prefix + str(number) is the text again.
_identity = re.compile(r"(.*?)(0|[1-9][0-9]{0,17})", re.DOTALL).fullmatch


class Identities(Sequence[str]):
    """runs: a prefix and the numbers that come behind it, None for a text that is all prefix."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self.runs: list[tuple[str, list[int | None]]] = []
        for text in texts:
            self.append(text)

    def append(self, text: str) -> None:
        prefix, number = _split(text)
        self.add(prefix, [number])

    def add(self, prefix: str, numbers: list[Any]) -> None:
        if self.runs and self.runs[-1][0] == prefix:
            self.runs[-1][1].extend(numbers)
        else:
            self.runs.append((sys.intern(prefix), [*numbers]))  # several sources take turns with the same few

    def __iadd__(self, more: Iterable[str]) -> Identities:
        for prefix, numbers in more.runs if isinstance(more, Identities) else Identities(more).runs:
            self.add(prefix, numbers)
        return self

    def __len__(self) -> int:
        return sum(len(numbers) for _, numbers in self.runs)

    def __iter__(self) -> Iterator[str]:
        for prefix, numbers in self.runs:
            yield from (prefix if number is None else f"{prefix}{number}" for number in numbers)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> Identities: ...
    def __getitem__(self, place: int | slice) -> str | Identities:
        if isinstance(place, int):
            place = range(len(self))[place]
            return next(iter(self[place : place + 1]))
        begin, end, step = place.indices(len(self))
        if step != 1:
            return Identities([*self][place])
        part = Identities()
        for prefix, numbers in self.runs:
            if some := numbers[max(begin, 0) : max(end, 0)]:
                part.runs.append((prefix, some))
            begin, end = begin - len(numbers), end - len(numbers)
        return part


def _split(text: str) -> tuple[str, int | None]:
    """An identity's prefix and number; no number where it does not end in one."""
    prefix = text.rstrip("0123456789")
    digits = text[len(prefix) :]
    if digits[:1] not in ("", "0") and len(digits) <= MOST_DIGITS:
        return prefix, int(digits)
    match = _identity(text)
    return (match[1], int(match[2])) if match else (text, None)
