"""Every page of a large installation: how many queries it takes, and how long the server works on it.

    python -m tests.scale.pages --databases 1000 --backups 100000 --slices 1000000

Prints a table and, with --json, the same as JSON.  Metadata is SQLite, in a folder of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

MOST = 10  # seconds that one page is asked for


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.scale.pages", description=__doc__.partition("\n")[0])
    parser.add_argument("--databases", type=int, default=1_000)
    parser.add_argument("--backups", type=int, default=100_000)
    parser.add_argument("--slices", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=20, help="how often each page is asked for")
    parser.add_argument("--only", default="", help="pages whose name holds this")
    parser.add_argument("--data", help="a folder with the rows of an earlier run, or for a later one")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="everest-pages-") as folder:
        found = measure(Path(options.data or folder), options)
    if options.json:
        print(json.dumps(found))
    else:
        for name, one in found.items():
            print(
                f"{name:40} {one['status']} {one['queries']:4} queries {one['p95_ms']:9.1f} ms {one['bytes']:9} bytes"
            )
    return 0


def measure(folder: Path, options: argparse.Namespace) -> dict[str, dict]:
    """{page: status, queries, p95_ms of CPU (queries included: SQLite works in the same thread), bytes}."""
    os.environ |= {"EVEREST_DATA": str(folder), "EVEREST_HTTPS": "0", "EVEREST_HOSTS": "testserver"}
    from django.core.management import call_command

    import everest.wsgi  # noqa: F401  as gunicorn loads it; templates do not copy their contexts as in tests
    from backups.models import Database, WorkerState
    from tests.scale import addresses, rows

    call_command("migrate", verbosity=0)
    if not Database.objects.exists():
        began = time.perf_counter()
        rows.administrator()
        rows.seed(options.databases, options.backups, options.slices)
        print(f"seeded in {time.perf_counter() - began:.0f} s", file=sys.stderr)
    WorkerState.seen(WorkerState.TICK)
    found = {}
    for name, url in addresses.every().items():
        if options.only in name:
            found[name] = one = ask(url, options.rounds)
            print(f"{name:30} {one['status']} {one['queries']:4} queries {one['p95_ms']:9.1f} ms", file=sys.stderr)
    return found


def ask(url: str, rounds: int) -> dict:
    from django.db import connection
    from django.test import Client
    from django.test.utils import CaptureQueriesContext

    from everest.models import User

    client = Client(raise_request_exception=True)
    client.force_login(User.objects.get(username="scale"))
    if rounds > 1:
        client.get(url)  # what is loaded once (templates, admin) is not what a page costs
    with CaptureQueriesContext(connection) as queries:
        response = client.get(url)
    asked = len(queries)
    times = []
    while len(times) < rounds and sum(times) < MOST:
        began = time.thread_time()
        response = client.get(url)
        times.append(time.thread_time() - began)
    p95 = sorted(times)[max(-(-len(times) * 95 // 100) - 1, 0)]
    size = len(b"".join(response)) if response.streaming else len(response.content)
    return {"status": response.status_code, "queries": asked, "p95_ms": p95 * 1000, "bytes": size}


if __name__ == "__main__":
    sys.exit(main())
