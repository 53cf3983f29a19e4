"""Connections with faults on demand: one proxy for bytes (MySQL), one that understands HTTP (S3).

Each runs in an asyncio loop of its own thread; `mode` is looked at anew for every piece or request, so that a fault
hits what is under way.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress

PIECE = 1 << 16
SLOW = 0.05  # seconds a piece
LOOK = 0.05  # seconds between looks at a connection that stalls
ERRORS = {"500": (500, "InternalError"), "503": (503, "SlowDown"), "403": (403, "AccessDenied")}
ERROR = '<?xml version="1.0" encoding="UTF-8"?><Error><Code>{0}</Code><Message>Injected.</Message></Error>'

Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter


class Proxy:
    """Forwards from a port of 127.0.0.1 to another.

    mode: "" (forward), "cut" (end all connections, take none), "slow", "stall" (nothing passes until it is over).
    """

    def __init__(self, upstream: int) -> None:
        self.upstream = upstream
        self.mode = ""
        self.met: Counter[str] = Counter()  # pieces or requests that a mode has hit
        self.port = 0
        self._open: set[Writer] = set()
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self._thread.start()
        ready.wait()

    def set(self, mode: str) -> None:
        self.mode = mode
        if mode == "cut":
            self.cut()

    def cut(self) -> None:
        """End every connection, as a router that restarts does."""
        self._loop.call_soon_threadsafe(self._cut)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self, ready: threading.Event) -> None:
        server = self._loop.run_until_complete(asyncio.start_server(self._connected, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        self._loop.run_forever()
        server.close()
        self._cut()
        self._loop.run_until_complete(self._end_all())
        self._loop.close()

    async def _end_all(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.01)  # transports close in the turn after

    def _cut(self) -> None:
        for writer in self._open:
            self.met["cut"] += 1
            writer.transport.abort()

    async def _connected(self, reader: Reader, writer: Writer) -> None:
        self._open.add(writer)
        upstream: Writer | None = None
        try:
            if self.mode == "cut":
                self.met["cut"] += 1
            else:
                from_server, upstream = await asyncio.open_connection("127.0.0.1", self.upstream)
                self._open.add(upstream)
                await self._serve(reader, writer, from_server, upstream)
        except (OSError, asyncio.IncompleteReadError):
            pass  # either side is gone
        finally:
            for one in (writer, upstream):
                if one:
                    self._open.discard(one)
                    one.transport.abort() if self.mode == "cut" else one.close()

    async def _serve(self, reader: Reader, writer: Writer, from_server: Reader, upstream: Writer) -> None:
        """Until either side ends."""
        ways = [self._pump(reader, upstream), self._pump(from_server, writer)]
        tasks = [asyncio.ensure_future(way) for way in ways]
        _, waiting = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()

    async def _pump(self, reader: Reader, writer: Writer) -> None:
        with suppress(OSError):
            while piece := await reader.read(PIECE):
                await self._delay()
                writer.write(piece)
                await writer.drain()

    async def _delay(self) -> None:
        if self.mode in ("slow", "stall"):
            self.met[self.mode] += 1
        if self.mode == "slow":
            await asyncio.sleep(SLOW)
        while self.mode == "stall":
            await asyncio.sleep(LOOK)


class HttpProxy(Proxy):
    """Besides: "500", "503", "403" (answered without asking), "truncated" (bodies break off halfway), "lost" (the
    request is carried out, and its answer does not arrive).  One request in `every` is hit.
    """

    every = 2
    _count = 0

    async def _serve(self, reader: Reader, writer: Writer, from_server: Reader, upstream: Writer) -> None:
        going = True
        while going:
            head = await reader.readuntil(b"\r\n\r\n")
            mode = self._fate()
            await self._delay()
            body = await self._request_body(head, reader, writer)
            if mode in ERRORS:
                await self._refuse(writer, mode)
                return
            await self._send(upstream, _without(head, b"expect"), body)
            going = await self._answer(head, from_server, writer, mode)

    def _fate(self) -> str:
        self._count += 1
        mode = self.mode if self._count % self.every == 0 else ""
        if mode not in ("", "slow", "stall", "cut"):
            self.met[mode] += 1
        return mode

    async def _request_body(self, head: bytes, reader: Reader, writer: Writer) -> bytes:
        if _value(head, b"expect"):
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return await reader.readexactly(int(_value(head, b"content-length") or 0))

    async def _refuse(self, writer: Writer, mode: str) -> None:
        status, code = ERRORS[mode]
        body = ERROR.format(code).encode()
        writer.write(f"HTTP/1.1 {status} Injected\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode())
        writer.write(body)
        await writer.drain()

    async def _send(self, writer: Writer, head: bytes, body: bytes) -> None:
        writer.write(head + body[:PIECE])
        for at in range(PIECE, len(body), PIECE):
            await self._delay()
            writer.write(body[at : at + PIECE])
            await writer.drain()
        await writer.drain()

    async def _answer(self, request: bytes, reader: Reader, writer: Writer, mode: str) -> bool:
        """Pass it on; whether the connection goes on."""
        head = await reader.readuntil(b"\r\n\r\n")
        while b" 100 " in head.split(b"\r\n", 1)[0]:
            head = await reader.readuntil(b"\r\n\r\n")
        if mode == "lost":
            await self._body(request, head, reader, _nowhere)
            return False
        writer.write(head)
        size = int(_value(head, b"content-length") or 0)
        if mode == "truncated" and size > 1 and not request.startswith(b"HEAD"):
            writer.write(await reader.readexactly(size // 2))
            await writer.drain()
            return False

        async def on(piece: bytes) -> None:
            await self._delay()
            writer.write(piece)
            await writer.drain()

        await self._body(request, head, reader, on)
        await writer.drain()
        return _value(head, b"connection").lower() != b"close"

    async def _body(self, request: bytes, head: bytes, reader: Reader, on: Callable[[bytes], Awaitable[None]]) -> None:
        status = head.split(b" ", 2)[1]
        if request.startswith(b"HEAD") or status in (b"204", b"304"):
            return
        if _value(head, b"transfer-encoding").lower() == b"chunked":
            await self._chunks(reader, on)
            return
        left = int(_value(head, b"content-length") or 0)
        while left:
            piece = await reader.read(min(left, PIECE))
            if not piece:
                raise asyncio.IncompleteReadError(b"", left)
            left -= len(piece)
            await on(piece)

    async def _chunks(self, reader: Reader, on: Callable[[bytes], Awaitable[None]]) -> None:
        while True:
            line = await reader.readuntil(b"\r\n")
            size = int(line.split(b";")[0], 16)
            await on(line + await reader.readexactly(size + 2))
            if not size:
                return


async def _nowhere(piece: bytes) -> None:
    pass


def _value(head: bytes, name: bytes) -> bytes:
    for line in head.split(b"\r\n")[1:]:
        key, _, value = line.partition(b":")
        if key.lower() == name:
            return value.strip()
    return b""


def _without(head: bytes, name: bytes) -> bytes:
    lines = head.split(b"\r\n")
    return b"\r\n".join(line for line in lines if not line.lower().startswith(name + b":"))
