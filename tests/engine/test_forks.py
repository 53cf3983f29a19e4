"""Copies of a process: what they find comes back, and none outlives its parent or its use."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from backups.engine.errors import EngineError, Refused, Transient
from backups.engine.forks import Fork, Parent, Shared, answered
from tests.helpers import wait_for

here = os.getpid()


def of(work: Callable[[], Any]) -> Any:
    fork = Fork(work)
    try:
        return fork.result()
    finally:
        fork.end()


def failing(error: BaseException) -> Callable[[], Any]:
    def work() -> None:
        raise error

    return work


class Odd(Exception):
    """Cannot be made again from what it tells of itself."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def test_a_fork_has_what_is_in_memory_and_hands_over_what_it_made() -> None:
    held = {"numbers": list(range(100_000))}
    assert of(lambda: (os.getpid() != here, sum(held["numbers"]))) == (True, 4_999_950_000)


def test_its_error_is_raised_here_with_all_it_says() -> None:
    with pytest.raises(Refused) as told:
        of(failing(Refused("It is full.", meaning="Nothing was kept.", next_step="Make room.")))
    assert str(told.value) == "It is full. Nothing was kept. Make room."


@pytest.mark.parametrize("error", [KeyError("left"), Odd(1, 2), KeyboardInterrupt("now")])
def test_an_error_that_nobody_foresaw_comes_with_its_trace(error: BaseException) -> None:
    with pytest.raises((KeyError, RuntimeError, KeyboardInterrupt)) as told:
        of(failing(error))
    text = str(told.value) + "".join(getattr(told.value, "__notes__", []))
    assert str(error) in text and "in work" in text


def test_one_that_was_killed_is_told_as_what_may_pass() -> None:
    with pytest.raises(Transient, match="memory"):
        of(lambda: os.kill(os.getpid(), signal.SIGKILL))


def test_no_fork_at_all_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fork", failing(BlockingIOError(11, "Resource temporarily unavailable")))
    with pytest.raises(EngineError, match="could be started"):
        Fork(int)


def test_answers_are_seen_as_they_come() -> None:
    ours, theirs = socket.socketpair()
    waits, works = Fork(lambda: theirs.recv(1)), Fork(lambda: 7)
    wait_for(lambda: answered([waits, works], 0))
    assert answered([waits, works], 0) == [works] and works.result() == 7
    ours.send(b"x")
    assert answered([waits], 10) == [waits] and waits.result() == b"x"
    for fork in (waits, works):
        fork.end()
    ours.close(), theirs.close()


def test_one_that_is_ended_is_gone_whatever_it_was_doing() -> None:
    fork = Fork(signal.pause)
    fork.end()
    with pytest.raises(ChildProcessError):
        os.waitpid(fork.pid, os.WNOHANG)
    with pytest.raises(ProcessLookupError):
        os.kill(fork.pid, 0)


def test_a_fork_is_to_stop_once_its_parent_is_gone() -> None:
    seen, told = os.pipe()

    def watch(parent: Parent) -> None:
        os.write(told, b"stop" if parent.should_stop() else b"go, ")
        while not parent.should_stop():
            time.sleep(0.01)
        os.write(told, b"stop")

    def between() -> None:
        parent = Parent()
        Fork(lambda: watch(parent))
        signal.pause()

    middle = Fork(between)
    assert os.read(seen, 4) == b"go, "
    middle.end()
    assert os.read(seen, 4) == b"stop"
    os.close(seen), os.close(told)


def test_each_number_goes_to_one_and_what_all_add_is_summed() -> None:
    count, processes = 2000, 4

    def work(process: int) -> list[int]:
        shared.process, taken = process, []
        while (number := shared.next()) is not None:
            taken.append(number)
            shared.add(number)
        return taken

    with Shared(count, processes) as shared:
        forks = [Fork(lambda n=process: work(n)) for process in range(1, processes)]
        mine: list[int] = []
        threads = [threading.Thread(target=lambda: mine.extend(taken(shared))) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        theirs = [fork.result() for fork in forks]
        for fork in forks:
            fork.end()
        assert sorted(sum(theirs, mine)) == list(range(count))
        assert shared.done == sum(map(sum, theirs))


def taken(shared: Shared) -> list[int]:
    return list(iter(shared.next, None))


def test_a_sign_to_stop_reaches_all() -> None:
    with Shared(0) as shared:
        assert not shared.failed
        with suppress(SystemExit):
            of(shared.fail)
        assert shared.failed
