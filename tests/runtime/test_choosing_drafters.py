"""Real drafters of two kinds: they say what they are and whose guesses are whose; the gateway chooses among them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import grpc
import httpx
import pytest
import pytest_asyncio

from nacre.client import AsyncClient
from nacre.v1 import drafter_pb2, drafter_pb2_grpc, verifier_pb2_grpc
from nacre.v1 import session_pb2 as pb
from nacre.wire import messages
from tests.services import Services, address, services

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="module")]

PROMPT = "import os\n\n\ndef read(path):\n    with open(path) as file:\n        return file.read()\n\n\n"
TOKENS, GENERATIONS = 32, 3


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running() -> AsyncIterator[Services]:
    """A draft model, and a drafter without one."""
    async with services(gateway=False) as started:
        await started.start_drafter(method="suffix")
        await started.start_gateway("--poll-s", "0.1")
        yield started


async def test_commits_name_drafters_by_the_number_they_were_told(running: Services) -> None:
    verifier = address(running.verifiers[0])
    async with grpc.aio.insecure_channel(verifier) as channel:
        owner = verifier_pb2_grpc.VerifierStub(channel).Session()
        opening = pb.Open(handshake=messages.handshake(), prompt=[1, 2, 3], max_tokens=300, ignore_eos=True)
        await owner.write(pb.SessionRequest(open=opening))
        opened = (await owner.read()).opened
        told, drafts = [], []
        for child in running.drafters:
            async with grpc.aio.insecure_channel(address(child)) as way:
                stub = drafter_pb2_grpc.DrafterStub(way)
                request = drafter_pb2.AttachRequest(verifier_address=verifier, ticket=opened.drafter_ticket)
                told.append((await stub.Attach(request)).ordinal)
                drafts.append((await stub.GetDrafter(drafter_pb2.GetDrafterRequest())).draft)
        named: set[int] = set()
        while told[0] not in named and (event := await owner.read()) is not grpc.aio.EOF:
            if event.WhichOneof("body") == "commit":
                named.update(event.commit.guessed_by)
        async with grpc.aio.insecure_channel(address(running.drafters[0])) as way:
            asked = drafter_pb2.GetDrafterRequest(latest_steps=3)
            steps = (await drafter_pb2_grpc.DrafterStub(way).GetDrafter(asked)).latest_steps
        owner.cancel()
    assert 0 < told[0] < told[1]
    assert opened.ordinal == 0, "an owner has none"
    assert told[0] in named <= {0, *told}
    assert drafts[0]
    assert "/" not in drafts[0]
    assert drafts[1] == ""
    assert 1 <= len(steps) <= 3
    assert any(step.guesses for step in steps)
    ended = [step.took_ms - step.ago_ms for step in steps]
    assert ended == sorted(ended)
    assert ended[-1] <= 0


async def test_among_several_kinds_the_gateway_chooses_and_the_text_stays(running: Services) -> None:
    async with AsyncClient(running.address) as client:
        expected = (await (await client.start(PROMPT, max_tokens=TOKENS, seed=11, drafters=0)).run()).tokens
        for _ in range(GENERATIONS):
            generation = await (await client.start(PROMPT, max_tokens=TOKENS, seed=11)).run()
            assert generation.tokens == expected
    async with httpx.AsyncClient() as http:
        text = (await http.get(f"{running.url}/metrics")).text
    chosen = re.findall(r'nacre_gateway_drafter_choices_total\{domain="(\w+)",method="(\w+)"\} (\d)', text)
    assert {domain for domain, _, _ in chosen} == {"code"}
    assert 0 < sum(int(count) for _, _, count in chosen) <= GENERATIONS
