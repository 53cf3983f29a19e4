"""Transactions as columns are the transactions that they are made of."""

from hypothesis import given
from hypothesis import strategies as st

from backups.engine.types import Columns, Transaction
from tests.engine.test_index import transactions


@given(st.lists(transactions, max_size=6), st.lists(transactions, max_size=6))
def test_columns_are_a_sequence_of_transactions(first: list[Transaction], more: list[Transaction]) -> None:
    columns, made = Columns(first), first + more
    columns.extend([[getattr(one, name) for one in more] for name in Transaction.__slots__])
    assert columns == made and made == columns and len(columns) == len(made) and columns != [*made, None]
    assert list(columns) == made and columns[2:5] == made[2:5] and [columns[n] for n in range(len(made))] == made
    assert columns.times == [one.time_us for one in made]
