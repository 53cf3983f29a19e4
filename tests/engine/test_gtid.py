"""GTID sets against plain Python sets, and the order of positions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backups.engine.errors import Corrupt
from backups.engine.mysql.gtid import (
    DomainSet,
    GtidSet,
    at_or_before,
    contains,
    decode,
    executed,
    position_after,
    successive,
)
from backups.engine.types import DataRef, SliceIndex, Transaction

A = "3e11fa47-71ca-11e1-9e33-c80aa9429562"
B = "4e11fa47-71ca-11e1-9e33-c80aa9429562"
members = st.sets(st.tuples(st.sampled_from([(A, ""), (A, "tag"), (B, "")]), st.integers(1, 30)), max_size=40)


def made(of):
    result = GtidSet()
    for (uuid, tag), number in of:
        result.add(f"{uuid}:{tag}:{number}" if tag else f"{uuid}:{number}")
    return result


@given(members, members)
def test_sets_do_what_sets_do(a, b):
    first, second = made(a), made(b)
    assert first.union(second) == made(a | b)
    assert first.subtract(second) == made(a - b)
    assert first.contains(second) == (a >= b)
    assert bool(first) == bool(a)
    for (uuid, tag), number in a | b:
        assert first.has(f"{uuid}:{tag}:{number}" if tag else f"{uuid}:{number}") == (((uuid, tag), number) in a)


@given(members)
def test_text_and_bytes_round_trip(a):
    gtids = made(a)
    assert GtidSet.parse(str(gtids)) == gtids
    assert decode(memoryview(gtids.encode())) == gtids


def test_text_is_the_servers():
    text = f"{A}:1-5:7:tag:1-3,{B}:9"
    assert str(GtidSet.parse(text)) == text
    assert str(GtidSet.parse(f"{B.upper()}:9 ,\n{A}:tag:1-3, {A}:1-4:5:7")) == text


@pytest.mark.parametrize(
    "text", ["x", f"{A}", f"{A}:", f"{A}:0", f"{A}:5-3", f"{A}:1-", f"{A}:-1", f"{A}:1:Ü", "0-1-5", f"{A[:-1]}:1"]
)
def test_what_is_no_gtid_set(text):
    with pytest.raises(Corrupt):
        GtidSet.parse(text)


@pytest.mark.parametrize("text", ["x", "0-1", "0-1-", f"{A}:1", "0-1-5;1-1-1"])
def test_what_is_no_mariadb_set(text):
    with pytest.raises(Corrupt):
        DomainSet.parse(text)


def test_mariadb_counts_by_domain_whoever_wrote():
    first, second = DomainSet.parse("0-1-5,2-1-7"), DomainSet.parse("0-9-6,2-1-7,1-1-1")
    assert second.contains(first) and not first.contains(second)
    assert str(second.subtract(first)) == "0-9-6,1-1-1"
    assert first.has("0-3-5") and not first.has("0-3-6") and not first.has("1-1-1")
    assert str(second) == "0-9-6,1-1-1,2-1-7"


def test_an_empty_set_takes_its_kind_from_the_other():
    assert isinstance(executed("", "0-1-5"), DomainSet)
    assert isinstance(executed("", f"{A}:1"), GtidSet)
    assert isinstance(executed("12345678-1234-1234-1234-123456789abc:1"), GtidSet)


def place(file, pos, gtids=None, file_id="", server=A):
    return {"server": server, "file": file, "pos": pos, "file_id": file_id, "gtids": gtids}


def test_files_are_ordered_by_number_not_by_name():
    assert at_or_before(place("b.999999", 900), place("b.1000000", 4))
    assert not at_or_before(place("b.1000000", 4), place("b.999999", 900))
    assert at_or_before(place("b.000001", 4), place("b.000001", 4))


def test_without_gtids_another_server_or_another_file_of_the_name_is_nowhere():
    assert not at_or_before(place("b.000001", 4), place("b.000001", 9, server=B))
    assert not at_or_before(place("b.000001", 4, file_id="x"), place("b.000001", 9, file_id="y"))
    assert at_or_before(place("b.000001", 4, file_id="x"), place("b.000001", 9))


def test_with_gtids_only_they_count():
    early, late = place("b.000009", 900, f"{A}:1-5"), place("b.000001", 4, f"{A}:1-7:9", server=B)
    assert at_or_before(early, late) and not at_or_before(late, early)
    aside = place("b.000001", 4, f"{A}:1-4:6")
    assert not at_or_before(early, aside) and not at_or_before(aside, early)
    assert at_or_before(place("b.000001", 4, ""), place("b.000001", 4, "0-1-5"))
    assert at_or_before(place("b.000001", 4, "0-1-4"), place("b.000001", 4, "0-2-5"))
    assert not at_or_before(place("b.000001", 4, "0-1-4"), place("b.000001", 4, ""))


def index(start, end, identities):
    transactions = tuple(Transaction(n, name, 100 * n, 100) for n, name in enumerate(identities, 1))
    return SliceIndex("k", "t", 0, 1, "", start, end, DataRef("d", 1, ""), 1, True, 0, transactions)


def test_after_a_transaction_by_gtid_with_holes():
    start, end = place("b.000001", 4, f"{A}:1-3"), place("b.000002", 500, f"{A}:1-3:5-6,{B}:1")
    found = index(start, end, [f"{A}:5", f"{B}:1", f"{A}:6"])
    assert position_after(found, found.transactions[1])["gtids"] == f"{A}:1-3:5,{B}:1"
    assert position_after(found, found.transactions[2]) == end


def test_after_a_transaction_by_place():
    start, end = place("b.000001", 4, file_id="x"), place("b.000002", 157, file_id="y")
    found = index(start, end, ["b.000001:157", "b.000001:257"])
    assert position_after(found, found.transactions[0]) == place("b.000001", 257, file_id="x")
    assert position_after(found, found.transactions[1]) == end


def test_after_a_transaction_of_mariadb():
    found = index(place("b.000001", 4, ""), place("b.000001", 9, "0-1-2,1-1-1"), ["0-1-1", "1-1-1", "0-1-2"])
    assert position_after(found, found.transactions[1])["gtids"] == "0-1-1,1-1-1"


def test_what_a_position_already_holds():
    assert contains(place("b.000001", 4, f"{A}:1-3"), Transaction(1, f"{A}:3", 0, 10))
    assert not contains(place("b.000001", 4, f"{A}:1-3"), Transaction(1, f"{A}:tag:3", 0, 10))
    assert contains(place("b.000001", 4, "0-1-3"), Transaction(1, "0-2-3", 0, 10))
    assert contains(place("b.000002", 110), Transaction(1, "b.000002:100", 0, 10))
    assert not contains(place("b.000002", 109), Transaction(1, "b.000002:100", 0, 10))


def test_gtids_that_follow_one_another_are_a_set():
    assert str(successive([f"{A}:{number}" for number in range(9, 12)])) == f"{A}:9-11"
    for others in ([f"{A}:1", f"{A}:3"], [f"{A}:x:1", f"{A}:x:2"], ["0-1-5", "0-1-6"], ["binlog.000001:4"]):
        assert successive(others) is None
