"""InnoDB's numbers of one table are found among those of all."""

from __future__ import annotations

import pytest

from backups.engine.mysql.schema import Numbers

IDS = {"s/t": 1, "s/T1": 2, "s/t#P#p0": 3, "s/t#p#p1": 4, "s/t@002d": 5, "s2/t": 6, "s/ta@1234": 7, "s/ta@00e4b": 8}


@pytest.mark.parametrize(
    ("table", "numbers"),
    [
        ("t", {1, 3, 4}), ("t1", {2}), ("T1", {2}), ("t-", {5}), ("none", set()), ("taä", {7, 8}),
        ("ä", {1, 2, 3, 4, 5, 7, 8}),
    ],
)  # fmt: skip
def test_a_tables_numbers_are_its_own_and_its_partitions(table: str, numbers: set[int]) -> None:
    assert {number for _, number in Numbers(IDS).of("s", table)} == numbers
