"""Coverage: the newest backup, the gapless run, the range that is missing."""

import time
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backups.engine.errors import NotCovered
from backups.engine.plan import plan, ranges, run_from
from tests.engine import histories
from tests.engine.histories import OTHER_TIMELINE, SECOND, at, backup, engine, history, points

at_or_before = engine.at_or_before


def slices_of(*sizes):
    """Slices of so many transactions each, transaction n committed at n seconds."""
    first, made = 1, []
    for size in sizes:
        made.append([n * SECOND for n in range(first, first + size)])
        first += size
    return points(history(made))


def sequences(plan):
    return [point.sequence for point in plan.slices]


SLICES = slices_of(5, 5, 5, 5)  # ends: 5, 10, 15, 20


@pytest.mark.parametrize(
    ("target", "chosen", "expected"),
    [
        (0, "early", []),
        (1, "early", [0]),
        (5, "early", [0]),
        (6, "early", [0, 1]),
        (7, "late", []),
        (8, "late", [1]),
        (10, "late", [1]),
        (11, "late", [1, 2]),
        (20, "late", [1, 2, 3]),
    ],
)
def test_the_newest_backup_at_or_before_and_only_the_slices_between(target, chosen, expected):
    found = plan([backup("early", 0), backup("late", 7)], SLICES, at(target), at_or_before)
    assert (found.backup.id, sequences(found), found.position) == (chosen, expected, at(target))


def test_an_older_backup_can_be_chosen():
    found = plan([backup("early", 0), backup("late", 7)], SLICES, at(12), at_or_before, backup="early")
    assert (found.backup.id, sequences(found)) == ("early", [0, 1, 2])


def test_a_chosen_backup_after_the_moment_is_refused():
    with pytest.raises(NotCovered, match="late"):
        plan([backup("early", 0), backup("late", 7)], SLICES, at(6), at_or_before, backup="late")


def test_a_backup_on_a_slices_border_starts_with_the_next_slice():
    assert sequences(plan([backup("b", 10)], SLICES, at(12), at_or_before)) == [2]


def test_a_backups_own_position_needs_no_slices():
    assert plan([backup("b", 7)], [], at(7), at_or_before).slices == ()


def test_a_moment_before_the_oldest_backup_is_not_covered():
    with pytest.raises(NotCovered, match=r"before the oldest backup.*Restorable \(UTC\): 1970-01-01 00:00:03"):
        plan([backup("b", 3)], SLICES, at(2), at_or_before)


def test_a_hole_is_named_with_what_is_restorable():
    with_hole = [point for point in SLICES if point.sequence != 2]
    assert sequences(plan([backup("b", 0)], with_hole, at(10), at_or_before)) == [0, 1]
    with pytest.raises(NotCovered, match=r"from at 10 to at 15 is not in the storage.*00:00:00.000000 to .*00:00:10"):
        plan([backup("b", 0)], with_hole, at(16), at_or_before)
    with pytest.raises(NotCovered, match="from at 10 to at 12"):
        plan([backup("b", 0)], with_hole, at(12), at_or_before)


def test_a_moment_after_the_last_slice_is_not_covered():
    with pytest.raises(NotCovered, match="from at 20 to at 21"):
        plan([backup("b", 0)], SLICES, at(21), at_or_before)


def test_slices_that_only_look_alike_are_no_chain():
    forked = [replace(point, start={"at": 10, "file": "other"}) if point.sequence == 2 else point for point in SLICES]
    with pytest.raises(NotCovered):
        plan([backup("b", 0)], forked, at(12), at_or_before)


def test_two_timelines_are_never_planned_together():
    with pytest.raises(ValueError, match="one timeline"):
        plan([backup("b", 0), backup("c", 1, timeline=OTHER_TIMELINE)], SLICES, at(3), at_or_before)


def merged(level, first, last):
    """One slice of a higher level in place of some of SLICES; it carries the first one's sequence."""
    parts = history([[n * SECOND for n in range(k * 5 + 1, k * 5 + 6)] for k in range(4)])[first : last + 1]
    return points([histories.merged(level, parts)])[0]


def used(plan):
    return [(point.level, point.sequence) for point in plan.slices]


def test_larger_slices_are_preferred_and_levels_mix():
    every = [*SLICES, merged(1, 0, 1), merged(1, 2, 3)]
    assert used(plan([backup("b", 0)], every, at(20), at_or_before)) == [(1, 0), (1, 2)]
    assert used(plan([backup("b", 0)], every[:5], at(20), at_or_before)) == [(1, 0), (0, 2), (0, 3)]


