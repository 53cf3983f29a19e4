"""Moments: from a time or a GTID to one exact transaction, reading no more indexes than needed."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from backups.engine.errors import NotCovered
from backups.engine.moments import at_gtid, at_time, before_gtid, latest, transactions
from backups.engine.plan import run_from
from backups.engine.times import effective
from backups.engine.types import Change
from tests.engine import histories
from tests.engine.histories import SECOND, Loader, backup, engine, history, number, points

NOON = 20_000 * 86_400 * SECOND


class Log:
    """Slices of transactions committed at these seconds after noon, and a backup that has the first `has` of them."""

    def __init__(self, *slices, exact=True, has=0, view=-1):
        self.indexes = history([[NOON + time * SECOND for time in times] for times in slices], exact=exact)
        self.load = Loader(self.indexes)
        self.floor = backup("floor", has, view_us=NOON + view * SECOND)

    def ask(self, function, *what, **more):
        return function(points(self.indexes), self.load, *what, self.floor, engine, **more)

    def at(self, second, caught_up=None):
        until = None if caught_up is None else NOON + caught_up * SECOND
        return shown(self.ask(at_time, int(NOON + second * SECOND), caught_up_us=until))


def shown(moment):
    """(place, last, next) as transaction numbers, 0 for none; the place is just after the last one applied."""
    last, following = (number(one) if one else 0 for one in (moment.last, moment.next))
    return moment.position["at"], last, following


class TestAtTime:
    log = Log([0, 1], [2, 3], [4])

    @pytest.mark.parametrize(("second", "expected"), [(0.5, (1, 1, 2)), (1.5, (2, 2, 3)), (3.999999, (4, 4, 5))])
    def test_between_two_transactions(self, second, expected):
        assert self.log.at(second) == expected

    @pytest.mark.parametrize(("second", "expected"), [(0, (1, 1, 2)), (2, (3, 3, 4)), (4, (5, 5, 0))])
    def test_exactly_t_is_included(self, second, expected):
        assert self.log.at(second) == expected

    def test_a_microsecond_less_is_not(self):
        assert self.log.at(1.999999) == (2, 2, 3)

    def test_equal_times_go_together(self):
        log = Log([0, 1, 1], [1, 1, 2])
        assert log.at(1) == (5, 5, 6) and log.at(0.5) == (1, 1, 2)

    def test_before_the_first_transaction_nothing_is_applied(self):
        assert self.log.at(-0.5) == (0, 0, 1)

    def test_before_the_backup_is_refused_with_the_range(self):
        with pytest.raises(NotCovered, match=r"before the oldest backup.*11:59:59\.000000 to .*12:00:04"):
            Log([43_200], [43_204], view=43_199).at(43_198)

    def test_after_what_is_known_is_refused(self):
        with pytest.raises(NotCovered, match="after what is known"):
            self.log.at(4.000001)

    def test_unless_the_server_was_seen_idle_until_then(self):
        assert self.log.at(60, caught_up=60) == (5, 5, 0)
        with pytest.raises(NotCovered):
            self.log.at(61, caught_up=60)

    def test_a_log_without_transactions(self):
        assert Log().at(-1) == (0, 0, 0)
        assert Log([], []).at(5, caught_up=5) == (0, 0, 0)
        with pytest.raises(NotCovered):
            Log([]).at(0)

    def test_slices_without_transactions_are_stepped_over(self):
        log = Log([0], [], [], [5], [])
        assert log.at(3) == (1, 1, 2) and log.at(5) == (2, 2, 0)

    def test_what_the_backup_has_counts_neither_as_last_nor_as_next(self):
        log = Log([0, 1, 2], [3], has=2, view=1.5)
        assert log.at(1.6) == (2, 0, 3) and log.at(2) == (3, 3, 4) and log.at(3) == (4, 4, 0)

    def test_a_backup_at_the_end_of_the_log(self):
        log = Log([0, 1], has=2, view=1.5)
        assert log.at(1.5) == (2, 0, 0) and log.at(9, caught_up=9) == (2, 0, 0)

    def test_a_hole_ends_what_is_known(self):
        log = Log([0], [1], [2])
        del log.indexes[1]
        assert log.at(0) == (1, 1, 0)
        with pytest.raises(NotCovered):
            log.at(2)

    def test_idle_hours(self):
        for exact in (True, False):
            log = Log(range(12), range(36_000, 36_012), exact=exact)
            assert log.at(18_000) == (12, 12, 13)


class TestTimesThatAreNotToBeTrusted:
    FUTURE, PAST = 10**8, -10**8

    @pytest.mark.parametrize("outlier", [FUTURE, PAST])
    @pytest.mark.parametrize("second", [14, 20, 29])
    def test_set_timestamp_neither_stops_short_nor_runs_past(self, outlier, second):
        times = list(range(30))
        times[17] = outlier
        log = Log(*[times[start : start + 3] for start in range(0, 30, 3)], exact=False)
        assert log.at(second) == (second + 1, second + 1, (second + 2) % 31)

    def test_a_future_time_alone_is_no_reason_to_promise_the_future(self):
        times = list(range(30))
        times[17] = self.FUTURE
        with pytest.raises(NotCovered):
            Log(times, exact=False).at(self.FUTURE - 1)

    def test_a_clock_that_stepped_back_stops_at_the_first_after_t(self):
        for exact in (True, False):
            log = Log(range(1000, 1030), range(0, 30), exact=exact)
            assert log.at(1010) == (11, 11, 12)
            assert log.at(1029) == (60, 60, 0)

    def test_recorded_microseconds_are_never_second_guessed(self):
        log = Log([0, 1, self.FUTURE, 2, 3])
        assert log.at(2) == (2, 2, 3)

    def test_the_neighbours_are_shown_with_the_times_that_decided(self):
        moment = Log([0, 1, self.FUTURE, 2, 3], exact=False).ask(at_time, NOON + 2 * SECOND)
        assert [moment.last.time_us, moment.next.time_us] == [NOON + 2 * SECOND, NOON + 3 * SECOND]


class TestReading:
    def test_only_the_deciding_slices_are_read(self):
        log = Log(*[[second] for second in range(1000)])
        assert log.at(500.5) == (501, 501, 502)
        assert set(log.load.read) <= {500, 501}

    def test_neighbours_too_where_times_are_not_exact(self):
        log = Log(*[[second] for second in range(1000)], exact=False)
        assert log.at(500.5) == (501, 501, 502)
        assert len(set(log.load.read)) <= 32

    def test_a_gtid_is_found_by_positions(self):
        log = Log(*[[second] for second in range(1000)])
        assert shown(log.ask(before_gtid, "gtid:700")) == (699, 699, 700)
        assert set(log.load.read) <= {0, 698, 699}

    @example([[100, 200], [0], [1000, 1100, 1200, 1300]], False, 500, 0)  # 0 is out of place: it counts as 1000
    @given(
        st.lists(st.lists(st.integers(0, 2000), max_size=8), max_size=8),
        st.booleans(),
        st.integers(0, 2000),
        st.integers(0, 12),
    )
    def test_reading_little_gives_what_reading_all_gives(self, slices, exact, second, has):
        times = [time for one in slices for time in one]
        log = Log(*slices, exact=exact, has=min(has, len(times)))
        run = run_from(points(log.indexes), log.floor.position, engine.at_or_before)
        first = run[0].start["at"] if run else 0
        micros = [time * SECOND for time in times[first:]]
        trusted = micros if exact else effective([], micros, [])
        has = log.floor.position["at"]
        later = [n for n, time in enumerate(trusted, first + 1) if n > has and time > second * SECOND]
        end = later[0] - 1 if later else len(times)
        expected = (end, end if end > has else 0, later[0] if later else 0)
        assert log.at(second, caught_up=2000) == expected


class TestGtid:
    log = Log([0, 1], [], [2, 3], has=1)

    def test_up_to_and_just_before(self):
        assert shown(self.log.ask(at_gtid, "gtid:3")) == (3, 3, 4)
        assert shown(self.log.ask(before_gtid, "gtid:3")) == (2, 2, 3)
        assert shown(self.log.ask(at_gtid, "gtid:4")) == (4, 4, 0)

    def test_just_before_the_first_after_the_backup_is_the_backup(self):
        assert shown(self.log.ask(before_gtid, "gtid:2")) == (1, 0, 2)

    def test_people_write_in_capitals_and_with_spaces(self):
        assert shown(self.log.ask(at_gtid, " GTID:3 ")) == (3, 3, 4)

    def test_one_that_the_backup_has_is_refused(self):
        with pytest.raises(NotCovered, match="in the oldest backup already"):
            self.log.ask(at_gtid, "gtid:1")

    def test_one_that_is_not_there_is_refused_with_the_range(self):
        with pytest.raises(NotCovered, match=r"not in the storage.*Restorable"):
            self.log.ask(before_gtid, "gtid:99")


class TestLatest:
    def test_it_is_the_end_of_the_gapless_run(self):
        log = Log([0, 1], [2], [])
        assert shown(log.ask(latest)) == (3, 3, 0)
        del log.indexes[1]
        assert shown(log.ask(latest)) == (2, 2, 0)

    def test_with_nothing_after_the_backup_it_is_the_backup(self):
        assert shown(Log().ask(latest)) == (0, 0, 0)
        assert shown(Log([0, 1], has=2).ask(latest)) == (2, 0, 0)

    def test_other_timelines_do_not_count(self):
        log = Log([0], [1])
        log.indexes.append(histories.index(2, [NOON + 9 * SECOND], 2, timeline=histories.OTHER_TIMELINE))
        assert shown(log.ask(latest)) == (2, 2, 0)


class TestTransactions:
    def make(self):
        log = Log([0, 1], [2, 3], [4])
        one, two = log.indexes[0].transactions
        three, four = log.indexes[1].transactions
        object.__setattr__(one, "changes", (Change("shop", "orders", 1), Change("shop", "lines", 0, 2)))
        object.__setattr__(two, "ddl", "DROP TABLE `shop`.`orders`")
        object.__setattr__(three, "changes", (Change("other", "orders", 0, 0, 3),))
        object.__setattr__(four, "xa", "prepare X'61',X'',1")
        return log

    def seen(self, log, since, until, **how):
        found = transactions(points(log.indexes), log.load, NOON + since * SECOND, NOON + until * SECOND, **how)
        return [number(one) for one in found]

    def test_a_window_includes_both_its_ends_and_reads_only_itself(self):
        log = self.make()
        assert self.seen(log, 1, 2) == [2, 3] and set(log.load.read) == {0, 1}

    @pytest.mark.parametrize(
        ("how", "expected"),
        [
            ({"table": "shop.orders"}, [1, 2]),
            ({"table": "orders"}, [1, 2, 3]),
            ({"table": "lines"}, [1]),
            ({"table": "order"}, []),
            ({"kind": "insert"}, [1]),
            ({"kind": "delete"}, [3]),
            ({"kind": "ddl"}, [2]),
            ({"kind": "xa"}, [4]),
            ({"kind": "ddl", "table": "lines"}, []),
        ],
    )
    def test_by_table_and_kind(self, how, expected):
        assert self.seen(self.make(), 0, 9, **how) == expected

    def test_effective_times_decide_and_are_told(self):
        log = Log([0, 1, 10**8], [2, 3], exact=False)
        found = list(transactions(points(log.indexes), log.load, NOON, NOON + 9 * SECOND))
        assert [number(one) for one in found] == [1, 2, 3, 4, 5]
        assert found[2].time_us == NOON + 2 * SECOND
