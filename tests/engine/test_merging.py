"""Merging: one proven slice in place of many, and nothing lost or doubled whenever a run ends."""

from contextlib import suppress
from dataclasses import replace

import pytest

from backups.engine import archive as module
from backups.engine import layout, merging
from backups.engine.archive import Archive
from backups.engine.crypt import Keys, key_id
from backups.engine.errors import Corrupt, LeaseLost, Stopped, Transient
from backups.engine.levels import Group
from backups.engine.plan import plan
from backups.engine.slices import point, ship
from backups.engine.types import Chunk, Quiet, Transaction
from storages.stores.base import Unreachable
from tests.engine.histories import DATABASE, TIMELINE, at, backup
from tests.engine.histories import engine as history_engine
from tests.engine.memory_store import MemoryStore

HEAD = b"headA"
KEY = layout.index(DATABASE, TIMELINE, 1, 0)


class Engine:
    """Slices are five bytes of head, then transactions "<n>", each with a byte before it that belongs to none."""

    def split_head(self, chunks):
        data = b"".join(chunks)
        return data[:5], iter([data[5:]])

    def may_follow(self, first, head, index, other):
        return head == other

    def prove(self, index, chunks):
        data = b"".join(chunks)
        for one in index.transactions:
            if data[one.offset : one.offset + one.length] != f"<{one.identity}>".encode():
                raise Corrupt(f"{one.identity} is not where it should be")


def chunk(number, head=HEAD):
    """Two transactions, 2n-1 and 2n."""
    data, made = bytearray(head), []
    for name in (f"gtid:{2 * number - 1}", f"gtid:{2 * number}"):
        data += b"-"
        made.append(Transaction(number, name, len(data), len(name) + 2))
        data += f"<{name}>".encode()
    return Chunk(at(2 * number - 2), [bytes(data)], at(2 * number), made)


@pytest.fixture(params=[Keys(), Keys({key_id(b"k" * 32): b"k" * 32})], ids=["plain", "encrypted"])
def archive(request, store):
    archive = Archive(store, DATABASE, request.param)
    ship(archive, TIMELINE, [chunk(1), chunk(2), chunk(3), chunk(4, b"headB")], None, lambda index: None)
    return archive


@pytest.fixture
def store(monkeypatch):
    monkeypatch.setattr(module, "WAITS", ())
    return MemoryStore()


def group(archive, count=3, level=1):
    return Group(level, tuple(point(index, "store") for index in list(archive.slices(TIMELINE))[:count]))


def merge(archive, count=3, run=None, engine=None):
    return merging.merge(archive, group(archive, count), engine or Engine(), run or Quiet())


def content(archive, index):
    data = b"".join(archive.read_data(index.data))
    assert len(data) == index.raw_size
    return [data[one.offset : one.offset + one.length].decode() for one in index.transactions]


def test_a_merged_slice_holds_every_transaction_at_its_place(archive):
    small = list(archive.slices(TIMELINE))
    made = merge(archive)
    assert content(archive, made) == [f"<gtid:{n}>" for n in range(1, 7)]
    assert archive.read_slice(KEY) == made
    assert (made.level, made.sequence, made.last, made.holds) == (1, 0, 2, 3)
    assert (made.start, made.end, made.previous) == (small[0].start, small[2].end, "")
    assert made.written_us == small[2].written_us
    assert [replace(one, offset=0) for one in made.transactions] == [
        replace(one, offset=0) for index in small[:3] for one in index.transactions
    ]
    assert b"".join(archive.read_data(made.data)).count(HEAD) == 1


def test_merged_slices_merge_again(archive):
    first = merge(archive, 2)
    parts = (point(first, "store"), group(archive).parts[2])
    made = merging.merge(archive, Group(2, parts), Engine(), Quiet())
    assert content(archive, made) == [f"<gtid:{n}>" for n in range(1, 7)] and (made.level, made.holds) == (2, 3)


def test_it_ends_before_what_cannot_be_read_with_the_rest(archive):
    made = merge(archive, 4)
    assert (made.holds, made.end) == (3, at(6))


def test_two_that_cannot_be_joined_leave_nothing(archive, store):
    before = dict(store.objects)
    parts = group(archive, 4).parts[2:]
    assert merging.merge(archive, Group(1, parts), Engine(), Quiet()) is None
    assert store.objects == before


def test_the_index_comes_last_once_the_data_was_read_back(archive, store):
    store.calls.clear()
    made = merge(archive)
    actions = [(action, key) for action, key in store.calls if action != "list"]
    assert [key for action, key in actions if action in ("upload", "put")] == [made.data.key, KEY]
    assert actions.index(("get", made.data.key)) < actions.index(("put", KEY))


class Killed(BaseException):
    pass


