"""Drafters and verifiers are killed in mid-generation; the text is the same, and nothing is lost or doubled."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator

import grpc
import pytest
import pytest_asyncio

from nacre.client import AsyncClient, Generation
from nacre.runtime.processes import Child
from nacre.v1 import drafter_pb2, drafter_pb2_grpc
from tests.services import Services, address, services

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="module")]

PROMPT = "import os\n\n\ndef read(path):\n"
TOKENS = 160


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def started() -> AsyncIterator[Services]:
    flags = ("--poll-s", "0.1", "--drafters-per-session", "1")
    async with services(verifiers=2, drafters=2, gateway_flags=flags) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def running(started: Services) -> Services:
    """All processes that the gateway knows, those that an earlier test has killed started again."""
    await started.heal()
    return started


async def expected_tokens(client: AsyncClient) -> list[int]:
    return (await (await client.start(PROMPT, max_tokens=TOKENS, seed=11, drafters=0)).run()).tokens


async def read_some(generation: Generation, count: int) -> None:
    async for _ in generation:
        if len(generation.tokens) >= count:
            return


async def serving(running: Services) -> Child:
    """The verifier that holds the one session there is."""
    for child in running.verifiers:
        if child.running:
            async with AsyncClient(address(child)) as direct:
                if (await direct.model()).sessions:
                    return child
    raise AssertionError("no verifier holds a session")


async def test_a_killed_drafter_is_replaced_and_the_text_stays(running: Services) -> None:
    async with AsyncClient(running.address) as client:
        expected = await expected_tokens(client)
        generation = await client.start(PROMPT, max_tokens=TOKENS, seed=11, drafters=1)
        await read_some(generation, 20)
        running.drafters[0].signal(signal.SIGKILL)
        await read_some(generation, 60)
        running.drafters[1].signal(signal.SIGKILL)
        await generation.run()
        assert generation.tokens == expected


async def test_a_second_drafter_may_join_in_mid_generation(running: Services) -> None:
    async with AsyncClient(running.address) as client:
        expected = await expected_tokens(client)
        generation = await client.start(PROMPT, max_tokens=TOKENS, seed=11, drafters=1)
        await read_some(generation, 20)
        ticket = generation.drafter_ticket
        async with grpc.aio.insecure_channel(address(running.drafters[1])) as channel:
            request = drafter_pb2.AttachRequest(verifier_address=running.address, ticket=ticket)
            await drafter_pb2_grpc.DrafterStub(channel).Attach(request)
        await generation.run()
        assert generation.tokens == expected


async def test_a_killed_verifier_is_replaced_and_nothing_is_lost_or_doubled(running: Services) -> None:
    async with AsyncClient(running.address) as client:
        expected = await expected_tokens(client)
        generation = await client.start(PROMPT, max_tokens=TOKENS, seed=11)
        await read_some(generation, 30)
        (await serving(running)).signal(signal.SIGKILL)
        await generation.run()
        assert generation.tokens == expected


async def test_a_verifier_that_is_told_to_stop_finishes_or_hands_over(running: Services) -> None:
    async with AsyncClient(running.address) as client:
        expected = await expected_tokens(client)
        generation = await client.start(PROMPT, max_tokens=TOKENS, seed=11)
        await read_some(generation, 30)
        child = await serving(running)
        child.signal(signal.SIGTERM)
        await generation.run()
        assert generation.tokens == expected
        assert await asyncio.wait_for(child.wait(), 60) == 0


async def test_a_frozen_verifier_is_left_behind(running: Services) -> None:
    async with AsyncClient(running.address) as client:
        expected = await expected_tokens(client)
        generation = await client.start(PROMPT, max_tokens=TOKENS, seed=11)
        await read_some(generation, 30)
        child = await serving(running)
        child.signal(signal.SIGSTOP)
        try:
            await generation.run()
            assert generation.tokens == expected
        finally:
            child.signal(signal.SIGCONT)
