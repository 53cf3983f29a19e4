"""A server's log over the replication protocol: what is asked, and the packets of the answer.

See "Replication Protocol" in MySQL's Source Code Documentation and in MariaDB's Knowledge Base.
"""

from __future__ import annotations

import hashlib
import mmap
import re
import secrets
import ssl
import struct
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import pymysql

from backups.engine.errors import Corrupt, EngineError, Forked, Gap, LeaseLost, Transient
from backups.engine.mysql import bulk, continuity, events, server
from backups.engine.mysql.gtid import GtidSet
from backups.engine.types import Position

BLOCK = 1 << 20  # bytes asked of the socket at once
LONGEST = 0xFFFFFF  # bytes of a packet that goes on in the next one
NON_BLOCKING, ANNOTATIONS = 1, 2  # flags of a dump; the second is MariaDB's
HEARTBEAT_SECONDS = 1
WRITE_TIMEOUT = 120  # seconds that the server waits for a reader that is busy uploading
_REGISTER, _DUMP, _DUMP_GTID = 0x15, 0x12, 0x1E


class Packets:
    """Reads one socket in large blocks and cuts it into packets; each is valid until the next `receive`."""

    def __init__(self, sock: Any) -> None:
        self.sock = sock
        self.buffer = _buffer(BLOCK)
        self.at = self.end = 0
        self.long = bytearray()  # of a payload that comes in several packets

    def receive(self, timeout: float) -> bool:
        """Wait at most so many seconds for more, and take what is there then.

        False if none came, Transient if the connection is gone.
        """
        self._make_room()
        if not self._read(timeout):
            return False
        with suppress(Transient):  # what came before is used first; the next call meets the end again
            while self.end < len(self.buffer) - bulk.SLACK and self._read(0):
                pass  # TLS hands over 16 KiB at a time, and more is cheaper at once
        return True

    def _read(self, timeout: float) -> bool:
        self.sock.settimeout(timeout)
        try:
            count: int = self.sock.recv_into(self.buffer[self.end : -bulk.SLACK])
        except (TimeoutError, BlockingIOError, ssl.SSLWantReadError):
            return False
        except OSError as error:
            raise Transient(f"The connection to the server broke: {error}.") from error
        if not count:
            raise Transient("The server closed the connection.")
        self.end += count
        return True

    def _make_room(self) -> None:
        left = bytes(self.buffer[self.at : self.end])
        size = len(self.buffer) - bulk.SLACK
        if len(left) > size // 2:
            self.buffer = _buffer(2 * size)
        self.buffer[: len(left)] = left
        self.at, self.end = 0, len(left)

    def whole(self) -> Iterator[memoryview]:
        """The packets that are there, without their headers."""
        buffer, end = self.buffer, self.end
        while end - self.at >= 4:
            start = self.at + 4
            size = buffer[start - 4] | buffer[start - 3] << 8 | buffer[start - 2] << 16
            if end - start < size:
                return
            self.at = start + size
            packet = buffer[start : start + size]
            if size == LONGEST or self.long:
                self.long += packet
                if size == LONGEST:
                    continue
                packet, self.long = memoryview(self.long), bytearray()
            yield packet


