"""A little of `make fuzz`, and everything that it ever found."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.__main__ import KEPT, fuzz
from tests.fuzz.targets import TARGETS

FOUND = sorted(KEPT.glob("*.bin"))


@pytest.mark.parametrize("name", TARGETS)
def test_only_the_engines_own_errors_come_out(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.fuzz.__main__.KEPT", tmp_path)
    assert fuzz(name, TARGETS[name], 1, 60) == ""


@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.stem)
def test_what_was_found_stays_mended(path: Path) -> None:
    TARGETS[path.stem.rpartition("-")[0]](path.read_bytes())
