"""Method `rest` from the command line: a drafter with a corpus guesses right, one of another tokenizer is refused."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from nacre.client import AsyncClient
from nacre.drafting.rest_datastore import build
from nacre.models import held_out_prompts
from nacre.v1 import drafter_pb2, drafter_pb2_grpc
from tests.services import Services, address, services

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]


async def generated(running: Services, *, drafters: int | None = None) -> tuple[list[int], int, str]:
    """(tokens, right guesses, the tokenizer's fingerprint)."""
    async with AsyncClient(running.address) as client:
        vocabulary = await client.vocabulary()
        prompt = tuple(vocabulary.encode(held_out_prompts(1)[0], add_special_tokens=True)[:48])
        options = {} if drafters is None else {"drafters": drafters}
        generation = await (await client.start(prompt, max_tokens=48, seed=3, **options)).run()
        assert generation.statistics is not None
        return list(generation.tokens), generation.statistics.accepted_guesses, vocabulary.fingerprint


async def test_a_drafter_with_a_corpus_knows_what_is_in_it(tmp_path: Path) -> None:
    async with services(drafters=0) as running:
        expected, _, fingerprint = await generated(running)
        build(tmp_path / "a.rest", [expected], fingerprint)
        await running.start_drafter("--datastore", str(tmp_path / "a.rest"), method="rest")
        await running.start_gateway()
        text, right, _ = await generated(running, drafters=1)
        assert text == expected
        assert right > 0


async def test_a_corpus_of_another_tokenizer_is_refused_by_name(tmp_path: Path) -> None:
    build(tmp_path / "a.rest", [[1, 2, 3]], "f" * 32)
    async with services(drafters=0) as running:
        drafter = await running.start_drafter("--datastore", str(tmp_path / "a.rest"), method="rest")
        async with AsyncClient(running.address) as client, grpc.aio.insecure_channel(address(drafter)) as channel:
            generation = await client.start("import os\n", max_tokens=64, seed=3, drafters=0)
            await anext(aiter(generation))
            request = drafter_pb2.AttachRequest(verifier_address=running.address, ticket=generation.drafter_ticket)
            with pytest.raises(grpc.aio.AioRpcError, match=f"tokenizer fingerprint is '{'f' * 32}' there") as refused:
                await drafter_pb2_grpc.DrafterStub(channel).Attach(request)
            assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
            await generation.aclose()
