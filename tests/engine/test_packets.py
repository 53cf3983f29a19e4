"""Packets of the MySQL protocol over a real socket."""

import os
import socket
import threading
from pathlib import Path

import pytest

from backups.engine.errors import Corrupt, Forked, Gap, LeaseLost, Refused, Transient
from backups.engine.mysql.dump import BLOCK, LONGEST, Packets, refusal, replica_id


def packet(payload):
    return len(payload).to_bytes(3, "little") + b"\1" + payload


def received(data, count):
    near, far = socket.socketpair()
    writer = threading.Thread(target=lambda: (far.sendall(data), far.shutdown(socket.SHUT_WR)))
    writer.start()
    reader, found = Packets(near), []
    while len(found) < count:
        reader.receive(5)
        found += [bytes(one) for one in reader.whole()]
    writer.join()
    near.close(), far.close()
    return found


def test_packets_of_all_sizes_come_out_as_they_went_in():
    sizes = [0, 1, 5, 100, BLOCK - 4, BLOCK - 3, BLOCK, BLOCK + 1, 3 * BLOCK, 7]
    sent = [bytes([n]) * size for n, size in enumerate(sizes)]
    assert received(b"".join(map(packet, sent)), len(sent)) == sent


def test_buffers_take_memory_as_they_fill():
    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    before = resident()
    readers = [Packets(None) for _ in range(100)]
    assert resident() - before < len(readers) * BLOCK / 10


def test_a_payload_of_16_mib_and_more_comes_in_several_packets():
    long = bytes(range(256)) * ((LONGEST + 1000) // 256)
    exact = b"x" * LONGEST
    data = packet(long[:LONGEST]) + packet(long[LONGEST:]) + packet(exact) + packet(b"") + packet(b"end")
    assert received(data, 3) == [long, exact, b"end"]


def test_a_closed_connection_is_transient_and_silence_is_none():
    near, far = socket.socketpair()
    reader = Packets(near)
    assert reader.receive(0.01) is False
    far.close()
    with pytest.raises(Transient):
        reader.receive(1)
    near.close()


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("A replica with the same server_uuid/server_id as this replica has connected to the source", LeaseLost),
        ("A slave with the same server_uuid/server_id as this slave has connected to the master", LeaseLost),
        ("Cannot replicate because the source purged required binary logs.", Gap),
        ("Could not find first log file name in binary log index file", Gap),
        ("Replica has more GTIDs than the source has, using the source's SERVER_UUID.", Forked),
        ("Error: connecting slave requested to start from GTID 0-1-9, which is not in the master's binlog", Forked),
        ("binlog truncated in the middle of event; consider out of disk space on source", Corrupt),
        ("something new", Refused),
    ],
)
def test_what_the_server_says_becomes_the_right_error(text, kind):
    found = refusal(memoryview(b"\xff" + (1236).to_bytes(2, "little") + b"#HY000" + text.encode()))
    assert type(found) is kind and text.rstrip(".") in str(found)


def test_a_replicas_server_id_is_stable_and_never_the_sources():
    first = replica_id("11111111-1111-1111-1111-111111111111", 1)
    assert first == replica_id("11111111-1111-1111-1111-111111111111", 1) >= 1 << 31
    assert replica_id("11111111-1111-1111-1111-111111111111", first) != first
