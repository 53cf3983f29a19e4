"""The rows in which Everest runs beside its peers: each a function from the stand to what was measured."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from everest.demo.servers import Server
from tests.bench import peers, product, workloads
from tests.bench.measures import Step
from tests.bench.peers import run
from tests.bench.proof import digest, prove
from tests.bench.stand import Stand
from tests.bench.table import Race, Row
from tests.bench.workloads import SCHEMA, WORKLOADS, Workload

T = TypeVar("T")
Work = tuple[Any, ...]  # what `measure` takes: a function that prepares, and its arguments
Way = Callable[[Server], Work]  # for a target, whose account comes first among the arguments

DUMPED = "mysqldump | zstd -1"
GZIPPED = "mydumper --compress (gzip)"
ZSTD = "mydumper, then zstd -1"
SOURCED = "mysql < dump.sql"
MYLOADER = "myloader"
THREADS = 4  # as many as Everest's default
EVEREST = "everest"
RAW = "mysqlbinlog --raw"
RAW_SHIPPED = "mysqlbinlog --raw, zstd -1, S3 copy"
PIPED = "mysqlbinlog | mysql"
APPLIER = "applier, 4 workers"
REPLAY_TARGETS = {
    "oltp": {PIPED: 20, APPLIER: 5},
    "insert": {PIPED: 3},
    "wide": {PIPED: 3},
    "keyless": {PIPED: 1},
    "statement": {PIPED: 1},
}


def capture(stand: Stand) -> Iterator[Row]:
    """What sysbench logged in some seconds, off the server; whole, and without compression and storing."""
    source = stand.source
    config = stand.fresh_source()
    workloads.prepare_oltp(source, stand.size)
    start = stand.new_log_file()
    workloads.oltp(source, stand.size)
    files, place, folder = stand.log_files(start), stand.place(), stand.folder / "raw"
    whole = _rounds(stand, lambda: {
        EVEREST: (product.shipped, config, start, place.elsewhere()),
        RAW_SHIPPED: (peers.binlog_shipped, config, stand.installation, files, folder, place.store),
    }, folder)  # fmt: skip
    alone = _rounds(stand, lambda: {
        EVEREST: (product.captured, config, start),
        RAW: (peers.binlog_raw, config, stand.installation, files, folder),
    }, folder)  # fmt: skip
    log = f"{alone[EVEREST][0].result / 1e6:,.1f} MB of log"
    yield Race(f"capture to S3, compressed ({log})", whole.pop(EVEREST), whole, {RAW_SHIPPED: 1.5})
    yield Race("capture, thrown away", alone.pop(EVEREST), alone, {RAW: 1.0})


def snapshot(stand: Stand) -> Iterator[Row]:
    """A backup of the sysbench tables, and its load into an empty server."""
    source = stand.source
    config = stand.fresh_source()
    workloads.prepare_oltp(source, stand.size)
    wanted, place = digest(source), stand.place()
    dump, folder = stand.folder / "dump.sql", stand.folder / "mydumper"
    packed = dump.with_suffix(".sql.zst")
    taken = _rounds(stand, lambda: {
        EVEREST: (product.snapshot, config, place),
        DUMPED: (peers.dumped, config, stand.installation, [SCHEMA], packed),
        GZIPPED: (peers.mydumped, config, [SCHEMA], folder, THREADS, True),
        ZSTD: (peers.mydumped, config, [SCHEMA], folder, THREADS, False),
    }, folder)  # fmt: skip
    run(["zstd", "-d", "-q", "-f", str(packed)])
    if shutil.which("mydumper"):
        stand.measured(peers.mydumped, config, [SCHEMA], folder, THREADS, True)
    backup = taken[EVEREST][0].result
    loads = _restores(stand, None, "load", wanted, {
        EVEREST: lambda _: (product.loaded, place, backup),
        SOURCED: lambda _: (peers.sourced, stand.installation, dump),
        MYLOADER: lambda _: (peers.myloaded, folder, THREADS),
    })  # fmt: skip
    what = f"snapshot, compressed; to S3, the others to files ({backup.rows:,} rows)"
    yield Race(what, taken.pop(EVEREST), taken, {DUMPED: 1.5, GZIPPED: 1, ZSTD: 1})
    yield Race("snapshot load", loads.pop(EVEREST), loads, {SOURCED: 1.5})


def replay(workload: Workload, stand: Stand) -> Iterator[Row]:
    """A history, onto a copy of a server that holds the snapshot before it."""
    source, folder = stand.source, stand.folder / "raw"
    config = stand.fresh_source()
    workload.prepare(source, stand.size)
    start, place = stand.new_log_file(), stand.place()
    backup = stand.measured(product.snapshot, config, place).result
    workload.run(source, stand.size)
    end, files = stand.position(), stand.log_files(start)
    stand.measured(product.shipped, config, backup.position, place)
    stand.measured(peers.binlog_raw, config, stand.installation, files, folder)
    ways: dict[str, Way] = {
        EVEREST: lambda _: (product.replayed, place, backup),
        PIPED: lambda _: (peers.binlog_replayed, stand.installation, [folder / name for name in files]),
    }
    if workload.name == "oltp":
        ways[APPLIER] = lambda target: (
            peers.applied,
            target.socket,
            source.port,
            backup.position["gtids"],
            end["gtids"],
        )
    base = stand.base(place, backup, f"base-{workload.name}")
    steps = _restores(stand, base, f"replay of {workload.what}", digest(source), ways)
    shutil.rmtree(folder)
    shutil.rmtree(base.folder)
    what = f"replay, {workload.what} ({steps[EVEREST][0].result.transactions:,} transactions)"
    yield Race(what, steps.pop(EVEREST), steps, REPLAY_TARGETS.get(workload.name, {}))


def _rounds(stand: Stand, ways: Callable[[], dict[str, Work]], folder: Path) -> dict[str, list[Step]]:
    """Each way in each round, in turns; `folder` is deleted after each."""
    steps: dict[str, list[Step]] = {name: [] for name in ways()}
    for number in range(stand.size.rounds):
        for name, work in _turns(ways(), number):
            steps[name].append(stand.measured(*work))
            shutil.rmtree(folder, ignore_errors=True)
    return steps


def _restores(
    stand: Stand, base: Server | None, what: str, wanted: dict[str, Any], ways: dict[str, Way]
) -> dict[str, list[Step]]:
    """Each way in each round on a target of its own, which must then hold what is wanted."""
    steps: dict[str, list[Step]] = {name: [] for name in ways}
    for number in range(stand.size.rounds):
        for name, way in _turns(ways, number):
            with stand.target(base) as (server, account):
                work, *arguments = way(server)
                steps[name].append(stand.measured(work, account, *arguments, server=server))
                prove(f"{what} by {name}", wanted, server)
    return steps


def _turns(ways: dict[str, T], number: int) -> list[tuple[str, T]]:
    """In the other order every other round; without the peers that this machine does not have."""
    missing = () if shutil.which("mydumper") else (GZIPPED, ZSTD, MYLOADER)
    turns = [(name, way) for name, way in ways.items() if name not in missing]
    return turns[::-1] if number % 2 else turns


ROWS: dict[str, Callable[[Stand], Iterator[Row]]] = {
    "capture": capture,
    **{f"replay-{workload.name}": partial(replay, workload) for workload in WORKLOADS},
    "snapshot": snapshot,
}
