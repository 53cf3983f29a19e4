"""Copies of a process: what they find comes back, and none outlives its parent or its use."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from backups.engine.errors import EngineError, Refused, Transient
from backups.engine.forks import Fail, Fork, Parent, Shared, answered
from tests.helpers import wait_for

here = os.getpid()


def of(work: Callable[[], Any]) -> Any:
    fork = Fork(lambda _: work())
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
        Fork(lambda _: 0)


def test_answers_are_seen_as_they_come() -> None:
    ours, theirs = socket.socketpair()
    waits, works = Fork(lambda _: theirs.recv(1)), Fork(lambda _: 7)
    wait_for(lambda: answered([waits, works], 0))
    assert answered([waits, works], 0) == [works] and works.result() == 7
    ours.send(b"x")
    assert answered([waits], 10) == [waits] and waits.result() == b"x"
    for fork in (waits, works):
        fork.end()
    ours.close(), theirs.close()


def test_one_that_is_ended_is_gone_whatever_it_was_doing() -> None:
    fork = Fork(lambda _: signal.pause())
    fork.end()
    with pytest.raises(ChildProcessError):
        os.waitpid(fork.pid, os.WNOHANG)
    with pytest.raises(ProcessLookupError):
        os.kill(fork.pid, 0)


def test_an_error_is_told_though_the_work_goes_on() -> None:
    def work(fail: Fail) -> None:
        fail(Refused("The bucket is full."))
        fail(Refused("Another."))
        signal.pause()

    fork = Fork(work)
    with pytest.raises(Refused, match="The bucket is full"):
        fork.result()
    fork.end()


def test_what_cannot_be_handed_over_is_told() -> None:
    with pytest.raises((AttributeError, TypeError, RuntimeError), match="pickle"):
        of(lambda: lambda: None)


def test_a_fork_knows_whether_its_parent_is_there() -> None:
    parent = Parent()
    assert of(parent.should_stop) is False and parent.should_stop() is True  # here its parent is another one


def test_a_fork_does_not_outlive_its_parent() -> None:
    seen, told = os.pipe()

    def forks_and_waits(_: Fail) -> None:
        Fork(lambda _: (os.write(told, b"here"), signal.pause()))
        signal.pause()

    middle = Fork(forks_and_waits)
    os.close(told)
    assert os.read(seen, 4) == b"here"
    middle.end()
    assert os.read(seen, 4) == b""  # nobody is left who could write
    os.close(seen)


def test_each_number_goes_to_one_and_what_all_add_is_summed() -> None:
    count, processes = 2000, 4

    def work(process: int) -> list[int]:
        shared.process, taken = process, []
        while (number := shared.next()) is not None:
            taken.append(number)
            shared.add(number)
        return taken

    with Shared(count, processes) as shared:
        forks = [Fork(lambda _, n=process: work(n)) for process in range(1, processes)]
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
        of(shared.fail)
        assert shared.failed
