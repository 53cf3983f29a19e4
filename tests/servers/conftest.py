"""Pairs of servers for replay: a source and a target that begin equal."""

from __future__ import annotations

import pytest

from everest.demo.servers import Server
from tests.servers.replaying import Pair


@pytest.fixture
def mysql_pair(mysql_source: Server, mysql_target: Server) -> Pair:
    return Pair(mysql_source, mysql_target)


@pytest.fixture
def mariadb_pair(mariadb_source: Server, mariadb_target: Server) -> Pair:
    return Pair(mariadb_source, mariadb_target)


@pytest.fixture
def mariadb_new_pair(mariadb_new_source: Server, mariadb_new_target: Server) -> Pair:
    return Pair(mariadb_new_source, mariadb_new_target)


@pytest.fixture(params=["mysql", "mariadb"])
def pair(request: pytest.FixtureRequest) -> Pair:
    """One after the other."""
    found: Pair = request.getfixturevalue(f"{request.param}_pair")
    return found
