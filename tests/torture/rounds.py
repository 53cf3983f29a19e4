"""Histories one after the other on the same servers; the first that restores wrongly is cut down and told."""

from __future__ import annotations

import time
from pathlib import Path

from everest.demo.servers import Installation
from tests.torture import changes, contexts, definitions, tables  # noqa: F401  they register what there is
from tests.torture.history import History, generate
from tests.torture.report import Report
from tests.torture.shrink import shrink
from tests.torture.stand import USUAL, OracleFailed, Outcome, Stand, Variant

SHRINK_SECONDS = 180.0
GRACE = 30.0
SHOWN = 25  # units of a history that was not cut down far


def rounds(
    installation: Installation,
    folder: Path,
    seed: str,
    deadline: float,
    report: Report,
    *,
    first: int = 0,
    most: int = 10**6,
    patience: float = SHRINK_SECONDS,
    variant: Variant = USUAL,
) -> None:
    """Until the deadline (time.monotonic) or `most` rounds; at least one.  patience: seconds to cut one down.

    A statement may lose against another session's: while a feature has not been compared yet, it goes on a little.
    """
    with Stand(installation, folder, variant) as stand:
        for number in range(first, first + most):
            history = generate(seed, installation.flavour, number, gtids=variant.gtids)
            told = f"{installation.flavour} seed {seed} round {number}, {variant.name}: {len(history.units)} units"
            print(told, flush=True)
            try:
                outcome = stand.run(history)
            except OracleFailed as error:
                report.different.append(f"Seed {seed} round {number}: {error}")
                outcome = Outcome()
            report.add(outcome, variant.name)
            if outcome.differences:
                print(outcome.differences, flush=True)
                report.different.append(describe(seed, number, outcome, *shrink(stand, history, patience)))
                print(report.different[-1], flush=True)
            if time.monotonic() > deadline + (GRACE if report.missing and variant is USUAL else 0):
                return


def describe(seed: str, number: int, outcome: Outcome, history: History, shortest: Outcome | None) -> str:
    lines = [f"DIFFERENCE with SEED={seed}, round {number} ({history.flavour}):"]
    lines += [f"  at {place}:\n    " + "\n    ".join(_short(found)) for place, found in outcome.differences.items()]
    if shortest is None:
        return "\n".join(
            [*lines, "  It was not seen again: in the time there was, or when the same history ran again."]
        )
    lines.append(f"  The shortest history found, {len(history.units)} units, the backup after {history.snapshot}:")
    for unit in history.units[:SHOWN]:
        lines.append(f"    session {unit.session}, {', '.join(unit.features)}:")
        lines += [f"      {str(step)[:600]}" for step in unit.steps]
    lines += [f"  at {place}:\n    " + "\n    ".join(_short(found)) for place, found in shortest.differences.items()]
    return "\n".join(lines)


def _short(found: list[str]) -> list[str]:
    more = [f"... and {len(found) - 8} more"] if len(found) > 8 else []
    return [line[:1500] for line in found[:8]] + more
