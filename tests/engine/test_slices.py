"""Shipping: whatever breaks, the bucket holds one gapless run of whole slices."""

import threading
from itertools import pairwise

import pytest

from backups.engine import archive as module
from backups.engine import layout
from backups.engine.archive import Archive
from backups.engine.errors import Gap, LeaseLost, Refused, Stopped, Transient
from backups.engine.slices import point, ship
from backups.engine.types import Change, Chunk, Transaction
from storages.stores.base import Denied, Unreachable
from tests.engine.histories import DATABASE, TIMELINE, at
from tests.engine.memory_store import MemoryStore
from tests.helpers import wait_for


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture
def archive(store, monkeypatch):
    monkeypatch.setattr(module, "WAITS", (0.001,) * 4)
    return Archive(store, DATABASE)


def payload(number):
    return [b"magic", f"transaction {number}".encode()]


def chunk(number, data=None):
    """Holds transaction `number` and goes from just after the one before it."""
    made = Transaction(number, f"gtid:{number}", 5, 13, (Change("shop", "orders", 1),))
    return Chunk(at(number - 1), payload(number) if data is None else data, at(number), [made])


def chunks(first, last):
    return [chunk(number) for number in range(first, last + 1)]


def assert_one_run(archive, count):
    """Exactly the slices of transactions 1 to count, each provable from objects alone."""
    indexes = list(archive.slices(TIMELINE))
    assert [index.end for index in indexes] == [at(number) for number in range(1, count + 1)]
    assert [index.sequence for index in indexes] == list(range(count))
    assert [index.previous for index in indexes[:1]] == [""] * min(count, 1)
    for before, after in pairwise(indexes):
        assert (after.previous, after.start) == (before.key, before.end)
    for number, index in enumerate(indexes, 1):
        raw = b"".join(archive.read_data(index.data))
        assert raw == b"".join(payload(number)) and index.raw_size == len(raw)


def test_chunks_become_slices_in_order(archive):
    told = []
    last = ship(archive, TIMELINE, chunks(1, 6), None, told.append)
    assert_one_run(archive, 6)
    assert told == list(archive.slices(TIMELINE)) and last == told[-1]


def test_a_later_run_goes_on_from_the_bucket_alone(archive):
    for number in range(1, 5):
        ship(archive, TIMELINE, [chunk(number)], archive.last_slice(TIMELINE), lambda index: None)
    assert_one_run(archive, 4)


def test_nothing_captured_costs_nothing(archive, store):
    last = ship(archive, TIMELINE, [chunk(1)], None, lambda index: None)
    store.calls.clear()
    assert ship(archive, TIMELINE, [], last, lambda index: None) == last
    assert not store.calls


def test_a_slice_is_two_requests(archive, store):
    ship(archive, TIMELINE, [chunk(1)], None, lambda index: None)
    assert [action for action, _ in store.calls] == ["upload", "put"]


def test_transactions_that_do_not_follow_the_last_slice_are_refused(archive):
    last = ship(archive, TIMELINE, [chunk(1)], None, lambda index: None)
    with pytest.raises(Refused, match="begin at"):
        ship(archive, TIMELINE, [chunk(3)], last, lambda index: None)
    with pytest.raises(Refused):
        ship(archive, TIMELINE, [chunk(2), chunk(4)], last, lambda index: None)
    assert_one_run(archive, 2)


@pytest.mark.parametrize("error", [Gap("purged"), Stopped("cancelled"), Transient("connection lost")])
def test_what_was_complete_before_the_chunks_ended_in_an_error_is_committed(archive, error):
    def captured():
        yield from chunks(1, 3)
        raise error

    with pytest.raises(type(error)):
        ship(archive, TIMELINE, captured(), None, lambda index: None)
    assert_one_run(archive, 3)


def test_a_commit_does_not_wait_for_the_next_chunk(archive):
    committed = threading.Event()

    def captured():
        yield chunk(1)
        assert committed.wait(5), "the first slice waits for a second one"

    ship(archive, TIMELINE, captured(), None, lambda index: committed.set())


def test_the_next_chunk_is_captured_while_one_goes_up(archive, store):
    captured_second = threading.Event()

    def captured():
        yield chunk(1)
        captured_second.set()
        yield chunk(2)

    store.before = lambda action, key: action == "upload" and assert_set(captured_second)
    ship(archive, TIMELINE, captured(), None, lambda index: None)
    assert_one_run(archive, 2)


def assert_set(event):
    assert event.wait(5)


def test_capture_runs_ahead_of_a_slow_store_by_a_bounded_number_of_chunks(archive, store):
    release, captured = threading.Event(), []

    def capture():
        for number in range(1, 10):
            captured.append(number)
            yield chunk(number)

    store.before = lambda action, key: assert_set(release)
    ahead = []

    def let_go():
        wait_for(lambda: len(captured) >= 3)
        ahead.append(not threading.Event().wait(0.05) and len(captured))
        release.set()

    watcher = threading.Thread(target=let_go)
    watcher.start()
    ship(archive, TIMELINE, capture(), None, lambda index: None)
    watcher.join()
    assert ahead == [3]
    assert_one_run(archive, 9)


