"""Items that a thread fetches before they are asked for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from backups.engine.ahead import ahead
from backups.engine.errors import Transient
from tests.helpers import wait_for


def test_order_and_end() -> None:
    assert list(ahead(range(50), 3)) == list(range(50))


def test_a_failure_comes_in_its_place() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise Transient("The storage does not answer.")

    items = ahead(source(), 3)
    assert next(items) == 1
    with pytest.raises(Transient):
        next(items)


def test_it_is_fetched_before_it_is_asked_for_but_not_all() -> None:
    fetched: list[int] = []

    def source() -> Iterator[int]:
        for number in range(50):
            fetched.append(number)
            yield number

    with closing(ahead(source(), 3)) as items:
        assert next(items) == 0
        wait_for(lambda: len(fetched) == 5)  # one used, three waiting, one in hand
    assert len(fetched) == 5
    assert not [thread for thread in threading.enumerate() if thread.name == "ahead"]
