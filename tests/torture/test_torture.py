"""A few random histories of each flavour; `make torture` runs as many as there is time for."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.conftest import installation
from tests.torture.contexts import CONTEXTS
from tests.torture.history import FEATURES, generate, without
from tests.torture.report import Report
from tests.torture.rounds import rounds

SEED, SECONDS = "everest", 12.0  # for rounds to begin in, besides the servers' start


@pytest.mark.parametrize("flavour", ["mysql", "mariadb"])
def test_every_restore_equals_the_replica(flavour: str, tmp_path: Path) -> None:
    made = installation(flavour)
    report = Report(flavour, made.version)
    rounds(made, tmp_path, SEED, time.monotonic() + SECONDS, report, patience=0)
    print(report)
    assert report.different == []
    assert report.missing == []


@pytest.mark.parametrize("flavour", ["mysql", "mariadb"])
def test_a_seed_makes_one_history_with_everything_in_it(flavour: str) -> None:
    first, second = generate("7", flavour), generate("7", flavour)
    assert first == second != generate("8", flavour)
    seen = {name for unit in first.units for name in unit.features}
    rare = {name for name, one in FEATURES.items() if one.rare}
    assert seen | rare >= {name for name, one in {**FEATURES, **CONTEXTS}.items() if one.only in ("", flavour)}


def test_a_shorter_history_keeps_its_backup_in_place() -> None:
    history = generate("7", "mysql")
    shorter = without(history, {0, history.snapshot, len(history.units) - 1})
    assert len(shorter.units) == len(history.units) - 3
    assert shorter.snapshot == history.snapshot - 1
    assert shorter.units[: shorter.snapshot] == history.units[1 : history.snapshot]
