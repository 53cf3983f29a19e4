"""Bytes that nearly are right."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from hypothesis import strategies as st

EDITS = st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 9), st.binary(max_size=9)), max_size=5)
NUMBERS = st.sampled_from([b"\xff" * 8, b"\0" * 8, b"\x7f" + b"\xff" * 7, b"\xfe" + b"\xff" * 8, b"\xfc\xff\xff"])


def edited(data: bytes, edits: Iterable[tuple[int, int, bytes]]) -> bytes:
    made = bytearray(data)
    for place, cut, new in edits:
        at = place % (len(made) + 1)
        made[at : at + cut] = new
    return bytes(made)


@st.composite
def damaged(draw: Any, bases: Callable[[], list[bytes]]) -> bytes:
    data = edited(draw(st.sampled_from(bases())), draw(EDITS))
    for place, number in draw(st.lists(st.tuples(st.integers(0, 1 << 20), NUMBERS), max_size=2)):
        at = place % (len(data) + 1)
        data = data[:at] + number + data[at + len(number) :]
    return data[: draw(st.none() | st.integers(0, len(data)))]
