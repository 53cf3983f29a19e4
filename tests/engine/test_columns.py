"""Transactions as columns are the transactions that they are made of."""

from hypothesis import given
from hypothesis import strategies as st

from backups.engine.identities import Identities
from backups.engine.types import Columns, Transaction
from tests.engine.test_index import transactions


@given(st.lists(transactions, max_size=6), st.lists(transactions, max_size=6))
def test_columns_are_a_sequence_of_transactions(first: list[Transaction], more: list[Transaction]) -> None:
    columns, made = Columns(first), first + more
    columns.extend([[getattr(one, name) for one in more] for name in Transaction.__slots__])
    assert columns == made and made == columns and len(columns) == len(made) and columns != [*made, None]
    assert list(columns) == made and columns[2:5] == made[2:5] and [columns[n] for n in range(len(made))] == made
    assert columns.times == [one.time_us for one in made]


texts = st.builds(
    lambda prefix, zeros, number: f"{prefix}{zeros}{number}",
    st.sampled_from(["", "a:", "b:", "0-1-", "a:1-"]),
    st.sampled_from(["", "", "0", "00"]),
    st.one_of(st.integers(0, 12), st.integers(0, 10**21), st.just("")),
)


@given(st.lists(texts, max_size=9), st.lists(texts, max_size=9), st.integers(-3, 20), st.integers(-3, 20))
def test_identities_are_a_sequence_of_texts(first: list[str], more: list[str], begin: int, end: int) -> None:
    identities, all_texts = Identities(first), [*first, *more]
    identities += Identities(more[:4])
    identities += more[4:]
    assert list(identities) == all_texts and len(identities) == len(all_texts)
    assert list(identities[begin:end]) == all_texts[begin:end]
    assert list(identities[::2]) == all_texts[::2] and list(identities[::-1]) == all_texts[::-1]
    assert [identities[place] for place in range(-len(all_texts), len(all_texts))] == all_texts * 2
