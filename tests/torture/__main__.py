"""Run random histories for a while: python -m tests.torture --minutes 20 --seed 7"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from everest.demo import servers as demo
from tests.torture.report import Report
from tests.torture.rounds import rounds


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5, help="for all flavours together")
    parser.add_argument("--seed", default=str(random.randrange(10**6)))
    parser.add_argument("--flavour", choices=("mysql", "mariadb"), action="append")
    parser.add_argument("--first", type=int, default=0, help="number of the first round, to repeat one")
    options = parser.parse_args()
    flavours = options.flavour or ["mysql", "mariadb"]
    fine = True
    for flavour in flavours:
        installation = demo.mysql(minimum=(9, 7)) if flavour == "mysql" else demo.mariadb()
        deadline = time.monotonic() + options.minutes * 60 / len(flavours)
        report = Report(flavour, installation.version)
        with tempfile.TemporaryDirectory(prefix="torture-") as folder:
            rounds(installation, Path(folder), options.seed, deadline, report, first=options.first)
        print(report, flush=True)
        fine = fine and report.fine
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
