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
from tests.torture.stand import USUAL, VARIANTS

USUAL_SHARE, OTHERS_SHARE = 0.55, 0.45  # of the time
SPAN = 1000  # rounds of other numbers for each variant of the log


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5, help="for all flavours together")
    parser.add_argument("--seed", default=str(random.randrange(10**6)))
    parser.add_argument("--flavour", choices=("mysql", "mariadb"), action="append")
    parser.add_argument("--first", type=int, default=0, help="number of the first round, to repeat one")
    parser.add_argument("--log", choices=[one.name for one in VARIANTS], help="only this kind of log")
    options = parser.parse_args()
    flavours = options.flavour or ["mysql", "mariadb"]
    fine = True
    for flavour in flavours:
        installation = demo.mysql(minimum=(9, 7)) if flavour == "mysql" else demo.mariadb()
        chosen = [one for one in VARIANTS if one.only in ("", flavour) and options.log in (None, one.name)]
        report, first = Report(flavour, installation.version), options.first
        for variant in chosen:
            share = 1.0 if len(chosen) == 1 else USUAL_SHARE if variant is USUAL else OTHERS_SHARE / (len(chosen) - 1)
            deadline = time.monotonic() + share * options.minutes * 60 / len(flavours)
            with tempfile.TemporaryDirectory(prefix="torture-") as folder:
                rounds(installation, Path(folder), options.seed, deadline, report, first=first, variant=variant)
            first += SPAN if options.log is None else 0
        print(report, flush=True)
        fine = fine and report.fine
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
