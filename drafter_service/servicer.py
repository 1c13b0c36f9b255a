"""The `nacre.v1.Drafter` API: told to attach, joins a session at its verifier and guesses until it ends."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import OrderedDict
from collections.abc import Collection
from itertools import islice

import grpc

from drafter_service.metrics import DrafterMetrics
from nacre.errors import InvalidArgument, NacreError, ResourceExhausted, Unauthenticated
from nacre.runtime.draft_worker import DraftWorker
from nacre.runtime.drafter_stream import draft_for_session
from nacre.runtime.grpc_options import CHANNEL_OPTIONS
from nacre.runtime.store_reader import StoreReader
from nacre.v1 import drafter_pb2, drafter_pb2_grpc
from nacre.v1 import session_pb2 as pb
from nacre.wire.errors import status_of

log = logging.getLogger("nacre.drafter")

MAX_TICKET_BYTES = 256
MAX_CHANNELS = 64
_ADDRESS = re.compile(r"[A-Za-z0-9.\-_\[\]:]+:\d{1,5}")


class DrafterServicer(drafter_pb2_grpc.DrafterServicer):
    """One task per joined session; one channel per verifier, the least recently used closed beyond `MAX_CHANNELS`."""

    def __init__(
        self,
        worker: DraftWorker,
        *,
        handshake: pb.Handshake,
        method: str,
        draft: str = "",
        metrics: DrafterMetrics,
        allowed: Collection[str] = (),
        reader: StoreReader | None = None,
    ) -> None:
        self._worker = worker
        self._reader = reader
        self._handshake = handshake
        self._method = method
        self._draft_name = draft
        self._metrics = metrics
        self._allowed = frozenset(allowed)
        self._channels: OrderedDict[str, grpc.aio.Channel] = OrderedDict()
        self._tasks: dict[asyncio.Task[None], str] = {}
        self.draining = False

    async def GetDrafter(
        self, request: drafter_pb2.GetDrafterRequest, context: grpc.aio.ServicerContext
    ) -> drafter_pb2.GetDrafterResponse:
        now, latest = time.perf_counter(), self._worker.latest
        return drafter_pb2.GetDrafterResponse(
            handshake=self._handshake,
            method=self._method,
            sessions=self._worker.session_count,
            max_sessions=0 if self.draining else self._worker.max_sessions,
            steps=self._worker.totals.steps,
            busy_ms=self._worker.totals.busy_s * 1e3,
            draft=self._draft_name,
            propose_ms=self._worker.totals.propose_s * 1e3,
            latest_steps=(
                drafter_pb2.DraftStep(
                    ago_ms=(now - step.began_s) * 1e3,
                    took_ms=(step.ended_s - step.began_s) * 1e3,
                    guesses=step.guesses,
                )
                for step in islice(latest, max(0, len(latest) - request.latest_steps), None)
            ),
        )

    async def Attach(
        self, request: drafter_pb2.AttachRequest, context: grpc.aio.ServicerContext
    ) -> drafter_pb2.AttachResponse:
        try:
            opened = await self._attach(request.verifier_address, request.ticket)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            if not isinstance(error, NacreError):
                log.error("attach failed", exc_info=error)
            await context.abort(*status_of(error))
        return drafter_pb2.AttachResponse(session_id=opened.session_id, ordinal=opened.ordinal)

    async def close(self) -> None:
        """Leaves all sessions and closes all channels."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for channel in self._channels.values():
            await channel.close()
        self._channels.clear()

    async def _attach(self, address: str, ticket: str) -> pb.Opened:
        if not _ADDRESS.fullmatch(address) or len(address) > 256:
            raise InvalidArgument(
                f"verifier_address is {address[:80]!r}; it must be host:port", param="verifier_address"
            )
        if self._allowed and address not in self._allowed:
            raise Unauthenticated(f"this drafter may not join sessions at {address}; add it to the drafter's verifiers")
        if not ticket or len(ticket) > MAX_TICKET_BYTES:
            raise InvalidArgument(
                f"ticket has {len(ticket)} bytes; it must have 1 to {MAX_TICKET_BYTES}", param="ticket"
            )
        # Sessions still joining count too, or a burst of calls would pass the bound together.
        if self.draining or len(self._tasks) >= self._worker.max_sessions:
            raise ResourceExhausted(
                f"this drafter {'is draining' if self.draining else f'serves {len(self._tasks)} sessions, its limit'}; "
                "try another drafter"
            )
        admitted: asyncio.Future[pb.Opened] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(self._draft(address, ticket, admitted), name=f"draft-{address}")
        self._tasks[task] = address
        task.add_done_callback(self._tasks.pop)
        return await asyncio.shield(admitted)

    async def _draft(self, address: str, ticket: str, admitted: asyncio.Future[pb.Opened]) -> None:
        try:
            await draft_for_session(
                self._channel(address),
                address,
                ticket,
                self._worker,
                handshake=self._handshake,
                method=self._method,
                admitted=admitted,
                reader=self._reader,
            )
            self._metrics.session_ended("finished")
        except NacreError as error:
            self._metrics.session_ended("refused" if not admitted.done() else "broken")
            if admitted.done():
                log.info("left a session at %s: %s", address, error.message)
            else:
                admitted.set_exception(error)
        except Exception:
            log.exception("drafting for a session at %s failed", address)
            self._metrics.session_ended("failed")
        finally:
            if not admitted.done():
                admitted.cancel()

    def _channel(self, address: str) -> grpc.aio.Channel:
        channel = self._channels.get(address)
        if channel is None:
            channel = grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
            self._channels[address] = channel
            self._forget_idle_channels()
        self._channels.move_to_end(address)
        return channel

    def _forget_idle_channels(self) -> None:
        busy = set(self._tasks.values())
        for address in list(self._channels)[:-MAX_CHANNELS]:
            if address not in busy:
                channel = self._channels.pop(address)
                task = asyncio.create_task(channel.close())
                self._tasks[task] = ""
                task.add_done_callback(self._tasks.pop)
