"""Object keys: what is built can be taken apart, and sorts as it is replayed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backups.engine import layout
from backups.engine.layout import Key

DB, TL, BACKUP = (f"00000000-0000-4000-8000-00000000000{n}" for n in "123")
sequences = st.integers(0, layout.LAST_SEQUENCE)


def test_keys_are_written_as_the_format_says():
    assert layout.database_record(DB) == f"v1/{DB}/database.json"
    assert layout.manifest(DB, TL, BACKUP) == f"v1/{DB}/{TL}/backups/{BACKUP}/manifest.json"
    assert layout.index(DB, TL, 0, 42) == f"v1/{DB}/{TL}/slices/0/index/000000000042.idx"


def test_every_key_can_be_taken_apart():
    assert layout.parse(layout.database_record(DB)) == Key("database", DB)
    assert layout.parse(layout.manifest(DB, TL, BACKUP)) == Key("manifest", DB, TL, BACKUP)
    data = layout.backup_data(DB, TL, BACKUP, "t0001-3", "tsv")
    assert layout.parse(data) == Key("backup data", DB, TL, BACKUP)
    assert layout.parse(layout.index(DB, TL, 3, 42)) == Key("index", DB, TL, "", 3, 42)
    assert layout.parse(layout.slice_data(DB, TL, 3, 42)) == Key("slice data", DB, TL, "", 3, 42)


@given(sequences, sequences)
def test_index_keys_sort_as_their_sequences(one, two):
    assert (layout.index(DB, TL, 0, one) < layout.index(DB, TL, 0, two)) == (one < two)
    assert layout.parse(layout.index(DB, TL, 0, one)).sequence == one


def test_a_data_key_is_never_given_out_twice():
    assert len({layout.slice_data(DB, TL, 0, 7) for _ in range(100)}) == 100
    assert len({layout.backup_data(DB, TL, BACKUP, "s1", "sql") for _ in range(100)}) == 100


@pytest.mark.parametrize("key", ["", "v1/", "v2/x", f"v1/{DB}", f"v1/{DB}/{TL}/slices/0/index/42.idx", "somebody/else"])
def test_other_peoples_objects_are_not_taken_for_ours(key):
    assert layout.parse(key) is None


@pytest.mark.parametrize("sequence", [-1, 10**12])
def test_a_sequence_that_would_not_sort_is_refused(sequence):
    with pytest.raises(ValueError):
        layout.index(DB, TL, 0, sequence)


@pytest.mark.parametrize("name", ["Orders", "a/b", "..", "", "naïve", "a_b"])
def test_names_that_tell_or_break_a_key_are_refused(name):
    with pytest.raises(ValueError):
        layout.backup_data(DB, TL, BACKUP, name, "tsv")


def test_a_uuid_has_one_form_only():
    with pytest.raises(ValueError):
        layout.database_record(DB.replace("-", ""))
