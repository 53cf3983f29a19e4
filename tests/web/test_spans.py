"""What pages show of the ranges that can be restored is kept in rows, and equal to what the plan says of all rows."""

import random
from types import SimpleNamespace

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from backups.engine import plan
from backups.models import Backup, Slice, Timeline
from backups.models.timeline import to_us
from backups.ticking import respan_timelines
from tests.web import story

pytestmark = pytest.mark.django_db


class History:
    """One timeline to which random things happen."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.storage = story.storage()
        self.database = story.database()
        self.line = Timeline.open(self.database, story.SERVER, story.place(1))
        self.sequence, self.shipped = 0, 1
        self.clock = to_us(timezone.now())

    def slice(self):
        """Of 0 to 3 transactions; now and then the clock was set back."""
        self.record(self.sequence, self.shipped, self.random.randrange(4))

    def record(self, sequence, start, count):
        self.clock += self.random.choice([5, 5, 5, 5, -60]) * 1_000_000
        end = start + max(count, 1)
        index = SimpleNamespace(
            level=0, sequence=sequence, key=f"{sequence}", previous="", start=story.place(start), end=story.place(end),
            transactions=[SimpleNamespace(time_us=self.clock)] * count, data=SimpleNamespace(size=1), raw_size=1,
            exact_times=self.random.random() < 0.5, written_us=self.clock + self.random.choice([-1, 1]) * 10**7,
            holds=1, times=[self.clock] * count,
        )  # fmt: skip
        Slice.record(self.line, self.storage, index)
        self.sequence, self.shipped = sequence + 1, end

    def hole(self):
        """An object was lost: the chain is broken."""
        self.record(self.sequence + 1, self.shipped + 2, 2)

    def late_slice(self):
        sequence, shipped = self.sequence, self.shipped
        self.hole()
        self.record(sequence, shipped, 2)
        self.sequence, self.shipped = sequence + 2, shipped + 4

    def backup(self):
        """Mostly a little ahead of what is shipped, sometimes behind."""
        place = max(self.shipped + self.random.randrange(-6, 8), 1)
        name = f"b{Backup.objects.count()}-{self.random.random()}"
        row = story.backup(self.database, self.storage, name, position=0, line=self.line, state="running")
        self.clock += 1_000_000
        times = dict.fromkeys(["view_us", "started_us", "finished_us"], self.clock)
        manifest = SimpleNamespace(position=story.place(place), size=1, rows=1, **times)
        row.take_over(manifest, "key")
        if self.random.random() < 0.8:
            self.line.respan()

    def deletion(self):
        if taken := list(self.database.backups.filter(state="succeeded").order_by("view_at")):
            self.random.choice(taken).request_delete()
            respan_timelines()

    def drop_from_the_front(self):
        oldest = self.line.slices.order_by("sequence").first()
        if oldest and self.line.slices.count() > 3:
            oldest.delete()
            Timeline.unspan(pk=self.line.pk)

    def check(self):
        self.line.refresh_from_db()
        if self.line.spanned:
            assert [self.shown(one) for one in self.line.kept_spans()] == self.planned()
        assert [(one.first_us, one.last_us) for one in self.database.ranges()] == [one[1:3] for one in self.planned()]

    def planned(self):
        points = self.line.backup_points(), self.line.slice_points()
        return [self.said(one) for one in plan.ranges(*points, self.line.at_or_before)]

    @staticmethod
    def said(one):
        return one.first.id, one.first_us, one.last_us, dict(one.last), one.end and dict(one.end), one.near

    def shown(self, span):
        return self.said(span.range())


@pytest.mark.parametrize("seed", range(3))
def test_kept_spans_are_what_the_plan_says(seed):
    history = History(seed)
    steps = [history.slice] * 12 + [history.backup] * 3 + [history.deletion, history.drop_from_the_front, history.hole]
    for _ in range(30):
        history.random.choice(steps)()
        history.check()
    history.late_slice()
    history.check()
    respan_timelines()
    history.check()
    assert history.line.spanned


def test_one_more_slice_costs_the_same_however_many_there_are():
    history = History(1)
    history.record(0, 1, 3)
    history.backup()
    history.line.respan()
    counts = []
    for slices in (1, 20):
        for _ in range(slices):
            history.record(history.sequence, history.shipped, 3)
        with CaptureQueriesContext(connection) as queries:
            history.record(history.sequence, history.shipped, 3)
        counts.append(len(queries))
    assert counts[0] == counts[1]


def test_what_a_deletion_loses_ends_where_the_next_backup_begins():
    database = story.database()
    first = story.history(database, story.storage())
    before, (lost,) = database.ranges_of(first.timeline), first.losses()
    assert database.backups.get(name="nightly-2").losses() == []
    first.request_delete()
    respan_timelines()
    first.timeline.refresh_from_db()
    after = database.ranges_of(first.timeline)
    began, begins = (f"{spans[0].first:%Y-%m-%d %H:%M:%S}" for spans in (before, after))
    assert lost == f"Every moment from {began} to {begins} UTC."
