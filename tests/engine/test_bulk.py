"""Runs taken at once say the same as their events one by one, however they come in and whatever is wrong with them."""

from itertools import chain

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.played import How, chunks, compared, history, sealed, wire
from tests.engine.test_events import FILES

NAMES = st.sampled_from([name for name in FILES if "mysql" in name])
PICKS = st.lists(st.integers(0, 999), min_size=1, max_size=30)
PORTIONS = st.lists(st.integers(1, 9000), min_size=1, max_size=5)


def played(name, picks):
    """(all events, how many of them are the log's head, whether they carry checksums)."""
    head, log = history(name, picks)
    trailer = head[0][-5]
    return [*head, *(sealed(raw, trailer) for raw in chain.from_iterable(log))], len(head), trailer


@settings(max_examples=80, deadline=None)
@given(NAMES, PICKS, PORTIONS, st.integers(200, 20_000), st.sampled_from(["", None]))
def test_any_history_in_any_portions_is_summarised_as_by_its_events(name, picks, portions, max_bytes, gtids):
    raws, head, _ = played(name, picks)
    told, _ = compared(wire(raws), How(portions, max_bytes, gtids))
    taken = [one for one in told if isinstance(one, tuple)]
    assert b"".join(chunk[0][len(raws[0]) + 4 :] for chunk in taken) == b"".join(raws[head:])


@settings(max_examples=120, deadline=None)
@given(NAMES, PICKS, PORTIONS, st.data())
def test_damage_is_found_at_the_same_place_with_and_without_a_right_checksum(name, picks, portions, data):
    raws, head, trailer = played(name, picks)
    at = data.draw(st.integers(head, len(raws) - 1))
    broken = bytearray(raws[at])
    broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    raws[at] = sealed(broken, trailer and data.draw(st.booleans())) if len(broken) > 4 else bytes(broken)
    compared(wire(raws), How(portions, 5000))


def test_a_run_of_ordinary_transactions_is_taken_at_once():
    raws, _, _ = played("mysql-9.7", range(60))
    told, taken = compared(wire(raws), How())
    assert len([one for one in told if isinstance(one, tuple)]) == 1 and taken


def test_what_a_chunk_holds_does_not_change_while_more_comes():
    raws, head, _ = played("mysql-9.7", range(200))
    captured = list(chunks(wire(raws), How((9000,), 20_000), []))
    held = [b"".join(chunk.payload)[len(raws[0]) + 4 :] for chunk in captured]
    assert len(held) > 3 and b"".join(held) == b"".join(raws[head:])
