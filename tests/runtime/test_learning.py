"""Drafters whose method learns are told what the target thought, and guess better for it."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from nacre.client import AsyncClient
from nacre.drafting import proposer_class
from nacre.models import held_out_prompts
from nacre.v1 import session_pb2 as pb
from nacre.v1 import verifier_pb2_grpc
from nacre.wire import messages
from tests.services import Services, address, services

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]


async def accepted(running: Services, seed: int) -> tuple[list[int], int, int]:
    """One generation: (tokens, passes, right guesses)."""
    async with AsyncClient(running.address) as client:
        vocabulary = await client.vocabulary()
        prompt = tuple(vocabulary.encode(held_out_prompts(1)[0], add_special_tokens=True)[:48])
        generation = await (await client.start(prompt, max_tokens=48, seed=seed)).run()
        statistics = generation.statistics
        assert statistics is not None
        return list(generation.tokens), statistics.passes, statistics.accepted_guesses


@pytest.mark.parametrize("method", ["recycling", "stand", "suffix"])
async def test_the_second_time_a_method_that_learns_knows_the_text(method: str) -> None:
    async with services(drafters=0, gateway=False) as running:
        await running.start_drafter(method=method)
        await running.start_gateway()
        first, before, _ = await accepted(running, seed=3)
        again, after, right = await accepted(running, seed=3)
        assert again == first
        assert right > 0
        assert after < before


async def test_a_device_that_drafts_for_itself_learns_too() -> None:
    """Through a gateway, which keeps no lesson longer than it takes to pass it on."""
    proposer = proposer_class("recycling-growth")()
    async with services(drafters=0) as running, AsyncClient(running.address, proposer=proposer) as client:
        vocabulary = await client.vocabulary()
        prompt = tuple(vocabulary.encode(held_out_prompts(1)[0], add_special_tokens=True)[:48])
        told = []
        for _ in range(2):
            generation = await (await client.start(prompt, max_tokens=48, seed=3)).run()
            assert generation.statistics is not None
            told.append((list(generation.tokens), generation.statistics.passes))
    assert told[0][0] == told[1][0]
    # Whether it learnt enough *within* the first text to guess right there depends on who was faster.
    assert told[1][1] < told[0][1]


async def test_only_who_asks_is_told_and_nobody_is_told_too_much() -> None:
    async with services(drafters=0, gateway=False) as running:
        async with grpc.aio.insecure_channel(address(running.verifiers[0])) as channel:
            stub = verifier_pb2_grpc.VerifierStub(channel)
            owner = stub.Session()
            opening = pb.Open(handshake=messages.handshake(), prompt=[1, 2, 3], max_tokens=200, ignore_eos=True)
            await owner.write(pb.SessionRequest(open=opening))
            opened = (await owner.read()).opened

            async def told(observe: int) -> list[pb.Commit]:
                call = stub.Session()
                join = pb.Join(handshake=messages.handshake(), ticket=opened.drafter_ticket, observe=observe)
                await call.write(pb.SessionRequest(join=join))
                events = [event async for event in call]
                return [event.commit for event in events if event.WhichOneof("body") == "commit"]

            with pytest.raises(grpc.aio.AioRpcError, match="observe is 17"):
                await told(17)
            mute, keen = await asyncio.gather(told(0), told(4))
            owner.cancel()
        assert not any(commit.HasField("observed") for commit in mute)
        assert keen
        for commit in keen[1:]:  # the first may tell of passes before the drafter came
            # Of the last pass: who guesses nothing hears of several passes in one commit.
            assert commit.position <= commit.observed.position < commit.position + len(commit.tokens)
            assert len(commit.observed.rows) == commit.rows
            assert [len(row.best) for row in commit.observed.rows] == [4] * commit.rows
