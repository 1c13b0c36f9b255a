"""What the HTTP face answers, against the toy target's own text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from nacre.sampling import completion_key
from tests.gateway import toy_target
from tests.gateway.fake_verifier import FakeVerifier
from tests.gateway.harness import in_process, text_of

PROMPT = "def count("
IDS = toy_target.encode(PROMPT)


async def test_a_completion_is_the_targets_own_text() -> None:
    async with FakeVerifier() as verifier, in_process([verifier]) as gateway:
        answer = await gateway.complete(model="toy", prompt=PROMPT, seed=5, max_tokens=40)
    assert answer["object"] == "text_completion"
    assert answer["id"].startswith("cmpl-")
    assert answer["model"] == "toy"
    assert answer["system_fingerprint"] == "fp-toy"
    assert answer["choices"] == [
        {
            "index": 0,
            "text": toy_target.text_of_choices(toy_target.reference(IDS, 40, key=5)),
            "logprobs": None,
            "finish_reason": "length",
        }
    ]
    assert answer["usage"] == {
        "prompt_tokens": len(IDS),
        "completion_tokens": 40,
        "total_tokens": len(IDS) + 40,
        "prompt_tokens_details": {"cached_tokens": 2},
    }


async def test_the_metrics_object_has_the_names_that_tools_read() -> None:
    async with FakeVerifier(lookahead=3) as verifier, in_process([verifier]) as gateway:
        answer = await gateway.complete(prompt=PROMPT, seed=5, max_tokens=40)
    session = verifier.sessions[0]
    drafted = sum(commit.rows - 1 for commit in session.commits)
    accepted = sum(len(commit.tokens) - 1 for commit in session.commits)
    assert answer["metrics"]["speculative_decoding"] == {
        "mean_acceptance_length": 40 / len(session.commits),
        "draft_acceptance_rate": accepted / drafted,
        "num_spec_steps": len(session.commits),
        "num_accepted_draft_tokens": accepted,
        "num_draft_tokens": drafted,
    }
    distributed = answer["metrics"]["distributed"]
    assert distributed["failovers"] == 0
    assert distributed["seed"] == 5
    assert {"bytes_up", "verify_ms"} <= distributed.keys()


@pytest.mark.parametrize("chat", [False, True], ids=["completions", "chat"])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"stop": ["e"]},
        {"n": 3},
        {"logprobs": True},
        {"max_tokens": 1},
        {"temperature": 0},
        {"return_token_ids": True},
        {"n": 2, "logprobs": True, "stop": ["a", "th"]},
    ],
    ids=str,
)
async def test_a_stream_says_what_a_whole_answer_says(chat: bool, fields: dict[str, Any]) -> None:
    fields = {"seed": 11, "max_tokens": 60, **fields}
    path = "/v1/chat/completions" if chat else "/v1/completions"
    if chat:
        fields["messages"] = [{"role": "user", "content": "hello"}]
        if "logprobs" in fields:
            fields["top_logprobs"] = 3
    else:
        fields["prompt"] = PROMPT
        if "logprobs" in fields:
            fields["logprobs"] = 3
    async with FakeVerifier(eos_share=40) as verifier, in_process([verifier], chat_template="plain") as gateway:
        whole = await gateway.answered(path, fields)
        chunks = await gateway.streamed(path, **fields, stream_options={"include_usage": True})
    *chunks, last = chunks
    assert len(whole["choices"]) == fields.get("n", 1)
    for choice in whole["choices"]:
        index = choice["index"]
        own = [part for chunk in chunks for part in chunk["choices"] if part["index"] == index]
        assert text_of(chunks, index) == (choice["message"]["content"] if chat else choice["text"])
        assert [part["finish_reason"] for part in own if part["finish_reason"]] == [choice["finish_reason"]]
        assert own[-1]["finish_reason"], "the reason comes last"
        assert not (own[-1]["delta"] if chat else own[-1]["text"]), "the last chunk carries no text"
        assert joined_logprobs(own, chat) == (choice["logprobs"] and flat(choice["logprobs"], chat))
        if chat:
            assert own[0]["delta"] == {"role": "assistant", "content": ""}
            assert all("role" not in part["delta"] for part in own[1:])
        if "return_token_ids" in fields:
            assert [token for part in own for token in part.get("token_ids", ())] == choice["token_ids"]
    assert last["choices"] == []
    for usage in (last["usage"], whole["usage"]):
        cached = usage.pop("prompt_tokens_details")["cached_tokens"]
        assert cached == 2 or "stop" in fields
    assert last["usage"] == whole["usage"]
    if "stop" not in fields:  # how far the verifier gets before it hears of a stop string is chance
        assert last["metrics"]["speculative_decoding"] == whole["metrics"]["speculative_decoding"]
    for name in ("id", "created", "model", "object", "system_fingerprint"):
        assert len({chunk[name] for chunk in [*chunks, last]}) == 1
    assert all(chunk["usage"] is None and len(chunk["choices"]) == 1 for chunk in chunks)


def flat(logprobs: dict[str, Any], chat: bool) -> list[Any]:
    if chat:
        return logprobs["content"]
    names = ("tokens", "token_logprobs", "top_logprobs", "text_offset")
    return [list(entry) for entry in zip(*(logprobs[name] for name in names), strict=True)]


def joined_logprobs(parts: Sequence[dict[str, Any]], chat: bool) -> list[Any] | None:
    given = [part["logprobs"] for part in parts if part["logprobs"] is not None]
    return [entry for logprobs in given for entry in flat(logprobs, chat)] or None


async def test_usage_chunks_come_only_when_asked_for() -> None:
    async with FakeVerifier() as verifier, in_process([verifier]) as gateway:
        chunks = await gateway.streamed("/v1/completions", prompt=PROMPT, max_tokens=5)
    assert all("usage" not in chunk and chunk["choices"] for chunk in chunks)


async def test_each_of_n_completions_has_its_own_noise_and_the_first_is_that_of_n_1() -> None:
    async with FakeVerifier() as verifier, in_process([verifier]) as gateway:
        answer = await gateway.complete(prompt=PROMPT, seed=3, n=4, max_tokens=12)
    expected = [toy_target.text_of_choices(toy_target.reference(IDS, 12, key=completion_key(3, i))) for i in range(4)]
    assert [choice["text"] for choice in answer["choices"]] == expected
    assert len(set(expected)) == 4
    assert answer["usage"]["completion_tokens"] == 48
    assert answer["usage"]["prompt_tokens"] == len(IDS), "a prompt counts once"


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        ("one", [toy_target.encode("one")]),
        (["one", "two words"], [toy_target.encode("one"), toy_target.encode("two words")]),
        ([7, 8, 9], [[7, 8, 9]]),
        ([[7, 8, 9], [10]], [[7, 8, 9], [10]]),
    ],
    ids=["text", "texts", "ids", "lists of ids"],
)
async def test_a_prompt_comes_in_four_shapes(prompt: Any, prompts: list[list[int]]) -> None:
    async with FakeVerifier() as verifier, in_process([verifier]) as gateway:
        answer = await gateway.complete(prompt=prompt, seed=1, n=2, max_tokens=6)
    expected = [
        toy_target.text_of_choices(toy_target.reference(ids, 6, key=completion_key(1, completion)))
        for ids in prompts
        for completion in range(2)
    ]
    assert [choice["text"] for choice in answer["choices"]] == expected
    assert answer["usage"]["prompt_tokens"] == sum(map(len, prompts))


async def test_echo_puts_the_prompt_before_the_text() -> None:
    async with FakeVerifier() as verifier, in_process([verifier]) as gateway:
        plain = await gateway.complete(prompt=PROMPT, seed=1, max_tokens=6)
        echoed = await gateway.complete(prompt=PROMPT, seed=1, max_tokens=6, echo=True)
        by_ids = await gateway.complete(prompt=IDS, seed=1, max_tokens=6, echo=True)
        chunks = await gateway.streamed("/v1/completions", prompt=PROMPT, seed=1, max_tokens=6, echo=True)
    assert echoed["choices"][0]["text"] == PROMPT + plain["choices"][0]["text"] == by_ids["choices"][0]["text"]
    assert text_of(chunks) == echoed["choices"][0]["text"]


async def test_a_stop_string_across_tokens_ends_the_text_before_it_and_calls_the_rest_off() -> None:
    chosen = toy_target.reference(IDS, 200, key=9)
    text = toy_target.text_of_choices(chosen)
    # From the middle of one token to the middle of another, in plain characters.
    start = next(i for i in range(20, 200) if text[i : i + 4].isascii() and text.find(text[i : i + 4]) == i)
    stop = text[start : start + 4]
    used = next(i for i in range(len(chosen)) if stop in toy_target.text_of_choices(chosen[: i + 1])) + 1
    async with FakeVerifier() as verifier, in_process([verifier]) as gateway:
        verifier.faults.pause_after = 150
        answer = await gateway.complete(prompt=PROMPT, seed=9, max_tokens=200, stop=stop, return_token_ids=True)
    assert answer["choices"][0]["text"] == text[:start]
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["completion_tokens"] == used
    assert answer["choices"][0]["token_ids"] == [choice.token for choice in chosen[:used]]
    assert verifier.cancels == 1


async def test_where_a_stop_string_falls_does_not_depend_on_how_commits_are_cut() -> None:
    answers = []
    for lookahead in (0, 2, 7):
        async with FakeVerifier(lookahead=lookahead) as verifier, in_process([verifier]) as gateway:
            answers.append(await gateway.complete(prompt=PROMPT, seed=2, max_tokens=200, stop=["e", "ou"], logprobs=1))
    assert answers[0]["choices"] == answers[1]["choices"] == answers[2]["choices"]
    assert answers[0]["usage"] == answers[1]["usage"] == answers[2]["usage"]
    assert answers[0]["choices"][0]["finish_reason"] == "stop"


async def test_a_stop_string_wins_over_the_length_reached_in_the_same_token() -> None:
    chosen = toy_target.reference(IDS, 300, key=4)
    for count in range(1, 300):
        before, after = toy_target.text_of_choices(chosen[: count - 1]), toy_target.text_of_choices(chosen[:count])
        added = after[len(before) :]
        if after.startswith(before) and added and "\ufffd" not in after[-4:] and added not in before:
            break
    async with FakeVerifier() as verifier, in_process([verifier]) as gateway:
        answer = await gateway.complete(prompt=PROMPT, seed=4, max_tokens=count, stop=added)
    assert answer["choices"][0]["text"] == before
    assert answer["choices"][0]["finish_reason"] == "stop"


async def test_an_end_token_ends_the_output_and_is_no_part_of_its_text() -> None:
    chosen = toy_target.reference(IDS, 400, key=6, eos_share=10)
    assert chosen[-1].token == toy_target.EOS
    async with FakeVerifier(eos_share=10) as verifier, in_process([verifier]) as gateway:
        answer = await gateway.complete(prompt=PROMPT, seed=6, max_tokens=400, logprobs=0)
        going_on = await gateway.complete(prompt=PROMPT, seed=6, max_tokens=len(chosen) + 5, ignore_eos=True)
    choice = answer["choices"][0]
    assert choice["finish_reason"] == "stop"
    assert choice["text"] == toy_target.text_of_choices(chosen)
    assert answer["usage"]["completion_tokens"] == len(chosen)
    assert len(choice["logprobs"]["tokens"]) == len(chosen) - 1
    assert going_on["choices"][0]["finish_reason"] == "length"
    assert going_on["usage"]["completion_tokens"] == len(chosen) + 5


async def test_stop_token_ids_end_the_output() -> None:
    chosen = [choice.token for choice in toy_target.reference(IDS, 30, key=6)]
    stop = chosen[20]
    first = chosen.index(stop)
    async with FakeVerifier() as verifier, in_process([verifier]) as gateway:
        answer = await gateway.complete(prompt=PROMPT, seed=6, max_tokens=30, stop_token_ids=[stop])
    assert answer["choices"][0]["text"] == toy_target.decode(chosen[:first])
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["completion_tokens"] == first + 1


async def test_completion_logprobs_have_the_legacy_shape() -> None:
    chosen = toy_target.reference(IDS, 25, key=8, top_logprobs=2)
    async with FakeVerifier() as verifier, in_process([verifier]) as gateway:
        answer = await gateway.complete(prompt=PROMPT, seed=8, max_tokens=25, logprobs=2)
    choice = answer["choices"][0]
    logprobs = choice["logprobs"]
    assert logprobs["token_logprobs"] == [entry.logprob for entry in chosen]
    for spelled, entry, top, offset in zip(
        logprobs["tokens"], chosen, logprobs["top_logprobs"], logprobs["text_offset"], strict=True
    ):
        assert top[spelled] == entry.logprob or any(value == top[spelled] for _, value in entry.top)
        assert 2 <= len(top) <= 3, "the k best, and the chosen one"
        assert 0 <= offset <= len(choice["text"])
        if not spelled.startswith("bytes:"):
            assert choice["text"][offset:].startswith(spelled)
    assert logprobs["text_offset"] == sorted(logprobs["text_offset"])


async def test_chat_logprobs_have_bytes_and_alternatives() -> None:
    messages = [{"role": "user", "content": "hi"}]
    prompt = toy_target.encode("User: hi\nAssistant:")
    chosen = toy_target.reference(prompt, 25, key=8, top_logprobs=3)
    async with FakeVerifier() as verifier, in_process([verifier], chat_template="plain") as gateway:
        answer = await gateway.chat(messages=messages, seed=8, max_tokens=25, logprobs=True, top_logprobs=3)
        bare = await gateway.chat(messages=messages, seed=8, max_tokens=25, logprobs=True)
    content = answer["choices"][0]["logprobs"]["content"]
    assert [entry["logprob"] for entry in content] == [entry.logprob for entry in chosen]
    assert [len(entry["top_logprobs"]) for entry in content] == [3] * 25
    text = answer["choices"][0]["message"]["content"]
    assert b"".join(bytes(entry["bytes"]) for entry in content).decode("utf-8", "replace") == text
    assert answer["choices"][0]["logprobs"]["refusal"] is None
    assert all(entry["top_logprobs"] == [] for entry in bare["choices"][0]["logprobs"]["content"])


async def test_a_chat_answer_has_the_shape_that_clients_expect() -> None:
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "what is "}, {"type": "text", "text": "nacre?"}]},
    ]
    prompt = toy_target.encode("System: be brief\nUser: what is nacre?\nAssistant:")
    async with FakeVerifier(max_positions=100) as verifier, in_process([verifier], chat_template="plain") as gateway:
        answer = await gateway.chat(messages=messages, seed=1, max_completion_tokens=9)
        rest = await gateway.chat(messages=messages, seed=1)
    assert answer["object"] == "chat.completion"
    assert answer["id"].startswith("chatcmpl-")
    (choice,) = answer["choices"]
    text = toy_target.text_of_choices(toy_target.reference(prompt, 9, key=1))
    assert choice["message"] == {"role": "assistant", "content": text, "refusal": None}
    assert choice["finish_reason"] == "length"
    assert rest["usage"]["total_tokens"] == 100, "without max_tokens the rest of the context is used"


async def test_the_models_own_chat_template_is_used_and_sees_its_arguments() -> None:
    template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{{ style }}{{ eos_token }}"
    prompt = [*toy_target.encode("<user>hishort"), toy_target.EOS]
    async with FakeVerifier(chat_template=template) as verifier, in_process([verifier]) as gateway:
        answer = await gateway.chat(
            messages=[{"role": "user", "content": "hi"}], max_tokens=5, seed=2, chat_template_kwargs={"style": "short"}
        )
    assert answer["choices"][0]["message"]["content"] == toy_target.text_of_choices(
        toy_target.reference(prompt, 5, key=2)
    )


async def test_models_are_listed_with_the_fields_that_benchmarks_read() -> None:
    async with FakeVerifier() as verifier, in_process([verifier], model_name="org/pearl-1") as gateway:
        listed = (await gateway.http.get("/v1/models")).json()
        one = (await gateway.http.get("/v1/models/org/pearl-1")).json()
        answer = await gateway.complete(model="org/pearl-1", prompt=PROMPT, max_tokens=1)
    assert listed == {"object": "list", "data": [one]}
    assert one["id"] == one["root"] == answer["model"] == "org/pearl-1"
    assert one["object"] == "model"
    assert one["owned_by"] == "nacre"
    assert one["max_model_len"] == 512
    assert isinstance(one["created"], int)


async def test_minus_infinity_is_spelled_so_that_json_can_hold_it() -> None:
    from gateway.openai.answers import LOWEST_LOGPROB, _finite

    assert _finite(float("-inf")) == LOWEST_LOGPROB == -9999.0
    assert json.loads(json.dumps(_finite(None))) == LOWEST_LOGPROB
