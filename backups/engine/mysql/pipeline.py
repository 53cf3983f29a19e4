"""Statements that are sent before the answers to earlier ones have come.

A server reads one command of a session after the other, and answers each before it reads the next: "Command Phase" in
MySQL's Source Code Documentation.  So nothing but the waiting changes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import pymysql
from pymysql.constants import COMMAND

from backups.engine.mysql.server import Connection

MOST = 64  # answers that may be due
MOST_BYTES = 64 << 10  # of statements whose answers are due: a server that waits until its answers are read takes these

Judge = Callable[[pymysql.MySQLError | None], None]  # of a statement's error, None where it went through


class Pipeline:
    """One session's.  After an error was raised the session must be killed: it may go on with what is due."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._due: deque[tuple[int, Judge]] = deque()
        self._size = 0  # bytes of what is due

    @property
    def due(self) -> int:
        """How many answers are."""
        return len(self._due)

    def send(self, sql: str | bytes, judge: Judge) -> None:
        """Have a statement run; its judge hears what came of it at the latest when `settle` returns."""
        if len(self._due) >= MOST or self._size + len(sql) > MOST_BYTES:
            self.settle()
        self.connection._execute_command(COMMAND.COM_QUERY, sql)
        self._size += len(sql)
        self._due.append((self.connection._next_seq_id, judge))

    def settle(self) -> None:
        """Take all answers that are due; raises what a judge raises."""
        while self._due:
            self.connection._next_seq_id, judge = self._due.popleft()
            judge(self._error())
        self._size = 0

    def run(self, sql: str | bytes) -> None:
        """After all that was sent before; raises the server's error."""
        self.settle()
        self.connection.query(sql)

    def _error(self) -> pymysql.MySQLError | None:
        try:
            self.connection._read_query_result()
            while self.connection._result.has_next:
                self.connection.next_result()
        except pymysql.MySQLError as error:
            return error
        return None
