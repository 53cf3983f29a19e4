"""Fetching while what was fetched is worked on: sockets, decompression and hashing leave Python to others."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable
from typing import TypeVar

LOOK_SECONDS = 0.1  # between looks at whether anybody still wants it
PATIENCE_SECONDS = 5  # for a fetch that is not wanted any more; it ends by itself

T = TypeVar("T")


def ahead(source: Iterable[T], most: int) -> Generator[T, None, None]:
    """The items of `source`, which a thread of its own takes out, at most so many before they are asked for.

    What `source` raises is raised here, in its place.  The thread ends when this is closed or used up.
    """
    items: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(most)
    over = threading.Event()

    def put(item: T | None, error: BaseException | None) -> bool:
        while not over.is_set():
            try:
                items.put((item, error), timeout=LOOK_SECONDS)
            except queue.Full:
                continue
            return True
        return False

    def fetch() -> None:
        end: BaseException = StopIteration()
        try:
            for item in source:
                if not put(item, None):
                    return
        except BaseException as error:  # it is raised where the items are used
            end = error
        put(None, end)

    thread = threading.Thread(target=fetch, name="ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error = items.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item  # type: ignore[misc]
    finally:
        over.set()
        thread.join(PATIENCE_SECONDS)
