"""Verify: what is damaged, missing or does not join is named; test_every_byte.py has the promise beneath it."""

from dataclasses import replace
from itertools import chain

import pytest

from backups.engine import archive as module
from backups.engine import layout
from backups.engine.archive import Archive
from backups.engine.errors import Stopped, Transient
from backups.engine.manifest import Manifest, SchemaEntry, TableEntry
from backups.engine.slices import point, ship
from backups.engine.types import Quiet
from backups.engine.verify import verify
from storages.stores.base import Unreachable
from tests.engine import histories
from tests.engine.histories import DATABASE, TIMELINE, at, engine
from tests.engine.memory_store import MemoryStore
from tests.engine.test_slices import chunks, payload

BACKUP = "00000000-0000-4000-8000-0000000000b1"


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture
def archive(store):
    """A database with one backup at 0 and slices 1 to 4."""
    archive = Archive(store, DATABASE)
    archive.write_database({"name": "shop", "pins": []})
    ref = archive.put_data(layout.backup_data(DATABASE, TIMELINE, BACKUP, "t1-1", "tsv"), [b"1\tapple\n2\tpear\n"])
    schema = archive.put_data(layout.backup_data(DATABASE, TIMELINE, BACKUP, "s1", "sql"), [b"CREATE DATABASE shop\n"])
    tables = (TableEntry("fruit", "InnoDB", 2, "", (ref,)),)
    archive.write_manifest(
        Manifest(BACKUP, "first", DATABASE, TIMELINE, "", "mysql", "9.7.4", "uuid", at(0), 0, 0, 0, "UTC", {},
                 (SchemaEntry("shop", schema, None, tables),), 9, 2)
    )  # fmt: skip
    ship(archive, TIMELINE, chunks(1, 4), None, lambda index: None)
    return archive


def report(archives, every=1, run=None, first=0):
    archives = archives if isinstance(archives, dict) else {"store": archives}
    return verify(archives, TIMELINE, engine.at_or_before, run or Quiet(), every, first)


def test_a_sound_timeline_has_no_problems_and_is_counted(archive, store):
    found = report(archive)
    assert found.problems == []
    assert found.objects == len(store.objects) - 1  # all but database.json
    data = [layout.parse(key).kind.endswith("data") for key in store.objects]
    assert found.size == sum(len(value) for is_data, value in zip(data, store.objects.values(), strict=True) if is_data)


def test_each_damaged_object_is_reported_by_name_while_the_rest_is_read_on(archive, store):
    for key, whole in list(store.objects.items()):
        if layout.parse(key).kind != "database":
            store.objects[key] = whole[:-1] + bytes([whole[-1] ^ 1])
            assert key in [problem.key for problem in report(archive).problems]
            store.objects[key] = whole


def test_each_missing_data_object_is_reported_by_name(archive, store):
    for key, whole in list(store.objects.items()):
        if layout.parse(key).kind.endswith("data"):
            del store.objects[key]
            assert [problem.key for problem in report(archive).problems] == [key]
            store.objects[key] = whole


def test_a_missing_slice_breaks_the_chain_and_says_what_is_lost(archive, store):
    del store.objects[layout.index(DATABASE, TIMELINE, 0, 1)]
    [problem] = report(archive).problems
    assert problem.key == layout.index(DATABASE, TIMELINE, 0, 2)
    assert "from at 1 to at 2 is missing" in problem.what


def test_a_missing_front_is_noticed_only_where_a_backup_needs_it(archive, store):
    del store.objects[layout.index(DATABASE, TIMELINE, 0, 0)]
    [problem] = report(archive).problems
    assert "between backup first" in problem.what
    del store.objects[layout.manifest(DATABASE, TIMELINE, BACKUP)]
    assert report(archive).problems == []


def test_a_backup_from_before_shipping_began_needs_no_slices(archive, store):
    for key in [key for key in store.objects if "/slices/" in key]:
        del store.objects[key]
    ship(archive, TIMELINE, chunks(3, 4), None, lambda index: None)
    assert report(archive).problems == []


def test_a_wrong_length_is_noticed(archive, monkeypatch):
    monkeypatch.setattr(archive, "read_data", lambda ref: iter([b"too much of everything"] * 9))
    assert len(report(archive).problems) == 4


