"""A stream that ends while it is written to: no error of the writer's, and what the peer said last is heard."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from nacre.errors import ResourceExhausted, Unavailable
from nacre.v1 import session_pb2 as pb
from nacre.v1 import verifier_pb2_grpc
from nacre.wire.errors import error_of
from nacre.wire.streams import send

DRAFT = pb.SessionRequest(draft=pb.Draft(guesses=[256] * 4000))


class Ends(verifier_pb2_grpc.VerifierServicer):
    """Ends every session as soon as it is there: with all that it has to say, or refusing to go on."""

    def __init__(self, *, refuse: bool) -> None:
        self._refuse = refuse

    def Session(self, requests: Any, context: Any) -> Iterator[pb.SessionEvent]:
        for position in range(3):
            yield pb.SessionEvent(commit=pb.Commit(position=position))
        if self._refuse:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "all slots are taken")
        yield pb.SessionEvent(finished=pb.Finished())


@contextmanager
def peer(*, refuse: bool) -> Iterator[str]:
    """Runs in threads of its own, so that it may end while the writer's event loop is elsewhere."""
    with futures.ThreadPoolExecutor(2) as threads:
        server = grpc.server(threads)
        verifier_pb2_grpc.add_VerifierServicer_to_server(Ends(refuse=refuse), server)  # type: ignore[no-untyped-call]
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(0).wait()


@pytest.mark.parametrize("refuse", [False, True])
async def test_what_was_said_last_is_heard_after_a_write_has_failed(refuse: bool) -> None:
    with peer(refuse=refuse) as address:
        async with grpc.aio.insecure_channel(address) as channel:
            call = verifier_pb2_grpc.VerifierStub(channel).Session()
            while await send(call, DRAFT):
                pass
            heard: list[str] = []
            status = grpc.StatusCode.OK
            try:
                async for event in call:
                    heard.append(event.WhichOneof("body"))  # noqa: PERF401  what came before the status counts
            except grpc.aio.AioRpcError as failure:
                status = failure.code()
    assert heard == ["commit"] * 3 + ["finished"] * (not refuse)
    assert status == (grpc.StatusCode.RESOURCE_EXHAUSTED if refuse else grpc.StatusCode.OK)


async def test_a_refusal_that_a_write_meets_is_never_taken_for_a_fault_of_ours() -> None:
    with peer(refuse=True) as address:
        async with grpc.aio.insecure_channel(address) as channel:
            call = verifier_pb2_grpc.VerifierStub(channel).Session()
            with pytest.raises(grpc.aio.AioRpcError) as failure:
                await _write_on(call)
    # grpc.aio has put words of its own in the place of the refusal: the next attempt hears it.
    assert isinstance(error_of(failure.value, "verifier:1"), ResourceExhausted | Unavailable)


async def _write_on(call: grpc.aio.StreamStreamCall) -> None:
    while True:
        await call.write(DRAFT)
