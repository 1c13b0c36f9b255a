"""One stream from the gateway to one verifier, for one session.

Rule: one reader task for the life of the stream, feeding a bounded queue; timeouts sit on the queue, because giving up
a gRPC read cancels the whole call. What arrived before the stream broke is delivered before the breaking is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

import grpc

from gateway.upstreams import VerifierUpstream
from nacre.errors import Cancelled, DeadlineExceeded, Internal, NacreError, Unavailable
from nacre.v1 import session_pb2 as pb
from nacre.wire.errors import error_of
from nacre.wire.streams import send

log = logging.getLogger("nacre.gateway")

#: Events read ahead of their consumer; beyond it the verifier is slowed by flow control.
MAX_QUEUED_EVENTS = 64
#: How long a session that is given up may take to say goodbye before its stream is cut.
FAREWELL_S = 5.0


class LegLost(Exception):
    """The stream is over before its session was. `error` says how; `silent` if the verifier may still be at it."""

    def __init__(self, error: NacreError, *, silent: bool = False) -> None:
        super().__init__(error.message)
        self.error = error
        self.silent = silent


class Leg:
    """A stream that has been begun with Open or Join. `opened` is the verifier's answer."""

    def __init__(self, upstream: VerifierUpstream, *, owner: bool, metadata: tuple[tuple[str, str], ...] = ()) -> None:
        self.upstream = upstream
        self.opened = pb.Opened()
        self.farewell: pb.SessionStatistics | None = None  # totals of the session, once it has ended
        self.over = asyncio.Event()  # there is a farewell, or there will be none
        self._owner = owner
        self._call = upstream.stub.Session(metadata=metadata)
        self._events: asyncio.Queue[pb.SessionEvent | None] = asyncio.Queue(MAX_QUEUED_EVENTS)
        self._lost: LegLost | None = None
        self._writing = asyncio.Lock()
        self._reader: asyncio.Task[None] | None = None

    async def begin(self, first: pb.SessionRequest, tasks: asyncio.TaskGroup, *, timeout_s: float) -> pb.Opened:
        """Sends Open or Join and waits for Opened. Raises the NacreError of the verifier, or of the way to it.

        However it fails, the verifier may have taken the request: the caller ends the stream with `part` or `cut`.
        """
        self._reader = tasks.create_task(self._read(), name=f"leg-{self.upstream.address}")
        if self._owner:
            self.upstream.legs.add(self)
        try:
            async with asyncio.timeout(timeout_s):
                await self.send(first)
                event = await self.receive(None)
            if event.WhichOneof("body") != "opened":
                raise Internal(f"{self.upstream.address} answered with something else than Opened")
        except LegLost as lost:
            raise lost.error from None
        except TimeoutError:
            raise DeadlineExceeded(f"{self.upstream.address} has not answered for {timeout_s:g} s") from None
        self.opened = event.opened
        return self.opened

    async def receive(self, timeout_s: float | None) -> pb.SessionEvent:
        """The next event. Raises LegLost once the stream is over, or has been silent for `timeout_s`."""
        while True:
            if self._events.empty() and self._lost is not None:
                raise self._lost
            try:
                async with asyncio.timeout(timeout_s):
                    event = await self._events.get()
            except TimeoutError:
                error = DeadlineExceeded(f"{self.upstream.address} has been silent for {timeout_s:g} s")
                raise LegLost(error, silent=True) from None
            if event is not None:
                return event

    async def send(self, request: pb.SessionRequest) -> None:
        """Sends a request; one that the stream cannot take any more is dropped: `receive` tells why."""
        async with self._writing:
            try:
                await send(self._call, request)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
                # Not we were cancelled but the call, by whoever cut the stream.

    def fail(self, error: NacreError) -> None:
        """Gives the stream up from outside: its verifier does not answer any more."""
        self._lose(LegLost(error, silent=True))
        self.cut()

    def cut(self) -> None:
        """Ends the stream at once. The verifier takes that for a lost connection and keeps the session a while."""
        self.upstream.legs.discard(self)
        self._call.cancel()
        if self._reader is not None:
            self._reader.cancel()

    async def part(self, *, cancel: bool) -> None:
        """Ends the stream politely: with `cancel` the session is given up, and the verifier is given time to hear it.

        A stream cut right behind its Cancel may be torn down before the Cancel is read, and would linger as lost.
        """
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FAREWELL_S):
                    if cancel:
                        await self.send(pb.SessionRequest(cancel=pb.Cancel()))
                    with contextlib.suppress(LegLost):
                        while cancel and self.farewell is None:
                            event = await self.receive(FAREWELL_S)
                            if event.WhichOneof("body") == "finished":
                                self.farewell = event.finished.statistics
                    self.over.set()
                    if self._reader is not None and not self._reader.done():
                        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                            await self._call.done_writing()
                        await asyncio.wait({self._reader}, timeout=FAREWELL_S)
        finally:
            self.over.set()
            self.cut()

    async def _read(self) -> None:
        address = self.upstream.address
        try:
            async for event in self._call:  # unlike `read`, this gives out what has come before it tells the status
                await self._events.put(event)
            self._lose(LegLost(Unavailable(f"{address} ended the stream before the session was over")))
        except grpc.aio.AioRpcError as failure:
            self._lose(LegLost(error_of(failure, address)))
        except asyncio.CancelledError:
            self._lose(LegLost(Cancelled(f"the stream to {address} was cut")))
            raise
        except Exception:
            log.exception("reading from %s failed", address)
            self._lose(LegLost(Internal(f"reading from {address} failed; see the gateway's log")))
            self._call.cancel()

    def _lose(self, lost: LegLost) -> None:
        if self._lost is None:
            self._lost = lost
            with contextlib.suppress(asyncio.QueueFull):  # full: whoever empties it will see `_lost` afterwards
                self._events.put_nowait(None)
