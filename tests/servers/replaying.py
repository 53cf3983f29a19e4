"""What tests of replay share: run sessions on a source, capture them as slices, replay these on a target."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

from backups.engine.mysql import server as engine_server
from backups.engine.mysql import target
from backups.engine.mysql.replay import ReplayResult, replay
from backups.engine.mysql.server import ServerConfig
from backups.engine.mysql.stream import capture
from backups.engine.types import Chunk, DataRef, Position, Quiet, SliceIndex
from everest.demo.compare import Ask, quoted, user_schemas
from everest.demo.servers import Server
from tests.helpers import compare, dump_all, source_config, target_config


def position(server: Server) -> Position:
    with server.connect() as connection:
        return engine_server.current_position(connection)


def execute(server: Server, *statements: str | bytes, **settings: Any) -> None:
    """One session that runs these statements."""
    with server.connect(**settings) as connection:
        for statement in statements:
            if isinstance(statement, bytes):
                connection.query(statement)
            else:
                with connection.cursor() as cursor:
                    cursor.execute(statement)


def clean_schemas(connection: Any) -> None:
    ask = Ask(connection)
    ask("SET sql_log_bin = 0")
    for schema in user_schemas(ask):
        ask(f"DROP DATABASE {quoted(schema)}")


class Slices:
    """Slices of what a server logged, kept in memory."""

    def __init__(self) -> None:
        self.kept: list[tuple[SliceIndex, bytes]] = []

    def __iter__(self) -> Iterator[tuple[SliceIndex, list[bytes]]]:
        for index, data in self.kept:
            yield index, [data[at : at + 1000] for at in range(0, len(data), 1000)]

    @property
    def identities(self) -> list[str]:
        return [item.identity for index, _ in self.kept for item in index.transactions]

    def take(self, config: ServerConfig, start: Position, max_bytes: int = 1 << 30) -> Slices:
        """Everything that is logged after `start`, or after what is kept."""
        chunks = capture(
            config,
            self.kept[-1][0].end if self.kept else start,
            replica_uuid=str(uuid.uuid4()),
            interval=60,
            max_bytes=max_bytes,
            drain=True,
            deadline=None,
            run=Quiet(),
            on_caught_up=lambda _: None,
        )
        for chunk in chunks:
            data = b"".join(chunk.payload)
            self.kept.append((self._index(chunk, len(data)), data))
        return self

    def _index(self, chunk: Chunk, size: int) -> SliceIndex:
        number = len(self.kept)
        return SliceIndex(
            f"slice-{number}", "timeline", 0, number, "", chunk.start, chunk.end, DataRef("", 0, ""), size,
            chunk.exact_times, 0, tuple(chunk.transactions),
        )  # fmt: skip


class Pair:
    """A source and a target that begin equal (empty), and what the source logs from here on."""

    def __init__(self, source: Server, target: Server) -> None:
        self.source, self.target = source, target
        self.start = position(source)
        self.slices = Slices()

    def run(self, *statements: str | bytes, **settings: Any) -> None:
        execute(self.source, *statements, **settings)

    def capture(self, max_bytes: int = 1 << 30) -> Slices:
        return self.slices.take(source_config(self.source), self.start, max_bytes)

    def replay(self, stop: Position | None = None, **options: Any) -> ReplayResult:
        """Capture what is new and replay it all, or up to `stop`."""
        self.capture()
        end = self.slices.kept[-1][0].end if self.slices.kept else self.start
        config = options.pop("config", None) or target_config(self.target)
        with self.source.connect() as connection:
            source = engine_server.identify(connection).settings
        before = target.prepare(config, lambda _: None)
        try:
            return replay(
                config,
                self.slices,
                start=self.start,
                stop=stop or end,
                run=options.pop("run", Quiet()),
                source=source,
                **options,
            )
        finally:
            target.put_back(config, before)

    def dumps(self) -> tuple[Any, Any]:
        with self.source.connect() as first, self.target.connect() as second:
            return dump_all(first), dump_all(second)


def same(pair: Pair) -> ReplayResult:
    result = pair.replay()
    first, second = pair.dumps()
    differences = compare(first, second)
    assert not differences, differences
    assert first
    return result


# How most tests begin.
SCHEMA = "CREATE DATABASE shop"
USE = "USE shop"
CAPTURE_ACCOUNT = 2  # statements that make the account for the capture
ROWS = [
    "INSERT INTO t (v, n) VALUES ('a', 1), ('b', 2), ('c', 3)",
    "UPDATE t SET v = 'changed', n = n + 10, at = NOW(6) WHERE n > 1",
    "DELETE FROM t WHERE n = 1",
    "INSERT INTO t (v) VALUES ('last')",
]
T = "CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(200), n INT, at DATETIME(6), ts TIMESTAMP NULL)"
