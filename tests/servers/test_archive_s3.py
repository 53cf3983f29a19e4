"""The archive on an S3 server: ranges, conditional puts and listings do what the fast tests' memory store does."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest

from backups.engine import archive as module
from backups.engine import layout
from backups.engine.archive import Archive, databases
from backups.engine.errors import LeaseLost
from backups.engine.slices import ship
from backups.engine.types import Quiet
from backups.engine.verify import verify
from storages.stores import open_store
from storages.stores.base import StoreConfig
from tests.engine.histories import DATABASE, TIMELINE, engine
from tests.engine.test_slices import assert_one_run, chunks


@pytest.fixture
def archive(s3: Any) -> Archive:
    config = StoreConfig(
        type="s3",
        name="emulator",
        bucket=s3.new_bucket(),
        region=s3.region,
        endpoint=s3.endpoint,
        access_key=s3.access_key,
        secret_key=s3.secret_key,
        prefix="some/where",
        conditional_put=True,
    )
    return Archive(open_store(config), DATABASE)


def test_a_timeline_is_shipped_found_again_and_proven(archive: Archive) -> None:
    last = ship(archive, TIMELINE, chunks(1, 5), None, lambda index: None)
    assert archive.last_slice(TIMELINE) == last
    assert_one_run(archive, 5)
    report = verify({"emulator": archive}, TIMELINE, engine.at_or_before, Quiet())
    assert (report.objects, report.problems) == (10, [])
    assert (databases(archive.store), archive.timelines()) == ([DATABASE], [TIMELINE])


def test_an_object_of_several_blocks_comes_back(archive: Archive) -> None:
    raw = os.urandom(2 * module.BLOCK + 12345)
    ref = archive.put_data(layout.slice_data(DATABASE, TIMELINE, 0, 0), [raw])
    assert len(ref.blocks) == 3 and b"".join(archive.read_data(ref)) == raw


def test_of_eight_who_claim_one_sequence_one_wins(archive: Archive) -> None:
    together, outcomes = threading.Barrier(8), []

    def claim(number: int) -> None:
        together.wait()
        try:
            archive.put_record(layout.index(DATABASE, TIMELINE, 0, 0), "slice", {"by": number}, claim=True)
            outcomes.append(number)
        except LeaseLost:
            pass

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == [archive.read_record(layout.index(DATABASE, TIMELINE, 0, 0), "slice")["by"]]
