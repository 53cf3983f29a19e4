"""A restore tells which moment its replay has reached."""

from importlib import import_module
from types import SimpleNamespace

from backups.engine.types import Quiet

restore = import_module("backups.engine.mysql.restore")  # its package gives this name to the function in it


class Told(Quiet):
    def __init__(self):
        self.lines = []

    def log(self, line):
        self.lines.append(line)


def test_the_log_says_now_and_then_which_moment_is_reached(monkeypatch):
    monkeypatch.setattr(restore, "TELL_SECONDS", 0)
    points = [
        SimpleNamespace(key=str(n), storage="s", start={}, end={}, first_us=1_795_370_402_000_001, count=count)
        for n, count in enumerate((3, 0))
    ]
    index = SimpleNamespace(start={}, end={}, data=None)
    archive = SimpleNamespace(read_slice=lambda key: index, read_data=lambda data: [])
    run = Told()
    assert len(list(restore._slices(SimpleNamespace(slices=points), {"s": archive}, run))) == 2
    assert run.lines == ["Slice 1 of 2. The moment 2026-11-22 18:00:02.000001 UTC is reached.", "Slice 2 of 2."]
