"""Since when a server has had nothing new, by its own clock: what a claim to be recoverable up to now rests on."""

from __future__ import annotations

import pymysql

from backups.engine.errors import EngineError
from backups.engine.mysql import server
from backups.engine.mysql.gtid import at_or_before
from backups.engine.types import Position

ANSWER = 5.0  # seconds for one


class Idle:
    """Asks over a connection of its own, which lasts as long as it answers."""

    def __init__(self, config: server.ServerConfig) -> None:
        self._config = config
        self._connection: server.Connection | None = None
        self._identity: server.Identity

    def since(self, position: Position) -> int | None:
        """A time (microseconds, the server's clock) at which nothing committed lay behind `position`.

        None where something does, or where the server does not answer: nothing is claimed then, and it is asked again.
        """
        try:
            return self._ask(position)
        except (EngineError, pymysql.MySQLError, OSError):
            self.close()
            return None

    def _ask(self, position: Position) -> int | None:
        if self._connection is None:
            self._connection = server.connect(self._config, read_timeout=ANSWER)
            self._identity = server.identify(self._connection)
        # The clock first: what is committed between the two looks only makes the answer no.
        now = server.value(self._connection, "SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))")
        found = server.position_now(self._connection, self._identity)
        return int(now) if _same(position, found) else None

    def close(self) -> None:
        if self._connection is not None:
            self._connection._force_close()  # it may not answer
            self._connection = None


def _same(a: Position, b: Position) -> bool:
    """By GTIDs, as a log file that is begun anew moves the place though nothing is in it."""
    if a["gtids"] is not None and b["gtids"] is not None:
        return at_or_before(a, b) and at_or_before(b, a)
    return all(a[name] == b[name] for name in ("server", "file", "pos"))
