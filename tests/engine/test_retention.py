"""Retention: no kept restore point loses what it needs, nothing that nobody needs stays for ever."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backups.engine import layout
from backups.engine.errors import NotCovered
from backups.engine.plan import plan
from backups.engine.retention import decide, orphans, spare, surplus
from storages.stores.base import ObjectInfo
from tests.engine.histories import DATABASE, OTHER_TIMELINE, TIMELINE, at, backup, engine, history, points

at_or_before = engine.at_or_before
SLICES = points(history([[1] * 5] * 4))  # ends: 5, 10, 15, 20


def ids(backups):
    return sorted(point.id for point in backups)


def ends(slices):
    return [point.end["at"] for point in slices]


class TestCopies:
    backups = [backup(f"{schedule}{n}", n, schedule=schedule) for schedule in "de" for n in range(5)]

    def test_each_schedule_keeps_its_newest(self):
        assert ids(surplus(self.backups, {"d": 2, "e": 4})) == ["d0", "d1", "d2", "e0"]

    @pytest.mark.parametrize("copies", [{}, {"d": 0}, {"d": 5}, {"another": 1}])
    def test_all_stay_without_a_number_that_says_otherwise(self, copies):
        assert surplus(self.backups, copies) == []

    def test_pinned_ones_stay_besides_the_copies(self):
        made = [backup(str(n), n, schedule="d", pinned=n == 3) for n in range(5)]
        assert ids(surplus(made, {"d": 2})) == ["0", "1"]

    def test_backups_by_hand_stay(self):
        assert surplus([backup("a", 1), backup("b", 2)], {"": 1}) == []


class TestSlices:
    def spare(self, *backups, open_timelines=(TIMELINE,), slices=SLICES):
        return ends(spare(backups, slices, at_or_before, open_timelines))

    @pytest.mark.parametrize(
        ("place", "going"), [(0, []), (4, []), (5, [5]), (7, [5]), (12, [5, 10]), (20, [5, 10, 15])]
    )
    def test_what_ends_at_or_before_the_oldest_kept_backup_goes(self, place, going):
        assert self.spare(backup("a", place), backup("b", 20)) == going

    def test_the_newest_slice_of_an_open_timeline_stays_to_resume_from(self):
        assert self.spare() == [5, 10, 15]
        assert self.spare(open_timelines=()) == [5, 10, 15, 20]

    def test_nothing_goes_from_behind_a_slice_that_stays(self):
        odd = [replace(point, end=at(99)) if point.sequence == 1 else point for point in SLICES]
        assert self.spare(backup("a", 16), slices=odd) == [5]

    def test_timelines_do_not_keep_each_other(self):
        assert self.spare(backup("a", 0, timeline=OTHER_TIMELINE), open_timelines=()) == [5, 10, 15, 20]


class TestDecide:
    def decide(self, backups, **how):
        how = {"copies": {}, "open_timelines": [TIMELINE], "at_or_before": at_or_before} | how
        found = decide(backups, SLICES, **how)
        return ids(found.backups), ends(found.slices)

    def test_a_deleted_backup_takes_its_slices_along(self):
        backups = [backup("a", 2), backup("b", 12)]
        assert self.decide(backups) == ([], [])
        assert self.decide(backups, unwanted=["a"]) == (["a"], [5, 10])

    def test_nothing_of_a_live_job_goes(self):
        backups = [backup("a", 2), backup("b", 12)]
        assert self.decide(backups, unwanted=["a"], busy=["a"]) == ([], [])
        assert self.decide(backups, unwanted=["a"], busy=[TIMELINE]) == ([], [])
        assert self.decide([]) == ([], [5, 10, 15]) and self.decide([], busy=[TIMELINE]) == ([], [])


@st.composite
def worlds(draw):
    """Backups of several schedules and slices with holes, on two timelines."""
    backups = [
        backup(
            f"{timeline[-1]}{n}",
            draw(st.integers(0, 20)),
            timeline=timeline,
            schedule=draw(st.sampled_from(["", "daily", "hourly", "gone"])),
            pinned=draw(st.booleans()) and draw(st.booleans()),
        )
        for timeline in (TIMELINE, OTHER_TIMELINE)
        for n in range(draw(st.integers(0, 5)))
    ]
    slices = [
        point
        for timeline in (TIMELINE, OTHER_TIMELINE)
        for point in points(history(draw(st.lists(st.lists(st.just(1), max_size=4), max_size=8)), timeline=timeline))
        if draw(st.integers(0, 5))
    ]
    names = [point.id for point in backups] + [TIMELINE, OTHER_TIMELINE]
    return {
        "backups": backups,
        "slices": slices,
        "copies": {"daily": draw(st.integers(0, 3)), "hourly": draw(st.integers(0, 3))},
        "open_timelines": draw(st.sets(st.sampled_from([TIMELINE, OTHER_TIMELINE]))),
        "unwanted": draw(st.sets(st.sampled_from(names))),
        "busy": draw(st.sets(st.sampled_from(names), max_size=2)),
    }


def restorable(backups, slices):
    """Every (timeline, backup, target) that can be planned."""
    found = set()
    for timeline in (TIMELINE, OTHER_TIMELINE):
        here = [point for point in slices if point.timeline == timeline]
        for one in (point for point in backups if point.timeline == timeline):
            for target in range(one.position["at"], 33):
                try:
                    plan([one], here, at(target), at_or_before)
                except NotCovered:
                    break
                found.add((timeline, one.id, target))
    return found


class TestAnyHistory:
    def after(self, world):
        gone = decide(at_or_before=at_or_before, **world)
        backups = [point for point in world["backups"] if point not in gone.backups]
        slices = [point for point in world["slices"] if point not in gone.slices]
        return gone, backups, slices

    @given(worlds())
    def test_a_kept_backup_can_be_restored_to_every_moment_as_before(self, world):
        _, backups, slices = self.after(world)
        assert restorable(backups, slices) == restorable(backups, world["slices"])

    @given(worlds())
    def test_only_surplus_and_unwanted_backups_go(self, world):
        gone, _, _ = self.after(world)
        for one in gone.backups:
            assert one.id in world["unwanted"] or (world["copies"].get(one.schedule) and not one.pinned)
            assert one.id not in world["busy"] and one.timeline not in world["busy"]

    @given(worlds())
    def test_every_slice_that_stays_is_needed_or_resumed_from_or_busy(self, world):
        _, backups, slices = self.after(world)
        for one in slices:
            kept = [point for point in backups if point.timeline == one.timeline]
            newest = max(point.sequence for point in slices if point.timeline == one.timeline)
            assert (
                any(point.position["at"] < one.end["at"] for point in kept)
                or (one.timeline in world["open_timelines"] and one.sequence == newest)
                or one.timeline in world["busy"]
            )

    @given(worlds())
    def test_deciding_twice_finds_nothing_more(self, world):
        _, backups, slices = self.after(world)
        again = decide(at_or_before=at_or_before, **world | {"backups": backups, "slices": slices})
        assert again.slices == () and all(one.id in world["unwanted"] for one in again.backups)

    @given(worlds(), st.integers(0, 8))
    def test_a_crash_after_some_slices_leaves_what_a_second_run_finishes(self, world, done):
        gone, backups, slices = self.after(world)
        left = [point for point in world["slices"] if point not in gone.slices[:done]]
        again = decide(at_or_before=at_or_before, **world | {"backups": backups, "slices": left})
        assert [point for point in left if point not in again.slices] == slices


NOW = datetime(2026, 1, 31, tzinfo=UTC)
BACKUP = "00000000-0000-4000-8000-0000000000b1"


class TestOrphans:
    def find(self, *keys, named=(), age=timedelta(days=8), busy=()):
        listing = [ObjectInfo(key, 1, NOW - age) for key in keys]
        asked = []
        found = orphans(listing, lambda marker: asked.append(marker) or named, NOW, busy)
        return found, asked

    data = layout.slice_data(DATABASE, TIMELINE, 0, 7)
    twin = layout.slice_data(DATABASE, TIMELINE, 0, 7)
    index = layout.index(DATABASE, TIMELINE, 0, 7)
    rows = layout.backup_data(DATABASE, TIMELINE, BACKUP, "t1", "tsv")
    manifest = layout.manifest(DATABASE, TIMELINE, BACKUP)

    def test_data_without_its_marker_goes_after_seven_days(self):
        assert self.find(self.data, self.rows)[0] == [self.data, self.rows]
        assert self.find(self.data, self.rows, age=timedelta(days=7))[0] == []

    def test_data_with_its_marker_stays(self):
        assert self.find(self.data, self.index) == ([], [])
        assert self.find(self.rows, self.manifest, named=[self.rows])[0] == []

    def test_of_two_tries_the_one_that_the_index_names_stays(self):
        assert self.find(self.data, self.twin, self.index, named=[self.data]) == ([self.twin], [self.index])

    def test_what_an_earlier_run_of_a_backup_left_goes(self):
        assert self.find(self.rows, self.manifest, named=[]) == ([self.rows], [self.manifest])

    def test_nothing_of_a_backup_that_is_being_taken_goes(self):
        assert self.find(self.rows, busy=[BACKUP])[0] == []

    def test_other_peoples_objects_stay(self):
        assert self.find("somebody/else", f"v1/{DATABASE}/notes.txt")[0] == []

    def test_markers_are_never_orphans(self):
        assert self.find(self.index, self.manifest, layout.database_record(DATABASE))[0] == []
