"""FORMAT.md says what the code does."""

import re
from dataclasses import fields
from pathlib import Path

import backups.engine
from backups.engine import archive, index, layout, retention, times
from backups.engine.codec import seal
from backups.engine.manifest import Manifest, SchemaEntry, TableEntry
from backups.engine.types import DataRef
from tests.engine import histories

TEXT = Path(backups.engine.__file__).with_name("FORMAT.md").read_text()
PARTS = {
    "<database>": histories.DATABASE,
    "<timeline>": histories.TIMELINE,
    "<backup>": histories.OTHER_TIMELINE,
    "<level>": "0",
    "<sequence>": "000000000042",
    "<name>": "rows-0-1-2",
    "<random>": "0123456789abcdef",
}


def test_every_key_of_the_grammar_is_one_and_every_kind_is_there():
    kinds = set()
    for template in re.findall(r"^v1/.*$", TEXT, re.MULTILINE):
        for part, value in PARTS.items():
            template = template.replace(part, value)
        kinds.add(layout.parse(template).kind)
    assert kinds == {"database", "manifest", "backup data", "index", "slice data"}


def test_the_header_is_written_as_shown():
    header = seal("slice", {}, True).partition(b"\n")[0].decode()
    assert f"\n{header}⏎\n" in TEXT


def test_every_field_is_named():
    body = index.to_body(histories.index(0, [], 0), histories.DATABASE)
    names = [*body, *(field.name for kind in (Manifest, SchemaEntry, TableEntry) for field in fields(kind))]
    assert [name for name in names if f"`{name}`" not in TEXT] == []
    columns = re.search(r"\| column \| entry \|\n.*?\n\n", TEXT, re.DOTALL)[0]
    assert re.findall(r"^\| (\w+) \|", columns, re.MULTILINE)[1:] == list(body["transactions"])
    assert [field.name for field in fields(DataRef) if f"| {field.name} |" not in TEXT] == []


def test_numbers_are_the_codes():
    said = (f"{archive.BLOCK >> 20} MiB", f"{retention.ORPHAN_AGE.days} days", f"{times.TOLERANCE_US // 10**6} s")
    assert [text for text in (*said, f"the {2 * times.AROUND + 1} transactions") if text not in TEXT] == []
