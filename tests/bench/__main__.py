"""Measure Everest beside its peers: python -m tests.bench --size full --only capture,replay-oltp"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.bench import comparisons, limits, table
from tests.bench.measures import Failed
from tests.bench.proof import Wrong
from tests.bench.sizes import SIZES
from tests.bench.stand import Stand

ROWS = comparisons.ROWS | limits.ROWS
BUILD = Path(__file__).parent.parent.parent / "build"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--rounds", type=int, help="of each comparison, in alternation")
    parser.add_argument("--only", default="", help="rows, by the beginnings of their names, separated by commas")
    parser.add_argument("--build", type=Path, default=BUILD, help="folder for bench.json and bench.md")
    options = parser.parse_args()
    size = SIZES[options.size]
    size = replace(size, rounds=options.rounds or size.rounds)
    chosen = {name: row for name, row in ROWS.items() if name.startswith(tuple(options.only.split(",")))}
    if not chosen:
        parser.error(f"--only names none of {', '.join(ROWS)}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that servers are ended then, too
    rows: list[table.Row] = []
    about: dict[str, Any] = {"size": str(size), "rounds": size.rounds}
    wrong: list[str] = []
    try:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder, Stand(Path(folder), size) as stand:
            about |= stand.versions()
            wrong += _measure(stand, chosen, rows)
    finally:
        table.write(options.build, rows, {**about, "wrong": wrong})
        print("", *(f"{name}: {value}" for name, value in about.items()), table.text(rows), *wrong, sep="\n")
    return 1 if wrong else 0


def _measure(
    stand: Stand, chosen: dict[str, Callable[[Stand], Iterator[table.Row]]], rows: list[table.Row]
) -> list[str]:
    """Add to `rows`; return what was wrong."""
    wrong = []
    for name, row in chosen.items():
        start = time.monotonic()
        print(name, flush=True)
        try:
            rows += row(stand)
        except (Wrong, Failed) as error:
            wrong.append(f"{name}: {error}")
        print(f"  in all: {time.monotonic() - start:.0f} s", flush=True)
    return wrong


if __name__ == "__main__":
    sys.exit(main())
