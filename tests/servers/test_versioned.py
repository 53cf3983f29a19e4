"""A bucket that keeps every version and locks objects: everything works, and what is deleted is only hidden there."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from backups.engine.archive import Archive
from storages.stores import open_store, probe
from tests.engine.histories import DATABASE
from tests.servers.test_s3_contract import config_of


@pytest.fixture
def locked(ceph: Any) -> Any:
    """Every object is kept for a day, whoever asks to delete it."""
    config = dataclasses.replace(config_of(ceph), bucket="locked")
    client = ceph.client()
    client.create_bucket(Bucket="locked", ObjectLockEnabledForBucket=True)
    rule = {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 1}}
    configuration = {"ObjectLockEnabled": "Enabled", "Rule": rule}
    client.put_object_lock_configuration(Bucket="locked", ObjectLockConfiguration=configuration)
    return config


def test_objects_are_written_read_and_given_up_where_the_bucket_keeps_every_version(locked: Any, ceph: Any) -> None:
    assert probe(locked).ok
    archive = Archive(open_store(locked), DATABASE)
    ref = archive.put_data(f"v1/{DATABASE}/x", [b"rows" * 10])
    large = archive.put_data(f"v1/{DATABASE}/y", (bytes([n % 251]) * 70_001 + n.to_bytes(4) for n in range(300)))
    for _ in range(2):
        archive.write_database({"name": "shop"})
    assert b"".join(archive.read_data(ref)) == b"rows" * 10
    assert sum(map(len, archive.read_data(large))) == 300 * 70_005
    archive.give_up(orphans=[ref.key, large.key])
    archive.give_up(orphans=[ref.key])
    assert [info.key for info in archive.objects()] == [f"v1/{DATABASE}/database.json"]
    versions = ceph.client().list_object_versions(Bucket="locked", Prefix=f"{locked.prefix}/v1")["Versions"]
    assert {entry["Key"].rpartition("/")[2] for entry in versions} == {"x", "y", "database.json"}
