"""Everest under fault for a while: python -m tests.soak --minutes 20 --seed 7"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
from pathlib import Path

from tests.soak.stand import Stand, environment


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--seed", default=str(random.randrange(10**6)))
    parser.add_argument("--fault", action="append", help="only these, by their names")
    parser.add_argument("--writers", type=int, default=4)
    parser.add_argument("--pause", type=float, default=0.1, help="seconds between two transactions of a writer")
    parser.add_argument("--keep", action="store_true", help="the folder with logs and metadata")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    try:
        with Stand(folder, options.seed, options.writers, options.pause) as stand:
            prepare_django(stand.data)
            from tests.soak.run import Soak

            fine = Soak(stand, options.seed, options.minutes, options.fault).run()
    finally:
        if options.keep:
            print(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return 0 if fine else 1


def prepare_django(folder: Path) -> None:
    """This process looks at the installation from outside, by its own models."""
    import django

    for name in [name for name in os.environ if name.startswith("EVEREST_")]:
        del os.environ[name]
    os.environ.update(environment(folder))
    django.setup()


if __name__ == "__main__":
    sys.exit(main())
