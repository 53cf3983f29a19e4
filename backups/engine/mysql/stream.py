"""Capture: a server's log, cut into chunks of whole transactions."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain

from isal.isal_zlib import crc32

from backups.engine.errors import Corrupt, EngineError, Gap, LeaseLost, Stopped, Transient
from backups.engine.mysql import continuity, dump, events, framing, server
from backups.engine.mysql.bulk import Batch, Bulk, Origin
from backups.engine.mysql.events import Event
from backups.engine.mysql.gtid import DomainSet, GtidSet
from backups.engine.mysql.server import Identity, ServerConfig
from backups.engine.mysql.transactions import Grouper
from backups.engine.types import Chunk, Columns, Position, Run, Transaction

LARGE = 32 << 20  # bytes: a larger transaction is streamed in a chunk of its own, never whole in memory
PIECE = 4 << 20  # bytes of a payload handed on at once: who compresses it takes the GIL as seldom
TICK = 0.25  # seconds between looks at the clock and at should_stop
SILENCE = 60.0  # seconds after which a server is given up that sends not even the heartbeat it was asked for
Place = tuple[str, int, str]  # file, position, file id


def capture(
    config: ServerConfig,
    start: Position,
    *,
    replica_uuid: str,
    interval: float,
    max_bytes: int,
    drain: bool,
    deadline: float | None,
    run: Run,
    on_caught_up: Callable[[Position], None],
) -> Iterator[Chunk]:
    """Chunks of everything the server logs after `start`, each to be used up before the next is asked for.

    A chunk is cut `interval` seconds after its first transaction came, at `max_bytes`, where the server's log file
    ends, and at the end of the run: with `drain` that is where the log ends now, else the `deadline`
    (time.monotonic).  No chunk is made of nothing; only where there are no GTIDs an empty one moves the stored
    position on into a new file.

    on_caught_up: called with the end of the last chunk whenever the server is seen to have nothing after it.

    Raises Gap and Forked (the server's log does not join on), LeaseLost (the same replica uuid was connected
    elsewhere), Corrupt (damage, with its place), Stopped, Transient, Refused.  What was complete before one of them
    has been handed out as a chunk, but for LeaseLost.
    """
    connection = server.connect(config, read_timeout=60)
    try:
        identity = server.identify(connection)
        continuity.prove(connection, identity, start, partial(dump.born, config))
        dump.start(connection, start, replica_uuid, mariadb=identity.flavour == "mariadb", drain=drain)
        reader = Reader(dump.Packets(connection._sock), identity, start)
        cutter = Cutter(reader, start, interval, max_bytes, deadline, run, on_caught_up)
        yield from cutter.chunks()
    finally:
        connection._force_close()


class Reader:
    """Events as they arrive, each proven by its checksum, and the place in the log after each."""

    def __init__(self, packets: dump.Packets, identity: Identity, start: Position) -> None:
        self.packets = packets
        self.identity = identity
        self.start = start
        self.file, self.pos, self.file_id = str(start["file"]), int(start["pos"]), str(start.get("file_id") or "")
        self.by_place = start["gtids"] is None
        self.grouper: Grouper | None = None
        self.bulk = Bulk()
        self.head = b""  # magic and format description: how a slice of this file begins
        self.trailer = 0
        self.caught_up = False  # the server has said so, and nothing came since
        self.drained = False  # the server has nothing more, and was asked not to wait

    @property
    def place(self) -> Place:
        return self.file, self.pos, self.file_id

    def arrivals(self) -> Iterator[Event | Batch | None]:
        """What is data, in batches or event by event; None now and then, to look at the clock.

        Ends where a drained log does.
        """
        silent = 0.0
        while not self.drained:
            if self.packets.receive(TICK):
                silent = 0.0
                yield from self._received()
            else:
                silent += TICK
            if silent >= SILENCE:
                raise Transient(f"The server has said nothing for {SILENCE:g} s, not even that there is nothing new.")
            yield None

    def _received(self) -> Iterator[Event | Batch]:
        packets = self.packets.whole()
        one_by_one = 0  # up to there in the buffer
        while not self.drained:
            if self.packets.at >= one_by_one:
                batch, one_by_one = self._batch()
                if batch:
                    yield batch
            packet = next(packets, None)
            if packet is None:
                return
            first = packet[0] if packet else -1
            if first == 0:
                event = self._event(packet[1:])
                if event is not None:
                    yield event
            elif first == 0xFE and len(packet) < 9:
                self.drained = True
            else:
                raise dump.refusal(packet)

    def _batch(self) -> tuple[Batch | None, int]:
        """The whole transactions that come next, if that is a place for some; up to where it is no use to ask again."""
        packets, grouper = self.packets, self.grouper
        if grouper is None or grouper.mariadb or grouper.summary or packets.long or not self.trailer:
            return None, packets.at
        batch, reach = self.bulk.take(packets.buffer, packets.at, packets.end, Origin(grouper, self.file, self.pos))
        if batch:
            self.caught_up = False
            packets.at += len(batch.data) + framing.OVERHEAD * batch.packets
        return batch, reach

    def _event(self, raw: memoryview) -> Event | None:
        """The event, if it is data and not of the file's or the connection's making."""
        try:
            kind = raw[4]
            if kind in events.STRUCTURE or raw[17] & events.FLAG_ARTIFICIAL:
                self._structure(kind, raw)
                return None
            event = events.parse(raw, self.trailer)
            events.verify(event)
        except (Corrupt, IndexError) as error:
            raise self._damage(error) from error
        if event.type == events.INCIDENT:
            raise self._incident(event)
        self.caught_up = False
        return event

    def _structure(self, kind: int, raw: memoryview) -> None:
        made_up = bool(raw[17] & events.FLAG_ARTIFICIAL)
        if kind in (events.HEARTBEAT, events.HEARTBEAT_V2):
            self._heartbeat(_lone(raw))
            return
        self.caught_up = False
        if kind == events.FORMAT_DESCRIPTION:
            self._format(events.parse(raw, self.trailer))
        elif kind == events.ROTATE:
            self._rotate(_lone(raw))
        elif not made_up:
            event = events.parse(raw, self.trailer)
            events.verify(event)
            self.step(event)

    def _rotate(self, event: Event) -> None:
        name, pos = events.rotate(event)
        if name != self.file:
            self.file, self.file_id = name, ""
        self.pos = pos

    def _heartbeat(self, event: Event) -> None:
        """The server waits for more; or it passes over what we have, but then the place is another each time."""
        place = events.heartbeat(event)
        self.caught_up = place == (self.file, self.pos)
        if place[0] == self.file:
            self.pos = place[1]

    def _format(self, event: Event) -> None:
        event = events.as_written(event)
        if self.grouper and self.grouper.summary:
            raise Corrupt("A log file ends inside a transaction.")
        description = events.format_description(event)
        self.trailer = description.trailer
        self.file_id = events.file_id(event)
        self._prove_file()
        self.head = events.MAGIC + bytes(event.raw)
        self.grouper = Grouper(description, event.server_id, by_place=self.by_place)
        if self.pos <= event.size + len(events.MAGIC):
            self.step(event)

    def _prove_file(self) -> None:
        """A file of the same name must be the same one."""
        start, known = self.start, self.start.get("file_id")
        if (
            known
            and (self.file, self.identity.server_uuid) == (start["file"], start["server"])
            and self.file_id != known
        ):
            raise continuity.another_file(start)

    def step(self, event: Event) -> None:
        """Move behind an event of the file; its end position has 32 bits, and a log file may have more bytes."""
        if event.log_pos:
            pos = self.pos & ~0xFFFFFFFF | event.log_pos
            self.pos = pos if pos >= self.pos else pos + (1 << 32)

    def group(self, event: Event, offset: int) -> Transaction | None:
        """The transaction that this event ends, if it ends one.  offset: of the event in its slice."""
        try:
            if self.grouper is None:
                raise Corrupt("It begins without a format description.")
            return self.grouper.feed(event, offset, f"{self.file}:{self.pos}")
        except Corrupt as error:
            raise self._damage(error) from error

    def _damage(self, error: Exception) -> Corrupt:
        return Corrupt(
            f"The binlog is damaged after {self.file} position {self.pos}: {error}",
            meaning="What comes after it cannot be recovered to; everything before stays restorable.",
            next_step="Check the server's disk and error log, then take a backup: a new timeline starts with it.",
        )

    def _incident(self, event: Event) -> Gap:
        number, message = events.incident(event)
        return Gap(
            f"The server noted an incident in its binlog after {self.file} position {self.pos}: {message or number}.",
            meaning="It says itself that changes are missing from its log there.",
            next_step="Take a backup: a new timeline starts with it.",
        )


def _lone(raw: memoryview) -> Event:
    """An event that the connection may have made up: it carries a checksum or not, whatever the file's do."""
    end = len(raw) - events.CHECKSUM_SIZE
    carries = crc32(raw[:end]).to_bytes(events.CHECKSUM_SIZE, "little") == raw[end:]
    return events.parse(raw, events.CHECKSUM_SIZE if carries else 0)