def _buffer(size: int) -> memoryview:
    """Memory that the system gives page by page as it is written: most servers say little most of the time."""
    return memoryview(mmap.mmap(-1, size + bulk.SLACK, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


REPORTED = b"everest"  # the host that a server lists Everest's own sessions under, among its replicas


def replica_id(replica_uuid: str, other_than: int) -> int:
    """The server id that goes with a replica's uuid: always the same, and not the source's."""
    number = int.from_bytes(hashlib.sha256(replica_uuid.encode()).digest()[:4], "little") | 1 << 31
    return number if number != other_than else number ^ 1


def start(
    connection: pymysql.Connection[Any], position: Position, replica_uuid: str, *, mariadb: bool, drain: bool
) -> None:
    """Ask for everything after a position.  The session serves nothing else from here on."""
    own = int(server.value(connection, "SELECT @@global.server_id"))
    number = replica_id(replica_uuid, own)
    _prepare(connection, replica_uuid)
    report = bytes([len(REPORTED)]) + REPORTED
    command(connection, _REGISTER, struct.pack("<I", number) + report + struct.pack("<BBHII", 0, 0, 0, 0, 0))
    connection._read_ok_packet()
    flags = NON_BLOCKING if drain else 0
    gtids = position["gtids"]
    if mariadb:
        _prepare_maria(connection, gtids)
        command(connection, _DUMP, struct.pack("<IHI", 4, flags | ANNOTATIONS, number))
    elif gtids is not None:
        known = GtidSet.parse(gtids).encode()
        command(connection, _DUMP_GTID, struct.pack("<HIIQI", flags, number, 0, 4, len(known)) + known)
    else:
        file, pos = continuity.reachable(connection, position)
        command(connection, _DUMP, struct.pack("<IHI", pos, flags, number) + file.encode())


def born(config: server.ServerConfig, file: str) -> str:
    """A log file's id, by its first event; read over a connection of its own, which that is the end of."""
    connection = server.connect(config, read_timeout=60)
    try:
        with connection.cursor() as cursor:
            cursor.execute("SET @source_binlog_checksum = 'CRC32', @master_binlog_checksum = 'CRC32'")
        # An id that no replica has: the server ends sessions whose id comes twice.
        number = secrets.randbits(31) | 1 << 31
        command(connection, _DUMP, struct.pack("<IHI", 4, NON_BLOCKING, number) + file.encode())
        packets = Packets(connection._sock)
        while packets.receive(60):
            for packet in packets.whole():
                if not packet or packet[0] != 0:
                    raise refusal(packet)
                if len(packet) > 5 and packet[5] == events.FORMAT_DESCRIPTION:
                    return events.file_id(events.parse(packet[1:], events.CHECKSUM_SIZE))
        raise Transient(f"The server did not send the beginning of {file}.")
    finally:
        connection._force_close()


def anchored(config: server.ServerConfig, position: Position) -> Position:
    """The position with its log file's id, so that a reset before the first slice is told.

    As it was where the log cannot be read: shipping says why, and a backup needs no more.
    """
    try:
        return {**position, "file_id": born(config, position["file"])}
    except EngineError:
        return position


def prove_same(config: server.ServerConfig, known: Position) -> None:
    """Raise Forked or Gap where the server's log does not go on from a place that it had once."""
    connection = server.connect(config, read_timeout=60)
    try:
        continuity.prove(connection, server.identify(connection), known, partial(born, config))
    except pymysql.MySQLError as error:
        raise server.explain(error, "Looking at the server's log") from error
    finally:
        connection._force_close()


def _prepare(connection: pymysql.Connection[Any], replica_uuid: str) -> None:
    nanoseconds = HEARTBEAT_SECONDS * 1_000_000_000
    with connection.cursor() as cursor:
        cursor.execute("SET @source_binlog_checksum = 'CRC32', @master_binlog_checksum = 'CRC32'")
        cursor.execute("SET @replica_uuid = %s, @slave_uuid = %s", (replica_uuid, replica_uuid))
        cursor.execute("SET @source_heartbeat_period = %s, @master_heartbeat_period = %s", (nanoseconds, nanoseconds))
        cursor.execute("SET SESSION net_write_timeout = %s", (WRITE_TIMEOUT,))


def _prepare_maria(connection: pymysql.Connection[Any], gtids: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET @mariadb_slave_capability = 4, @slave_gtid_strict_mode = 0")
        cursor.execute("SET @slave_gtid_ignore_duplicates = 0, @slave_connect_state = %s", (gtids,))


def command(connection: pymysql.Connection[Any], code: int, body: bytes) -> None:
    connection._execute_command(code, body)


# --- the server's "no" --------------------------------------------------------------------------------------

# 1236 is all that MySQL says; MariaDB has 4052 for the second replica and numbers of its own about GTIDs.
_READ_ERRORS = frozenset({1236, 4052, *range(1945, 1958)})
_MEANINGS: tuple[tuple[str, type[EngineError], str, str], ...] = (
    (
        r"same server_uuid|same server_id|same server_uuid/server_id",
        LeaseLost,
        "Another session reads this server's log under the same replica id: it has taken over.",
        "",
    ),
    (
        r"more GTIDs|not in the master's binlog|diverged|not in the source's binlog",
        Forked,
        "The server has lost transactions that were already shipped.",
        "Find out why (a crash with sync_binlog off, a failover to a replica that lagged), then take a backup.",
    ),
    (
        r"purged|Could not find GTID state|first log file name|could not find next log|position > file size"
        r"|impossible position|too old",
        Gap,
        "Binlog that was not shipped yet is gone from the server.",
        "Take a backup: a new timeline starts with it. Keep binlogs longer (binlog_expire_logs_seconds).",
    ),
    (
        r"truncated|bogus data|corrupt|crc check|checksum|read error|Event too",
        Corrupt,
        "The server cannot read its own log.",
        "Check the server's disk and error log, then take a backup: a new timeline starts with it.",
    ),
)


def refusal(packet: memoryview) -> EngineError:
    """The error that an error packet stands for, or one that is no answer at all."""
    code = int.from_bytes(packet[1:3], "little")
    text = re.sub(r"^#\w{5}", "", bytes(packet[3:]).decode("utf-8", "replace")).rstrip(".")
    if code in _READ_ERRORS:
        for pattern, kind, what, next_step in _MEANINGS:
            if re.search(pattern, text, re.IGNORECASE):
                return kind(f"{what} The server says: {text}.", next_step=next_step)
    return server.explain(pymysql.OperationalError(code, text), "Reading the binlog")
