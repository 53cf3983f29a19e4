"""The timeline of recoverability as shapes: what can be restored, what cannot, and the backups it rests on."""

from dataclasses import dataclass, field
from datetime import timedelta

from django.utils import timezone

from backups.models import Backup, Timeline
from everest.templatetags.show import exact, in_utc

WIDTH, LEFT, RIGHT = 1000, 12, 988
ROUND = {
    "seconds": (10, 30),
    "minutes": (1, 2, 5, 10, 15, 30),
    "hours": (1, 2, 3, 6, 12),
    "days": (1, 2, 7, 14, 30, 60, 120, 365),
}
STEPS = [timedelta(**{unit: number}) for unit, numbers in ROUND.items() for number in numbers]
LABELS = 8  # at most, or they touch
MOST = 500  # backups that are looked at
APART = 4  # of two backups that would lie on each other only the newer is drawn


@dataclass
class Shape:
    """Something between two moments, in the picture's units; `title` is what hovering says."""

    x: float
    width: float
    title: str
    kind: str = ""
    url: str = ""


@dataclass
class Picture:
    first: object
    last: object
    ranges: list[Shape] = field(default_factory=list)
    gaps: list[Shape] = field(default_factory=list)
    backups: list[Shape] = field(default_factory=list)
    ticks: list[tuple[float, str]] = field(default_factory=list)

    def x(self, moment) -> float:
        share = (moment - self.first) / (self.last - self.first)
        return round(LEFT + min(max(share, 0), 1) * (RIGHT - LEFT), 2)

    def shape(self, first, last, title, **more) -> Shape:
        x = self.x(first)
        return Shape(x, max(round(self.x(last) - x, 2), 2), title, **more)

    @property
    def now(self):
        return self.x(timezone.now())

    @property
    def from_seconds(self):
        """The moment at the picture's left edge, as its clicks are counted (static/js/everest.js)."""
        return self._edge(0)

    @property
    def to_seconds(self):
        return self._edge(WIDTH)

    def _edge(self, x):
        return (self.first + (self.last - self.first) * ((x - LEFT) / (RIGHT - LEFT))).timestamp()


def draw(database, ranges, since=None):
    """The picture from `since` (None: the first thing there is) until now; None where there is nothing to draw."""
    taken = database.backups.filter(state=Backup.SUCCEEDED, view_at__isnull=False).order_by("-view_at")
    backups = list(taken.values_list("pk", "name", "view_at", named=True)[:MOST])
    starts = [one.first for one in ranges] + [one.view_at for one in backups]
    if not starts:
        return None
    now = timezone.now()
    first = max(min(starts), since or min(starts))
    picture = Picture(first, max(now, first + timedelta(seconds=60)))
    for one in ranges:
        if one.last >= first:
            picture.ranges.append(
                picture.shape(
                    one.first,
                    now if one.live else one.last,
                    range_title(one),
                    kind="range" if one.timeline.ended_at is None else "past",
                )
            )
    picture.gaps = [
        picture.shape(start, end, title) for start, end, title in gaps(database, ranges, now) if end >= first
    ]
    picture.backups = [
        picture.shape(
            one.view_at,
            one.view_at,
            f"Backup {one.name}, consistent at {exact(one.view_at)}",
            url=f"/backups/{one.pk}/",
        )
        for one in thinned(picture, backups)
        if one.view_at >= first
    ]
    picture.ticks = ticks(picture)
    return picture


def thinned(picture, backups):
    """Newest first."""
    last = None
    for one in backups:
        x = picture.x(one.view_at)
        if last is None or last - x >= APART:
            last = x
            yield one


def range_title(one):
    return f"Recoverable from {exact(one.first)} to {exact(one.last)} ({in_utc(one.first)} to {in_utc(one.last)})"


def gaps(database, ranges, now):
    """(start, end, why) of each stretch that was lost: from what was shipped last to what came after."""
    for timeline in database.timelines.filter(end_reason__in=[Timeline.GAP, Timeline.FORK]):
        mine = [one.last for one in ranges if one.timeline.pk == timeline.pk]
        start = max(mine, default=timeline.ended_at)
        end = min(
            (one.first for one in ranges if one.first > start and one.timeline.number > timeline.number), default=now
        )
        yield start, end, f"Not recoverable from {exact(start)} to {exact(end)}. {timeline.end_detail}"


def ticks(picture):
    """Round moments of the person's zone, a few of them."""
    span = picture.last - picture.first
    step = next((step for step in STEPS if span / step <= LABELS), STEPS[-1])
    local = timezone.localtime(picture.first)
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0)
    skipped = (local - midnight) // step + 1
    marks = []
    for n in range(skipped, skipped + LABELS + 2):
        moment = midnight + n * step
        if moment > picture.last:
            break
        marks.append((picture.x(moment), label(moment, step)))
    return [mark for mark in marks if 30 < mark[0] < WIDTH - 30]


def label(moment, step):
    if step < timedelta(minutes=1):
        return f"{moment:%H:%M:%S}"
    if step < timedelta(days=1):
        return f"{moment:%H:%M}" if moment.hour or moment.minute else f"{moment:%-d %b}"
    return f"{moment:%-d %b}" if step < timedelta(days=120) else f"{moment:%b %Y}"
