"""Drafters and verifiers are killed in mid-generation; the text is the same, and nothing is lost or doubled."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass

import grpc
import httpx
import pytest
import pytest_asyncio

from nacre.client import AsyncClient, Generation
from nacre.runtime.processes import Child
from nacre.v1 import drafter_pb2, drafter_pb2_grpc
from tests.services import Services, address, services

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="module")]

PROMPT = "import os\n\n\ndef read(path):\n"
TOKENS = 120


@dataclass(frozen=True, slots=True)
class Stack:
    """Two verifiers, two drafters and a gateway, and what they write where nothing is lost."""

    services: Services
    expected: list[int]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def started() -> AsyncIterator[Stack]:
    flags = ("--poll-s", "0.1", "--poll-timeout-s", "1", "--drafters-per-session", "1")
    async with services(verifiers=2, drafters=2, gateway_flags=flags) as running:
        async with AsyncClient(running.address) as client:
            generation = await (await client.start(PROMPT, max_tokens=TOKENS, seed=11, drafters=0)).run()
        yield Stack(running, generation.tokens)


@pytest.fixture
def expected(started: Stack) -> list[int]:
    return started.expected


@pytest_asyncio.fixture(loop_scope="module")
async def running(started: Stack) -> Services:
    """All processes, those that an earlier test has killed started again, as soon as the gateway knows them all."""
    running = started.services
    await running.heal()
    healthy = re.compile(r"^nacre_upstream_healthy\{.*\} 1\.0$", re.MULTILINE)
    async with httpx.AsyncClient() as http, asyncio.timeout(60):
        while len(healthy.findall((await http.get(f"{running.url}/metrics")).text)) < 4:  # noqa: ASYNC110  no event
            await asyncio.sleep(0.05)
    return running


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


async def test_a_killed_drafter_is_replaced_and_the_text_stays(running: Services, expected: list[int]) -> None:
    async with AsyncClient(running.address) as client:
        generation = await client.start(PROMPT, max_tokens=TOKENS, seed=11, drafters=1)
        await read_some(generation, 20)
        running.drafters[0].signal(signal.SIGKILL)
        await read_some(generation, 60)
        running.drafters[1].signal(signal.SIGKILL)
        await generation.run()
        assert generation.tokens == expected


async def test_a_second_drafter_may_join_in_mid_generation(running: Services, expected: list[int]) -> None:
    async with AsyncClient(running.address) as client:
        generation = await client.start(PROMPT, max_tokens=TOKENS, seed=11, drafters=1)
        await read_some(generation, 20)
        ticket = generation.drafter_ticket
        async with grpc.aio.insecure_channel(address(running.drafters[1])) as channel:
            request = drafter_pb2.AttachRequest(verifier_address=running.address, ticket=ticket)
            await drafter_pb2_grpc.DrafterStub(channel).Attach(request)
        await generation.run()
        assert generation.tokens == expected


async def test_a_killed_verifier_is_replaced_and_nothing_is_lost_or_doubled(
    running: Services, expected: list[int]
) -> None:
    async with AsyncClient(running.address) as client:
        generation = await client.start(PROMPT, max_tokens=TOKENS, seed=11)
        await read_some(generation, 30)
        (await serving(running)).signal(signal.SIGKILL)
        await generation.run()
        assert generation.tokens == expected


async def test_a_verifier_that_is_told_to_stop_finishes_or_hands_over(running: Services, expected: list[int]) -> None:
    async with AsyncClient(running.address) as client:
        generation = await client.start(PROMPT, max_tokens=TOKENS, seed=11)
        await read_some(generation, 30)
        child = await serving(running)
        child.signal(signal.SIGTERM)
        await generation.run()
        assert generation.tokens == expected
        assert await asyncio.wait_for(child.wait(), 60) == 0


async def test_a_frozen_verifier_is_left_behind(running: Services, expected: list[int]) -> None:
    async with AsyncClient(running.address) as client:
        generation = await client.start(PROMPT, max_tokens=TOKENS, seed=11)
        await read_some(generation, 30)
        child = await serving(running)
        child.signal(signal.SIGSTOP)
        try:
            await generation.run()
            assert generation.tokens == expected
        finally:
            child.signal(signal.SIGCONT)
