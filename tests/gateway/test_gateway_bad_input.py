"""Bad input over HTTP: a status, and one line that names the field, the value, the bound and the remedy."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.openai import errors
from nacre.errors import NacreError
from tests.gateway.fake_verifier import FakeVerifier
from tests.gateway.harness import InProcess, in_process

COMPLETION: dict[str, Any] = {"prompt": "hello", "max_tokens": 3}
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 3}

#: (fields that are wrong, the parameter named, words the message must have)
BOTH: list[tuple[dict[str, Any], str, list[str]]] = [
    ({"n": 0}, "n", ["0", "1 to 16"]),
    ({"n": 17}, "n", ["17", "1 to 16"]),
    ({"n": "2"}, "n", ['"2"', "integer"]),
    ({"n": True}, "n", ["true"]),
    ({"max_tokens": 0}, "max_tokens", ["0", "at least 1"]),
    ({"max_tokens": 10**30}, "max_tokens", ["leaves room for"]),
    ({"max_tokens": 1000}, "max_tokens", ["1000", "64", "leaves room for"]),
    ({"max_tokens": "5"}, "max_tokens", ['"5"', "integer"]),
    ({"max_tokens": 1.5}, "max_tokens", ["1.5"]),
    ({"temperature": -0.1}, "temperature", ["-0.1", "from 0"]),
    ({"temperature": float("nan")}, "temperature", ["nan"]),
    ({"temperature": float("inf")}, "temperature", ["inf"]),
    ({"temperature": "hot"}, "temperature", ['"hot"', "number"]),
    ({"temperature": [1]}, "temperature", ["[1]"]),
    ({"top_p": 0}, "top_p", ["above 0", "at most 1"]),
    ({"top_p": 1.1}, "top_p", ["1.1"]),
    ({"top_k": -2}, "top_k", ["-2"]),
    ({"top_k": 1 << 40}, "top_k", ["2**32"]),
    ({"min_p": 2}, "min_p", ["2"]),
    ({"repetition_penalty": 0}, "repetition_penalty", ["0"]),
    ({"presence_penalty": 2.5}, "presence_penalty", ["2.5", "-2 to 2"]),
    ({"frequency_penalty": -3}, "frequency_penalty", ["-3"]),
    ({"logit_bias": {"9999": 1}}, "logit_bias", ["9999", "0 to"]),
    ({"logit_bias": {"a": 1}}, "logit_bias", ['"a"', "token ids"]),
    ({"logit_bias": {"1": 101}}, "logit_bias", ["101", "100"]),
    ({"logit_bias": {"1": "x"}}, "logit_bias", ['"x"']),
    ({"logit_bias": [1]}, "logit_bias", ["[1]"]),
    ({"allowed_token_ids": []}, "allowed_token_ids", ["at least one"]),
    ({"allowed_token_ids": [9999]}, "allowed_token_ids", ["9999", "0 to"]),
    ({"banned_token_ids": [-1]}, "banned_token_ids", ["-1"]),
    ({"allowed_token_ids": [3], "banned_token_ids": [3]}, "allowed_token_ids", ["leave"]),
    ({"stop_token_ids": [9999]}, "stop_token_ids", ["9999"]),
    ({"stop_token_ids": list(range(65))}, "stop_token_ids", ["65", "64"]),
    ({"stop": ["a"] * 5}, "stop", ["5", "4"]),
    ({"stop": ""}, "stop", ["0 characters"]),
    ({"stop": "x" * 300}, "stop", ["300", "256"]),
    ({"stop": [1]}, "stop", ["[1]"]),
    ({"stop": "\ud800"}, "stop", ["surrogate"]),
    ({"seed": 1 << 64}, "seed", ["seed"]),
    ({"seed": 1.5}, "seed", ["1.5"]),
    ({"stream": "yes"}, "stream", ['"yes"']),
    ({"stream_options": 7}, "stream_options", ["7"]),
    ({"speculation": {"mode": "fast"}}, "speculation", ['"fast"', "latency"]),
    ({"speculation": {"drafters": 9}}, "speculation", ["9", "0 to 8"]),
    ({"speculation": "off"}, "speculation", ['"off"']),
    ({"tools": [{"type": "function"}]}, "tools", ["not supported"]),
    ({"response_format": {"type": "json_object"}}, "response_format", ["not supported"]),
    ({"guided_regex": "a+"}, "guided_regex", ["not supported"]),
    ({"bad_words": ["x"]}, "bad_words", ["not supported"]),
    ({"min_tokens": 3}, "min_tokens", ["not supported"]),
    ({"prediction": "x"}, "prediction", ['"x"', "content"]),
    ({"prediction": {"type": "diff", "content": "x"}}, "prediction", ["diff", "content"]),
    ({"prediction": {"type": "content"}}, "prediction", ["prediction.content is null", "text"]),
    (
        {"prediction": {"type": "content", "content": ["x"]}},
        "prediction",
        ["prediction.content[0]", "parts of type text"],
    ),
    ({"prediction": {"type": "content", "content": "a b " * 200}}, "prediction", ["at most 64", "shorten"]),
    ({"prediction": {"type": "content", "content": "\ud800"}}, "prediction", ["surrogate"]),
]
COMPLETION_ONLY: list[tuple[dict[str, Any], str, list[str]]] = [
    ({"prompt": ""}, "prompt", ["empty"]),
    ({"prompt": []}, "prompt", ["empty"]),
    ({"prompt": [[]]}, "prompt", ["empty"]),
    ({"prompt": None}, "prompt", ["missing"]),
    ({"prompt": {"a": 1}}, "prompt", ["must be a string"]),
    ({"prompt": ["a", 1]}, "prompt", ["must be a string"]),
    ({"prompt": [True]}, "prompt", ["must be a string"]),
    ({"prompt": [1.0]}, "prompt", ["must be a string"]),
    ({"prompt": [9999]}, "prompt", ["9999", "0 to"]),
    ({"prompt": [-1]}, "prompt", ["-1"]),
    ({"prompt": [1 << 70]}, "prompt", ["0 to"]),
    ({"prompt": [5] * 64}, "prompt", ["64", "63", "shorten"]),
    ({"prompt": "a b " * 200}, "prompt", ["64", "shorten"]),
    ({"prompt": "\udfff"}, "prompt", ["surrogate"]),
    ({"prompt": ["x"] * 65}, "prompt", ["65", "64"]),
    ({"logprobs": 21}, "logprobs", ["21", "20"]),
    ({"logprobs": -1}, "logprobs", ["-1"]),
    ({"logprobs": True}, "logprobs", ["true"]),
    ({"echo": True, "logprobs": 1}, "echo", ["echo"]),
    ({"suffix": "x"}, "suffix", ["not supported"]),
    ({"best_of": 3}, "best_of", ["3", "n (1)"]),
]
CHAT_ONLY: list[tuple[dict[str, Any], str, list[str]]] = [
    ({"messages": None}, "messages", ["missing"]),
    ({"messages": []}, "messages", ["at least one"]),
    ({"messages": "hi"}, "messages", ['"hi"']),
    ({"messages": [7]}, "messages", ["messages[0]"]),
    ({"messages": [{"role": "wizard", "content": "x"}]}, "messages", ['"wizard"', "user"]),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages", ['"tool"']),
    ({"messages": [{"role": "user"}]}, "messages", ["messages[0].content"]),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages", ["image_url", "text"]),
    ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages", ["surrogate"]),
    ({"messages": [{"role": "user", "content": "long " * 100}]}, "messages", ["shorten"]),
    ({"logprobs": 3}, "logprobs", ["3"]),
    ({"top_logprobs": 2}, "top_logprobs", ["logprobs"]),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", ["21", "20"]),
    ({"max_completion_tokens": 0}, "max_completion_tokens", ["0"]),
]
CASES = [
    *(("/v1/completions", COMPLETION, case) for case in [*BOTH, *COMPLETION_ONLY]),
    *(("/v1/chat/completions", CHAT, case) for case in [*BOTH, *CHAT_ONLY]),
]


def check_error(response: Any, status: int, param: str | None = None, code: str | None = None) -> str:
    """An error body has all four keys, and its message is one line that shows nothing of our insides."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert body.keys() == {"error"}
    assert body["error"].keys() == {"message", "type", "param", "code"}
    message = body["error"]["message"]
    assert message
    assert "\n" not in message
    assert "Traceback" not in message
    assert len(message) < 400
    assert body["error"]["param"] == param
    if code is not None:
        assert body["error"]["code"] == code
    return message


