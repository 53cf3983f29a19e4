"""Every trap of TRAPS.md names tests on real servers that exist and are run, or says what is open."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LINES = (ROOT / "tests/TRAPS.md").read_text().splitlines()
ROWS = [line.strip("| ").split(" | ") for line in LINES if line.startswith("| ")][1:]
NAMED = re.compile(r"`(tests/servers/test_\w+\.py)::(test_\w+)`")


def run_by(path: str) -> set[str]:
    """The names of a file's test functions that no marker keeps from running."""
    functions = [node for node in ast.parse((ROOT / path).read_text()).body if isinstance(node, ast.FunctionDef)]
    return {one.name for one in functions if not any("skip" in ast.unparse(mark) for mark in one.decorator_list)}


def test_the_table_is_whole() -> None:
    assert len(ROWS) >= 39
    assert {len(row) for row in ROWS} == {4}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:40])
def test_every_trap_has_a_test_that_is_run_or_says_what_is_open(row: list[str]) -> None:
    named = NAMED.findall(row[3])
    assert named or "**open**: " in row[3]
    assert [f"{path}::{name}" for path, name in named if name not in run_by(path)] == []
