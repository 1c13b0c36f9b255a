"""Method `rest` from the command line: a drafter with a corpus guesses right, one of another tokenizer is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from nacre.client import AsyncClient
from nacre.drafting.rest_datastore import build
from nacre.errors import NacreError
from nacre.models import held_out_prompts
from nacre.v1 import drafter_pb2, drafter_pb2_grpc
from tests.services import Services, address, services

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="module")]


async def generated(where: str, *, drafters: int) -> tuple[list[int], int, str]:
    """(tokens, right guesses, the tokenizer's fingerprint)."""
    async with AsyncClient(where) as client:
        vocabulary = await client.vocabulary()
        prompt = tuple(vocabulary.encode(held_out_prompts(1)[0], add_special_tokens=True)[:48])
        generation = await (await client.start(prompt, max_tokens=48, seed=3, drafters=drafters)).run()
        return list(generation.tokens), generation.statistics.accepted_guesses, vocabulary.fingerprint


@dataclass(frozen=True, slots=True)
class Stack:
    """A verifier, a drafter with a corpus that is the verifier's own `text`, and a gateway."""

    services: Services
    text: list[int]
    corpus: Path


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(slow_target: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    corpus = tmp_path_factory.mktemp("corpus") / "a.rest"
    async with services(drafters=0, gateway=False, target=slow_target) as running:
        text, _, fingerprint = await generated(address(running.verifiers[0]), drafters=0)
        build(corpus, [text], fingerprint)
        await running.start_drafter("--datastore", str(corpus), method="rest")
        await running.start_gateway()
        yield Stack(running, text, corpus)


async def test_a_drafter_with_a_corpus_knows_what_is_in_it(stack: Stack) -> None:
    text, right, _ = await generated(stack.services.address, drafters=1)
    assert text == stack.text
    assert right > 0


async def test_a_verifier_with_a_corpus_of_its_own_knows_it_too(stack: Stack) -> None:
    flags = ("--local", "suffix+rest", "--datastore", str(stack.corpus))
    verifier = await stack.services.start_verifier(*flags)
    text, right, _ = await generated(address(verifier), drafters=0)
    assert text == stack.text
    assert right > 0


async def test_a_verifier_does_not_start_with_a_corpus_of_another_tokenizer(stack: Stack, tmp_path: Path) -> None:
    build(tmp_path / "a.rest", [[1, 2, 3]], "f" * 32)
    with pytest.raises(NacreError, match=f"has tokenizer {'f' * 32}, the target has"):
        await stack.services.start_verifier("--local", "rest", "--datastore", str(tmp_path / "a.rest"))


async def test_a_corpus_of_another_tokenizer_is_refused_by_name(stack: Stack, tmp_path: Path) -> None:
    build(tmp_path / "a.rest", [[1, 2, 3]], "f" * 32)
    where = stack.services.address
    drafter = await stack.services.start_drafter("--datastore", str(tmp_path / "a.rest"), method="rest")
    async with AsyncClient(where) as client, grpc.aio.insecure_channel(address(drafter)) as channel:
        generation = await client.start("import os\n", max_tokens=64, seed=3, drafters=0)
        await anext(aiter(generation))
        request = drafter_pb2.AttachRequest(verifier_address=where, ticket=generation.drafter_ticket)
        with pytest.raises(grpc.aio.AioRpcError, match=f"tokenizer fingerprint is '{'f' * 32}' there") as refused:
            await drafter_pb2_grpc.DrafterStub(channel).Attach(request)
        assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        await generation.aclose()
