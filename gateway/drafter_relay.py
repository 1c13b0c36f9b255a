"""A drafter that joins through the gateway: its stream is passed on to wherever the session lives now.

When the session moves, the relay joins it again at its new verifier and tells the drafter to number afresh (Reanchor).
The drafter may have seen tokens that the new verifier has yet to commit again, and could not anchor a guess there; so
it is told only once the new verifier is level with it, and what it sends until then is dropped. What it has seen is not
sent twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

from gateway.client_stream import linger, listening
from gateway.leg import Leg, LegLost
from gateway.plane import Plane
from gateway.records import Record
from nacre.errors import Cancelled, Internal, InvalidArgument, NacreError, Unauthenticated, Unavailable
from nacre.v1 import session_pb2 as pb

log = logging.getLogger("nacre.gateway")

_RETRY_S = 0.1
#: Failures after which the session may be found elsewhere; an unknown ticket is one that a verifier took with it.
_MOVED = (Unavailable, Cancelled, Internal, Unauthenticated)


class DrafterRelay:
    """One drafter's stream."""

    def __init__(self, plane: Plane, record: Record, join: pb.Join, context: Any) -> None:
        self._plane = plane
        self._record = record
        self._join = join
        self._context = context
        self._leg: Leg | None = None
        self._seen = -1  # tokens the drafter has; -1 before it has been admitted
        self._level = True  # the drafter knows that its present numbers count
        self._numbering_lost = False
        self._error: NacreError | None = None  # in what the drafter sends

    async def run(self, requests: AsyncIterator[pb.SessionRequest]) -> None:
        """Relays until the session ends. Raises NacreError if the drafter is refused or the session is lost."""
        try:
            async with listening(lambda: self._forward(requests), self._told) as listener:
                await self._deliver()
                await linger(listener)
        finally:
            if self._leg is not None:
                self._leg.cut()

    def _told(self, error: NacreError) -> None:
        """The drafter has broken the protocol: whoever reads from the verifier for it hears that at once."""
        self._error = error
        if self._leg is not None:
            self._leg.fail(error)

    async def _deliver(self) -> None:
        for _ in range(self._plane.settings.max_failovers + 1):
            leg = await self._joined()
            if self._error is not None:
                raise self._error
            if leg is None:
                break
            try:
                while True:
                    event = await leg.receive(None)
                    if event.WhichOneof("body") == "finished":
                        await self._context.write(event)
                        return
                    await self._pass_on(event)
            except LegLost as lost:
                self._leg = None
                leg.cut()
                if not isinstance(lost.error, _MOVED):
                    raise lost.error from None
                self._numbering_lost, self._level = True, False
        if self._record.finished is None:
            raise self._record.failure or Unavailable("the session has moved too often; join again")
        await self._context.write(pb.SessionEvent(finished=self._record.finished))

    async def _joined(self) -> Leg | None:
        """A stream to the session where it lives now; None if it is over. Raises what refuses the drafter."""
        record, settings = self._record, self._plane.settings
        patience_s = settings.failover_wait_s + settings.open_timeout_s
        try:
            async with asyncio.timeout(patience_s):
                while not record.ended:
                    where = record.session.drafter_ticket
                    if where is None:
                        await record.changed()
                        continue
                    try:
                        return await self._join_at(*where)
                    except NacreError as error:
                        if not isinstance(error, _MOVED) or (self._seen < 0 and isinstance(error, Unauthenticated)):
                            raise
                        log.debug("a drafter cannot join yet: %s", error.message)
                        await asyncio.sleep(_RETRY_S)
        except TimeoutError:
            raise Unavailable(f"the session was not to be reached for {patience_s:g} s; join again") from None
        return None

    async def _join_at(self, upstream: Any, ticket: str) -> Leg:
        join = pb.Join()
        join.CopyFrom(self._join)
        join.ticket = ticket
        leg = Leg(upstream, owner=False)
        timeout_s = self._plane.settings.open_timeout_s
        try:
            opened = await leg.begin(pb.SessionRequest(join=join), self._plane.tasks, timeout_s=timeout_s)
        except BaseException:
            leg.cut()
            raise
        self._leg = leg
        if self._seen < 0:
            self._seen = len(opened.tokens)
            answer = pb.Opened()
            answer.CopyFrom(opened)
            answer.session_id = self._record.id
            await self._context.write(pb.SessionEvent(opened=answer))
        else:
            await self._commit(pb.Commit(position=0, tokens=opened.tokens, window_nodes=opened.window_nodes))
        return leg

    async def _pass_on(self, event: pb.SessionEvent) -> None:
        if event.WhichOneof("body") == "commit":
            await self._commit(event.commit)
        else:
            await self._context.write(event)

    async def _commit(self, commit: pb.Commit) -> None:
        end = commit.position + len(commit.tokens)
        known = max(0, min(self._seen - commit.position, len(commit.tokens)))
        if known:
            for parallel in (commit.tokens, commit.guessed_by, commit.logprobs):
                del parallel[:known]
            commit.position += known
        if commit.tokens:
            self._seen = end
            await self._context.write(pb.SessionEvent(commit=commit))
        if not self._level and end >= self._seen:
            self._level = True
            await self._context.write(pb.SessionEvent(reanchor=pb.Reanchor(position=self._seen)))

    async def _forward(self, requests: AsyncIterator[pb.SessionRequest]) -> None:
        async for request in requests:
            body = request.WhichOneof("body")
            if body != "draft":
                raise InvalidArgument(f"request {body or 'without a body'} after Join; a drafter sends Draft")
            leg = self._leg
            if leg is None or not self._level or (self._numbering_lost and request.draft.first_node != 1):
                continue
            self._numbering_lost = False
            await leg.send(request)
