"""The archive: data objects that prove themselves, records that are claimed, listings that stay few."""

import os
from dataclasses import replace

import pytest
import zstandard

from backups.engine import archive as module
from backups.engine import layout, pieces
from backups.engine.archive import Archive, databases
from backups.engine.errors import Corrupt, LeaseLost, Refused, Transient
from backups.engine.manifest import Manifest, SchemaEntry, TableEntry
from backups.engine.types import DataRef
from storages.stores.base import AlreadyExists, Denied, Unreachable
from tests.engine import histories
from tests.engine.histories import DATABASE, OTHER_TIMELINE, TIMELINE
from tests.engine.memory_store import MemoryStore

BACKUP = "00000000-0000-4000-8000-0000000000b1"
KEY = layout.slice_data(DATABASE, TIMELINE, 0, 0)


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture
def archive(store):
    return Archive(store, DATABASE)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    waits = []
    monkeypatch.setattr(module.time, "sleep", waits.append)
    return waits


def failing(times, error):
    """Raise `error` for the first so many calls."""
    left = [times]

    def before(action, key):
        if left[0]:
            left[0] -= 1
            raise error

    return before


def manifest(backup=BACKUP, timeline=TIMELINE):
    key = f"{layout.backup_prefix(DATABASE, timeline, backup)}t1-1-{'0' * 16}.tsv.zst"
    ref = DataRef(key, 7, "a" * 64, ("b" * 64, "c" * 64))
    tables = (TableEntry("orders", "InnoDB", 3, "CHARACTER SET binary", (ref,)),)
    schemas = (SchemaEntry("shop", ref, None, tables), SchemaEntry("empty", ref, ref))
    return Manifest(
        backup, "daily", DATABASE, timeline, "", "mysql", "9.7.4", "uuid", {"file": "b.1"}, 5, 1, 9, "UTC",
        {"sql_mode": ""}, schemas, 7, 3,
    )  # fmt: skip


