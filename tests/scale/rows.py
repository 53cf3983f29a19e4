"""The rows of the table: each a function from the stand to what was measured."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from backups.engine.mysql.server import ServerConfig
from everest.demo.servers import Server
from tests.bench import peers, product, workloads
from tests.bench.measures import Step, measure
from tests.bench.peers import run
from tests.bench.proof import digest, prove
from tests.bench.stand import Stand
from tests.bench.table import Limit, Race, Row
from tests.bench.workloads import SCHEMA, WORKLOADS, Workload

DUMPED = "mysqldump | zstd -1"
MYDUMPER = "mydumper, compressed"
SOURCED = "mysql < dump.sql"
MYLOADER = "myloader"
THREADS = 4  # as many as Everest's default
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
    size, source = stand.size, stand.source
    config = stand.fresh_source()
    workloads.prepare_oltp(source, size)
    start = stand.position()
    WORKLOADS[0].run(source, size)
    files = stand.log_files(start)
    place = stand.place()
    alone: dict[str, list[Step]] = {"everest": [], RAW: []}
    whole: dict[str, list[Step]] = {"everest": [], RAW_SHIPPED: []}
    for number in range(size.rounds):
        folder = stand.folder / f"raw-{number}"
        whole["everest"].append(stand.measured(product.shipped, config, start, place.elsewhere()))
        whole[RAW_SHIPPED].append(
            stand.measured(peers.binlog_shipped, stand.installation, config, files, folder, place.store)
        )
        shutil.rmtree(folder)
        alone["everest"].append(stand.measured(product.captured, config, start))
        alone[RAW].append(stand.measured(peers.binlog_raw, stand.installation, config, files, folder))
        shutil.rmtree(folder)
    yield Race("capture to S3, compressed", whole.pop("everest"), whole, {RAW_SHIPPED: 1.5})
    yield Race("capture, thrown away", alone.pop("everest"), alone, {RAW: 1.0})


def snapshot(stand: Stand) -> Iterator[Row]:
    """A backup of the sysbench tables, and their load into an empty server."""
    size, source = stand.size, stand.source
    config = stand.fresh_source()
    workloads.prepare_oltp(source, size)
    wanted, place = digest(source), stand.place()
    taken: dict[str, list[Step]] = {"everest": [], DUMPED: [], MYDUMPER: []}
    loads: dict[str, list[Step]] = {"everest": [], SOURCED: [], MYLOADER: []}
    for number in range(size.rounds):
        dump, folder = stand.folder / "dump.sql", stand.folder / f"mydumper-{number}"
        taken["everest"].append(stand.measured(product.snapshot, config, place))
        taken[DUMPED].append(
            stand.measured(peers.dumped, stand.installation, config, [SCHEMA], dump.with_suffix(".sql.zst"))
        )
        taken[MYDUMPER].append(stand.measured(peers.mydumped, config, [SCHEMA], folder, THREADS))
        run(["zstd", "-d", "-q", "-f", str(dump.with_suffix(".sql.zst"))])
        ways: dict[str, tuple[Any, ...]] = {
            "everest": (product.loaded, place, taken["everest"][-1].result),
            SOURCED: (peers.sourced, stand.installation, dump),
            MYLOADER: (peers.myloaded, folder, THREADS),
        }
        for name, (work, *arguments) in ways.items():
            with stand.target() as (server, account):
                loads[name].append(stand.measured(work, account, *arguments, server=server))
                prove(f"load by {name}", wanted, server)
        shutil.rmtree(folder)
    yield Race(
        "snapshot, compressed (Everest to S3, the others to files)",
        taken.pop("everest"),
        taken,
        {DUMPED: 1.5, MYDUMPER: 1},
    )
    yield Race("snapshot load", loads.pop("everest"), loads, {SOURCED: 1.5})


def replay(workload: Workload, stand: Stand) -> Iterator[Row]:
    size, source = stand.size, stand.source
    config = stand.fresh_source()
    workload.prepare(source, size)
    place = stand.place()
    manifest = measure(product.snapshot, config, place, servers={}).result
    workload.run(source, size)
    end = stand.position()
    measure(product.shipped, config, manifest.position, place, servers={})
    wanted = digest(source)
    base = stand.base(place, manifest, f"base-{workload.name}")
    folder = stand.folder / "raw"
    files = stand.log_files(manifest.position)
    measure(peers.binlog_raw, stand.installation, config, files, folder, servers={})
    ways: dict[str, Callable[[Server, ServerConfig], Step]] = {
        "everest": lambda server, account: stand.measured(
            product.replayed, account, place, manifest, server=server
        ),
        PIPED: lambda server, account: stand.measured(
            peers.binlog_replayed, stand.installation, account, [folder / name for name in files],
            manifest.position["pos"], server=server,
        ),
    }  # fmt: skip
    if workload.name == "oltp":
        ways[APPLIER] = lambda server, account: stand.measured(
            peers.applied, {"unix_socket": str(server.socket), "user": "root"}, source.port,
            manifest.position["gtids"], end["gtids"], server=server,
        )  # fmt: skip
    steps: dict[str, list[Step]] = {name: [] for name in ways}
    for _ in range(size.rounds):
        for name, way in ways.items():
            with stand.target(base) as (server, account):
                steps[name].append(way(server, account))
                prove(f"replay of {workload.what} by {name}", wanted, server)
    shutil.rmtree(folder)
    shutil.rmtree(base.folder)
    yield Race(f"replay, {workload.what}", steps.pop("everest"), steps, REPLAY_TARGETS.get(workload.name, {}))


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
    yield Limit("commit to safely in the bucket, p99", cuts[98], "s", 3)


ROWS: dict[str, Callable[[Stand], Iterator[Row]]] = {
    "capture": capture,
    **{f"replay-{workload.name}": partial(replay, workload) for workload in WORKLOADS},
    "snapshot": snapshot,
    "commits": commits,
}