def as_json(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields).encode()  # NaN and lone surrogates as Python spells them


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_every_bad_field_is_refused_by_name_with_status_400(stream: bool) -> None:
    async with (
        FakeVerifier(max_positions=64) as verifier,
        in_process([verifier], chat_template="plain") as gateway,
    ):
        for path, good, (fields, param, words) in CASES:
            if stream and "stream" in fields:
                continue
            content = as_json({**good, "stream": stream, **fields})
            response = await gateway.http.post(path, content=content)
            assert response.status_code == 400, (path, fields, response.text)
            message = check_error(response, 400, param)
            assert all(word in message for word in words), (fields, message)
        await still_works(gateway)
    assert len(verifier.opens) == 1, "nothing bad has reached the verifier"


async def still_works(gateway: InProcess) -> None:
    answer = await gateway.complete(**COMPLETION)
    assert answer["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no JSON"),
        (b"{", "no JSON"),
        (b'{"prompt": "\xff"}', "no JSON"),
        (b"[1]", "array"),
        (b"null", "null"),
        (b'"text"', "string"),
        (b"[" * 100_000, "no JSON"),
        (b'{"n": ' + b"9" * 5000 + b"}", "no JSON"),
    ],
    ids=["empty", "cut off", "not UTF-8", "array", "null", "string", "deep", "huge number"],
)
async def test_a_body_that_is_no_json_object_is_refused(content: bytes, words: str) -> None:
    async with FakeVerifier() as verifier, in_process([verifier]) as gateway:
        for path in ("/v1/completions", "/v1/chat/completions"):
            assert words in check_error(await gateway.http.post(path, content=content), 400)


