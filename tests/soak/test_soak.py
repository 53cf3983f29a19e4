"""A short soak, so that `make soak` keeps working: a fault of each family, and nothing that is claimed is missing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

FAULTS = ("worker killed", "mysql killed", "s3 answers lost", "log reset")


def test_nothing_that_is_claimed_is_missing_whatever_breaks() -> None:
    chosen = [f"--fault={name}" for name in FAULTS]
    argv = [sys.executable, "-m", "tests.soak", "--minutes=0.3", "--seed=1", *chosen]
    ran = subprocess.run(argv, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=400)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "differences: 0" in ran.stdout
    assert int(re.search(r"restores compared: (\d+)", ran.stdout)[1]) > 0
    assert int(re.search(r"([\d,]+) transactions$", ran.stdout, re.M)[1].replace(",", "")) > 100
