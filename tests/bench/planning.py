"""A plan over a year of slices, one every ten seconds, as merging leaves them."""

from __future__ import annotations

import time
from collections.abc import Iterator

from backups.engine import levels, mysql
from backups.engine.plan import plan
from backups.engine.types import BackupPoint, Position, SlicePoint
from tests.bench.table import Limit, Row

SERVER = "5c1e0a1e-0000-4000-8000-000000000001"
INTERVAL_US = 10_000_000
DAY = 8640  # slices
DAYS = 365
BEGIN_US = 19_676 * DAY * INTERVAL_US  # a midnight
TRANSACTIONS, BYTES = 50, 100_000  # of each


def planning(_: object) -> Iterator[Row]:
    """Planned from a backup of a year ago to the newest transaction, at noon."""
    count = DAYS * DAY - DAY // 2
    points = merged(count)
    seconds = timed(points, count)
    note = f"CPU time; {count:,} slices of 10 s, merged into {len(points):,}"
    yield Limit("planning over a year of 10-second slices", seconds, "s", 2, note)


def timed(points: list[SlicePoint], count: int) -> float:
    """CPU seconds of a plan from before the first of so many slices to behind the last."""
    backup = BackupPoint("backup", "timeline", position(0), BEGIN_US)
    start = time.process_time()
    planned = plan([backup], points, position(count), mysql.at_or_before)
    seconds = time.process_time() - start
    assert planned.slices[-1].last == count - 1, "the plan ends early"
    return seconds


def merged(count: int) -> list[SlicePoint]:
    """So many slices, all that is due merged.  Whole days are alike, so one is merged for all."""
    day = _merged(0, DAY, BEGIN_US + 2 * DAY * INTERVAL_US)
    last = count // DAY * DAY
    before = [point(at + one.sequence, one.level, one.holds) for at in range(0, last, DAY) for one in day]
    return before + _merged(last, count, BEGIN_US + count * INTERVAL_US)


def _merged(first: int, end: int, now_us: int) -> list[SlicePoint]:
    found, rest = [], first
    for group in levels.due([point(number) for number in range(first, end)], now_us):
        sequence = group.parts[0].sequence
        found += [point(number) for number in range(rest, sequence)]
        found.append(point(sequence, group.level, group.parts[-1].last + 1 - sequence))
        rest = found[-1].last + 1
    return found + [point(number) for number in range(rest, end)]


def point(number: int, level: int = 0, holds: int = 1) -> SlicePoint:
    """A slice as a busy server's are, or one that holds several of them."""
    at = BEGIN_US + number * INTERVAL_US
    return SlicePoint(
        key=f"{level}/{number:012}", timeline="timeline", level=level, sequence=number, previous="",
        start=position(number), end=position(number + holds), first_us=at,
        last_us=at + holds * INTERVAL_US - 1, count=holds * TRANSACTIONS, size=holds * BYTES // 4,
        raw_size=holds * BYTES, written_us=at + holds * INTERVAL_US - 1, holds=holds,
    )  # fmt: skip


def position(number: int) -> Position:
    """After so many slices."""
    gtids = f"{SERVER}:1-{1 + number * TRANSACTIONS}"
    file, offset = divmod(number * BYTES, 1 << 30)
    return {"server": SERVER, "file": f"binlog.{file + 1:06}", "pos": offset + 4, "file_id": str(file), "gtids": gtids}