def test_a_backup_inside_a_merged_slice_whose_small_ones_are_half_gone():
    every = [SLICES[0], merged(1, 0, 1), *SLICES[2:]]
    assert used(plan([backup("b", 7)], every, at(12), at_or_before)) == [(1, 0), (0, 2)]


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_any_of_the_small_ones_may_be_gone_once_the_large_one_is_there(gone):
    """A storage deletes many objects in one request, in an order of its own."""
    every = [merged(1, 0, 2), *(point for point in SLICES if point.sequence != gone)]
    for target in range(21):
        assert plan([backup("b", 0)], every, at(target), at_or_before)
    assert used(plan([backup("b", 6)], every, at(20), at_or_before)) == [(1, 0), (0, 3)]


def test_a_backup_on_a_merged_slices_border_starts_with_the_next_slice():
    assert used(plan([backup("b", 10)], [*SLICES, merged(1, 0, 1)], at(12), at_or_before)) == [(0, 2)]


@given(st.lists(st.integers(1, 4), min_size=1, max_size=12), st.data())
def test_a_plan_proves_coverage_or_there_is_none(sizes, data):
    slices = slices_of(*sizes)
    kept = [point for point in slices if data.draw(st.booleans()) or data.draw(st.booleans())]
    end = sum(sizes)
    backups = [backup(f"b{place}", place) for place in data.draw(st.sets(st.integers(0, end), min_size=1))]
    target = data.draw(st.integers(0, end + 1))
    covered = {n for point in kept for n in range(point.start["at"] + 1, point.end["at"] + 1)}
    floor = max((point.position["at"] for point in backups if point.position["at"] <= target), default=None)
    if floor is None or not set(range(floor + 1, target + 1)) <= covered:
        with pytest.raises(NotCovered):
            plan(backups, data.draw(st.permutations(kept)), at(target), at_or_before)
        return
    found = plan(backups, data.draw(st.permutations(kept)), at(target), at_or_before)
    assert found.backup.position == at(floor)
    if target > floor:
        assert found.slices[0].start["at"] <= floor < found.slices[0].end["at"]
        assert found.slices[-1].start["at"] < target <= found.slices[-1].end["at"]
    for before, after in pairwise(found.slices):
        assert before.end == after.start


def test_ranges_end_at_holes_and_begin_at_backups():
    with_hole = [point for point in SLICES if point.sequence != 2]
    backups = [backup("a", 3), backup("b", 9), backup("c", 17), backup("d", 30)]
    found = ranges(backups, with_hole, at_or_before)
    assert [(one.first.id, one.first_us // SECOND, one.last_us // SECOND, one.last["at"]) for one in found] == [
        ("a", 3, 10, 10),
        ("c", 17, 20, 20),
        ("d", 30, 30, 30),
    ]


def test_ranges_keep_timelines_apart_and_sort_by_time():
    other = backup("x", 0, view_us=99 * SECOND, timeline=OTHER_TIMELINE)
    found = ranges([other, backup("a", 0)], SLICES, at_or_before)
    assert [(one.timeline == OTHER_TIMELINE, one.last["at"]) for one in found] == [(False, 20), (True, 0)]


def test_what_ranges_promise_a_plan_keeps():
    backups = [backup("a", 3), backup("b", 9)]
    for one in ranges(backups, SLICES, at_or_before):
        assert plan(backups, SLICES, one.last, at_or_before)


def test_a_time_set_into_the_future_does_not_stretch_the_range():
    made = points(history([[1 * SECOND], [10**9 * SECOND], []], exact=False))
    made = [replace(point, written_us=5 * SECOND) for point in made]
    [found] = ranges([backup("a", 0)], made, at_or_before)
    assert found.last_us == 5 * SECOND


def test_a_time_set_into_the_past_does_not_shorten_it():
    [found] = ranges([backup("a", 0)], points(history([[9 * SECOND], [1]], exact=False)), at_or_before)
    assert found.last_us == 9 * SECOND


def test_no_backup_no_range():
    assert ranges([], SLICES, at_or_before) == []
    assert run_from(SLICES[2:], at(3), at_or_before) == []


def test_it_grows_linearly_and_asks_for_few_orders():
    slices = slices_of(*[1] * 20_000)
    asked = []

    def counted(one, other):
        asked.append(1)
        return at_or_before(one, other)

    began = time.process_time()
    found = plan([backup("b", 0)], slices, at(19_999), counted)
    assert len(found.slices) == 19_999 and len(asked) < 60
    assert time.process_time() - began < 1
