"""Clients of the gateway's gRPC API: owners that check what they are told, drafters that are always right."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc

from nacre.drafting.proposer import Guess
from nacre.session import DrafterLimits, DrafterSession, Reanchor
from nacre.v1 import session_pb2 as pb
from nacre.wire import messages
from tests.gateway import toy_target
from tests.gateway.harness import Listening

PROMPT = toy_target.encode("for line")
TOKENS = 60
EXPECTED = [choice.token for choice in toy_target.reference(PROMPT, TOKENS, key=5)]


def opening(**changes: Any) -> pb.SessionRequest:
    fields: dict[str, Any] = {
        "handshake": messages.handshake(),
        "prompt": PROMPT,
        "max_tokens": TOKENS,
        "sampling": pb.Sampling(temperature=1.0),
        "seed": 5,
    }
    return pb.SessionRequest(open=pb.Open(**{**fields, **changes}))


def joining(ticket: str, position: int = 0) -> pb.SessionRequest:
    return pb.SessionRequest(join=pb.Join(handshake=messages.handshake(), ticket=ticket, position=position))


class Owner:
    """A client's end of a stream; `tokens` is its output so far, checked for gaps and repeats."""

    def __init__(self, gateway: Listening, first: pb.SessionRequest) -> None:
        self.call = gateway.stub.Session()
        self.first = first
        self.tokens: list[int] = []
        self.start = len(PROMPT)
        self.reanchors: list[int] = []
        self.opened = pb.Opened()
        self.finished: pb.Finished | None = None

    async def begin(self) -> Owner:
        await self.call.write(self.first)
        event = await self.call.read()
        assert event is not grpc.aio.EOF, await self.call.details()
        self.opened = event.opened
        return self

    async def listen(self, until_tokens: int = 10**9) -> Owner:
        while self.finished is None and len(self.tokens) < until_tokens:
            event = await self.call.read()
            if event is grpc.aio.EOF:
                break
            match event.WhichOneof("body"):
                case "commit":
                    assert event.commit.position == self.start + len(self.tokens)
                    self.tokens += event.commit.tokens
                case "reanchor":
                    self.reanchors.append(event.reanchor.position)
                    assert event.reanchor.position == self.start + len(self.tokens)
                case "finished":
                    self.finished = event.finished
        return self


async def refused(gateway: Listening, *requests: pb.SessionRequest | bytes, **metadata: str) -> tuple[str, str]:
    """Status and message of a stream that is sent these."""
    method = gateway.channel.stream_stream(
        "/nacre.v1.Verifier/Session",
        request_serializer=lambda request: request if isinstance(request, bytes) else request.SerializeToString(),
        response_deserializer=pb.SessionEvent.FromString,
    )
    call = method(metadata=tuple(metadata.items()))
    for request in requests:
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await call.write(request)
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        await call.done_writing()
    with contextlib.suppress(grpc.aio.AioRpcError):
        while await call.read() is not grpc.aio.EOF:
            pass
    return (await call.code()).name, await call.details()


class Guesser:
    """The real drafter machine with perfect guesses, over one stream."""

    def __init__(self, call: Any, machine: DrafterSession) -> None:
        self.call = call
        self.machine = machine
        self.reanchored = 0

    async def send(self, ahead: int = 4) -> None:
        """Extends the tip by what the target will say, and sends it."""
        machine = self.machine
        for node in machine.frontier(1):
            tokens = [*machine.tokens, *node.path()]
            room = machine.end_position - len(tokens) - 1
            said = (
                [choice.token for choice in toy_target.reference(tokens, min(ahead, room), key=5)] if room > 0 else []
            )
            machine.extend(node.id, [Guess(token, 0.9, parent=index - 1) for index, token in enumerate(said)])
        for draft in machine.outbox():
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await self.call.write(pb.SessionRequest(draft=messages.draft_to_wire(draft)))

    async def run(self) -> None:
        """Guesses along until the session ends."""
        await self.send()
        while (event := await self.call.read()) is not grpc.aio.EOF:
            match event.WhichOneof("body"):
                case "commit":
                    self.machine.committed(messages.commit_from_wire(event.commit))
                case "reanchor":
                    self.reanchored += 1
                    self.machine.reanchored(Reanchor(event.reanchor.position))
                case "finished":
                    await self.call.done_writing()
                    return
            await self.send()


def guesser(call: Any, opened: pb.Opened, tokens: list[int]) -> Guesser:
    machine = DrafterSession(
        tokens, end_position=opened.end_position, limits=DrafterLimits(), window_nodes=opened.window_nodes
    )
    return Guesser(call, machine)


@contextlib.asynccontextmanager
async def joined_drafter(gateway: Listening, ticket: str) -> AsyncIterator[Guesser]:
    call = gateway.stub.Session()
    await call.write(joining(ticket))
    event = await call.read()
    opened = event.opened
    assert not opened.owner_ticket
    assert not opened.drafter_ticket
    yield guesser(call, opened, list(opened.tokens))
    call.cancel()
