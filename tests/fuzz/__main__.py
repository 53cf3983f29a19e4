"""Fuzz for a while: python -m tests.fuzz --minutes 10 --seed 7"""

from __future__ import annotations

import argparse
import hashlib
import random
import resource
import sys
import time
import traceback
from collections import Counter

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.targets import GOLDEN, TARGETS, Target

MEMORY = 4 << 30  # bytes of address space: a declared length that is believed shows as a MemoryError
SLOW = 5.0  # seconds of CPU for one input
EXAMPLES = 300  # of one target before the next has its turn
KEPT = GOLDEN / "fuzz"
COUNTS: Counter[str] = Counter()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--only", choices=sorted(TARGETS), action="append")
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    print(f"seed {options.seed}", flush=True)
    deadline, turn, found = time.monotonic() + options.minutes * 60, 0, []
    names = options.only or list(TARGETS)
    while names and time.monotonic() < deadline:
        name = names[turn % len(names)]
        if failure := fuzz(name, TARGETS[name], options.seed + turn, EXAMPLES):
            found.append(failure)
            print(failure, flush=True)
            names.remove(name)  # it would find the same again
        turn += 1
    for name in TARGETS:
        print(f"{name:12}{COUNTS[name]:10,} inputs")
    print(f"{len(found)} findings, kept below {KEPT}" if found else "Nothing but the engine's own errors came out.")
    return bool(found)


def fuzz(name: str, target: Target, number: int, examples: int) -> str:
    """What went wrong, with the smallest input that hypothesis found, which is kept; "" if nothing did."""
    last = [b""]

    @seed(number)
    @settings(max_examples=examples, deadline=None, database=None, phases=(Phase.generate, Phase.shrink),
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(target.made)
    def run(data: bytes) -> None:
        COUNTS[name] += 1
        last[0] = data
        began = time.process_time()
        target(data)
        assert time.process_time() - began < SLOW, "this took too long"

    try:
        run()
    except Exception:
        KEPT.mkdir(exist_ok=True)
        kept = KEPT / f"{name}-{hashlib.sha256(last[0]).hexdigest()[:8]}.bin"
        kept.write_bytes(last[0])
        return f"{kept}:\n{traceback.format_exc(limit=-6)}"
    return ""


if __name__ == "__main__":
    sys.exit(main())
