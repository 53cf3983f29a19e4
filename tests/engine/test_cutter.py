"""Where chunks end when the stream does not: captured events over a socket, broken on purpose."""

import socket
import threading

import pytest

from backups.engine.errors import Corrupt, EngineError, Gap, Transient
from backups.engine.mysql import continuity, events
from backups.engine.mysql.dump import Packets
from backups.engine.mysql.server import Identity
from backups.engine.mysql.stream import Cutter, Reader
from backups.engine.types import Quiet
from tests.engine.test_events import FILES, summaries

NAMES = ["mysql-9.7", "mariadb-10.11"]
EOF = b"\xfe\0\0\2\0"


def log_events(name):
    return [bytes(event.raw) for event in events.read([FILES[name]])]


def played(name, packets, **changes):
    """(chunks with their bytes, the error that ended them) of a server that sends these and hangs up."""
    near, far = socket.socketpair()
    stream = b"".join(len(one).to_bytes(3, "little") + b"\1" + one for one in packets)
    sender = threading.Thread(target=lambda: (far.sendall(stream), far.shutdown(socket.SHUT_WR)))
    sender.start()
    flavour = "mariadb" if "maria" in name else "mysql"
    identity = Identity(flavour, (9, 7), "9.7", "server", True, "UTC", {})
    start = {"server": "server", "file": "binlog.000001", "pos": 4, "file_id": "", "gtids": ""} | changes
    reader = Reader(Packets(near), identity, start)
    found, error = [], None
    try:
        for chunk in Cutter(reader, start, 60, 1 << 30, None, Quiet(), lambda position: None).chunks():
            found.append((chunk, b"".join(chunk.payload)))
    except EngineError as caught:
        error = caught
    sender.join()
    near.close(), far.close()
    return found, error


def ok(raws):
    return [b"\0" + raw for raw in raws]


@pytest.mark.parametrize("name", NAMES)
def test_a_whole_log_is_one_chunk_that_says_what_the_log_says(name):
    raws = log_events(name)
    ((chunk, data),), error = played(name, [*ok(raws[:-1]), EOF])
    assert error is None
    expected = [(t.identity, t.length, t.changes) for t in summaries(FILES[name])]
    assert [(t.identity, t.length, t.changes) for t in chunk.transactions] == expected
    assert chunk.end["pos"] == int.from_bytes(raws[-2][13:17], "little")
    assert next(event.raw for event in events.read([data])) == raws[0]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("last", [10, 14, 18, 25, 40, 60, 75])
def test_a_connection_that_breaks_leaves_whole_transactions_only(name, last):
    raws = log_events(name)[:last]
    found, error = played(name, ok(raws))
    assert isinstance(error, Transient)
    whole = [t for t in summaries(FILES[name]) if t.offset + t.length <= 4 + sum(map(len, raws))]
    chunk, data = found[0]
    assert len(found) == 1 and [t.identity for t in chunk.transactions] == [t.identity for t in whole]
    assert len(data) == chunk.transactions[-1].offset + whole[-1].length
    assert chunk.end["pos"] == whole[-1].offset + whole[-1].length
    assert chunk.end["gtids"] and chunk.end["gtids"] != "0"


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_event_is_named_by_its_place_and_what_came_before_is_kept(name):
    raws = log_events(name)
    at = 40
    place = 4 + sum(map(len, raws[:at]))
    raws[at] = raws[at][:20] + bytes([raws[at][20] ^ 1]) + raws[at][21:]
    found, error = played(name, [*ok(raws), EOF])
    assert isinstance(error, Corrupt) and f"binlog.000001 position {place}" in str(error)
    assert found[0][0].transactions and found[0][0].end["pos"] <= place


def test_an_incident_is_a_gap_with_its_place():
    raws = log_events("mysql-9.7")
    body = b"\1\0\x05LOST!"
    incident = bytearray(events.HEADER.pack(0, events.INCIDENT, 7, 19 + len(body) + 4, 0, 0) + body)
    incident += events.zlib.crc32(incident).to_bytes(4, "little")
    found, error = played("mysql-9.7", [*ok(raws[:4]), *ok([bytes(incident)]), EOF])
    assert type(error) is Gap and "LOST!" in str(error) and "binlog.000001 position 334" in str(error)
    assert len(found[0][0].transactions) == 1


def test_a_transaction_that_grows_beyond_its_length_is_damage():
    raws = log_events("mysql-9.7")
    found, error = played("mysql-9.7", [*ok(raws[:3]), *ok(raws[5:7]), EOF])
    assert isinstance(error, Corrupt) and found == []


def test_a_file_of_the_same_name_but_another_birth_is_refused():
    raws = log_events("mysql-9.7")
    found, error = played("mysql-9.7", [*ok(raws), EOF], file_id="123-7-9.7.4")
    assert isinstance(error, Gap) and "not the file" in str(error) and found == []


def test_positions_go_on_beyond_four_gibibytes():
    start = {"server": "s", "file": "binlog.000001", "pos": (1 << 32) - 50, "file_id": "", "gtids": None}
    reader = Reader(None, None, start)
    raw = memoryview(events.HEADER.pack(0, 250, 7, 100, 50, 0) + bytes(81))
    reader.step(events.parse(raw, 0))
    assert reader.pos == (1 << 32) + 50


def test_a_position_that_the_request_has_no_room_for_is_the_next_files_beginning(monkeypatch):
    far = {"file": "binlog.000001", "pos": 5 << 30}
    files = {"binlog.000001": (5 << 30) + 44, "binlog.000002": 900}
    monkeypatch.setattr(continuity, "_files", lambda connection: files)
    assert continuity.reachable(None, far) == ("binlog.000002", 4)
    assert continuity.reachable(None, far | {"pos": 99}) == ("binlog.000001", 99)
    files["binlog.000001"] += 5000
    with pytest.raises(Gap, match="4 GiB"):
        continuity.reachable(None, far)
