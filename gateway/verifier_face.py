"""The verifier's own gRPC API: to a client, the gateway is a verifier that does not die.

Rule: whatever is wrong with a stream ends that stream with a status and a message; the session and the process go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

from google.protobuf.message import DecodeError

from gateway.auth import ApiKeys
from gateway.client_stream import OwnerStream
from gateway.drafter_relay import DrafterRelay
from gateway.plane import Plane
from gateway.records import Record, Records
from nacre.errors import InvalidArgument, NacreError, ResourceExhausted, Unavailable
from nacre.v1 import session_pb2 as pb
from nacre.v1 import verifier_pb2, verifier_pb2_grpc
from nacre.wire import messages
from nacre.wire.errors import status_of

log = logging.getLogger("nacre.gateway")

TOKENIZER_CHUNK_BYTES = 64 * 1024


class VerifierFace(verifier_pb2_grpc.VerifierServicer):
    def __init__(self, plane: Plane, records: Records) -> None:
        self._plane = plane
        self._records = records
        self._keys = ApiKeys(plane.settings.api_keys)
        self._streams = 0

    @property
    def streams(self) -> int:
        return self._streams

    # -- what is served ------------------------------------------------------------------------------------------

    async def GetModel(self, request: Any, context: Any) -> verifier_pb2.GetModelResponse:  # noqa: N802
        async with self._answering("GetModel", context):
            self._tenant(context)
            answer = verifier_pb2.GetModelResponse()
            answer.CopyFrom(self._plane.pool.model().model)
            # Its capacity is ours, not that of the verifier that happened to answer first.
            answer.sessions = self._plane.admission.running + self._plane.admission.waiting
            answer.max_sessions = self._plane.settings.max_concurrency
        return answer

    async def GetTokenizer(  # noqa: N802
        self, request: Any, context: Any
    ) -> AsyncIterator[verifier_pb2.GetTokenizerResponse]:
        async with self._answering("GetTokenizer", context):
            self._tenant(context)
            data = self._plane.pool.model().tokenizer_json
        for start in range(0, len(data), TOKENIZER_CHUNK_BYTES):
            yield verifier_pb2.GetTokenizerResponse(chunk=data[start : start + TOKENIZER_CHUNK_BYTES])

    # -- sessions ------------------------------------------------------------------------------------------------

    async def Session(self, request_iterator: Any, context: Any) -> None:  # noqa: N802
        async with self._answering("Session", context), self._one_stream():
            requests = self._read(request_iterator)
            first = await anext(requests, pb.SessionRequest())
            match first.WhichOneof("body"):
                case "open":
                    await self._open(first.open, requests, context)
                case "join":
                    await self._join(first.join, requests, context)
                case other:
                    raise InvalidArgument(f"the first request is {other or 'empty'}; it must be Open or Join")

    async def _open(self, request: pb.Open, requests: AsyncIterator[pb.SessionRequest], context: Any) -> None:
        tenant = self._tenant(context)
        if self._plane.draining:
            raise Unavailable("this gateway is shutting down; open the session at another one")
        settings = self._plane.settings
        messages.check_handshake(request.handshake, self._plane.pool.model().handshake)
        drafters = request.drafters if request.HasField("drafters") else settings.drafters_per_session
        if drafters > settings.max_drafters:
            raise InvalidArgument(
                f"drafters is {drafters}; at most {settings.max_drafters} are asked", param="drafters"
            )
        record = self._records.open(request, drafters=drafters, tenant=tenant)
        await self._serve_owner(record, record.replay_from, requests, context)

    async def _join(self, request: pb.Join, requests: AsyncIterator[pb.SessionRequest], context: Any) -> None:
        """The ticket is proof enough: a drafter has no key."""
        messages.check_handshake(request.handshake, self._plane.pool.model().handshake)
        record, as_owner = self._records.by_ticket(request.ticket)
        if as_owner:
            self._records.owner_joined(record)
            await self._serve_owner(record, request.position, requests, context)
        else:
            await DrafterRelay(self._plane, record, request, context).run(requests)

    async def _serve_owner(
        self, record: Record, position: int, requests: AsyncIterator[pb.SessionRequest], context: Any
    ) -> None:
        stream = OwnerStream(record, context)
        try:
            await stream.run(position, requests)
        finally:
            self._records.owner_left(record, delivered=stream.delivered)

    # -- every call ----------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _answering(self, method: str, context: Any) -> AsyncIterator[None]:
        """Counts the call, and turns whatever goes wrong in it into a status."""
        code = "OK"
        try:
            yield
        except asyncio.CancelledError:
            code = "CANCELLED"
            raise
        except Exception as error:
            if not isinstance(error, NacreError):
                log.error("%s failed", method, exc_info=error)
            status, message = status_of(error)
            code = status.name
            await context.abort(status, message)
        finally:
            self._plane.metrics.grpc_answered(method, code)

    @contextlib.asynccontextmanager
    async def _one_stream(self) -> AsyncIterator[None]:
        limit = self._plane.settings.max_streams
        if self._streams >= limit:
            raise ResourceExhausted(f"{limit} session streams are open here, the limit: try again later")
        self._streams += 1
        try:
            yield
        finally:
            self._streams -= 1

    def _tenant(self, context: Any) -> str:
        metadata = dict(context.invocation_metadata() or ())
        authorization = metadata.get("authorization")
        return self._keys.tenant(authorization if isinstance(authorization, str) else None)

    async def _read(self, request_iterator: Any) -> AsyncIterator[pb.SessionRequest]:
        """Requests of a stream; bytes that are no request become InvalidArgument, not a parser's message."""
        limit = self._plane.settings.max_message_bytes
        try:
            async for request in request_iterator:
                if request.WhichOneof("body") != "open" and request.ByteSize() > limit:
                    raise InvalidArgument(
                        f"a request has {request.ByteSize()} bytes; only Open may have more than {limit}"
                    )
                yield request
        except (DecodeError, UnicodeDecodeError):
            raise InvalidArgument("a request could not be parsed; it is no nacre.v1.SessionRequest") from None
