"""Encryption: what goes in comes out, and nothing else ever does."""

import base64
import itertools
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backups.engine import codec, crypt
from backups.engine.archive import Archive
from backups.engine.codec import seal, unseal
from backups.engine.crypt import CHUNK, HEAD, TAG, Keys, opened, sealed
from backups.engine.errors import Corrupt, Refused
from tests.engine.memory_store import MemoryStore

DATABASE = "11111111-2222-3333-4444-555555555555"
OLD, NEW, OTHER = (base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2, 3))
KEYS = Keys.parse(OLD)
NAME = "v1/a"


def lock(data, keys=KEYS, name=NAME):
    return b"".join(sealed([data], keys, name))


def unlock(data, keys=KEYS, name=NAME):
    return b"".join(opened([data], keys, name))


@given(st.lists(st.integers(0, 70_000), max_size=5), st.integers(1, 90_000))
def test_any_pieces_come_back_however_they_are_cut(sizes, cut):
    data = os.urandom(sum(sizes))
    ends = [0, *itertools.accumulate(sizes)]
    stored = b"".join(sealed((data[a:b] for a, b in itertools.pairwise(ends)), KEYS, NAME))
    pieces = [stored[at : at + cut] for at in range(0, len(stored), cut)]
    assert b"".join(opened(pieces, KEYS, NAME)) == data


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK])
def test_the_size_is_as_the_format_says(size):
    stored = lock(bytes(size))
    assert len(stored) == HEAD + size + TAG * max(1, -(-size // CHUNK)) and unlock(stored) == bytes(size)


def test_nothing_readable_is_left_and_no_two_objects_are_alike():
    text = b"name, address, card number " * 50
    first, second = lock(text), lock(text)
    assert b"card" not in first and first[HEAD:] != second[HEAD:]


def test_every_flipped_byte_is_found_without_any_hash():
    stored = lock(b"a small object")
    for at in range(len(crypt.MAGIC), len(stored)):
        with pytest.raises((Corrupt, Refused)):
            unlock(stored[:at] + bytes([stored[at] ^ 1]) + stored[at + 1 :])


def test_every_missing_end_is_found_without_any_hash():
    stored = lock(b"a small object")
    for size in range(len(crypt.MAGIC), len(stored)):
        with pytest.raises((Corrupt, Refused)):
            unlock(stored[:size])


def test_chunks_cannot_change_places_nor_go():
    stored = lock(os.urandom(3 * CHUNK))
    size = CHUNK + TAG
    head, chunks = stored[:HEAD], [stored[HEAD + n * size : HEAD + (n + 1) * size] for n in range(3)]
    for order in ([0, 1], [1, 0, 2], [0, 2], [0, 1, 2, 2], [0, 1, 1, 2]):
        with pytest.raises(Corrupt):
            unlock(head + b"".join(chunks[n] for n in order))


def test_nothing_is_handed_on_before_it_is_proven():
    stored = bytearray(lock(bytes(3 * CHUNK)))
    stored[HEAD + CHUNK + TAG + 5] ^= 1
    got = []
    with pytest.raises(Corrupt):
        got.extend(opened([bytes(stored)], KEYS, NAME))
    assert got == [bytes(CHUNK)]


def test_an_object_under_another_name_is_not_taken():
    with pytest.raises(Corrupt):
        unlock(lock(b"x"), name="v1/b")


def test_a_lost_key_says_so_by_its_id():
    with pytest.raises(Refused, match=rf"encrypted with key {KEYS.current}.*If it is lost"):
        unlock(lock(b"x"), Keys.parse(OTHER))
    with pytest.raises(Refused, match=KEYS.current):
        unseal(seal("k", {}, True, KEYS, NAME), "k", NAME)


def test_a_new_key_in_front_encrypts_and_the_old_one_still_opens():
    before, both = lock(b"old"), Keys.parse(f"{NEW}\n{OLD}")
    after = lock(b"new", both)
    assert (unlock(before, both), unlock(after, both)) == (b"old", b"new")
    assert unlock(after, Keys.parse(NEW)) == b"new"
    with pytest.raises(Refused):
        unlock(after)


@pytest.mark.parametrize("text", ["short", "!" * 44, base64.b64encode(bytes(31)).decode()])
def test_what_is_no_key_is_refused(text):
    with pytest.raises(ValueError, match="32 random bytes"):
        Keys.parse(text)


def test_a_key_shows_itself_nowhere():
    assert OLD not in repr(KEYS) and "x01" not in repr(KEYS)


@pytest.mark.parametrize("compress", [True, False])
def test_records_are_encrypted_whole_and_every_flipped_byte_is_found(compress):
    sealed_record = seal("manifest", {"name": "secret-name"}, compress, KEYS, NAME)
    assert b"secret-name" not in sealed_record
    assert unseal(sealed_record, "manifest", NAME, KEYS) == {"name": "secret-name"}
    for at in range(len(sealed_record)):
        with pytest.raises(Corrupt):
            unseal(
                sealed_record[:at] + bytes([sealed_record[at] ^ 1]) + sealed_record[at + 1 :], "manifest", NAME, KEYS
            )


def test_what_was_written_before_there_was_a_key_is_read_all_the_same():
    store = MemoryStore()
    plain = Archive(store, DATABASE)
    ref = plain.put_data("v1/x", [b"old rows"])
    plain.write_database({"name": "shop"})
    archive = Archive(store, DATABASE, KEYS)
    assert b"".join(archive.read_data(ref)) == b"old rows" and archive.read_database() == {"name": "shop"}


def test_an_archive_with_a_key_leaves_nothing_readable_and_finds_every_flipped_byte():
    store = MemoryStore()
    archive = Archive(store, DATABASE, KEYS)
    rows = [b"readable row\n" * 9000, os.urandom(200_000)]
    ref = archive.put_data("v1/x", rows)
    archive.write_database({"name": "readable"})
    assert b"".join(archive.read_data(ref)) == b"".join(rows) and archive.read_database() == {"name": "readable"}
    assert not any(b"readable" in data for data in store.objects.values())
    small = archive.put_data("v1/y", [b"few"])
    whole = store.objects["v1/y"]
    for at in range(len(whole)):
        store.objects["v1/y"] = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
        with pytest.raises(Corrupt):
            b"".join(archive.read_data(small))


def test_plain_is_no_key():
    assert codec.PLAIN.current is None and lock(b"x", codec.PLAIN) == b"x"