async def test_unknown_fields_are_ignored_and_null_means_absent() -> None:
    nothing = dict.fromkeys(
        ["n", "max_tokens", "temperature", "top_p", "stop", "seed", "logprobs", "suffix", "tools", "stream_options"]
    )
    async with FakeVerifier() as verifier, in_process([verifier]) as gateway:
        answer = await gateway.complete(
            prompt="hello",
            **nothing,
            some_future_field={"a": [1]},
            user="me",
            best_of=1,
            response_format={"type": "text"},
            tool_choice="none",
        )
    assert answer["usage"]["completion_tokens"] == 16


async def test_an_unknown_model_is_not_found_and_the_one_served_is_named() -> None:
    async with FakeVerifier() as verifier, in_process([verifier]) as gateway:
        for path, fields in (("/v1/completions", COMPLETION), ("/v1/chat/completions", CHAT)):
            response = await gateway.http.post(path, json={**fields, "model": "gpt-9"})
            message = check_error(response, 404, "model", "model_not_found")
            assert "'gpt-9'" in message
            assert "'toy'" in message
        check_error(await gateway.http.get("/v1/models/gpt-9"), 404, "model", "model_not_found")


async def test_a_model_without_a_chat_template_says_what_to_do() -> None:
    async with FakeVerifier() as verifier, in_process([verifier]) as gateway:
        message = check_error(await gateway.http.post("/v1/chat/completions", json=CHAT), 400, "messages")
    assert "/v1/completions" in message
    assert "--chat-template" in message


@pytest.mark.parametrize(
    "template",
    ["{% if %}", "{{ raise_exception('no') }}", "{{ messages.x.y }}", "{{ ''.__class__.__mro__ }}", "{{ 1/0 }}"],
)
async def test_a_chat_template_that_fails_is_the_requests_error_not_a_crash(template: str) -> None:
    async with FakeVerifier(chat_template=template) as verifier, in_process([verifier]) as gateway:
        check_error(await gateway.http.post("/v1/chat/completions", json=CHAT), 400, "messages")


async def test_unknown_paths_and_methods_have_the_same_error_shape() -> None:
    async with FakeVerifier() as verifier, in_process([verifier]) as gateway:
        check_error(await gateway.http.get("/v1/nothing"), 404)
        response = await gateway.http.get("/v1/completions")
        check_error(response, 405)
        assert response.headers["allow"] == "POST"


