"""What the fields of a request do on their way to the verifier, and what is told back of them."""

from __future__ import annotations

from typing import Any

import pytest

from nacre.drafting.prediction import appeared
from nacre.sampling import SamplingParams
from nacre.v1 import session_pb2 as pb
from tests.gateway import toy_target
from tests.gateway.fake_verifier import FakeVerifier
from tests.gateway.harness import in_process

PROMPT = "def count("
IDS = toy_target.encode(PROMPT)


async def test_every_sampling_field_reaches_the_verifier() -> None:
    fields = {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 7,
        "min_p": 0.1,
        "repetition_penalty": 1.5,
        "presence_penalty": 0.25,
        "frequency_penalty": -0.25,
        "logit_bias": {"5": -100, "3": 2},
        "allowed_token_ids": [3, 4, 5, 6],
        "banned_token_ids": [6],
        "stop_token_ids": [4],
        "ignore_eos": True,
        "seed": -1,
        "speculation": {"mode": "throughput", "drafters": 0},
        "logprobs": 3,
    }
    async with FakeVerifier() as verifier, in_process([verifier]) as gateway:
        answer = await gateway.complete(prompt=IDS, max_tokens=3, n=2, **fields)
    assert answer["choices"][0]["finish_reason"] in ("stop", "length")
    first, second = sorted(verifier.opens, key=lambda request: request.completion_index)
    assert second.completion_index == 1
    assert list(first.prompt) == IDS
    assert first.max_tokens == 3
    assert first.seed == second.seed == 2**64 - 1
    assert list(first.stop_ids) == [4]
    assert first.ignore_eos
    assert first.speculation == pb.SPECULATION_MODE_THROUGHPUT
    assert first.top_logprobs == 3
    sampling = first.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p) == (0.5, 0.9, 7, 0.1)
    assert (sampling.repetition_penalty, sampling.presence_penalty, sampling.frequency_penalty) == (1.5, 0.25, -0.25)
    assert [(entry.id, entry.bias) for entry in sampling.logit_bias] == [(3, 2), (5, -100)]
    assert list(sampling.allowed_ids) == [3, 4, 5, 6]
    assert list(sampling.banned_ids) == [6]


@pytest.mark.parametrize("parts", [False, True], ids=["text", "parts"])
@pytest.mark.parametrize("chat", [False, True], ids=["completions", "chat"])
async def test_a_prediction_reaches_the_verifier_and_changes_no_text(chat: bool, parts: bool) -> None:
    path = "/v1/chat/completions" if chat else "/v1/completions"
    fields: dict[str, Any] = {"seed": 5, "max_tokens": 40, "return_token_ids": True}
    fields |= {"messages": [{"role": "user", "content": "hi"}]} if chat else {"prompt": PROMPT}
    expected = "def count(words): return 0"
    content = [{"type": "text", "text": expected[:9]}, {"type": "text", "text": expected[9:]}] if parts else expected
    async with FakeVerifier() as verifier, in_process([verifier], chat_template="plain") as gateway:
        plain = await gateway.answered(path, fields)
        told = await gateway.answered(path, {**fields, "prediction": {"type": "content", "content": content}})
    assert told["choices"] == plain["choices"]
    assert [list(request.prediction) for request in verifier.opens] == [[], toy_target.encode(expected)]
    assert "completion_tokens_details" not in plain["usage"]
    details = told["usage"].pop("completion_tokens_details")
    assert told["usage"] == plain["usage"]
    ids = told["choices"][0]["token_ids"]
    accepted = appeared(toy_target.encode(expected), ids)
    assert details == {
        "accepted_prediction_tokens": accepted,
        "rejected_prediction_tokens": len(toy_target.encode(expected)) - accepted,
    }


async def test_usage_tells_how_much_of_a_prediction_came_true_in_every_choice() -> None:
    # Tokens of the toy are drawn at random: few texts of them are spelled with the same tokens again.
    for seed in range(1000):
        chosen = [choice.token for choice in toy_target.reference(IDS, 4, key=seed)]
        if toy_target.encode(toy_target.decode(chosen)) == chosen:
            break
    prediction = {"type": "content", "content": toy_target.decode(chosen)}
    fields: dict[str, Any] = {"prompt": PROMPT, "seed": seed, "max_tokens": 40, "prediction": prediction}
    async with FakeVerifier() as verifier, in_process([verifier]) as gateway:
        one = await gateway.complete(**fields)
        two = await gateway.complete(**fields, n=2)
        chunks = await gateway.streamed("/v1/completions", **fields, stream_options={"include_usage": True})
        nothing = await gateway.complete(prompt=PROMPT, max_tokens=4, prediction={"type": "content", "content": ""})
    details = one["usage"]["completion_tokens_details"]
    assert details == {"accepted_prediction_tokens": 4, "rejected_prediction_tokens": 0}
    assert chunks[-1]["usage"]["completion_tokens_details"] == details
    of_two = two["usage"]["completion_tokens_details"]
    assert of_two["accepted_prediction_tokens"] >= 4
    assert sum(of_two.values()) == 8
    assert "completion_tokens_details" not in nothing["usage"]


async def test_speculation_off_reaches_the_verifier_and_changes_no_text() -> None:
    async with FakeVerifier() as verifier, in_process([verifier]) as gateway:
        on = await gateway.complete(prompt=IDS, max_tokens=30, seed=1)
        off = await gateway.complete(prompt=IDS, max_tokens=30, seed=1, speculation={"mode": "off"})
    assert off["choices"] == on["choices"]
    assert verifier.opens[1].speculation == pb.SPECULATION_MODE_OFF
    assert off["metrics"]["speculative_decoding"]["num_draft_tokens"] == 0
    assert off["metrics"]["speculative_decoding"]["mean_acceptance_length"] == 1


async def test_a_request_without_a_seed_gets_one_that_reproduces_it() -> None:
    async with FakeVerifier() as verifier, in_process([verifier]) as gateway:
        first = await gateway.complete(prompt=PROMPT, max_tokens=20, n=2)
        seed = first["metrics"]["distributed"]["seed"]
        again = await gateway.complete(prompt=PROMPT, max_tokens=20, n=2, seed=seed)
        other = await gateway.complete(prompt=PROMPT, max_tokens=20, n=2)
    assert again["choices"] == first["choices"] != other["choices"]
    assert 0 <= seed < 2**53, "every JSON reader can hold it"


async def test_a_gateway_with_a_seed_answers_unseeded_requests_alike() -> None:
    async with FakeVerifier() as verifier, in_process([verifier], seed=77) as gateway:
        answer = await gateway.complete(prompt=PROMPT, max_tokens=20)
    assert answer["choices"][0]["text"] == toy_target.text_of_choices(toy_target.reference(IDS, 20, key=77))


async def test_temperature_zero_ignores_the_seed() -> None:
    async with FakeVerifier() as verifier, in_process([verifier]) as gateway:
        answer = await gateway.complete(prompt=PROMPT, max_tokens=20, temperature=0)
    params = SamplingParams(temperature=0.0)
    assert answer["choices"][0]["text"] == toy_target.text_of_choices(toy_target.reference(IDS, 20, params=params))


async def test_the_default_length_of_a_completion_is_16_or_what_the_context_leaves() -> None:
    async with FakeVerifier(max_positions=24) as verifier, in_process([verifier]) as gateway:
        default = await gateway.complete(prompt=[5])
        clipped = await gateway.complete(prompt=[5] * 20)
    assert default["usage"]["completion_tokens"] == 16
    assert clipped["usage"]["completion_tokens"] == 4
