"""What a client's gRPC stream needs on our side, whoever the client is: to be listened to while it is written to.

Rule: a write to a client is never cancelled from our side. Its operation would stay in gRPC's core, the status that is
to end the call would be refused ("too many operations"), and the client would wait for ever. So a listener that finds
something wrong tells the writer, who stops between two writes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from gateway.plane import one_cause
from gateway.records import Record
from nacre.errors import InvalidArgument, NacreError
from nacre.v1 import session_pb2 as pb

_LINGER_S = 1.0


@contextlib.asynccontextmanager
async def listening(
    listen: Callable[[], Coroutine[Any, Any, None]], tell: Callable[[NacreError], None]
) -> AsyncIterator[asyncio.Task[None]]:
    """Runs `listen` beside the body, which writes; `tell` gets the NacreError that ends it. Ends with the body."""

    async def contained() -> None:
        try:
            await listen()
        except NacreError as error:
            tell(error)

    async with one_cause(), asyncio.TaskGroup() as group:
        task = group.create_task(contained())
        yield task
        task.cancel()


async def linger(listener: asyncio.Task[None]) -> None:
    """After the last event: gives a client that sends guesses the time to close its side first.

    A write to a call that is over fails, and in grpc.aio takes the events with it that its client has not read yet.
    """
    await asyncio.wait({listener}, timeout=_LINGER_S)


class OwnerStream:
    """One stream of a session's owner. `delivered` once it has had the end of the session."""

    def __init__(self, record: Record, context: Any) -> None:
        self._record = record
        self._context = context
        self._error: NacreError | None = None
        self.delivered = False

    async def run(self, position: int, requests: AsyncIterator[pb.SessionRequest]) -> None:
        """Sends everything from `position` on. Raises the NacreError that ended the session or this stream."""
        record, context = self._record, self._context
        async with listening(lambda: self._listen(requests), self._told) as listener:
            while record.opened is None and self._trouble() is None:
                await record.changed()
            self._raise_trouble()
            index, rest = record.replay(position)
            await context.write(pb.SessionEvent(opened=record.opened_for(owner=True)))
            if rest is not None:
                await context.write(pb.SessionEvent(commit=rest))
            await self._send_from(index)
            self.delivered = True
            if record.session.drafted:
                await linger(listener)

    async def _send_from(self, index: int) -> None:
        record = self._record
        while True:
            while len(record.events) <= index and record.finished is None and self._trouble() is None:
                await record.changed()
            if self._error is not None or record.refusal is not None:
                self._raise_trouble()
            if index < len(record.events):
                event = record.events[index]
                index += 1
                commit = isinstance(event, pb.Commit)
                await self._context.write(pb.SessionEvent(commit=event) if commit else pb.SessionEvent(reanchor=event))
                record.forget_lessons(index - 1)
                continue
            self._raise_trouble()
            await self._context.write(pb.SessionEvent(finished=record.finished))
            return

    async def _listen(self, requests: AsyncIterator[pb.SessionRequest]) -> None:
        session = self._record.session
        async for request in requests:
            match request.WhichOneof("body"):
                case "draft":
                    await session.draft(request.draft)
                case "cancel":
                    await session.cancel()
                case other:
                    told = other or "without a body"
                    raise InvalidArgument(f"request {told} after Open; an owner sends Draft or Cancel")

    def _told(self, error: NacreError) -> None:
        self._error = error
        self._record.announce()

    def _trouble(self) -> NacreError | None:
        return self._error or self._record.refusal or self._record.failure

    def _raise_trouble(self) -> None:
        trouble = self._trouble()
        if trouble is not None:
            raise trouble
