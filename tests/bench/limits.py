"""The rows that are no race: figures that may not be above a limit."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pymysql

from everest.demo.compare import Ask
from tests.bench import peers, product, workloads
from tests.bench.growth import growth
from tests.bench.measures import Failed, Step
from tests.bench.planning import planning
from tests.bench.stand import Stand
from tests.bench.table import Limit, Row
from tests.bench.workloads import SCHEMA

DUMP = "mysqldump | zstd -1"
GENTLE = "Everest, gentle"


def commits(stand: Stand) -> Iterator[Row]:
    """1,000 commits a second, shipped at an interval of one second."""
    seconds = stand.size.commit_seconds
    config = stand.fresh_source()
    workloads.prepare_oltp(stand.source, stand.size)
    with workloads.load(stand.source, stand.size, "oltp_insert", rate=1000):
        step = stand.measured(product.followed, config, stand.position(), stand.place(), seconds)
    delays = sorted(step.result)
    note = f"{len(delays) / step.seconds:,.0f} commits/s; CPU s: Everest {step.cpu:.2f} in {step.seconds:.0f} s"
    cuts = statistics.quantiles(delays, n=100)
    yield Limit("commit to safely in the bucket, p50", cuts[49], "s", 1.5, note)
    yield Limit("commit to safely in the bucket, p99", cuts[98], "s", 3, note)


def impact(stand: Stand) -> Iterator[Row]:
    """How much less OLTP a source does while it is read, in per cent of what it does alone just before and after."""
    source, seconds = stand.source, stand.size.impact_seconds
    config = stand.fresh_source()
    workloads.prepare_oltp(source, stand.size)
    file = stand.folder / "impact.sql.zst"
    ways: dict[str, Callable[[], tuple[Any, ...]]] = {
        DUMP: lambda: (peers.dumped, config, stand.installation, [SCHEMA], file),
        GENTLE: lambda: (product.snapshot_gently, config, stand.place()),
        "Everest, default": lambda: (product.snapshot, config, stand.place()),
    }
    lost: dict[str, list[float]] = {name: [] for name in ways}
    steps: dict[str, Step] = {}
    with workloads.load(source, stand.size, "oltp_write_only"):
        before = stand.measured(beside, source.socket, seconds, waited).result[0]
        for _ in range(stand.size.rounds):
            for name, way in ways.items():
                steps[name] = stand.measured(beside, source.socket, seconds, *way())
                after = stand.measured(beside, source.socket, seconds, waited).result[0]
                lost[name].append(100 * (1 - 2 * steps[name].result[0] / (before + after)))
                before = after
    for name, step in steps.items():
        took = step.seconds / step.result[1]
        each = statistics.median(lost[name]) / 100 * took
        note = f"{took:.2f} s a snapshot, so {each:.2f} s of OLTP lost by each; CPU s: {step.cpu:.2f}"
        most = round(statistics.median(lost[DUMP]), 1) if name == GENTLE else None
        yield Limit(f"OLTP lost beside {name}", statistics.median(lost[name]), "%", most, note)


def beside(socket: Path, seconds: float, prepare: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
    """Work that is done again until so many seconds are over.

    Returns how many transactions a second the server committed meanwhile, and how often the work was done.
    """
    work = prepare(*arguments)
    ask = Ask(pymysql.connect(unix_socket=str(socket), user="root", autocommit=True))

    def again() -> tuple[float, int]:
        start, before, count = time.monotonic(), _commits(ask), 0
        while not count or time.monotonic() < start + seconds:
            work()
            count += 1
        return (_commits(ask) - before) / (time.monotonic() - start), count

    return again


def waited() -> Callable[[], None]:
    """Nothing, for a moment."""
    return lambda: time.sleep(0.1)


def _commits(ask: Ask) -> int:
    return int(ask("SHOW GLOBAL STATUS LIKE 'Com_commit'", text=True)[0][1])


def pages(stand: Stand) -> Iterator[Row]:
    """Every page of an installation that has grown for years."""
    found = _scale("pages", stand.size.installation)
    slowest = max(found, key=lambda name: float(found[name]["p95_ms"]))
    most = max(found, key=lambda name: int(found[name]["queries"]))
    held = ", ".join(f"{count:,} {what}" for what, count in stand.size.installation)
    yield Limit("pages, p95 of the slowest", found[slowest]["p95_ms"], "ms", 100, f"{held}; {slowest} of {len(found)}")
    yield Limit("pages, queries of the one with most", found[most]["queries"], "queries", None, most)


def hundred(stand: Stand) -> Iterator[Row]:
    """Many databases on a few real servers, shipped by one `manage.py worker`."""
    found = _scale("hundred", stand.size.worker)
    what = f"{found['databases']} databases at {found['interval']} s on one worker"
    yield Limit(f"{what}, CPU", found["cores"], "cores", 1, f"{found['slices']:,} slices in {found['seconds']} s")
    yield Limit(f"{what}, PSS of all its processes", found["pss_mb"], "MB", 600, f"{found['processes']} processes")
    yield Limit(f"{what}, largest lag", found["lag_max"], "s", 3 * found["interval"], f"p50 {found['lag_p50']} s")


def _scale(name: str, options: tuple[tuple[str, float], ...]) -> dict[str, Any]:
    """What a measure of tests/scale found."""
    argv = [sys.executable, "-m", f"tests.scale.{name}", "--json", *(f"--{key}={value}" for key, value in options)]
    ran = subprocess.run(argv, stdout=subprocess.PIPE, text=True)
    if ran.returncode:
        raise Failed(f"tests.scale.{name} ended with {ran.returncode}")
    return dict(json.loads(ran.stdout))


def memory(stand: Stand) -> Iterator[Row]:
    """Of everything that Everest was seen to do in this run."""
    if stand.largest:
        what, size = max(stand.largest.items(), key=lambda pair: pair[1])
        yield Limit("largest process of Everest, PSS", size / 2**20, "MB", 300, f"in {what}")


ROWS: dict[str, Callable[[Stand], Iterator[Row]]] = {
    "commits": commits,
    "impact": impact,
    "planning": planning,
    "pages": pages,
    "hundred": hundred,
    "growth": growth,
    "memory": memory,
}
