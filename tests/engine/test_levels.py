"""Levels: small slices become few, and no moment is ever answered in another way or lost by it."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backups.engine import levels, moments
from backups.engine.errors import NotCovered
from backups.engine.levels import due, held, makes_up, next_us
from backups.engine.plan import cover, in_order, plan, ranges
from backups.engine.retention import spare, spoilt_copies, superseded
from backups.engine.slices import point
from tests.engine import histories
from tests.engine.histories import SECOND, TIMELINE, at, backup, engine, index, merged, points

DAY = 86_400 * SECOND
NOON = 20_000 * DAY + DAY // 2
at_or_before = engine.at_or_before


def written(*seconds, **more):
    """Slices of one transaction each, written so many seconds after noon."""
    made = histories.history([[NOON + second * SECOND] for second in seconds])
    return [replace(one, written_us=NOON + second * SECOND, **more) for one, second in zip(made, seconds, strict=True)]


def groups(slices, second, **how):
    """(level, first, last sequence) of each group that is due so many seconds after noon."""
    found = due(in_order(slices), NOON + second * SECOND, **how)
    return [(group.level, group.parts[0].sequence, group.parts[-1].last) for group in found]


class TestDue:
    slices = points(written(0, 10, 590, 600, 610, 7199, 7200, 7300))

    @pytest.mark.parametrize(
        ("second", "expected"),
        [
            (599, []),
            (600, [(1, 0, 2)]),
            (1200, [(1, 0, 2), (1, 3, 4)]),
            (7200, [(2, 0, 5)]),
            (7800, [(2, 0, 5), (1, 6, 7)]),
            (43_200, [(3, 0, 7)]),
        ],
    )
    def test_a_slice_goes_into_the_highest_level_whose_window_is_over(self, second, expected):
        assert groups(self.slices, second) == expected

    def test_slices_of_lower_levels_go_together_into_a_higher_one(self):
        made = written(0, 10, 600, 610, 1200)
        several = points([*made, merged(1, made[:2]), merged(1, made[2:4])])
        assert groups(several, 7199) == []
        [group] = due(in_order(several), NOON + 7200 * SECOND)
        assert [(one.level, one.sequence) for one in group.parts] == [(1, 0), (1, 2), (0, 4)]

    def test_what_is_merged_stays_as_it_is(self):
        made = written(0, 10, 86_400)
        assert groups(points([*made, merged(3, made[:2])]), 200_000) == []

    def test_one_slice_is_not_written_again(self):
        assert groups(self.slices[:1], 100_000) == []

    def test_bounds_of_bytes_and_transactions(self, monkeypatch):
        monkeypatch.setattr(levels, "MOST_TRANSACTIONS", 3)
        assert groups(self.slices, 43_200) == [(3, 0, 2), (3, 3, 5), (3, 6, 7)]
        monkeypatch.setattr(levels, "MOST_BYTES", 20)
        assert groups(self.slices, 43_200) == [(3, 0, 1), (3, 2, 3), (3, 4, 5), (3, 6, 7)]
        large = [replace(one, raw_size=21) if one.sequence == 3 else one for one in self.slices]
        assert groups(large, 43_200) == [(3, 0, 1), (3, 4, 5), (3, 6, 7)]

    @pytest.mark.parametrize(
        "changed", [{"storage": "another"}, {"exact_times": False}, {"start": {"at": 3, "file": "other"}}]
    )
    def test_what_does_not_follow_or_lies_elsewhere_begins_a_group(self, changed):
        odd = [replace(one, **changed) if one.sequence >= 3 else one for one in self.slices]
        first = groups(odd, 43_200)[0]
        assert first == (3, 0, 2)

    def test_a_hole_is_never_merged_over(self):
        assert groups([one for one in self.slices if one.sequence != 2], 43_200) == [(3, 0, 1), (3, 3, 7)]

    def test_what_was_seen_not_to_join_begins_a_group(self):
        assert groups(self.slices, 43_200, apart={self.slices[4].key}) == [(3, 0, 3), (3, 4, 7)]

    def test_the_next_window_that_ends(self):
        newest = self.slices[0]
        assert [next_us(newest, NOON + second * SECOND) for second in (0, 600, 7200, 43_200)] == [
            NOON + 600 * SECOND, NOON + 7200 * SECOND, NOON + 43_200 * SECOND, None,
        ]  # fmt: skip


def test_who_holds_what():
    made = written(0, 1, 2, 3)
    small, large, larger = points(made), point(merged(1, made[1:3]), "store"), point(merged(2, made[:3]), "store")
    assert list(held(in_order([*small, large]))) == [(large, small[1:3])]
    assert list(held(in_order([*small, large, larger]))) == [(larger, [small[0], large, *small[1:3]])]
    assert list(cover(in_order([*small, large]))) == [small[0], large, small[3]]
    assert makes_up(small[1:3], large) and not makes_up(small[1:2], large) and not makes_up(small[2:3], large)


class TestGivingUp:
    made = written(0, 1, 2, 3)
    small = points(made)
    large = point(merged(1, made[:3]), "store")

    def test_only_what_a_proven_one_holds(self):
        assert superseded([*self.small, self.large], [], 3) == []
        assert superseded([*self.small, self.large], [self.large.key], 3) == self.small[:3]

    def test_the_newest_of_level_0_stays_to_resume_from(self):
        whole = point(merged(1, self.made), "store")
        assert superseded([*self.small, whole], [whole.key], 3) == self.small[:3]

    def test_a_damaged_one_goes_while_all_that_it_holds_is_there(self):
        assert spoilt_copies([*self.small, self.large], [self.large.key]) == [self.large]
        assert spoilt_copies([*self.small[1:], self.large], [self.large.key]) == []
        assert spoilt_copies([*self.small, self.large], [self.large.key, self.small[1].key]) == []


class World:
    """A bucket and a catalogue of one timeline, with everything that may happen to them, crashes included."""

    def __init__(self, exact):
        self.exact = exact
        self.every = []  # what was ever shipped, level 0
        self.bucket = {}  # key -> index
        self.rows = {}

    def ship(self, times, written_us):
        start = self.every[-1].end["at"] if self.every else 0
        made = replace(index(len(self.every), times, start, exact=self.exact), written_us=written_us)
        self.every.append(made)
        self.bucket[made.key] = self.rows[made.key] = made

    def merge(self, group, cut, crash):
        """`cut`: of so many parts the log is one file.  A run that is killed leaves no row."""
        made = merged(group.level, [self.bucket[one.key] for one in group.parts[:cut]])
        made = self.bucket.setdefault(made.key, made)
        if not crash:
            self.rows[made.key] = made

    def give_up(self, slices, kept):
        """`kept`: keys that the storage did not come to delete; then no row goes either."""
        for one in slices:
            if one.key not in kept:
                self.bucket.pop(one.key, None)
        if not kept:
            for one in slices:
                del self.rows[one.key]


@st.composite
def worlds(draw):
    """(world, backups): after any interleaving of shipping, merging, giving up and crashes."""
    world = World(draw(st.booleans()))
    clock = NOON
    backups = [backup("b0", 0, view_us=NOON)]
    for step in range(draw(st.integers(1, 12))):
        for _ in range(draw(st.integers(0, 6))):
            clock += draw(st.sampled_from([1, 300, 4000, 50_000])) * SECOND
            times = [clock + draw(st.integers(-3, 3)) * SECOND for _ in range(draw(st.integers(0, 3)))]
            world.ship(sorted(times) if world.exact else times, clock)
        known = in_order(points(world.rows.values()))
        found = list(due(known, clock))
        for group in found:
            if draw(st.booleans()):
                world.merge(group, draw(st.integers(2, len(group.parts))), draw(st.booleans()))
        known = in_order(points(world.rows.values()))
        proven = {one.key for one in known if one.level and draw(st.booleans())}
        going = superseded(known, proven, len(world.every) - 1)
        world.give_up(going, {one.key for one in going if draw(st.integers(0, 3)) == 0})
        if draw(st.booleans()) and world.every:
            backups.append(backup(f"b{step + 1}", world.every[-1].end["at"], view_us=clock))
    return world, backups


def answers(known, loaded, backups):
    """What is asked of a history: moments by time and identity, and whether a plan reaches each place."""
    floor, end = backups[0], max((one.end["at"] for one in known), default=0)
    load = histories.Loader(loaded)
    found = {}
    times = sorted({one.time_us for index in loaded for one in index.transactions})
    for time_us in {time + off for time in times for off in (-1, 0, 1)} | {NOON}:
        found["time", time_us] = asked(moments.at_time, known, load, time_us, floor, engine)
    for number in range(end + 2):
        found["gtid", number] = asked(moments.at_gtid, known, load, f"gtid:{number}", floor, engine)
        found["before", number] = asked(moments.before_gtid, known, load, f"gtid:{number}", floor, engine)
        for one in backups:
            found["plan", one.id, number] = asked(plan, [one], known, at(number), at_or_before)
    found["latest"] = asked(moments.latest, known, load, floor, engine)
    return found


def asked(function, *what):
    """A moment by what comes before and after it; of a plan only that there is one."""
    try:
        found = function(*what)
    except NotCovered:
        return None
    if hasattr(found, "slices"):
        for before, after in pairwise(found.slices):
            assert (before.end, before.last + 1) == (after.start, after.sequence)
        return True
    return found.position, *(one and one.identity for one in (found.last, found.next))


few = settings(max_examples=40)


class TestAnyHistory:
    @few
    @given(worlds())
    def test_every_moment_is_answered_as_if_nothing_was_merged(self, made):
        world, backups = made
        unmerged = answers(points(world.every), world.every, backups)
        assert answers(points(world.rows.values()), world.bucket.values(), backups) == unmerged
        assert answers(points(world.bucket.values()), world.bucket.values(), backups) == unmerged

    @few
    @given(worlds())
    def test_no_plan_needs_an_object_that_was_given_up(self, made):
        world, backups = made
        known = points(world.rows.values())
        for one in backups:
            for number in range(one.position["at"], world.every[-1].end["at"] + 1 if world.every else 0):
                for used in plan([one], known, at(number), at_or_before).slices:
                    assert used.key in world.bucket

    @few
    @given(worlds())
    def test_what_pages_promise_stays(self, made):
        world, backups = made

        def shown(known):
            found = ranges(backups, known, at_or_before)
            return [(one.first_us, one.last, one.last_us if world.exact else 0) for one in found]

        assert shown(points(world.rows.values())) == shown(points(world.every))

    @few
    @given(worlds())
    def test_the_newest_slice_of_level_0_is_always_there(self, made):
        world, _ = made
        assert not world.every or world.every[-1].key in world.bucket

    @few
    @given(worlds(), st.integers(0, 99))
    def test_retention_from_the_front_takes_nothing_that_a_kept_backup_needs(self, made, share):
        world, backups = made
        kept = backups[len(backups) * share // 100 :]
        known = points(world.rows.values())
        gone = {one.key for one in spare(kept, known, at_or_before, [TIMELINE])}
        for one in kept:
            for number in range(one.position["at"], world.every[-1].end["at"] + 1 if world.every else 0):
                assert plan([one], [left for left in known if left.key not in gone], at(number), at_or_before)


def test_many_slices_are_gone_through_once():
    made = (
        replace(one, written_us=NOON + one.sequence * 10 * SECOND, raw_size=2000)
        for sequence in range(3 * 8640)
        for one in points([index(sequence, [NOON + sequence], sequence)])
    )
    found = list(due(made, NOON + 4 * DAY))
    assert [len(group.parts) for group in found] == [4320, 8640, 8640, 4320]
