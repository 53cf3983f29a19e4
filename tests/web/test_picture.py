"""The drawn timeline: its stretches lie where the moments lie."""

from datetime import timedelta

import pytest
from django.utils import timezone

from backups.picture import LEFT, RIGHT, draw
from tests.web import story


@pytest.fixture
def drawn(world):
    return draw(world.source, world.source.ranges())


def test_ranges_gap_and_backups_meet_without_overlap(drawn):
    first, second = sorted(drawn.ranges, key=lambda one: one.x)
    (gap,) = drawn.gaps
    assert first.x + first.width == pytest.approx(gap.x, abs=0.1)
    assert gap.x + gap.width == pytest.approx(second.x, abs=0.1)
    assert (first.kind, second.kind) == ("past", "range")
    assert sorted(one.x for one in drawn.backups)[:2] == pytest.approx([first.x, second.x], abs=0.1)


def test_a_live_range_reaches_now(drawn):
    newest = max(drawn.ranges, key=lambda one: one.x)
    assert newest.x + newest.width == pytest.approx(RIGHT, abs=0.5)
    assert min(one.x for one in drawn.ranges) == LEFT


def test_a_window_cuts_what_lies_before_it(world):
    picture = draw(world.source, world.source.ranges(), timezone.now() - timedelta(hours=1))
    assert len(picture.ranges) == 1 and picture.gaps == [] and len(picture.backups) == 1
    assert picture.ranges[0].x == LEFT


def test_nothing_is_drawn_where_nothing_is(db):
    database = story.database()
    assert draw(database, database.ranges()) is None


@pytest.mark.parametrize("hours", [0.01, 1, 30, 24 * 40, 24 * 900])
def test_the_scale_has_few_and_readable_marks(world, hours):
    story.backup(world.source, world.storage, "old", timezone.now() - timedelta(hours=hours), 1)
    database = story.database("fresh")
    story.backup(database, world.storage, "first", timezone.now() - timedelta(hours=hours), 1)
    marks = draw(database, database.ranges()).ticks
    places = [x for x, _ in marks]
    assert 1 <= len(marks) <= 10 and places == sorted(set(places))
