"""A slice's index: its columns give back every transaction, fast and small."""

import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backups.engine import codec, index
from backups.engine.errors import Corrupt
from backups.engine.types import Change, Transaction
from tests.engine import histories

names = st.text(max_size=5)
counts = st.integers(0, 2**40)
changes = st.builds(Change, names, names, counts, counts, counts)
identities = (
    st.from_regex(r"[0-9a-f]{4}:(tag:)?[0-9]{1,22}", fullmatch=True)
    | st.from_regex(r"0-1-[0-9]{1,20}", fullmatch=True)
    | st.text(max_size=8)
)
transactions = st.builds(
    Transaction,
    st.integers(-(2**60), 2**60),
    identities,
    counts,
    counts,
    st.lists(changes, max_size=3).map(tuple),
    names,
    names,
)


@given(st.lists(transactions, max_size=12).map(tuple), st.booleans())
def test_an_index_comes_back_as_it_was(made, exact):
    entry = replace(histories.index(4, [], 7, exact=exact), transactions=made, raw_size=99, written_us=5)
    sealed = codec.seal(index.KIND, index.to_body(entry, histories.DATABASE), True)
    assert index.from_body(codec.unseal(sealed, index.KIND)) == entry


def test_an_index_of_100_000_transactions_is_quick_and_small():
    touched = (Change("shop", "orders", 1), Change("shop", "lines", 3, 1))
    made = tuple(Transaction(10**15 + n * 700, f"{'a' * 36}:{n}", n * 900, 900, touched) for n in range(100_000))
    entry = replace(histories.index(0, [], 0), transactions=made)
    began = time.process_time()
    sealed = codec.seal(index.KIND, index.to_body(entry, histories.DATABASE), True)
    assert index.from_body(codec.unseal(sealed, index.KIND)) == entry
    assert time.process_time() - began < 5  # about one second; the rest is for busy machines
    assert len(sealed) < 100_000


def body_of_two():
    return index.to_body(histories.index(0, [1, 2], 0), histories.DATABASE)


@pytest.mark.parametrize("field", sorted(body_of_two()["transactions"]))
def test_a_body_without_a_column_is_corrupt(field):
    body = body_of_two()
    del body["transactions"][field]
    with pytest.raises(Corrupt):
        index.from_body(body)


def test_columns_of_unlike_length_are_corrupt():
    body = body_of_two()
    body["transactions"]["time"].append(1)
    with pytest.raises(Corrupt):
        index.from_body(body)
