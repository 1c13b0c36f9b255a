"""A hostile drafter, over a real stream, changes no text and harms no other session."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any

import grpc
import pytest
import pytest_asyncio

from nacre.client import AsyncClient, Generation
from nacre.v1 import session_pb2 as pb
from nacre.v1 import verifier_pb2_grpc
from nacre.wire import messages
from tests.services import Services, address, services

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="module")]

PROMPT = "import os\n\n\ndef read(path):\n"
#: Hundreds of passes: a session must not be over before whoever attacks it has joined.
TOKENS = 384
SEED, BYSTANDERS_SEED = 3, 4


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running() -> AsyncIterator[Services]:
    async with services(drafters=0, gateway=False) as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def expected(running: Services) -> dict[int, list[int]]:
    """The text of each seed, where nobody drafts."""
    async with AsyncClient(address(running.verifiers[0])) as client:
        return {seed: (await (await start(client, seed)).run()).tokens for seed in (SEED, BYSTANDERS_SEED)}


@pytest_asyncio.fixture(loop_scope="module")
async def channel(running: Services) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(address(running.verifiers[0])) as opened:
        yield opened


def joining(ticket: str) -> pb.SessionRequest:
    return pb.SessionRequest(join=pb.Join(handshake=messages.handshake(), ticket=ticket, method="lookup"))


def draft(*, tokens: Sequence[int] = (), confidence: int = 0, **fields: Any) -> pb.SessionRequest:
    """Guesses of these tokens, all with that confidence byte."""
    return pb.SessionRequest(draft=pb.Draft(guesses=[token << 8 | confidence for token in tokens], **fields))


async def _follow(call: grpc.aio.StreamStreamCall) -> pb.Opened:
    event = await call.read()
    assert event.WhichOneof("body") == "opened"
    return event.opened


async def random_tokens(call: grpc.aio.StreamStreamCall, opened: pb.Opened) -> None:
    """Honest form, worthless content, as fast as the commits come."""
    anchor, number = len(opened.tokens), 1
    while True:
        tokens = [(number * 7919 + i * 104729) % 4096 for i in range(8)]
        await call.write(draft(first_node=number, anchor=anchor, tokens=tokens))
        number += 8
        event = await call.read()
        if event is grpc.aio.EOF or event.WhichOneof("body") == "finished":
            return
        anchor = event.commit.position + len(event.commit.tokens)


async def silence(call: grpc.aio.StreamStreamCall, opened: pb.Opened) -> None:
    await asyncio.sleep(60)


async def restarts(call: grpc.aio.StreamStreamCall, opened: pb.Opened) -> None:
    """Numbers its nodes from 1 again and again."""
    for _ in range(200):
        await call.write(draft(first_node=1, anchor=len(opened.tokens), tokens=[5] * 200))


def breach(**fields: Any) -> Callable[[grpc.aio.StreamStreamCall, pb.Opened], Coroutine[Any, Any, None]]:
    """One message that breaks the protocol; the stream must end with a status that names the field."""

    async def send(call: grpc.aio.StreamStreamCall, opened: pb.Opened) -> None:
        filled = {name: value(opened) if callable(value) else value for name, value in fields.items()}
        await call.write(draft(**filled))
        while (await call.read()) is not grpc.aio.EOF:
            pass

    return send


BREACHES = {
    "token out of the vocabulary": (breach(first_node=1, anchor=1, tokens=[4096]), "guesses[0]"),
    "anchor from the future": (
        breach(first_node=1, anchor=lambda opened: len(opened.tokens) + 1_000_000, tokens=[1]),
        "anchor",
    ),
    "no anchor": (breach(first_node=1, parents=[0], tokens=[1]), "anchor"),
    "parent that is not there": (breach(first_node=1, anchor=1, parents=[7], tokens=[1]), "parents[0]"),
    "numbers out of order": (breach(first_node=50, anchor=1, tokens=[1]), "first_node"),
    "more than the window": (breach(first_node=1, anchor=1, tokens=[1] * 600), "window"),
    "more than a message takes": (breach(first_node=1, anchor=1, tokens=[1] * 5000), "at most"),
    "no tokens": (breach(first_node=1, anchor=1), "empty"),
}


async def start(client: AsyncClient, seed: int = SEED) -> Generation:
    return await client.start(PROMPT, max_tokens=TOKENS, seed=seed)


async def joined(generation: Generation, channel: grpc.aio.Channel) -> tuple[grpc.aio.StreamStreamCall, pb.Opened]:
    """Reads the generation's first piece, then joins its session."""
    await anext(aiter(generation))
    call = verifier_pb2_grpc.VerifierStub(channel).Session()
    await call.write(joining(generation.drafter_ticket))
    return call, await _follow(call)


