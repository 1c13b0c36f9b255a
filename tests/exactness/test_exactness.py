"""Speculation never changes a token or a log-probability: not at any temperature, batch, drafter or data type."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import pytest

from nacre.client import AsyncClient, Request
from nacre.models import held_out_prompts, located
from nacre.sampling import SamplingParams, completion_key
from nacre.session import FinishReason, SpeculationMode
from tests.exactness import reference
from tests.services import TARGET, Services, services

pytestmark = [pytest.mark.processes, pytest.mark.timeout(3600 if os.environ.get("NACRE_NIGHTLY") else 900)]

TOKENS = 96 if os.environ.get("NACRE_NIGHTLY") else 20

SAMPLINGS = {
    "greedy": SamplingParams(temperature=0.0),
    "cool": SamplingParams(temperature=0.7),
    "plain": SamplingParams(temperature=1.0),
    "top-k": SamplingParams(temperature=1.0, top_k=20),
    "top-p": SamplingParams(temperature=0.7, top_p=0.9),
    "min-p": SamplingParams(temperature=1.0, min_p=0.05),
    "all three": SamplingParams(temperature=1.0, top_k=50, top_p=0.95, min_p=0.01),
    "penalties": SamplingParams(temperature=1.0, repetition_penalty=1.2, presence_penalty=0.4, frequency_penalty=0.3),
    "greedy penalties": SamplingParams(temperature=0.0, repetition_penalty=1.3, frequency_penalty=0.5),
    "bias": SamplingParams(temperature=0.7, logit_bias=((11, 2.0), (200, -5.0), (300, 1.5)), banned_ids=(12,)),
}


@dataclass(frozen=True, slots=True)
class Answer:
    """Everything a caller sees."""

    tokens: tuple[int, ...]
    logprobs: tuple[tuple[float | None, tuple[tuple[int, float], ...]], ...]
    text: str
    reason: FinishReason | None


async def answer(client: AsyncClient, request: Request) -> Answer:
    options = {name: getattr(request, name) for name in request.__slots__ if name != "prompt"}
    generation = await (await client.start(request.prompt, **options)).run()
    logprobs = tuple((choice.logprob, choice.top) for choice in generation.choices)
    return Answer(tuple(generation.tokens), logprobs, generation.text, generation.finish_reason)


async def answers(client: AsyncClient, requests: list[Request], concurrency: int) -> list[Answer]:
    room = asyncio.Semaphore(concurrency)

    async def one(request: Request) -> Answer:
        async with room:
            return await answer(client, request)

    return list(await asyncio.gather(*(one(request) for request in requests)))


@pytest.fixture(params=["float32", "bfloat16"])
async def running(request: pytest.FixtureRequest) -> AsyncIterator[Services]:
    async with services(drafters=2, dtype=request.param, gateway=False) as started:
        await started.start_drafter(method="lookup")
        await started.start_gateway()
        yield started


async def requests_of(client: AsyncClient) -> list[Request]:
    """70 different requests: prompts x ways of sampling x seeds, some with stop strings, other lengths, n = 2."""
    vocabulary = await client.vocabulary()
    prompts = [tuple(vocabulary.encode(text, add_special_tokens=True)[:48]) for text in held_out_prompts(3)]
    found = [
        Request(prompt=prompt, sampling=sampling, seed=seed, max_tokens=TOKENS, top_logprobs=2)
        for prompt, sampling, seed in itertools.product(prompts, SAMPLINGS.values(), (1, 2**63 + 5))
    ]
    base = found[4]
    found += [replace(base, max_tokens=tokens) for tokens in (1, 2, 33)]
    found += [replace(base, stop=stop) for stop in (("\n",), (" ", "(")[1:], ("e", "s ="))]
    found += [replace(base, completion_index=index) for index in (1, 2)]
    found += [replace(base, stop_ids=(11, 12, 13)), replace(base, ignore_eos=True, max_tokens=40)]
    return found


async def test_the_text_and_its_logprobs_are_those_of_plain_decoding(running: Services) -> None:
    """70 requests x (no drafter, one, three; alone and eight at a time), each `==` the run with speculation off."""
    async with AsyncClient(running.address) as client:
        requests = await requests_of(client)
        plain = [replace(request, speculation=SpeculationMode.OFF) for request in requests]
        expected = await answers(client, plain, 8)
        assert await answers(client, plain[::7], 1) == expected[::7], "plain decoding depends on the batch"
        compared = 0
        for drafters, concurrency, step in ((0, 8, 3), (1, 8, 1), (3, 8, 1), (1, 1, 2), (3, 1, 2)):
            chosen = [replace(request, drafters=drafters) for request in requests[::step]]
            got = await answers(client, chosen, concurrency)
            for request, mine, theirs in zip(chosen, got, expected[::step], strict=True):
                assert mine == theirs, f"{drafters} drafters, {concurrency} at a time: {request}"
            compared += len(got)
        assert compared >= 200
        model = await client.model()
        assert model.numerics.startswith("exact")


async def test_fp32_tokens_are_those_of_plain_transformers() -> None:
    model = await asyncio.to_thread(reference.load, located(TARGET))
    async with services(dtype="float32") as running, AsyncClient(running.address) as client:
        requests = [
            request
            for request in await requests_of(client)
            if request.seed == 1 and not request.stop and not request.stop_ids and not request.ignore_eos
        ]
        ways = {name: SAMPLINGS[name] for name in ("greedy", "cool", "plain", "top-k", "top-p", "min-p", "all three")}
        requests = [request for request in requests if request.sampling in ways.values()]
        got = await answers(client, requests, 4)
        eos = set((await client.model()).eos_ids)
        for request, mine in zip(requests, got, strict=True):
            prompt, count = list(request.prompt), request.max_tokens
            if request.sampling.temperature == 0:
                expected = reference.greedy(model, prompt, count)
            else:
                assert request.seed is not None
                key = completion_key(request.seed, request.completion_index)
                expected = reference.sampled(model, prompt, count, request.sampling, key, eos)
            assert list(mine.tokens) == expected, request
