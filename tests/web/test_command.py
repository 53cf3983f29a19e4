"""What every command shares: times with a zone, the progress bar, exit codes."""

import io
import threading

import pytest

from backups.engine.errors import Corrupt, EngineError, NotCovered, Refused, Transient
from backups.management.command import Exit, Failure, Terminal, bar, code_of, time_us
from storages.stores.base import Denied, Unreachable

NOON = 1_795_348_800_250_000  # 2026-11-22 12:00:00.25 UTC


class Screen(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("text", [
    "2026-11-22T12:00:00.25Z",
    "2026-11-22 12:00:00.25 UTC",
    "2026-11-22 13:00:00.25+01:00",
    "2026-11-22 13:00:00.25 Europe/Berlin",
    "2026-11-22 17:30:00.25 Asia/Kolkata",
])  # fmt: skip
def test_a_time_is_read_in_the_zone_it_names(text):
    assert time_us(text) == NOON


@pytest.mark.parametrize("text", [
    "2026-11-22 12:00:00",
    "2026-11-22",
    "noon",
    "2026-11-22 12:00:00 Mars/Olympus",
    "2026-10-25 02:30:00 Europe/Berlin",
    "2026-03-29 02:30:00 Europe/Berlin",
    "2026-02-30 12:00:00Z",
])  # fmt: skip
def test_a_time_that_means_no_or_two_moments_is_an_error_of_usage(text):
    with pytest.raises(Failure) as failure:
        time_us(text)
    assert failure.value.returncode == Exit.USAGE


def test_the_bar_says_how_far_it_is():
    assert bar("Loading", 15_000, 60_000, "rows", width=8) == "Loading [##      ] 15,000 of 60,000 rows"
    assert bar("Loading", 15_000, 0, "rows") == "Loading 15,000 rows"
    assert bar("Waiting", 0, 0, "") == "Waiting"


def test_a_log_line_wipes_the_bar_and_the_bar_is_only_for_eyes():
    screen, file = Screen(), io.StringIO()
    for stream in (screen, file):
        terminal = Terminal(stream, threading.Event())
        terminal.progress("Loading", 1, 1, "rows")
        terminal.log("Done.")
        terminal.close()
    drawn = bar("Loading", 1, 1, "rows")
    assert screen.getvalue() == f"{drawn}\r{' ' * len(drawn)}\rDone.\n"
    assert file.getvalue() == "Done.\n"


def test_the_exit_code_follows_the_kind_of_error():
    codes = {Refused: 3, NotCovered: 3, Denied: 3, Transient: 4, Unreachable: 4, Corrupt: 5, EngineError: 1}
    assert {kind: code_of(kind("x")) for kind in codes} == codes