@pytest.mark.parametrize("attack", [random_tokens, silence, restarts], ids=lambda attack: attack.__name__)
async def test_a_useless_drafter_changes_nothing(
    attack: Any, running: Services, channel: grpc.aio.Channel, expected: dict[int, list[int]]
) -> None:
    async with AsyncClient(address(running.verifiers[0])) as client:
        generation = await start(client)
        call, opened = await joined(generation, channel)
        attacker = asyncio.create_task(attack(call, opened))
        other = await (await start(client, BYSTANDERS_SEED)).run()
        await generation.run()
        attacker.cancel()
        with contextlib.suppress(asyncio.CancelledError, grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await attacker
        call.cancel()
        assert generation.tokens == expected[SEED]
        assert other.tokens == expected[BYSTANDERS_SEED]


async def test_every_breach_ends_its_own_stream_with_the_reason(
    running: Services, channel: grpc.aio.Channel, expected: dict[int, list[int]]
) -> None:
    """Each in a session of its own, all at the same time."""

    async def breached(client: AsyncClient, name: str) -> None:
        attack, named = BREACHES[name]
        generation = await start(client)
        call, opened = await joined(generation, channel)
        with contextlib.suppress(grpc.aio.AioRpcError):
            await attack(call, opened)
        assert await call.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED), name
        assert named in await call.details(), name
        await generation.run()
        assert generation.tokens == expected[SEED], name

    async with AsyncClient(address(running.verifiers[0])) as client:
        await asyncio.gather(*(breached(client, name) for name in BREACHES))


async def test_garbage_bytes_end_their_stream_only(
    running: Services, channel: grpc.aio.Channel, expected: dict[int, list[int]]
) -> None:
    async with AsyncClient(address(running.verifiers[0])) as client:
        generation = await start(client)
        await anext(aiter(generation))
        raw = channel.stream_stream("/nacre.v1.Verifier/Session", lambda data: data, lambda data: data)
        for garbage in (b"\xff" * 100, b"", joining(generation.drafter_ticket).SerializeToString() + b"\xff"):
            call = raw()
            await call.write(garbage)
            with contextlib.suppress(grpc.aio.AioRpcError):
                await call.read()
            assert await call.code() is not grpc.StatusCode.OK
            assert "Traceback" not in await call.details()
        # A sound Join, then garbage.
        call = raw()
        await call.write(joining(generation.drafter_ticket).SerializeToString())
        await call.read()
        await call.write(b"\xff\xff\xff")
        with contextlib.suppress(grpc.aio.AioRpcError):
            while (await call.read()) is not grpc.aio.EOF:
                pass
        assert await call.code() is not grpc.StatusCode.OK
        await generation.run()
        assert generation.tokens == expected[SEED]


async def test_tickets_cannot_be_made_up_and_die_with_their_session(
    running: Services, channel: grpc.aio.Channel
) -> None:
    async with AsyncClient(address(running.verifiers[0])) as client:
        generation = await start(client)
        await generation.run()
        for ticket in ("", "made-up", generation.drafter_ticket):
            call = verifier_pb2_grpc.VerifierStub(channel).Session()
            await call.write(joining(ticket))
            with contextlib.suppress(grpc.aio.AioRpcError):
                await call.read()
            assert await call.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_wrong_handshake_is_refused_with_both_values(running: Services, channel: grpc.aio.Channel) -> None:
    ours = messages.handshake()
    wrong_version = pb.Handshake(protocol_version=99, noise_version=ours.noise_version)
    wrong_tokenizer = messages.handshake(tokenizer_fingerprint="another")
    for handshake, named in ((wrong_version, "99"), (wrong_tokenizer, "another")):
        call = verifier_pb2_grpc.VerifierStub(channel).Session()
        await call.write(pb.SessionRequest(open=pb.Open(handshake=handshake, prompt=[1], max_tokens=1)))
        with contextlib.suppress(grpc.aio.AioRpcError):
            await call.read()
        assert await call.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert named in await call.details()
