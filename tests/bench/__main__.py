"""Measure Everest beside its peers: python -m tests.bench --size full --only capture,replay-oltp"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

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
    if options.rounds:
        size = replace(size, rounds=options.rounds)
    chosen = {name: row for name, row in ROWS.items() if name.startswith(tuple(options.only.split(",")))}
    rows: list[table.Row] = []
    wrong: list[str] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, Stand(Path(folder), size) as stand:
        about = {"size": str(size), "rounds": size.rounds, **stand.versions()}
        for name, row in chosen.items():
            start = time.monotonic()
            try:
                rows += row(stand)
            except (Wrong, Failed) as error:
                wrong.append(f"{name}: {error}")
            print(f"{name}: {time.monotonic() - start:.0f} s", flush=True)
    print(f"\n{size}\n{table.text(rows)}")
    table.write(options.build, rows, about)
    for line in wrong:
        print(line)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
