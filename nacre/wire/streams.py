"""Writing to a stream that its peer may end at any moment."""

from __future__ import annotations

import asyncio

import grpc

from nacre.v1 import session_pb2 as pb


async def send(call: grpc.aio.StreamStreamCall, request: pb.SessionRequest) -> bool:
    """Writes one request; False if the stream has ended, and reading from it tells more.

    A write that meets the end of its stream is no error of its own: the peer may have finished, or refused, while the
    message was on its way, and what it said last waits to be read. Of a refusal the reason may be lost (StreamEnded).
    """
    try:
        await call.write(request)
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        return False
    return True
