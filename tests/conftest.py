"""Real servers, started once a session at their first use; a server that cannot be had fails the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from everest.demo import ceph as gateway
from everest.demo import s3 as emulator
from everest.demo import servers as demo
from everest.demo.servers import Installation, Server
from tests.helpers import clean

TESTED_MYSQL = (9, 7)
NEW_MARIADB = (11, 8)
KINDS: dict[str, tuple[str, bool]] = {
    "mysql_source": ("mysql", True),
    "mysql_target": ("mysql", True),
    "mysql_files": ("mysql", False),
    "mariadb_source": ("mariadb", True),
    "mariadb_target": ("mariadb", True),
    "mariadb_new_source": ("mariadb_new", True),
    "mariadb_new_target": ("mariadb_new", True),
}


def installation(flavour: str) -> Installation:
    if flavour == "mysql":
        return demo.mysql(minimum=TESTED_MYSQL)
    return demo.mariadb(minimum=NEW_MARIADB if flavour == "mariadb_new" else ())


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Server]]:
    """A function from a name of KINDS to its running server, as it was left by the test before."""
    running: dict[str, Server] = {}

    def get(name: str) -> Server:
        if name not in running:
            flavour, gtid = KINDS[name]
            running[name] = demo.start(installation(flavour), tmp_path_factory.mktemp(name), gtid=gtid)
        return running[name]

    yield get
    for one in running.values():
        one.kill()


@pytest.fixture
def new_server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """A function that starts a server for this test alone: new_server("mysql", gtid=True, options=())."""
    started: list[Server] = []

    def start(flavour: str, gtid: bool = True, options: tuple[str, ...] = ()) -> Server:
        folder = tmp_path / f"{flavour}-{len(started)}"
        started.append(demo.start(installation(flavour), folder, gtid=gtid, options=options))
        return started[-1]

    yield start
    for one in started:
        one.kill()


@pytest.fixture
def mysql_source(server: Any) -> Server:
    return _cleaned(server("mysql_source"))


@pytest.fixture
def mysql_target(server: Any) -> Server:
    return _cleaned(server("mysql_target"))


@pytest.fixture
def mysql_files(server: Any) -> Server:
    """gtid_mode=OFF: positions are file and offset."""
    return _cleaned(server("mysql_files"))


@pytest.fixture
def mariadb_source(server: Any) -> Server:
    return _cleaned(server("mariadb_source"))


@pytest.fixture
def mariadb_target(server: Any) -> Server:
    return _cleaned(server("mariadb_target"))


@pytest.fixture
def mariadb_new_source(server: Any) -> Server:
    """MariaDB 11.8 or newer, beside the machine's own."""
    return _cleaned(server("mariadb_new_source"))


@pytest.fixture
def mariadb_new_target(server: Any) -> Server:
    return _cleaned(server("mariadb_new_target"))


@pytest.fixture(scope="session")
def s3() -> Iterator[emulator.S3]:
    """The S3 emulator: endpoint, region, access_key, secret_key, new_bucket(), client()."""
    running = emulator.start()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def ceph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[gateway.Ceph]:
    """Ceph's S3 gateway: the same shape as `s3`, and start_gateway(), kill_gateway()."""
    running = gateway.start(tmp_path_factory.mktemp("ceph"))
    yield running
    running.stop()


def _cleaned(one: Server) -> Server:
    clean(one)
    return one
