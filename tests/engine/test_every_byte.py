"""Exhaustive over a small timeline: no damaged byte of any kind of object is ever handed on."""

import re
from itertools import chain

import pytest

from backups.engine import archive as module
from backups.engine import layout, merging
from backups.engine.archive import Archive
from backups.engine.crypt import Keys, key_id
from backups.engine.errors import Corrupt
from backups.engine.levels import Group
from backups.engine.manifest import Manifest, SchemaEntry, TableEntry
from backups.engine.pieces import compressed
from backups.engine.slices import point, ship
from backups.engine.types import Quiet
from tests.engine.histories import DATABASE, TIMELINE, at
from tests.engine.memory_store import MemoryStore
from tests.engine.test_merging import Engine, chunk

BACKUP = "00000000-0000-4000-8000-0000000000b1"
KEYS = Keys({key_id(b"k" * 32): b"k" * 32})

# What FORMAT.md lists, as a key without what differs from object to object; `rows` and the like are ours to choose.
KINDS = {
    "database.json", "backups/manifest.json", "backups/create.sql.zst", "backups/finish.sql.zst",
    "backups/accounts.sql.zst", "backups/rows.tsv.zst", "slices/0/index/.idx", "slices/0/data/.binlog.zst",
    "slices/1/index/.idx", "slices/1/data/.binlog.zst",
}  # fmt: skip
VARYING = re.compile(rf"^v1/|({DATABASE}|{TIMELINE}|{BACKUP})/|[0-9]{{12}}|-[0-9a-f]{{16}}")


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture(params=["plain", "encrypted", "in blocks"])
def archive(request, store, monkeypatch):
    """One backup at 0 and slices 0 to 3, of which 0 to 2 are merged too.

    In blocks: each line can be read before the next is there, and most objects are of several blocks.
    """
    if request.param == "in blocks":
        monkeypatch.setattr(module, "BLOCK", 32)
        monkeypatch.setattr(module, "PIECE", 8)
        monkeypatch.setattr(module, "compressed", lambda raw: chain.from_iterable(compressed([one]) for one in raw))
    archive = Archive(store, DATABASE, KEYS if request.param == "encrypted" else Keys())
    archive.write_database({"name": "shop", "pins": []})
    archive.write_manifest(backup(archive))
    ship(archive, TIMELINE, [chunk(number) for number in range(1, 5)], None, lambda index: None)
    parts = tuple(point(index, "store") for index in list(archive.slices(TIMELINE))[:3])
    assert merging.merge(archive, Group(1, parts), Engine(), Quiet())
    return archive


def backup(archive):
    def put(name, kind, *lines):
        return archive.put_data(layout.backup_data(DATABASE, TIMELINE, BACKUP, name, kind), lines)

    rows = (put("rows", "tsv", b"1\tapple\n", b"2\tpear\n"), put("rows", "tsv", b"3\tplum\n"))
    create = put("create", "sql", b"DELIMITER //\n", b"CREATE DATABASE shop\n//\n", b"CREATE TABLE fruit\n//\n")
    finish = put("finish", "sql", b"DELIMITER //\n", b"CREATE VIEW fruits\n//\n")
    accounts = put("accounts", "sql", b"DELIMITER //\n", b"CREATE USER ann\n//\n")
    schema = SchemaEntry("shop", create, finish, (TableEntry("fruit", "InnoDB", 3, "", rows),))
    return Manifest(BACKUP, "first", DATABASE, TIMELINE, "", "mysql", "9.7.4", "uuid", at(0), 0, 0, 0, "UTC", {},
                    (schema,), 9, 3, accounts)  # fmt: skip


def references(archive):
    """Every data object's reference, read while all is sound."""
    made = [ref for manifest in archive.manifests() for ref in manifest.data()]
    made += [index.data for level in archive.levels(TIMELINE) for index in archive.slices(TIMELINE, level)]
    return {ref.key: ref for ref in made}


def read(archive, key, known):
    """Read one object as all its users do: what it says, piece by piece."""
    parts = layout.parse(key)
    if parts.kind == "database":
        yield archive.read_database()
    elif parts.kind == "manifest":
        yield archive.read_manifest(TIMELINE, parts.backup)
    elif parts.kind == "index":
        yield archive.read_slice(key)
    else:
        yield from archive.read_data(known[key])


def flipped(whole):
    return (whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :] for at in range(len(whole)))


def missing(whole):
    return (whole[:at] + whole[at + 1 :] for at in range(len(whole)))


def truncated(whole):
    return (whole[:size] for size in range(len(whole)))


@pytest.mark.parametrize("damage", [flipped, missing, truncated])
def test_every_damaged_byte_of_every_object_is_found_before_anything_made_of_it_is_handed_on(archive, store, damage):
    known = references(archive)
    sound = {key: list(read(archive, key, known)) for key in store.objects}
    for key, whole in list(store.objects.items()):
        for store.objects[key] in damage(whole):
            handed_on = []
            with pytest.raises(Corrupt):
                handed_on.extend(read(archive, key, known))
            assert handed_on == sound[key][: len(handed_on)]
            assert not handed_on or known[key].blocks
        store.objects[key] = whole
    assert {key: list(read(archive, key, known)) for key in store.objects} == sound


def test_every_object_that_is_missing_is_named(archive, store):
    known = references(archive)
    for key, whole in list(store.objects.items()):
        del store.objects[key]
        if layout.parse(key).kind != "database":  # without it there are no settings, and all can be restored
            with pytest.raises(Corrupt, match=f"{key} is missing"):
                list(read(archive, key, known))
        store.objects[key] = whole


def test_there_is_an_object_of_every_kind_that_the_format_has(archive, store):
    assert {VARYING.sub("", key) for key in store.objects} == KINDS
