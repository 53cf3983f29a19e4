"""That the bench counts right, and cannot call a wrong restore a fast one."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from everest.demo.servers import Server
from tests.bench import table
from tests.bench.measures import Failed, Step, measure
from tests.bench.proof import Wrong, digest, prove
from tests.bench.table import Limit, Race

KEYLESS = "CREATE TABLE b.keyless (a INT, v VARCHAR(20), data BLOB)"


def step(seconds: float) -> Step:
    return Step(seconds, cpu=seconds / 2, servers={"server": seconds / 4}, memory=3 << 20, largest=2 << 20)


RACE = Race(
    "replay", [step(1), step(9), step(2)], {"a | b": [step(5), step(4)], "gone": []}, {"a | b": 2.0, "gone": 2.0}
)


def test_ratios_are_of_medians() -> None:
    slow, gone = RACE.lines
    assert (slow["ratio"], slow["met"]) == (2.25, True)
    assert (gone["ratio"], gone["met"]) == (None, None)
    assert slow["everest"]["rounds"] == [1, 9, 2]


def test_a_missing_peer_is_said_to_be_missing() -> None:
    assert "gone: missing" in table.text([RACE])


def test_a_target_that_was_not_met_shows() -> None:
    limit = Limit("p99", 3.5, "s", 3)
    assert table.cells(limit.lines[0])[3:6] == ["", "under 3 s", "NO"]


def test_what_is_printed_is_written(tmp_path: Path) -> None:
    table.write(tmp_path, [RACE, Limit("p50", 1, "s", 2)], {"size": "tiny"})
    written = json.loads((tmp_path / "bench.json").read_text())
    assert written["size"] == "tiny"
    assert [line["met"] for line in written["rows"]] == [True, None, True]
    assert "| replay | 2.00 s | a \\| b: 4.50 s | 2.25 | 2 x | yes |" in (tmp_path / "bench.md").read_text()


def burn(seconds: float) -> Callable[[], int]:
    """Prepares for half a second, works for less, and keeps 50 MiB."""
    kept = []
    end = time.process_time() + 0.5
    while time.process_time() < end:
        pass

    def work() -> int:
        end = time.process_time() + seconds
        while time.process_time() < end:
            pass
        kept.append(b"x" * (50 << 20))
        return len(kept)

    return work


def test_only_the_work_is_measured() -> None:
    one = measure(burn, 0.2, servers={})
    assert 0.2 <= one.cpu < 0.5
    assert one.largest > 50 << 20
    assert one.result == 1


def broken() -> Callable[[], None]:
    raise ValueError("not like this")


def test_work_that_fails_is_told() -> None:
    with pytest.raises(Failed, match="not like this"):
        measure(broken, servers={})


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE b.t SET v = NULL WHERE id = 2",
        "ALTER TABLE b.t AUTO_INCREMENT = 100",
        "ALTER TABLE b.t ADD KEY (v)",
        "INSERT INTO b.keyless SELECT * FROM b.keyless LIMIT 1",
        "UPDATE b.keyless SET data = X'00ff01' WHERE a = 1",
        "DROP TABLE b.keyless",
    ],
)
def test_one_difference_is_a_wrong_result(mysql_source: Server, change: str) -> None:
    with mysql_source.connect() as connection, connection.cursor() as cursor:
        for statement in (
            "CREATE DATABASE b",
            "CREATE TABLE b.t (id INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(20))",
            "INSERT INTO b.t (v) VALUES ('a\\n1'), ('NULL'), ('c\\t')",
            KEYLESS,
            "INSERT INTO b.keyless VALUES (1, NULL, X'00ff'), (1, NULL, X'00ff'), (2, 'x', NULL)",
        ):
            cursor.execute(statement)
        wanted = digest(mysql_source)
        prove("nothing", wanted, mysql_source)
        cursor.execute(change)
    with pytest.raises(Wrong, match="WRONG RESULT: after it, "):
        prove("it", wanted, mysql_source)