async def test_a_body_over_the_limit_is_refused_whether_its_length_is_declared_or_not() -> None:
    async def chunks() -> Any:
        for _ in range(20):
            yield b"x" * 100

    async with FakeVerifier() as verifier, in_process([verifier], max_body_bytes=1024) as gateway:
        declared = await gateway.http.post("/v1/completions", json={"prompt": "x" * 2000})
        assert "1024" in check_error(declared, 413)
        undeclared = await gateway.http.post("/v1/completions", content=chunks())
        check_error(undeclared, 413)
        await still_works(gateway)


async def test_with_keys_set_every_route_under_v1_needs_one() -> None:
    async with FakeVerifier() as verifier, in_process([verifier], api_keys=("sesame", "zwei")) as gateway:
        for path in ("/v1/completions", "/v1/chat/completions"):
            for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic sesame"}):
                response = await gateway.http.post(path, json=COMPLETION, headers=headers)
                check_error(response, 401, None, "invalid_api_key")
        check_error(await gateway.http.get("/v1/models"), 401)
        check_error(await gateway.http.get("/v1/anything"), 401)
        for key in ("sesame", "zwei"):
            headers = {"authorization": f"Bearer {key}"}
            assert (await gateway.http.post("/v1/completions", json=COMPLETION, headers=headers)).status_code == 200
        assert (await gateway.http.get("/healthz")).status_code == 200
    tenants = [metadata["nacre-tenant"] for metadata in verifier.metadata]
    assert len(set(tenants)) == 2, "keys do not share cached prefixes"
    assert all("sesame" not in tenant for tenant in tenants)


async def test_without_keys_any_key_will_do() -> None:
    async with FakeVerifier() as verifier, in_process([verifier]) as gateway:
        response = await gateway.http.post("/v1/completions", json=COMPLETION, headers={"authorization": "Bearer x"})
    assert response.status_code == 200


async def test_request_ids_are_echoed_or_made_and_reach_the_verifier() -> None:
    async with FakeVerifier() as verifier, in_process([verifier]) as gateway:
        given = await gateway.http.post("/v1/completions", json=COMPLETION, headers={"x-request-id": "mine-1"})
        made = await gateway.http.post("/v1/completions", json=COMPLETION)
        broken = await gateway.http.post("/v1/completions", content=b"{", headers={"x-request-id": "mine-2"})
        odd = await gateway.http.get("/healthz", headers={"x-request-id": "a b"})
    assert given.headers["x-request-id"] == verifier.opens[0].label == "mine-1"
    assert made.headers["x-request-id"] == verifier.opens[1].label
    assert made.headers["x-request-id"].startswith("req-")
    assert broken.headers["x-request-id"] == "mine-2"
    assert odd.headers["x-request-id"] != "a b"


def kinds(base: type[NacreError]) -> list[type[NacreError]]:
    return [base, *(kind for child in base.__subclasses__() for kind in kinds(child))]


@pytest.mark.parametrize("kind", [kind for kind in kinds(NacreError) if kind.__module__ == "nacre.errors"])
def test_every_error_has_a_status_a_body_and_honest_retry_headers(kind: type[NacreError]) -> None:
    told = errors.described(kind("what, why and what to do", param="field"))
    body = json.loads(errors.body(told))["error"]
    assert body == {
        "message": "what, why and what to do",
        "type": kind.openai_type,
        "param": "field",
        "code": body["code"],
    }
    assert told.status == kind.http_status
    headers = dict(errors.headers(told))
    # Clients try 408, 409, 429 and 5xx again by themselves, unless told not to.
    tries_again = (told.status in (408, 409, 429) or told.status >= 500) and headers.get(b"x-should-retry") != b"false"
    assert tries_again == kind.retryable
    assert (b"retry-after" in headers) == (told.status in (429, 503))


def test_an_unexpected_exception_tells_the_client_nothing_of_our_insides() -> None:
    told = errors.described(RuntimeError("secret path /etc/x"))
    assert told.status == 500
    assert "secret" not in errors.body(told).decode()
