"""Effective commit times: outliers are seen, everything else stays."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backups.engine.times import TOLERANCE_US, effective
from tests.engine.histories import SECOND

DAY = 86_400 * SECOND
NOON = 20_000 * DAY + DAY // 2
YEAR_2038 = 2**31 * SECOND


def seconds(*values):
    return [NOON + value * SECOND for value in values]


def alone(times):
    return effective([], times, [])


@given(st.lists(st.integers(0, 2**50)))
def test_ordered_times_stay_whatever_lies_between_them(times):
    assert alone(sorted(times)) == sorted(times)


@given(st.lists(st.integers(0, TOLERANCE_US), max_size=40))
def test_a_minutes_disorder_stays(times):
    assert alone(times) == times


@pytest.mark.parametrize("outlier", [YEAR_2038, 0, NOON + 61 * SECOND + 30 * SECOND, NOON - 100 * SECOND])
@pytest.mark.parametrize("place", [1, 5, 15, 29])
def test_one_time_set_into_the_future_or_the_past_is_seen(outlier, place):
    times = seconds(*range(31))
    times[place] = outlier
    found = alone(times)
    assert found[:place] == times[:place] and found[place + 1 :] == times[place + 1 :]
    assert times[place - 1] <= found[place] <= times[place + 1]


def test_in_a_log_of_three_the_one_in_the_middle_is_seen():
    assert alone([NOON, YEAR_2038, NOON + SECOND]) == [NOON, NOON + SECOND, NOON + SECOND]
    assert alone([NOON, 0, NOON + SECOND]) == [NOON, NOON, NOON + SECOND]


def test_several_in_a_row_are_seen():
    times = seconds(*range(40))
    times[15:20] = [YEAR_2038] * 5
    assert all(NOON <= time <= NOON + 40 * SECOND for time in alone(times))


def test_idle_hours_stay():
    times = seconds(*range(12), *range(36_000, 36_012))
    assert alone(times) == times


def test_statements_that_finish_out_of_order_before_idle_hours_stay():
    times = seconds(0, 9, 6, 7, *range(36_000, 36_012))
    assert alone(times) == times


def test_a_minute_around_the_median_stays_however_the_rest_is_ordered():
    times = seconds(500, 400, 300, 250, 120, 0, 1, 2, 3, 175, 100)
    assert alone(times)[9] == times[9]


def test_an_outlier_before_idle_hours_does_not_move_past_them():
    times = [*seconds(*range(5)), YEAR_2038, *seconds(6, 7, *range(36_000, 36_012))]
    assert alone(times)[5] == NOON + 6 * SECOND


@pytest.mark.parametrize("step", [90, 3600, 86_400])
def test_a_clock_that_was_stepped_back_keeps_its_times(step):
    times = seconds(*range(1000, 1030), *range(1030 - step, 1060 - step))
    assert alone(times) == times


@given(st.lists(st.integers(0, 10**10), min_size=1, max_size=60), st.data())
def test_a_cut_into_slices_changes_nothing(times, data):
    cut = data.draw(st.integers(0, len(times)))
    assert effective([], times[:cut], times[cut:]) + effective(times[:cut], times[cut:], []) == alone(times)


@given(st.lists(st.integers(0, 10**10), min_size=1, max_size=60))
def test_an_effective_time_is_one_that_was_recorded_nearby(times):
    for place, time in enumerate(alone(times)):
        assert time in times[max(place - 10, 0) : place + 11]
