"""A bucket that keeps every version and locks objects: everything works, and what is deleted is only hidden there."""

from __future__ import annotations

import dataclasses
import json
import secrets
from typing import Any

import pytest
from botocore.exceptions import ClientError

from backups import catalog, queue, shipping
from backups.engine.archive import Archive
from backups.engine.types import Quiet
from backups.models import Backup, Database, Job
from everest.demo.servers import Server
from storages.models import BackupStorage
from storages.stores import open_store, probe
from tests.engine.histories import DATABASE
from tests.helpers import compare
from tests.servers.test_s3_contract import config_of
from tests.servers.test_work import add, back_up, content, register, restore, sql


@pytest.fixture
def locked(ceph: Any) -> Any:
    """Every object is kept for a day, whoever asks to delete it."""
    name = f"locked-{secrets.token_hex(4)}"
    config = dataclasses.replace(config_of(ceph), bucket=name)
    client = ceph.client()
    client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    rule = {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 1}}
    configuration = {"ObjectLockEnabled": "Enabled", "Rule": rule}
    client.put_object_lock_configuration(Bucket=name, ObjectLockConfiguration=configuration)
    return config


@pytest.fixture
def shop(locked: Any, mysql_source: Server) -> Database:
    storage = BackupStorage.objects.create(
        name="locked", bucket=locked.bucket, region=locked.region, endpoint=locked.endpoint, path_style=True,
        access_key=locked.access_key, secret_key=locked.secret_key, conditional_put=True,
    )  # fmt: skip
    storage.refresh_from_db()
    sql(mysql_source, "CREATE DATABASE shop", "CREATE TABLE shop.orders (id INT PRIMARY KEY, what VARCHAR(20))")
    add(mysql_source, 1)
    return register(mysql_source, "shop", pitr=True, pitr_storage=storage, pitr_interval=1)


def asked_to_delete_the_first_of_two(shop: Database, server: Server) -> tuple[Backup, Job]:
    first = back_up(shop)
    add(server, 2)
    shipping.drain(shop, Quiet())
    back_up(shop)
    return first, first.request_delete("ann")


@pytest.mark.django_db(transaction=True)
def test_what_retention_gives_up_is_hidden_there_and_everything_kept_is_whole(
    shop: Database, mysql_source: Server, mysql_target: Server, ceph: Any
) -> None:
    first, job = asked_to_delete_the_first_of_two(shop, mysql_source)
    assert queue.run_job_now(job).state == Job.SUCCEEDED
    again = shop.jobs.create(kind=Job.DELETE, queue=Job.LONG)
    assert queue.run_job_now(again).state == Job.SUCCEEDED  # what is hidden is not given up again
    assert queue.run_job_now(shop.verify("ann")).state == Job.SUCCEEDED
    catalog.rebuild(shop.pitr_storage)
    assert not Backup.objects.filter(pk=first.pk).exists() and shop.backups.count() == 1
    restore(shop, register(mysql_target, "other"))
    assert not compare(content(mysql_source), content(mysql_target))
    kept = ceph.client().list_object_versions(Bucket=shop.pitr_storage.bucket)["Versions"]
    hidden = next(entry for entry in kept if str(first.pk) in entry["Key"])
    with pytest.raises(ClientError, match="AccessDenied"):  # nobody can, before its time is over
        ceph.client().delete_object(Bucket=shop.pitr_storage.bucket, Key=hidden["Key"], VersionId=hidden["VersionId"])


@pytest.mark.django_db(transaction=True)
def test_deletions_that_the_bucket_refuses_are_shown_and_done_once_it_lets_them(
    shop: Database, mysql_source: Server, ceph: Any
) -> None:
    first, job = asked_to_delete_the_first_of_two(shop, mysql_source)
    place = f"arn:aws:s3:::{shop.pitr_storage.bucket}/*"
    deny = {"Effect": "Deny", "Principal": "*", "Action": ["s3:DeleteObject"], "Resource": place}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [deny]})
    ceph.client().put_bucket_policy(Bucket=shop.pitr_storage.bucket, Policy=policy)
    job = queue.run_job_now(job)
    assert job.state == Job.FAILED and "s3:DeleteObject" in job.error and "locked" in job.error
    first.refresh_from_db()
    assert first.state == Backup.DELETING and "s3:DeleteObject" in first.error
    assert queue.run_job_now(shop.verify("ann")).state == Job.SUCCEEDED
    ceph.client().delete_bucket_policy(Bucket=shop.pitr_storage.bucket)
    assert queue.run_job_now(job.retry("ann")).state == Job.SUCCEEDED
    assert not Backup.objects.filter(pk=first.pk).exists()


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
    versions = ceph.client().list_object_versions(Bucket=locked.bucket, Prefix=f"{locked.prefix}/v1")["Versions"]
    assert {entry["Key"].rpartition("/")[2] for entry in versions} == {"x", "y", "database.json"}