def test_a_chain_over_two_storages_is_one_chain(store):
    first, second = Archive(store, DATABASE), Archive(MemoryStore(), DATABASE)
    last = ship(first, TIMELINE, chunks(1, 2), None, lambda index: None)
    ship(second, TIMELINE, chunks(3, 4), last, lambda index: None)
    assert report({"one": first, "two": second}).problems == []


def test_a_sample_reads_every_nth_data_object_and_all_indexes(archive, store):
    store.calls.clear()
    found = report(archive, every=3)
    read = [layout.parse(key).kind for action, key in store.calls if action == "get"]
    assert (read.count("index"), sum(kind.endswith("data") for kind in read)) == (4, 2)
    assert found.problems == []


def test_samples_from_each_number_on_read_every_data_object_once(archive, store):
    def read(**sample):
        store.calls.clear()
        report(archive, **sample)
        return [key for action, key in store.calls if action == "get" and layout.parse(key).kind.endswith("data")]

    parts = [read(every=3, first=first) for first in range(3)]
    assert sorted(chain(*parts)) == sorted(read()) and all(parts)


@pytest.fixture
def merged(archive):
    """The archive with slices 0 to 2 in one of level 1, beside it or, where they were given up, in their place."""
    made = histories.merged(1, list(archive.slices(TIMELINE))[:3])
    data = archive.put_data(made.data.key, [b"".join(b"".join(payload(n)) for n in (1, 2, 3))])
    made = replace(made, data=data, raw_size=sum(len(b"".join(payload(n))) for n in (1, 2, 3)))
    archive.write_slice(made)
    return made


def give_up(archive, *sequences):
    archive.give_up(slices=[point(one) for one in archive.slices(TIMELINE) if one.sequence in sequences])


@pytest.mark.parametrize("gone", [(), (0,), (1,), (2,), (0, 1, 2)])
def test_levels_together_are_one_chain(archive, merged, gone):
    give_up(archive, *gone)
    assert report(archive).problems == []


def test_a_merged_slice_is_read_through(archive, store, merged):
    give_up(archive, 0, 1, 2)
    for key in (merged.key, merged.data.key):
        whole = store.objects[key]
        store.objects[key] = whole[:-1] + bytes([whole[-1] ^ 1])
        assert key in [problem.key for problem in report(archive).problems]
        store.objects[key] = whole


def test_a_hole_behind_a_merged_slice_is_found(archive, merged):
    give_up(archive, 0, 1, 2)
    ship(archive, TIMELINE, chunks(5, 6), archive.last_slice(TIMELINE), lambda index: None)
    archive.give_up(slices=[point(one) for one in archive.slices(TIMELINE) if one.sequence == 3])
    [problem] = report(archive).problems
    assert "from at 3 to at 4 is missing" in problem.what


@pytest.mark.parametrize("changed", [{"end": at(2)}, {"start": at(1)}])
def test_a_merged_slice_that_is_not_what_its_parts_are_is_found(archive, store, merged, changed):
    del store.objects[merged.key]
    archive.write_slice(replace(merged, **changed))
    assert merged.key in [problem.key for problem in report(archive).problems]


def test_a_slice_that_is_given_up_meanwhile_is_no_finding(archive, store, merged, monkeypatch):
    """Merging goes on beside a verification that has listed the small ones already."""
    monkeypatch.setattr(module, "WAITS", ())
    small = [point(one) for one in archive.slices(TIMELINE)][1:3]
    get = store.get

    def gone(key, offset=0, length=None):
        if small and key == layout.index(DATABASE, TIMELINE, 0, 0):
            archive.give_up(slices=[small.pop(), small.pop()])
        return get(key, offset, length)

    store.get = gone
    assert report(archive).problems == []


def test_a_stop_is_heard(archive):
    class Stop(Quiet):
        def should_stop(self):
            return True

    with pytest.raises(Stopped):
        report(archive, run=Stop())


def test_a_storage_that_does_not_answer_is_no_finding(archive, store, monkeypatch):
    monkeypatch.setattr(module, "WAITS", ())

    def before(action, key):
        raise Unreachable("no answer")

    store.before = before
    with pytest.raises(Transient):
        report(archive)
