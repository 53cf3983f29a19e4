"""Connections that are cut, fall silent or lie: a run ends with an error that says so, and the next one goes on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from backups.engine import archive as module
from backups.engine.archive import Archive
from backups.engine.errors import Corrupt, EngineError, Refused, Transient
from backups.engine.mysql import stream
from backups.engine.slices import ship
from backups.engine.types import Quiet
from backups.engine.verify import verify
from everest.demo.servers import Server
from storages.stores.base import StoreConfig
from storages.stores.s3 import S3Store
from tests.engine.histories import DATABASE, TIMELINE, engine
from tests.engine.test_slices import assert_one_run, chunks
from tests.servers.capturing import Source, transactions, used_up
from tests.soak.proxy import HttpProxy, Proxy

FAULTS = ("cut", "500", "503", "403", "truncated", "lost")


@pytest.fixture
def to_s3(s3: Any) -> Iterator[HttpProxy]:
    proxy = HttpProxy(int(s3.endpoint.rpartition(":")[2]))
    yield proxy
    proxy.close()


@pytest.fixture
def archive(s3: Any, to_s3: HttpProxy, monkeypatch: pytest.MonkeyPatch) -> Archive:
    """Over a store that tries each request once, so that a fault is met by Everest itself."""
    monkeypatch.setattr(module, "WAITS", (0.001,))
    config = StoreConfig(
        type="s3", name="emulator", bucket=s3.new_bucket(), region=s3.region, access_key=s3.access_key,
        secret_key=s3.secret_key, endpoint=f"http://127.0.0.1:{to_s3.port}", path_style=True, conditional_put=True,
    )  # fmt: skip
    return Archive(S3Store(config, attempts=1, timeout=1), DATABASE)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("every", [1, 2, 3])
def test_shipping_goes_on_where_a_store_that_failed_in_the_middle_left_it(
    archive: Archive, to_s3: HttpProxy, fault: str, every: int
) -> None:
    ship(archive, TIMELINE, chunks(1, 2), None, lambda index: None)
    to_s3.every = every
    to_s3.set(fault)
    try:
        ship(archive, TIMELINE, chunks(3, 6), archive.last_slice(TIMELINE), lambda index: None)
    except (Transient, Refused):
        pass
    else:
        assert every > 1 or fault == "truncated"  # answers to a put have no body
    to_s3.set("")
    last = archive.last_slice(TIMELINE)
    assert last
    ship(archive, TIMELINE, chunks(last.sequence + 2, 8), last, lambda index: None)
    assert_one_run(archive, 8)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_store_that_fails_is_never_taken_for_damage(archive: Archive, to_s3: HttpProxy, fault: str) -> None:
    """Damage would end the timeline, and send people to look for what is there."""
    ship(archive, TIMELINE, chunks(1, 3), None, lambda index: None)
    for every in (1, 2, 3):
        to_s3.every = every
        to_s3.set(fault)
        try:
            assert not verify({"emulator": archive}, TIMELINE, engine.at_or_before, Quiet()).problems
        except EngineError as error:
            assert not isinstance(error, Corrupt)
    to_s3.set("")
    assert not verify({"emulator": archive}, TIMELINE, engine.at_or_before, Quiet()).problems


@pytest.fixture
def source(mysql_source: Server) -> Iterator[tuple[Source, Proxy]]:
    """A server behind a proxy, with some transactions to come."""
    proxy = Proxy(mysql_source.port)
    source = Source(mysql_source, by_place=False)
    source.config = replace(source.config, port=proxy.port)
    source.run("CREATE TABLE t (id INT PRIMARY KEY, body LONGTEXT)")
    yield source, proxy
    proxy.close()


def write(source: Source, first: int, last: int) -> None:
    for number in range(first, last + 1):
        source.run(f"INSERT INTO t VALUES ({number}, REPEAT('x', 300000))")


def assert_each_once(captured: Any, count: int) -> None:
    numbers = [int(one.identity.rpartition(":")[2]) for one in transactions(captured)]
    assert len(numbers) == count and all(after == before + 1 for before, after in pairwise(numbers))


def test_a_connection_that_is_cut_in_the_middle_loses_nothing(source: tuple[Source, Proxy]) -> None:
    server, proxy = source
    start = server.position()
    write(server, 1, 8)
    proxy.set("slow")
    captured = []
    with pytest.raises(Transient):
        for chunk in server.chunks(start, max_bytes=300_000):
            captured.append(used_up(chunk))
            proxy.set("cut")
    assert 0 < len(captured) < 8
    proxy.set("")
    captured += server.drain(captured[-1].chunk.end)
    assert_each_once(captured, 8)


def test_a_server_that_falls_silent_is_left_and_asked_again(
    source: tuple[Source, Proxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says something every second, so long as it lives: a run without a time limit must not wait for ever."""
    monkeypatch.setattr(stream, "SILENCE", 3.0)
    server, proxy = source
    start = server.position()
    write(server, 1, 4)
    captured = []
    with pytest.raises(Transient, match="has said nothing for 3 s"):
        for chunk in server.chunks(start, max_bytes=300_000, drain=False):
            captured.append(used_up(chunk))
            if len(captured) == 4:
                proxy.set("stall")
    proxy.set("")
    write(server, 5, 6)
    captured += server.drain(captured[-1].chunk.end)
    assert_each_once(captured, 6)
