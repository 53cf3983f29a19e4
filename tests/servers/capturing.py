"""Capture as the tests drive it."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass, field
from typing import Any

from backups.engine.mysql import server as servers
from backups.engine.mysql.stream import capture
from backups.engine.types import Chunk, Position, Quiet
from everest.demo.servers import Server
from tests.helpers import source_config

REPLICA = "7b1f6f0a-0000-4000-8000-00000000e7e5"


@dataclass
class Captured:
    """A chunk with its payload, and the times at which the server had nothing more."""

    chunk: Chunk
    data: bytes


@dataclass
class Source:
    """A server with an account that may do what the README says, and no more."""

    server: Server
    by_place: bool
    config: Any = None
    caught_up: list[Position] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.config = source_config(self.server)
        self.connection = self.server.connect()
        self.run("CREATE DATABASE IF NOT EXISTS c", "USE c")

    def run(self, *statements: str) -> None:
        with self.connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def position(self) -> dict[str, Any]:
        with servers.connect(self.config) as connection:
            position = dict(servers.current_position(connection))
        return position | ({"gtids": None} if self.by_place else {})

    def chunks(self, start: Position, **changes: Any) -> Any:
        settings = {
            "replica_uuid": REPLICA, "interval": 60, "max_bytes": 64 << 20, "drain": True, "deadline": None,
            "run": Quiet(), "on_caught_up": self.caught_up.append,
        }  # fmt: skip
        return capture(self.config, start, **(settings | changes))

    def drain(self, start: Position, **changes: Any) -> list[Captured]:
        return [used_up(chunk) for chunk in self.chunks(start, **changes)]

    def tail(self, start: Position, seconds: float, **changes: Any) -> list[Captured]:
        return self.drain(start, drain=False, deadline=time.monotonic() + seconds, **changes)


def used_up(chunk: Chunk) -> Captured:
    data = b"".join(chunk.payload)
    return Captured(chunk, data)


def transactions(captured: list[Captured]) -> list[Any]:
    return [transaction for one in captured for transaction in one.chunk.transactions]


def ddl(captured: list[Captured]) -> list[str]:
    return [transaction.ddl for transaction in transactions(captured)]


def bytes_of(captured: list[Captured]) -> bytes:
    """All transactions' bytes, one behind the other."""
    return b"".join(one.data[t.offset : t.offset + t.length] for one in captured for t in one.chunk.transactions)


def mysqlbinlog(source: Source, path: Any, *options: str) -> str:
    """What the server's own program reads in a slice; a checksum that is wrong fails it."""
    program = source.server.installation.command("mysqlbinlog")
    argv = [*program, "--no-defaults", "--verify-binlog-checksum", *options, str(path)]
    ran = subprocess.run(argv, capture_output=True, text=True, errors="replace")
    assert ran.returncode == 0, ran.stderr
    assert "ERROR" not in ran.stderr, ran.stderr
    return ran.stdout
