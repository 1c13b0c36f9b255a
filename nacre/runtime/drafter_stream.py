"""One drafter's stream to one session: join by ticket, feed the worker, send its guesses, until the session ends.

One reader and one writer per stream. A `wait_for` around a gRPC read would cancel the whole call, so timeouts, where
needed, sit on queues and events instead.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator

import grpc

from nacre.drafting import DraftContext
from nacre.errors import Internal, ResourceExhausted
from nacre.runtime.draft_worker import DraftWorker
from nacre.runtime.store_reader import Followed, StoreReader, namespace_of
from nacre.session import Draft, Reanchor
from nacre.v1 import session_pb2 as pb
from nacre.v1 import verifier_pb2_grpc
from nacre.wire import messages
from nacre.wire.errors import error_of
from nacre.wire.streams import send

log = logging.getLogger("nacre.drafter")

#: Drafts waiting for the network. The window bounds their nodes; this bounds a link that takes nothing at all.
MAX_QUEUED_DRAFTS = 1024
#: What a method that learns is told of every row of a pass.
OBSERVED_BEST = 8


def draft_context(opened: pb.Opened) -> DraftContext:
    return DraftContext(
        tokens=tuple(opened.tokens),
        prompt_length=opened.prompt_length,
        params=messages.sampling_from_wire(opened.sampling),
        key=opened.noise_key,
        prediction=tuple(opened.prediction),
        tenant=opened.tenant_tag,
        vocab_size=opened.vocab_size,
        domain=opened.domain,
    )


class Outgoing:
    """Guesses on their way to the wire, in order."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Draft | Exception] = asyncio.Queue(MAX_QUEUED_DRAFTS + 1)
        self._delivered = asyncio.Event()

    def send(self, draft: Draft) -> None:
        if self._queue.qsize() < MAX_QUEUED_DRAFTS:
            self._delivered.clear()
            self._queue.put_nowait(draft)
        else:
            self.fail(ResourceExhausted(f"{MAX_QUEUED_DRAFTS} drafts wait for a link that takes none; giving up"))

    def fail(self, error: Exception) -> None:
        """Nothing more will be sent; the writer raises `error` once it gets there."""
        if not self._queue.full():
            self._queue.put_nowait(error)

    async def delivered(self) -> None:
        """Returns once the writer has written everything and waits for more."""
        await self._delivered.wait()

    async def next(self) -> Draft:
        if self._queue.empty():
            self._delivered.set()
        item = await self._queue.get()
        if isinstance(item, Exception):
            raise item
        return item


async def write_drafts(call: grpc.aio.StreamStreamCall, outgoing: Outgoing) -> None:
    """Sends what comes until the stream ends. Raises what `outgoing.fail` was given."""
    while await send(call, pb.SessionRequest(draft=messages.draft_to_wire(await outgoing.next()))):
        pass


async def draft_for_session(
    channel: grpc.aio.Channel,
    address: str,
    ticket: str,
    worker: DraftWorker,
    *,
    handshake: pb.Handshake,
    method: str,
    admitted: asyncio.Future[pb.Opened],
    reader: StoreReader | None = None,
) -> None:
    """Drafts for the ticket's session until it ends. Sets `admitted` to the verifier's answer once joined.

    What `reader` knows of the session's tenant is learnt first, if the verifier names the tenant.

    Raises NacreError if the verifier refuses or the stream breaks.
    """
    call = verifier_pb2_grpc.VerifierStub(channel).Session()
    number: int | None = None
    followed: Followed | None = None
    outgoing = Outgoing()
    try:
        await call.wait_for_connection()  # so that what is measured below is the way there and back
        joined = time.monotonic()
        observe = OBSERVED_BEST if worker.learns else 0
        join = pb.Join(handshake=handshake, ticket=ticket, method=method, observe=observe)
        await send(call, pb.SessionRequest(join=join))
        events = aiter(call)
        event = await anext(events, None)
        if event is None or event.WhichOneof("body") != "opened":
            raise Internal(f"{address} answered Join with something else than Opened")
        rtt_s = time.monotonic() - joined
        opened = event.opened
        messages.check_handshake(opened.handshake, handshake)
        followed = await _read_ahead(reader, opened)
        number = worker.open(
            draft_context(opened),
            end_position=opened.end_position,
            window_nodes=opened.window_nodes,
            send=outgoing.send,
            failed=outgoing.fail,
            delivered=outgoing.delivered,
            rtt_s=rtt_s,
            row_budget=opened.row_budget,
        )
        if not admitted.done():
            admitted.set_result(opened)
        writing = asyncio.ensure_future(write_drafts(call, outgoing))
        reading = asyncio.ensure_future(_read(events, worker, number))
        try:
            await asyncio.wait({reading, writing}, return_when=asyncio.FIRST_COMPLETED)
            for task in (reading, writing):
                if task.done():
                    task.result()
            await reading  # a writer that has ended quietly has found the call ended: the reader says why
        finally:
            for task in (reading, writing):
                task.cancel()
            await asyncio.gather(reading, writing, return_exceptions=True)
    except grpc.aio.AioRpcError as failure:
        raise error_of(failure, address) from None
    finally:
        if number is not None:
            worker.close(number)
        if reader is not None:
            reader.end(followed)
        call.cancel()


async def _read_ahead(reader: StoreReader | None, opened: pb.Opened) -> Followed | None:
    """Before the session opens: what the store knows of its tenant goes to the worker."""
    namespace = namespace_of(opened)
    return await reader.begin(namespace, opened.tenant_tag) if reader is not None and namespace is not None else None


async def _read(events: AsyncIterator[pb.SessionEvent], worker: DraftWorker, number: int) -> None:
    async for event in events:
        match event.WhichOneof("body"):
            case "commit":
                worker.committed(number, messages.commit_from_wire(event.commit))
            case "reanchor":
                worker.reanchored(number, Reanchor(event.reanchor.position))
            case "finished":
                return
            case _:
                log.debug("an event of a kind this version does not know was ignored")
