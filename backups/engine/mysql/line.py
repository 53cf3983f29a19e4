"""The socket of a session that waits for as long as its server lives.

A statement may be silent for hours: it builds an index, waits for a lock, reads past rows that are gone.  So time alone
tells nothing.  Where nothing has passed for a while, the server is asked over a connection of its own whether it is
there; that a whole machine is gone is told by TCP's keepalive.
"""

from __future__ import annotations

import io
import socket
import time
from collections.abc import Callable
from typing import Any

import pymysql
from pymysql.constants import CR

SILENCE = 120.0  # seconds in which nothing passed, after which the server is asked
LOOK = 5.0  # seconds between looks at the clock
KEEPALIVE = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4))


class Silent(pymysql.err.OperationalError):  # type: ignore[misc]  # PyMySQL has no types
    """A server that says nothing in a session, and nothing to whoever wants a new one."""

    def __init__(self, seconds: float) -> None:
        super().__init__(CR.CR_SERVER_LOST, f"it has said nothing for {seconds:.0f} s and answers no new session")


class Line(io.RawIOBase):
    """Socket and file of one session, as PyMySQL uses them.  answers: whether the server is there."""

    def __init__(self, sock: Any, answers: Callable[[], bool]) -> None:
        self._sock = sock
        self._answers = answers
        self._heard = time.monotonic()

    def recv_into(self, buffer: Any) -> int:
        """Raise TimeoutError as a socket does, and Silent where that happens for too long."""
        try:
            size: int = self._sock.recv_into(buffer)
        except TimeoutError:
            self.waited()
            raise
        self._heard = time.monotonic()
        return size

    def readinto(self, buffer: Any) -> int:
        while True:
            try:
                return self.recv_into(buffer)
            except TimeoutError:
                continue

    def sendall(self, data: bytes) -> None:
        rest = memoryview(data)
        self._heard = time.monotonic()
        while rest:
            try:
                rest = rest[self._sock.send(rest) :]
                self._heard = time.monotonic()
            except TimeoutError:
                self.waited()

    def waited(self) -> None:
        """To be called now and then while nothing passes.  Raises Silent; the session is of no more use then."""
        silent = time.monotonic() - self._heard
        if silent < SILENCE:
            return
        if not self._answers():
            self._sock.shutdown(socket.SHUT_RDWR)  # what was sent in part must not go on with something else
            raise Silent(silent)
        self._heard = time.monotonic()

    def readable(self) -> bool:
        return True

    def settimeout(self, seconds: float | None) -> None:
        self._sock.settimeout(seconds)

    def fileno(self) -> int:
        found: int = self._sock.fileno()
        return found

    def close(self) -> None:
        super().close()
        self._sock.close()


def watch(connection: pymysql.Connection[Any], answers: Callable[[], bool]) -> None:
    """Let a session that has just signed in be patient, and no more than that."""
    connection._rfile.close()
    connection._sock = line = Line(connection._sock, answers)
    connection._rfile = io.BufferedReader(line)
    connection._read_timeout = connection._write_timeout = LOOK


def keep_alive(sock: socket.socket) -> None:
    """A peer that vanished is noticed after about two minutes."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in KEEPALIVE:
        if sock.family != socket.AF_UNIX and hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
