"""What ten times as much costs: how many times the CPU time, of Everest and of the servers it uses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from tests.bench import product, workloads
from tests.bench.planning import point, timed
from tests.bench.sizes import Size
from tests.bench.stand import Stand
from tests.bench.table import Limit, Row

MANY = next(workload for workload in workloads.WORKLOADS if workload.name == "many")
SLICES = 1_000_000


def growth(stand: Stand) -> Iterator[Row]:
    size = stand.size
    for what, name, work in (
        ("tables, snapshot", "tables", lambda size: _snapshot(stand, size, MANY.prepare)),
        ("rows, snapshot", "rows", lambda size: _snapshot(stand, size, workloads.prepare_oltp)),
        ("transactions, shipping", "transactions", lambda size: _shipped(stand, size)),
    ):
        largest = getattr(size, name)
        yield _line(what, largest, [work(replace(size, **{name: count})) for count in (largest // 10, largest)])
    planned = [timed([point(number) for number in range(count)], count) for count in (SLICES // 10, SLICES)]
    yield _line("slices that are not merged, planning", SLICES, planned)


def _line(what: str, largest: int, cost: list[float]) -> Limit:
    note = f"{cost[0]:.2f} and {cost[1]:.2f} CPU s; {largest // 10:,} and {largest:,}"
    return Limit(f"ten times the {what}", cost[1] / cost[0], "times the CPU", 10, note)


def _snapshot(stand: Stand, size: Size, prepare: Callable[..., None]) -> float:
    config = stand.fresh_source()
    prepare(stand.source, size)
    return _cost(stand, product.snapshot, config, stand.place())


def _shipped(stand: Stand, size: Size) -> float:
    config = stand.fresh_source()
    MANY.prepare(stand.source, size)
    start = stand.new_log_file()
    MANY.run(stand.source, size)
    return _cost(stand, product.shipped, config, start, stand.place())


def _cost(stand: Stand, *work: object) -> float:
    step = stand.measured(*work)
    return step.cpu + sum(step.servers.values())