@pytest.mark.parametrize("step", range(1, 12))
def test_a_crash_anywhere_is_mended_by_the_next_run(archive, store, step):
    """A crash after each request of a run in turn; at every instant the chain holds, the next run ends the same."""
    sound = dict(store.objects)
    done = []

    def before(action, key):
        if len(done) == step:
            raise Killed
        done.append(action)

    store.before = before
    with suppress(Killed):
        merge(archive)
    store.before = lambda action, key: None
    assert {key: store.objects[key] for key in sound} == sound
    known = [*archive.slices(TIMELINE), *archive.slices(TIMELINE, 1)]
    points = [point(one) for one in known]
    assert plan([backup("b", 0)], points, at(8), history_engine.at_or_before)
    made = merge(archive)
    assert content(archive, made) == [f"<gtid:{n}>" for n in range(1, 7)]
    assert list(archive.slices(TIMELINE, 1)) == [made]


def test_a_run_whose_answer_was_lost_finds_its_own(archive, store):
    put = store.put

    def lost(key, data, *, if_absent=False):
        put(key, data, if_absent=if_absent)
        raise Unreachable("no answer")

    store.put = lost
    with pytest.raises(Transient):
        merge(archive)
    store.put = put
    made = merge(archive)
    assert content(archive, made) == [f"<gtid:{n}>" for n in range(1, 7)]


def test_another_worker_that_was_first_is_believed(archive, store, monkeypatch):
    """Both wrote their data; one index stands, and the other's data goes."""
    theirs = merge(archive)
    monkeypatch.setattr(archive, "find_slice", lambda key: None)
    assert merge(archive) == theirs
    assert [key for key in store.objects if "/slices/1/data/" in key] == [theirs.data.key]


def test_a_slice_that_reads_back_wrong_is_not_committed(archive, store):
    class Doubts(Engine):
        def prove(self, index, chunks):
            raise Corrupt("not what it should be")

    before = dict(store.objects)
    with pytest.raises(Corrupt, match="not what"):
        merge(archive, engine=Doubts())
    assert store.objects == before


def test_damage_on_the_way_into_the_storage_is_noticed_before_the_commit(archive, store):
    def upload(key, parts):
        data = bytearray(b"".join(parts))
        store.objects[key] = bytes(data[:-1]) + bytes([data[-1] ^ 1])
        return len(data)

    store.upload = upload
    with pytest.raises(Corrupt):
        merge(archive)
    assert KEY not in store.objects


@pytest.mark.parametrize("what", ["index", "data"])
def test_a_damaged_small_one_is_never_merged(archive, store, what):
    key = next(key for key in store.objects if f"/slices/0/{what}/000000000001" in key)
    store.objects[key] = store.objects[key][:-3] + b"xyz"
    with pytest.raises(Corrupt):
        merge(archive)
    assert not [key for key in store.objects if "/slices/1/" in key]


def test_a_small_one_that_is_not_what_the_catalogue_says_is_not_merged(archive):
    first, *rest = group(archive).parts
    with pytest.raises(Corrupt, match="catalogue"):
        merging.merge(archive, Group(1, (first, replace(rest[0], end=at(99)))), Engine(), Quiet())


def test_a_stop_is_heard(archive, store):
    class Stop(Quiet):
        def should_stop(self):
            return True

    with pytest.raises(Stopped):
        merge(archive, run=Stop())
    assert not [key for key in store.objects if "/slices/1/" in key]


@pytest.mark.parametrize("what", ["index", "data"])
def test_damage_to_a_merged_slice_is_noticed_before_the_small_ones_go(archive, store, what):
    made = point(merge(archive))
    merging.prove_again(archive, made)
    key = next(key for key in store.objects if f"/slices/1/{what}/" in key)
    store.objects[key] = store.objects[key][:-1] + bytes([store.objects[key][-1] ^ 1])
    with pytest.raises(Corrupt):
        merging.prove_again(archive, made)


def test_shipping_knows_nothing_of_it(archive):
    """It resumes from the newest slice of level 0, whatever lies on other levels."""
    merge(archive)
    archive.give_up(slices=group(archive).parts)
    last = archive.last_slice(TIMELINE)
    assert last.sequence == 3
    ship(archive, TIMELINE, [chunk(5)], last, lambda index: None)
    assert [one.sequence for one in archive.slices(TIMELINE)] == [3, 4]
    with pytest.raises(LeaseLost):
        ship(archive, TIMELINE, [chunk(5)], last, lambda index: None)


def test_giving_up_takes_the_small_ones_and_nothing_of_their_neighbours(archive, store):
    made = merge(archive)
    archive.give_up(slices=group(archive).parts[1:])
    left = [layout.parse(key) for key in store.objects]
    assert sorted((one.kind, one.level, one.sequence) for one in left) == [
        ("index", 0, 0), ("index", 0, 3), ("index", 1, 0), ("slice data", 0, 0), ("slice data", 0, 3),
        ("slice data", 1, 0),
    ]  # fmt: skip
    assert content(archive, made)
