"""What was measured, as text, as Markdown and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.measures import Step


@dataclass
class Race:
    """Everest beside its peers at the same work.

    targets: by peer, how many times as fast as it Everest has to be.  peers without any step were missing.
    """

    what: str
    everest: list[Step]
    peers: dict[str, list[Step]]
    targets: dict[str, float] = field(default_factory=dict)

    @property
    def lines(self) -> list[dict[str, Any]]:
        ours = _medians(self.everest)
        return [self._line(ours, name, steps) for name, steps in self.peers.items()]

    def _line(self, ours: dict[str, Any], name: str, steps: list[Step]) -> dict[str, Any]:
        theirs = _medians(steps) if steps else None
        ratio = theirs["seconds"] / ours["seconds"] if theirs else None
        target = self.targets.get(name)
        return {
            "what": self.what,
            "everest": ours,
            "peer": name,
            "theirs": theirs,
            "ratio": ratio,
            "target": f"{target:g} x" if target else "",
            "met": None if target is None or ratio is None else ratio >= target,
        }


@dataclass
class Limit:
    """A figure that may not be above its target."""

    what: str
    value: float
    unit: str
    most: float | None = None
    note: str = ""

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [
            {
                "what": self.what,
                "value": self.value,
                "unit": self.unit,
                "target": "" if self.most is None else f"under {self.most:g} {self.unit}",
                "met": None if self.most is None else self.value < self.most,
                "note": self.note,
            }
        ]


Row = Race | Limit


def _medians(steps: Sequence[Step]) -> dict[str, Any]:
    names = steps[0].servers
    return {
        "seconds": median(step.seconds for step in steps),
        "least": min(step.seconds for step in steps),
        "rounds": [round(step.seconds, 3) for step in steps],
        "cpu": median(step.cpu for step in steps),
        "servers": {name: median(step.servers[name] for step in steps) for name in names},
        "memory": max(step.memory for step in steps),
        "largest": max(step.largest for step in steps),
    }


def cells(line: dict[str, Any]) -> list[str]:
    """What, Everest, peer, ratio, target, met, where the time went."""
    met = {True: "yes", False: "NO", None: ""}[line["met"]]
    if "value" in line:
        return [line["what"], f"{line['value']:,.2f} {line['unit']}", "", "", line["target"], met, line["note"]]
    theirs, ratio = line["theirs"], line["ratio"]
    peer = f"{line['peer']}: {seconds(theirs['seconds'])}" if theirs else f"{line['peer']}: missing"
    return [
        line["what"], seconds(line["everest"]["seconds"]), peer, f"{ratio:.2f}" if ratio else "", line["target"], met,
        f"{_spent(line['everest'])}" + (f"; peer {_spent(theirs)}" if theirs else ""),
    ]  # fmt: skip


def _spent(step: dict[str, Any]) -> str:
    return " + ".join([f"{step['cpu']:.2f}", *(f"{name} {value:.2f}" for name, value in step["servers"].items())])


def seconds(value: float) -> str:
    return f"{value:.3f} s" if value < 1 else f"{value:.2f} s"


HEADINGS = ["what", "Everest", "peer", "times as fast", "target", "met", "CPU seconds"]


def lines(rows: Iterable[Row]) -> list[dict[str, Any]]:
    return [line for row in rows for line in row.lines]


def text(rows: Iterable[Row]) -> str:
    table = [HEADINGS, *map(cells, lines(rows))]
    widths = [max(len(row[column]) for row in table) for column in range(len(HEADINGS))]
    padded = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in table]
    return "\n".join("  ".join(row).rstrip() for row in padded)


def markdown(rows: Iterable[Row], about: Sequence[str]) -> str:
    table = [HEADINGS, ["---"] * len(HEADINGS), *map(cells, lines(rows))]
    return "\n".join(
        [*about, "", *("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in table), ""]
    )


def write(folder: Path, rows: Sequence[Row], about: dict[str, Any]) -> None:
    """bench.json and bench.md in the folder."""
    folder.mkdir(exist_ok=True)
    (folder / "bench.json").write_text(json.dumps({**about, "rows": lines(rows)}, indent=1, default=str) + "\n")
    (folder / "bench.md").write_text(markdown(rows, [f"{name}: {value}" for name, value in about.items()]))