class Cutter:
    """Gathers transactions and decides where a chunk ends."""

    def __init__(
        self,
        reader: Reader,
        start: Position,
        interval: float,
        max_bytes: int,
        deadline: float | None,
        run: Run,
        on_caught_up: Callable[[Position], None],
    ) -> None:
        self.reader = reader
        self.source = reader.arrivals()
        self.end: Position = start  # of the last chunk
        self.interval, self.max_bytes, self.deadline = interval, max_bytes, deadline
        self.run, self.on_caught_up = run, on_caught_up
        self.gtids = self._executed(start)
        self.head = b""
        self.began: Place | None = None  # where the open transaction did
        self.looked = 0.0
        self._reset(b"")

    def _executed(self, start: Position) -> GtidSet | DomainSet | None:
        if start["gtids"] is None:
            return None
        kind = DomainSet if self.reader.identity.flavour == "mariadb" else GtidSet
        return kind.parse(start["gtids"])

    def _reset(self, rest: bytes | bytearray) -> None:
        """Begin the next chunk, with what is there of an open transaction."""
        self.parts: list[memoryview] = []  # whole transactions that came in batches, and what was before each
        self.before = 0  # bytes of these
        self.data = bytearray(self.head) + rest
        self.whole = len(self.head)  # bytes up to the end of the last whole transaction
        self.transactions = Columns()
        self.opened = time.monotonic()
        if rest and self.reader.grouper:
            self.reader.grouper.rebase(self.whole)

    def chunks(self) -> Iterator[Chunk]:
        try:
            for arrived in self.source:
                if arrived is not None:
                    yield from self._take_all(arrived) if isinstance(arrived, Batch) else self._take(arrived)
                    continue
                yield from self._look()
                if self._over():
                    break
            yield from self._cut()
            yield from self._follow()
            if self.reader.drained:
                self.on_caught_up(self.end)
        except LeaseLost:
            raise
        except EngineError:
            yield from self._cut()
            raise

    def _over(self) -> bool:
        now = time.monotonic()
        if now - self.looked >= TICK:
            self.looked = now
            self._obey()
        return self.deadline is not None and now >= self.deadline

    def _obey(self) -> None:
        if self.run.should_stop():
            raise Stopped("Shipping was told to stop.")

    def _look(self) -> Iterator[Chunk]:
        """What is due by the clock, and what a waiting server tells."""
        if self.whole > len(self.head):
            if time.monotonic() - self.opened >= self.interval:
                yield from self._cut()
                self.reader.caught_up = False  # storing it took its time
        elif self.reader.caught_up:
            yield from self._follow()
            self.reader.caught_up = False
            self.on_caught_up(self.end)

    def _follow_head(self) -> Iterator[Chunk]:
        if self.head is not self.reader.head:
            yield from self._cut()  # the log file ended
            self.head = self.reader.head
            self._reset(b"")

    def _take_all(self, batch: Batch) -> Iterator[Chunk]:
        """Whole transactions; a chunk ends with the one that fills it."""
        yield from self._follow_head()
        first, count = 0, len(batch.ends)
        while first < count:
            begin = batch.ends[first] - batch.lengths[first]
            full = bisect_left(batch.ends, begin + self.max_bytes - self.whole, first)
            last = min(full + 1, count)
            self._note_all(batch, first, last)
            if not self.transactions:
                self.opened = time.monotonic()
            self.transactions.extend(batch.columns(first, last, self.whole - begin))
            self._keep(batch.data[begin : batch.ends[last - 1]])
            if self.whole >= self.max_bytes:
                yield from self._cut()
            first = last

    def _keep(self, data: memoryview) -> None:
        """Whole transactions, behind others; as they are, for a chunk is large and copies of it are dear."""
        self.parts += [memoryview(self.data), data]
        self.before += len(self.data) + len(data)
        self.data = bytearray()
        self.whole = self.before

    @property
    def size(self) -> int:
        return self.before + len(self.data)

    def _note_all(self, batch: Batch, first: int, last: int) -> None:
        """Go on behind the transactions from `first` to before `last`."""
        self.reader.pos = batch.places[last - 1]
        if isinstance(self.gtids, GtidSet) and batch.numbered:
            uuid, number = batch.numbered
            self.gtids.add_run(uuid, number + first, number + last - 1)
        elif self.gtids is not None:
            for identity in batch.identities[first:last]:
                self.gtids.add(identity)

    def _take(self, event: Event) -> Iterator[Chunk]:
        yield from self._follow_head()
        if event.type in events.GTIDS:
            self.began = self.reader.place
        if self.began and self.size - self.whole + event.size > LARGE:
            yield from self._cut()
            yield from self._large(event)
            return
        done = self._note(event)
        self.data += event.raw
        if done:
            if not self.transactions:
                self.opened = time.monotonic()
            self.transactions.append(done)
        if self.began is None:
            self.whole = self.size
            if self.whole >= self.max_bytes:
                yield from self._cut()

    def _note(self, event: Event) -> Transaction | None:
        """Go on behind this event, which is about to be kept; its transaction, if it ends one."""
        done = self.reader.group(event, self.size)
        self.reader.step(event)
        if done:
            if self.gtids is not None:
                self.gtids.add(done.identity)
            self.began = None
        return done

    def _cut(self) -> Iterator[Chunk]:
        """The whole transactions that were gathered, if any, as a chunk; an open one stays for the next."""
        if self.whole > len(self.head):
            rest = self.data[self.whole - self.before :]
            del self.data[self.whole - self.before :]
            payload = chain.from_iterable(map(_views, [*self.parts, memoryview(self.data)]))
            chunk = Chunk(self.end, payload, self._position(), self.transactions, self._exact())
            self.end = chunk.end
            self._reset(rest)
            yield chunk

    def _follow(self) -> Iterator[Chunk]:
        """Without GTIDs: move the stored position on into a new log file that holds nothing yet."""
        reader = self.reader
        if self.gtids is None and self.began is None and reader.file != self.end["file"] and reader.file_id:
            chunk = Chunk(self.end, [reader.head], self._position(), Columns(), self._exact())
            self.end = chunk.end
            yield chunk

    def _large(self, event: Event) -> Iterator[Chunk]:
        """The open transaction, which goes on with `event`, as a chunk of its own, handed on while it comes."""
        chunk = Chunk(self.end, (), exact_times=self._exact())
        chunk.payload = self._stream(chunk, event)
        yield chunk
        if not chunk.transactions:
            raise RuntimeError("The chunk of a large transaction was not used up.")
        self.end = chunk.end
        self._reset(b"")

    def _stream(self, chunk: Chunk, first: Event) -> Iterator[bytes]:
        for event in chain([first], self.source):
            if event is None:
                self._obey()
                continue
            assert isinstance(event, Event)  # no batch begins inside a transaction
            done = self._note(event)
            if len(self.data) + event.size >= PIECE:
                yield from _pieces(self.data)
                yield from _pieces(event.raw)  # not copied first: it may have a gigabyte
                self.data = bytearray()
            else:
                self.data += event.raw
            if done:
                yield from _pieces(self.data)
                chunk.end = self._position()
                chunk.transactions = Columns([done])
                return
        raise Transient("The log ended inside a transaction.")

    def _position(self) -> Position:
        """Where the last whole transaction ended."""
        file, pos, file_id = self.began or self.reader.place
        gtids = None if self.gtids is None else str(self.gtids)
        server = self.reader.identity.server_uuid
        return {"server": server, "file": file, "pos": pos, "file_id": file_id, "gtids": gtids}

    def _exact(self) -> bool:
        return self.reader.identity.flavour == "mysql"


def _views(data: memoryview) -> Iterator[memoryview]:
    """In pieces that are not copied: the data must stay as it is."""
    return (data[at : at + PIECE] for at in range(0, len(data), PIECE))


def _pieces(data: bytearray | memoryview) -> Iterator[bytes]:
    return map(bytes, _views(memoryview(data)))
