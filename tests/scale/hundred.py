"""One worker machine for many databases: what it costs, and whether any of them lags.

    python -m tests.scale.hundred --databases 100 --interval 10 --minutes 3

Registers that many databases, spread over three real servers that take writes all the time, ships them to Ceph's
gateway with one `manage.py worker`, and prints the CPU seconds a second and the PSS of its whole process tree, and
the lag of each database: the age of the newest transaction in the bucket, looked at every 5 seconds.
JSON: databases, interval, seconds, cores, pss_mb (largest seen), processes, slices, lag_p50, lag_p99, lag_max
(seconds), errors (databases whose shipping failed), holes (slices that do not follow the one before).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from everest.demo import accounts, ceph
from everest.demo import servers as demo
from tests.helpers import wait_for

TICKS = os.sysconf("SC_CLK_TCK")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.scale.hundred", description=__doc__.partition("\n")[0])
    parser.add_argument("--databases", type=int, default=100)
    parser.add_argument("--interval", type=int, default=10, help="seconds")
    parser.add_argument("--busy", type=int, default=0, help="this many of them ship each second")
    parser.add_argument("--minutes", type=float, default=3, help="that are measured, after one of warming up")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="everest-hundred-") as folder, started(Path(folder)) as (servers, store):
        found = measure(Path(folder), servers, store, options)
    print(json.dumps(found) if options.json else "\n".join(f"{name:12} {value}" for name, value in found.items()))
    return 1 if found["errors"] or found["holes"] else 0


@contextlib.contextmanager
def started(folder: Path) -> Iterator[tuple[list[demo.Server], ceph.Ceph]]:
    with contextlib.ExitStack() as stack:
        store = ceph.start(folder / "ceph", say=lambda text: None)
        stack.callback(store.stop)
        kinds = [demo.mysql(minimum=(9, 7)), demo.mysql(minimum=(9, 7)), demo.mariadb()]
        servers = []
        for number, kind in enumerate(kinds):
            servers.append(demo.start(kind, folder / f"server-{number}", options=["--max-connections=500"]))
            stack.callback(servers[-1].kill)
        yield servers, store


def measure(folder: Path, servers: list[demo.Server], store: ceph.Ceph, options: argparse.Namespace) -> dict:
    os.environ |= {"EVEREST_DATA": str(folder / "data"), "DJANGO_SETTINGS_MODULE": "everest.settings"}
    import django

    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    register(servers, store, options)
    over = threading.Event()
    writers = [threading.Thread(target=write, args=(server, over), daemon=True) for server in servers]
    for writer in writers:
        writer.start()
    worker = subprocess.Popen([sys.executable, "manage.py", "worker"], stdout=subprocess.DEVNULL)
    try:
        wait_for(lambda: max(lag()) < 10**6, 240)  # each has been shipped once
        time.sleep(60)  # until runs have taken over from others
        return watch(worker.pid, options)
    finally:
        over.set()
        worker.terminate()
        worker.wait(60)


def register(servers: list[demo.Server], store: ceph.Ceph, options: argparse.Namespace) -> None:
    """As after `add_database --pitr` and a first backup: shipping begins here."""
    from backups.models import Database, Timeline
    from storages.models import BackupStorage

    storage = BackupStorage.objects.create(
        name="ceph", bucket=store.new_bucket(), region=store.region, endpoint=store.endpoint, path_style=True,
        access_key=store.access_key, secret_key=store.secret_key, conditional_put=True,
    )  # fmt: skip
    people = [accounts.create(server, "source") for server in servers]
    for server in servers:
        with server.connect() as connection, connection.cursor() as cursor:
            cursor.execute("CREATE DATABASE shop")
            cursor.execute("CREATE TABLE shop.orders (id INT AUTO_INCREMENT PRIMARY KEY, what VARCHAR(200))")
    for number in range(options.databases):
        server, (user, password) = servers[number % len(servers)], people[number % len(servers)]
        database = Database.objects.create(
            name=f"database-{number}", host="127.0.0.1", port=server.port, user=user, password=password,
            tls="required", pitr=True, pitr_storage=storage,
            pitr_interval=1 if number < options.busy else options.interval,
        )  # fmt: skip
        identity, position = database.identify()
        start = database.module.anchored(database.config(), position)
        Timeline.open(database, identity.server_uuid, dict(start))


def write(server: demo.Server, over: threading.Event) -> None:
    """A transaction a second."""
    with server.connect(autocommit=True) as connection, connection.cursor() as cursor:
        while not over.wait(1):
            cursor.execute("INSERT INTO shop.orders (what) VALUES (REPEAT('x', 200))")


def watch(root: int, options: argparse.Namespace) -> dict:
    from backups.models import Database, Slice
    from everest.worker import memory

    began, spent, before = time.monotonic(), cpu(root), Slice.objects.count()
    lags: list[float] = []
    most = 0
    while time.monotonic() < began + options.minutes * 60:
        time.sleep(5)
        most = max(most, memory(root))
        lags += lag()
    seconds = time.monotonic() - began
    return {
        "databases": options.databases,
        "interval": options.interval,
        "seconds": round(seconds),
        "cores": round((cpu(root) - spent) / seconds, 2),
        "pss_mb": round(most / 2**20),
        "processes": len(tree(root)),
        "slices": Slice.objects.count() - before,
        "lag_p50": round(statistics.median(lags), 1),
        "lag_p99": round(statistics.quantiles(lags, n=100)[98], 1),
        "lag_max": round(max(lags), 1),
        "errors": list(Database.objects.exclude(ship_error="").values_list("name", "ship_error")[:5]),
        "holes": holes(),
    }


def lag() -> list[float]:
    """Seconds since the newest transaction in the bucket; each server commits one a second."""
    from django.db.models import Max

    from backups.models import Timeline

    newest = Timeline.objects.annotate(newest=Max("slices__last_us")).values_list("newest", flat=True)
    return [time.time() - (last_us or 0) / 1e6 for last_us in newest]


def holes() -> int:
    """Slices that do not begin where the one before them ended."""
    from backups.models import Slice

    found, ends = 0, {}
    for line, start, end in Slice.objects.filter(level=0).order_by("sequence").values_list("timeline", "start", "end"):
        found += line in ends and ends[line] != start
        ends[line] = end
    return found


def tree(root: int) -> list[int]:
    """A process and all its descendants."""
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        with contextlib.suppress(OSError):
            children = [
                Path(f"/proc/{pid}/task/{task}/children").read_text() for task in os.listdir(f"/proc/{pid}/task")
            ]
            waiting += [int(child) for line in children for child in line.split()]
            found.append(pid)
    return found


def cpu(root: int) -> float:
    """Seconds of CPU that a tree has used, with those of children that have ended."""
    total = 0
    for pid in tree(root):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += sum(int(field) for field in fields[11:15])
    return total / TICKS


if __name__ == "__main__":
    sys.exit(main())
