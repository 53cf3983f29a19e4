"""The envelope of records: round trip, damage, novelty."""

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backups.engine.codec import seal, unseal
from backups.engine.errors import Corrupt, Refused

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(values, st.booleans())
def test_a_body_comes_back_as_it_was(body, compress):
    assert unseal(seal("slice", body, compress), "slice") == body


@given(values, st.booleans())
def test_the_same_body_gives_the_same_bytes(body, compress):
    assert seal("slice", body, compress) == seal("slice", body, compress)


def test_text_that_is_not_unicode_survives():
    assert unseal(seal("slice", "\udcff", True), "slice") == "\udcff"


@pytest.mark.parametrize("compress", [False, True])
def test_any_flipped_bit_is_found(compress):
    data = seal("slice", {"start": {"file": "binlog.000001"}, "numbers": list(range(20))}, compress)
    for place in range(len(data)):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[place] ^= 1 << bit
            with pytest.raises(Corrupt):
                unseal(bytes(flipped), "slice")


@pytest.mark.parametrize("compress", [False, True])
def test_any_missing_or_added_byte_is_found(compress):
    data = seal("slice", {"numbers": list(range(20))}, compress)
    for length in range(len(data)):
        with pytest.raises(Corrupt):
            unseal(data[:length], "slice")
        with pytest.raises(Corrupt):
            unseal(data[:length] + data[length + 1 :], "slice")
    with pytest.raises(Corrupt):
        unseal(data + b"\n", "slice")


@given(st.binary(max_size=300))
def test_anything_else_is_corrupt_and_nothing_worse(data):
    with pytest.raises(Corrupt):
        unseal(data, "slice")


def test_another_kind_of_record_is_not_taken_for_it():
    with pytest.raises(Corrupt, match="it is a slice"):
        unseal(seal("slice", {}, False), "manifest")


def rewritten(**changes):
    """A record as another version might write it, with a right hash."""
    header, _, rest = seal("slice", {}, False).partition(b"\n")
    data = json.dumps(json.loads(header) | changes).encode() + b"\n" + rest[:-65]
    return data + hashlib.sha256(data).hexdigest().encode() + b"\n"


@pytest.mark.parametrize("change", [{"everest": 2}, {"features": ["holes"]}, {"codec": "cbor"}, {"key": "k1"}], ids=str)
def test_what_a_newer_everest_wrote_is_refused_not_called_corrupt(change):
    assert unseal(rewritten(), "slice") == {}
    with pytest.raises(Refused):
        unseal(rewritten(**change), "slice")


def test_a_header_without_its_fields_is_corrupt():
    data = b"{}\n{}\n"
    with pytest.raises(Corrupt):
        unseal(data + hashlib.sha256(data).hexdigest().encode() + b"\n", "slice")
