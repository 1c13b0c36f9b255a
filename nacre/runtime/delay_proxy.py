"""A TCP proxy that behaves like a long wire: one-way delay, jitter, bandwidth, stalls and resets.

Rule: bytes come out in the order they went in, later but never changed; what is random is seeded. Each direction of
each connection is its own wire. Delays only ever add to what the machine itself takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import TracebackType

from nacre.errors import InvalidArgument

CHUNK_BYTES = 64 * 1024
#: Bytes under way in one direction; beyond it the sender is slowed, as by any full pipe.
MAX_UNDER_WAY_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Link:
    """One direction of a wire. `delay_s` is one way; up to `jitter_s` is added at random; 0 bytes/s: no limit."""

    delay_s: float = 0.0
    jitter_s: float = 0.0
    bytes_per_s: float = 0.0

    def __post_init__(self) -> None:
        for name in ("delay_s", "jitter_s", "bytes_per_s"):
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise InvalidArgument(f"{name} is {value}; it must be at least 0 and finite", param=name)


@dataclass(frozen=True, slots=True)
class Passage:
    """Bytes that have entered the wire, up (towards the target) or down; times are the event loop's, in seconds."""

    connection: int
    up: bool
    entered_s: float
    due_s: float
    size_bytes: int


class Schedule:
    """When bytes that enter a link come out of it. Pure: time is an argument."""

    def __init__(self, link: Link, seed: int | str = 0) -> None:
        self._link = link
        self._random = random.Random(seed)  # noqa: S311  a model of a network, not a secret
        self._free = 0.0  # when the wire has taken what was handed to it before
        self._last = 0.0  # when the bytes before come out

    def due(self, now: float, size_bytes: int) -> float:
        link = self._link
        self._free = max(now, self._free) + (size_bytes / link.bytes_per_s if link.bytes_per_s else 0.0)
        jitter = self._random.random() * link.jitter_s
        self._last = max(self._last, self._free + link.delay_s + jitter)
        return self._last


class DelayProxy:
    """Forwards connections to `target` (host:port) over `link`; an async context manager. Dial `address`."""

    def __init__(
        self,
        target: str,
        link: Link,
        *,
        seed: int = 0,
        host: str = "127.0.0.1",
        port: int = 0,
        observe: Callable[[Passage], None] | None = None,
    ) -> None:
        self.connections = 0  # since the start
        self._target_host, _, target_port = target.rpartition(":")
        self._target_port = int(target_port)
        self._link = link
        self._seed = seed
        self._observe = observe
        self._host, self._port = host, port
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._open: set[asyncio.StreamWriter] = set()
        self._wires: set[_Wire] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()

    @property
    def address(self) -> str:
        return f"{self._host}:{self._port}"

    @property
    def under_way_bytes(self) -> int:
        """Bytes that have gone in and not yet come out."""
        return sum(wire.under_way_bytes for wire in self._wires)

    async def __aenter__(self) -> DelayProxy:
        try:
            self._server = await asyncio.start_server(self._accept, self._host, self._port)
        except OSError as error:
            raise InvalidArgument(f"cannot listen on {self.address} ({error.strerror}); choose another port") from None
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def stall(self) -> None:
        """Nothing comes out any more, in either direction, until `resume`; connections stay open."""
        self._flowing.clear()

    def resume(self) -> None:
        self._flowing.set()

    def reset(self) -> None:
        """Breaks all connections, both ends at once; new ones are accepted."""
        for writer in self._open:
            _abort(writer)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task of our own: asyncio takes it for an error when one of its handlers is cancelled.
        self.connections += 1
        task = asyncio.create_task(self._serve(reader, writer, self.connections), name="delay-proxy")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        writers = [writer]
        complete = False
        try:
            far_reader, far_writer = await asyncio.open_connection(self._target_host, self._target_port)
            writers.append(far_writer)
            self._open.update(writers)
            up = self._wire(number, reader, far_writer, up=True)
            down = self._wire(number, far_reader, writer, up=False)
            self._wires |= {up, down}
            try:
                async with asyncio.TaskGroup() as pumps:
                    for wire in (up, down):
                        pumps.create_task(wire.take())
                        pumps.create_task(wire.give())
            finally:
                self._wires -= {up, down}
            complete = True
        except* OSError:  # one end is gone: so is the other
            pass
        finally:
            self._open.difference_update(writers)
            for each in writers:
                # What was handed to a transport may still be on its way out; only a broken connection is cut.
                each.close() if complete else _abort(each)

    def _wire(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool) -> _Wire:
        schedule = Schedule(self._link, f"{self._seed}/{number}/{'up' if up else 'down'}")
        return _Wire(reader, writer, schedule, self._flowing, partial(self._entered, number, up))

    def _entered(self, number: int, up: bool, entered_s: float, due_s: float, size_bytes: int) -> None:
        if self._observe is not None:
            self._observe(Passage(number, up, entered_s, due_s, size_bytes))


class _Wire:
    """One direction of one connection."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        schedule: Schedule,
        flowing: asyncio.Event,
        entered: Callable[[float, float, int], None],
    ) -> None:
        self.under_way_bytes = 0
        self._reader = reader
        self._writer = writer
        self._schedule = schedule
        self._flowing = flowing
        self._entered = entered
        self._chunks: deque[tuple[float, bytes]] = deque()  # (due, bytes); b"" is the end
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    async def take(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            await self._room.wait()
            chunk = await self._reader.read(CHUNK_BYTES)
            now = clock()
            due = self._schedule.due(now, len(chunk))
            self._entered(now, due, len(chunk))
            self._chunks.append((due, chunk))
            self.under_way_bytes += len(chunk)
            if self.under_way_bytes >= MAX_UNDER_WAY_BYTES:
                self._room.clear()
            self._arrived.set()
            if not chunk:
                return

    async def give(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            await self._arrived.wait()
            if not self._chunks:
                self._arrived.clear()
                continue
            due, chunk = self._chunks[0]
            await asyncio.sleep(max(0.0, due - clock()))
            await self._flowing.wait()
            if not chunk:
                self._writer.write_eof()
                return
            self._writer.write(chunk)
            await self._writer.drain()
            self._chunks.popleft()
            self.under_way_bytes -= len(chunk)
            if self.under_way_bytes < MAX_UNDER_WAY_BYTES:
                self._room.set()


def _abort(writer: asyncio.StreamWriter) -> None:
    """Closes at once, with a reset instead of a farewell; harmless on a connection that has ended."""
    sock = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