@pytest.mark.parametrize("failing", ["upload", "put"])
@pytest.mark.parametrize("at_call", [0, 1, 2])
@pytest.mark.parametrize("error", [Denied("no"), Unreachable("later")])
def test_no_index_is_written_after_one_that_failed(archive, store, failing, at_call, error):
    calls = []

    def before(action, key):
        sequence = layout.parse(key).sequence
        if action == failing and sequence == at_call:
            calls.append(key)
            raise error

    store.before = before
    with pytest.raises((Refused, Transient)):
        ship(archive, TIMELINE, chunks(1, 5), None, lambda index: None)
    store.before = lambda action, key: None
    assert_one_run(archive, at_call)
    last = archive.last_slice(TIMELINE)
    ship(archive, TIMELINE, chunks(at_call + 1, 5), last, lambda index: None)
    assert_one_run(archive, 5)


def test_a_slices_failure_goes_before_the_gap_that_ended_the_chunks(archive, store):
    """Else the timeline would end at the gap with a slice before it never stored."""
    store.before = lambda action, key: fail(Denied("no"))

    def captured():
        yield chunk(1)
        raise Gap("purged")

    with pytest.raises(Refused, match="no"):
        ship(archive, TIMELINE, captured(), None, lambda index: None)


def fail(error):
    raise error


@pytest.mark.parametrize("conditional", [True, False])
def test_of_two_shippers_one_goes_on_and_the_other_loses_its_lease(conditional, monkeypatch):
    archive = Archive(MemoryStore(conditional), DATABASE)
    ship(archive, TIMELINE, chunks(1, 2), None, lambda index: None)
    told = []
    with pytest.raises(LeaseLost):
        ship(archive, TIMELINE, [chunk(1)], None, told.append)
    assert not told
    assert_one_run(archive, 2)


def streamed(number, pieces):
    """A chunk whose end is known once `pieces` is used up, as one huge transaction's is."""
    late = Chunk(at(number - 1), ())

    def use_up():
        yield from pieces
        late.end, late.transactions = at(number), chunk(number).transactions

    late.payload = use_up()
    return late


def watched(number, threads):
    for piece in payload(number):
        threads.append(threading.current_thread())
        yield piece


def test_one_huge_transaction_is_used_up_in_place_and_whole_chunks_in_the_background(archive):
    huge, whole = [], []
    captured = [chunk(1), streamed(2, watched(2, huge)), chunk(3, watched(3, whole))]
    ship(archive, TIMELINE, captured, None, lambda index: None)
    assert set(huge) == {threading.current_thread()} and threading.current_thread() not in whole
    assert_one_run(archive, 3)


def test_a_huge_transaction_that_breaks_off_leaves_the_slices_before_it(archive, store):
    def pieces():
        yield b"magic"
        raise Transient("connection lost")

    with pytest.raises(Transient, match="connection lost"):
        ship(archive, TIMELINE, [chunk(1), streamed(2, pieces())], None, lambda index: None)
    assert_one_run(archive, 1)
    assert len(store.objects) == 2


def test_a_chunk_that_does_not_say_where_it_ends_is_no_slice(archive):
    with pytest.raises(ValueError, match="where it ends"):
        ship(archive, TIMELINE, [Chunk(at(0), payload(1))], None, lambda index: None)
    assert_one_run(archive, 0)


def test_the_server_is_let_go_of_before_the_store_is_waited_for(archive, store):
    closed, released = threading.Event(), threading.Event()

    def captured():
        try:
            yield chunk(1)
            yield chunk(3)
        finally:
            closed.set()

    def before(action, key):
        if action == "upload":
            released.wait(5)
            assert closed.is_set()

    store.before = before
    releasing = threading.Thread(target=lambda: closed.wait(5) and released.set())
    releasing.start()
    with pytest.raises(Refused) as caught:
        ship(archive, TIMELINE, captured(), None, lambda index: None)
    releasing.join()
    assert caught and closed.is_set()
    assert_one_run(archive, 1)


def test_an_error_of_on_slice_ends_the_run_and_keeps_the_slice(archive):
    with pytest.raises(ZeroDivisionError):
        ship(archive, TIMELINE, chunks(1, 4), None, lambda index: 1 // 0)
    assert_one_run(archive, 1)


def test_a_point_is_a_slice_without_its_transactions(archive):
    index = ship(archive, TIMELINE, [chunk(7)], None, lambda index: None)
    seen = point(index, "store")
    assert (seen.first_us, seen.last_us, seen.count, seen.storage) == (7, 7, 1, "store")
    assert (seen.start, seen.end, seen.key, seen.size) == (at(6), at(7), index.key, index.data.size)