class TestData:
    @pytest.mark.parametrize("size", [0, 1, 1000, module.BLOCK - 1, module.BLOCK, module.BLOCK + 1, 3 * module.BLOCK])
    def test_it_comes_back_and_is_a_plain_zstd_file(self, archive, store, size):
        raw = os.urandom(size)
        ref = archive.put_data(KEY, [raw[: size // 2], raw[size // 2 :]])
        assert ref.size == len(store.objects[KEY])
        assert len(ref.blocks) in (0, -(-ref.size // module.BLOCK))
        assert b"".join(archive.read_data(ref)) == raw
        assert zstandard.ZstdDecompressor().stream_reader(store.objects[KEY], read_across_frames=True).read() == raw

    def test_a_large_piece_is_not_copied_before_it_is_compressed(self):
        large = bytes(pieces.FRAME)
        small = [b"a" * 1000] * 300
        frames = list(pieces._frames([b"first", large, *small, large, b"last"]))
        assert [frame is large for frame in frames] == [False, True, False, False, True, False]
        assert b"".join(frames) == b"".join([b"first", large, *small, large, b"last"])

    def test_pieces_stay_small_however_well_it_packs(self, archive):
        ref = archive.put_data(KEY, (bytes(module.PIECE) for _ in range(64)))
        sizes = [len(piece) for piece in archive.read_data(ref)]
        assert sum(sizes) == 64 * module.PIECE and max(sizes) <= module.PIECE

    def test_a_damaged_block_is_never_handed_on(self, archive, store):
        raw = os.urandom(3 * module.BLOCK)
        ref = archive.put_data(KEY, [raw])
        damaged = bytearray(store.objects[KEY])
        damaged[module.BLOCK + 5] ^= 1
        store.objects[KEY] = bytes(damaged)
        read = b""
        with pytest.raises(Corrupt):
            for piece in archive.read_data(ref):
                read += piece
        assert raw.startswith(read) and len(read) <= module.BLOCK

    def test_damage_on_the_way_is_read_again(self, archive, store):
        ref = archive.put_data(KEY, [b"rows"])
        whole, answers = store.objects[KEY], [b"x", None]
        store.get = lambda key, offset=0, length=None: answers.pop(0) or whole
        assert b"".join(archive.read_data(ref)) == b"rows"

    def test_a_reference_with_too_few_hashes_is_corrupt(self, archive):
        ref = archive.put_data(KEY, [os.urandom(3 * module.BLOCK)])
        with pytest.raises(Corrupt):
            list(archive.read_data(replace(ref, blocks=ref.blocks[:-1])))

    def test_a_missing_object_is_corrupt(self, archive):
        with pytest.raises(Corrupt, match="missing"):
            list(archive.read_data(DataRef(KEY, 5, "a" * 64)))

    def test_an_error_of_what_is_read_passes_through_and_leaves_nothing(self, archive, store):
        def rows():
            yield b"one"
            raise Refused("The server went away.")

        with pytest.raises(Refused, match="went away"):
            archive.put_data(KEY, rows())
        assert not store.objects

    def test_a_short_upload_is_not_taken_for_whole(self, archive, store):
        store.upload = lambda key, parts: sum(map(len, parts)) - 1
        with pytest.raises(Transient):
            archive.put_data(KEY, [b"rows"])


class TestClaim:
    key = layout.index(DATABASE, TIMELINE, 0, 0)

    def put(self, archive, body):
        archive.put_record(self.key, "slice", body, claim=True)

    @pytest.mark.parametrize("conditional", [True, False])
    def test_the_first_keeps_the_key_and_the_second_loses_its_lease(self, conditional):
        archive = Archive(MemoryStore(conditional), DATABASE)
        self.put(archive, {"by": 1})
        with pytest.raises(LeaseLost):
            self.put(archive, {"by": 2})
        assert archive.read_record(self.key, "slice") == {"by": 1}

    @pytest.mark.parametrize("conditional", [True, False])
    def test_an_own_try_whose_answer_was_lost_counts(self, conditional):
        archive = Archive(MemoryStore(conditional), DATABASE)
        self.put(archive, {"by": 1})
        self.put(archive, {"by": 1})

    def test_an_answer_lost_on_the_way_is_asked_for_again(self, archive, store):
        put = store.put

        def put_and_lose(key, data, *, if_absent=False):
            store.put = put
            put(key, data, if_absent=if_absent)
            raise Unreachable("no answer")

        store.put = put_and_lose
        self.put(archive, {"by": 1})
        assert archive.read_record(self.key, "slice") == {"by": 1}

    def test_a_key_that_was_taken_and_is_gone_is_not_reported_as_written(self, archive, store):
        def taken(key, data, *, if_absent=False):
            raise AlreadyExists(f"{key} is taken.")

        store.put = taken
        with pytest.raises(Transient, match="gone again"):
            self.put(archive, {"by": 1})

    def test_a_claim_is_one_request(self, archive, store):
        self.put(archive, {"by": 1})
        assert [action for action, _ in store.calls] == ["put"]


class TestFaults:
    def test_a_store_that_says_later_is_asked_again(self, archive, store, no_waiting):
        archive.write_database({"name": "shop"})
        store.before = failing(len(module.WAITS), Unreachable("slow down"))
        assert archive.read_database() == {"name": "shop"}

    def test_but_not_for_ever(self, archive, store, no_waiting):
        store.before = failing(99, Unreachable("slow down"))
        with pytest.raises(Transient, match="slow down"):
            archive.write_database({"name": "shop"})
        assert no_waiting == list(module.WAITS)

    def test_a_refusal_is_final_and_keeps_its_hint(self, archive, store, no_waiting):
        store.before = failing(99, Denied("No.", hint="Allow s3:PutObject."))
        with pytest.raises(Refused, match=r"No\. Allow s3:PutObject\."):
            archive.write_database({"name": "shop"})
        assert not no_waiting


class TestRecords:
    def test_a_manifest_comes_back_as_it_was(self, archive):
        archive.write_manifest(manifest())
        assert archive.read_manifest(TIMELINE, BACKUP) == manifest()
        assert [entry.backup for entry in archive.manifests()] == [BACKUP]

    def test_a_backup_without_manifest_does_not_exist(self, archive):
        archive.put_data(layout.backup_data(DATABASE, TIMELINE, BACKUP, "z1", "tsv"), [b"rows"])
        assert list(archive.manifests()) == [] and archive.timelines() == [TIMELINE]

    def test_a_manifest_that_goes_while_they_are_listed_is_none_and_a_damaged_one_is_told(self, archive, store):
        archive.write_manifest(manifest())
        key = archive.manifest_key(TIMELINE, BACKUP)
        store.objects[key] += b"?"
        with pytest.raises(Corrupt):
            list(archive.manifests())
        store.before = lambda action, asked: store.objects.pop(key, None) if action == "get" else None
        assert list(archive.manifests()) == []

    def test_a_manifest_under_another_backups_key_is_corrupt(self, archive, store):
        archive.write_manifest(manifest())
        other = BACKUP.replace("b1", "b2")
        store.objects[archive.manifest_key(TIMELINE, other)] = store.objects[archive.manifest_key(TIMELINE, BACKUP)]
        with pytest.raises(Corrupt, match="another backup"):
            archive.read_manifest(TIMELINE, other)

    def test_a_slice_comes_back_and_only_under_its_own_key(self, archive, store):
        entry = histories.index(3, [5, 6], 7)
        archive.write_slice(entry)
        assert archive.read_slice(entry.key) == entry
        moved = layout.index(DATABASE, TIMELINE, 0, 4)
        store.objects[moved] = store.objects[entry.key]
        with pytest.raises(Corrupt, match="another slice"):
            archive.read_slice(moved)

    def test_slices_come_in_order_and_after_a_sequence(self, archive):
        for sequence in (2, 0, 1, 11, 100):
            archive.write_slice(histories.index(sequence, [1], sequence))
        assert [entry.sequence for entry in archive.slices(TIMELINE)] == [0, 1, 2, 11, 100]
        assert [entry.sequence for entry in archive.slices(TIMELINE, after=2)] == [11, 100]
        assert list(archive.slices(OTHER_TIMELINE)) == []

    def test_a_database_says_what_it_is(self, archive, store):
        assert archive.read_database() is None and databases(store) == []
        archive.write_database({"name": "shop"})
        archive.write_database({"name": "store"})
        assert archive.read_database() == {"name": "store"} and databases(store) == [DATABASE]


class TestLastSlice:
    @pytest.mark.parametrize("first", [0, 123456])
    @pytest.mark.parametrize("count", [0, 1, 2, 999, 1000, 1001, 1002, 5000])
    def test_it_is_found_by_few_listings_wherever_retention_left_the_front(self, archive, store, first, count):
        for sequence in range(first, first + count):
            store.objects[layout.index(DATABASE, TIMELINE, 0, sequence)] = b""
        if count:
            last = histories.index(first + count - 1, [1], 1)
            del store.objects[last.key]
            archive.write_slice(last)
        found = archive.last_slice(TIMELINE)
        assert (found.sequence if found else None) == (first + count - 1 if count else None)

    def test_in_a_young_timeline_three_listings_do(self, archive, store):
        for sequence in range(5):
            archive.write_slice(histories.index(sequence, [1], sequence))
        store.calls.clear()
        assert archive.last_slice(TIMELINE).sequence == 4
        assert [action for action, _ in store.calls].count("list") == 3

    def test_among_three_million_a_few_dozen_listings_do(self, archive, monkeypatch):
        asked = []

        def keys(timeline, level=0, after=-1):
            asked.append(after)
            return (layout.index(DATABASE, TIMELINE, 0, n) for n in range(after + 1, 3_000_000))

        monkeypatch.setattr(archive, "slice_keys", keys)
        monkeypatch.setattr(archive, "read_slice", lambda key: key)
        assert archive.last_slice(TIMELINE) == layout.index(DATABASE, TIMELINE, 0, 2_999_999)
        assert len(asked) < 40


class TestGivingUp:
    def test_only_what_is_named_goes_marker_first(self, archive, store):
        for sequence in range(3):
            archive.write_slice(histories.index(sequence, [1], sequence))
            archive.put_data(layout.slice_data(DATABASE, TIMELINE, 0, sequence), [b"rows"])
        kept = {key for key in store.objects if layout.parse(key).sequence == 2}
        store.calls.clear()
        archive.give_up(slices=histories.points(histories.history([[1], [1]])))
        assert set(store.objects) == kept
        deleted = [layout.parse(key).kind for action, key in store.calls if action == "delete"]
        assert deleted == ["index", "index", "slice data", "slice data"]

    def test_what_lies_between_two_that_go_stays(self, archive, store):
        for sequence in range(3):
            archive.put_data(layout.slice_data(DATABASE, TIMELINE, 0, sequence), [b"rows"])
        archive.give_up(slices=histories.points([histories.index(n, [1], n) for n in (0, 2)]))
        assert [layout.parse(key).sequence for key in store.objects] == [1]

    def test_a_backup_goes_with_all_its_objects_and_no_other(self, archive, store):
        other = BACKUP.replace("b1", "b2")
        for backup in (BACKUP, other):
            archive.put_data(layout.backup_data(DATABASE, TIMELINE, backup, "t1-1", "tsv"), [b"rows"])
            archive.write_manifest(manifest(backup))
        store.calls.clear()
        archive.give_up(backups=[manifest().point()])
        assert {layout.parse(key).backup for key in store.objects} == {other} and len(store.objects) == 2
        assert next(layout.parse(key).kind for action, key in store.calls if action == "delete") == "manifest"

    def test_a_refused_delete_says_so(self, archive, store):
        store.before = failing(1, Denied("Object lock holds it.", hint="Wait until it ends."))
        with pytest.raises(Refused, match="Wait until it ends"):
            archive.give_up(orphans=[KEY])
