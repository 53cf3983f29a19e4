"""What all rounds of one flavour showed, counted by feature."""

from __future__ import annotations

from collections import Counter

from tests.torture.history import CONTEXTS, FEATURES, RARE
from tests.torture.stand import Outcome

PHASES = ("backup", "during", "slices")


class Report:
    """As text it is a table: how often each feature lay before, during and after the backup, and failed."""

    def __init__(self, flavour: str, version: str) -> None:
        self.flavour, self.version = flavour, version
        self.told: Counter[tuple[str, str]] = Counter()
        self.failed: Counter[tuple[str, str]] = Counter()
        self.refused: Counter[str] = Counter()
        self.ways: Counter[str] = Counter()
        self.logs: Counter[str] = Counter()  # restores by the variant of the source's log
        self.rounds = self.restores = self.transactions = 0
        self.different: list[str] = []

    def add(self, outcome: Outcome, log: str) -> None:
        """Only what was restored and compared counts as told."""
        self.rounds += 1
        self.failed += outcome.failed
        self.refused.update(outcome.refused)
        if not outcome.differences and outcome.restores:
            self.told += outcome.told
            self.restores += outcome.restores
            self.ways += outcome.ways
            self.logs[log] += outcome.restores
            self.transactions += outcome.transactions

    @property
    def names(self) -> list[str]:
        every = {**FEATURES, **CONTEXTS}
        return [name for name, one in every.items() if one.only in ("", self.flavour)]

    @property
    def missing(self) -> list[str]:
        """Features never compared; of rare ones only where there was time for some."""
        rare = {name for name, one in FEATURES.items() if one.rare} if self.rounds < 2 * RARE else set()
        return [name for name in self.names if name not in rare and not any(self.told[name, one] for one in PHASES)]

    @property
    def fine(self) -> bool:
        return not self.different and not self.missing

    def __str__(self) -> str:
        lines = [
            f"{self.flavour} {self.version}: {self.rounds} rounds, {self.restores} restores compared,"
            f" {self.transactions} transactions, {len(self.different)} rounds with differences",
            f"{'feature':55}{'before':>8}{'during':>8}{'after':>8}{'failed':>8}   the backup",
        ]
        errors = Counter(name for name, _ in self.failed.elements())
        for name in self.names:
            counts = "".join(f"{self.told[name, phase]:8}" for phase in PHASES)
            lines.append(f"{name:55}{counts}{errors[name]:8}")
        lines += [f"restores, {name}: {count}" for name, count in (*self.ways.items(), *self.logs.items())]
        lines += [f"failed on the source, {count} times: {name}: {why}" for (name, why), count in self.failed.items()]
        lines += [f"refused, {count} times: {why}" for why, count in self.refused.items()]
        lines += [f"NEVER: {name}" for name in self.missing]
        return "\n".join([*lines, *self.different])
