"""Verifiers die, hang, drain and come back; the text is the same, nothing lost and nothing doubled."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from gateway.metrics import GatewayMetrics
from tests.gateway import toy_target
from tests.gateway.fake_verifier import FakeVerifier, Faults
from tests.gateway.harness import InProcess, in_process, text_of, until
from tests.gateway.test_gateway_bad_input import check_error

PROMPT = "for line in "
IDS = toy_target.encode(PROMPT)
TOKENS = 60
SEED = 21
EXPECTED = [choice.token for choice in toy_target.reference(IDS, TOKENS, key=SEED)]
FIELDS: dict[str, Any] = {"prompt": PROMPT, "seed": SEED, "max_tokens": TOKENS, "return_token_ids": True}


def counted(metrics: GatewayMetrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(name, labels) or 0.0


def moves(gateway: InProcess, stage: str, outcome: str = "success") -> float:
    return counted(gateway.plane.metrics, "nacre_failovers_total", stage=stage, outcome=outcome)


async def exact(gateway: InProcess, **fields: Any) -> dict[str, Any]:
    """Generates, whole and streamed, and compares with the target alone; returns the whole answer."""
    answer = await gateway.complete(**FIELDS, **fields)
    assert answer["choices"][0]["token_ids"] == EXPECTED
    assert answer["choices"][0]["text"] == toy_target.decode(EXPECTED)
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == TOKENS
    return answer


@pytest.mark.parametrize("code", ["UNAVAILABLE", "CANCELLED", "INTERNAL", "UNKNOWN", "ABORTED", "DEADLINE_EXCEEDED"])
@pytest.mark.parametrize("after", [1, 17, 59])
async def test_a_stream_broken_by_its_verifier_goes_on_elsewhere_with_the_same_text(code: str, after: int) -> None:
    async with FakeVerifier() as one, FakeVerifier() as two, in_process([one, two]) as gateway:
        # Whoever gets it first breaks, and spends the only break that the two have.
        one.faults = two.faults = Faults(break_after=after, code=grpc.StatusCode[code], forget=True)
        answer = await exact(gateway)
        assert answer["metrics"]["distributed"]["failovers"] == 1
        assert moves(gateway, "reopen") == 1
    (again,) = [request for verifier in (one, two) for request in verifier.opens if request.resume]
    assert len(one.opens) == len(two.opens) == 1
    assert again.seed == SEED
    assert list(again.prompt) == IDS
    assert len(again.resume) >= after
    assert list(again.resume) == EXPECTED[: len(again.resume)]


async def test_a_seed_drawn_by_the_gateway_is_the_same_on_the_second_verifier() -> None:
    async with FakeVerifier() as one, FakeVerifier() as two, in_process([one, two]) as gateway:
        one.faults = Faults(break_after=10, forget=True)
        answers = [await gateway.complete(prompt=PROMPT, max_tokens=40, return_token_ids=True, n=2) for _ in range(2)]
        for answer in answers:
            seed = answer["metrics"]["distributed"]["seed"]
            again = await gateway.complete(prompt=PROMPT, max_tokens=40, return_token_ids=True, n=2, seed=seed)
            assert again["choices"] == answer["choices"]
        assert moves(gateway, "reopen") >= 1


async def test_a_stream_lost_while_its_verifier_lives_is_rejoined_by_the_owners_ticket() -> None:
    async with FakeVerifier() as verifier, in_process([verifier]) as gateway:
        verifier.faults = Faults(break_after=20)
        await exact(gateway)
        assert moves(gateway, "rejoin") == 1
        assert moves(gateway, "reopen") == 0
    assert len(verifier.opens) == 1
    (join,) = verifier.joins
    assert join.position >= len(IDS) + 20


async def test_a_verifier_that_forgot_the_session_gets_it_opened_anew() -> None:
    async with FakeVerifier() as verifier, in_process([verifier]) as gateway:
        verifier.faults = Faults(break_after=20, forget=True)
        await exact(gateway)
        assert moves(gateway, "rejoin", "failure") == 1
        assert moves(gateway, "reopen") == 1
    assert len(verifier.opens) == 2


async def test_a_verifier_killed_in_mid_generation_is_replaced() -> None:
    async with FakeVerifier() as one, FakeVerifier() as two, in_process([one, two]) as gateway:
        one.faults.pause_after = two.faults.pause_after = 25
        async with asyncio.TaskGroup() as group:
            work = group.create_task(exact(gateway))
            await until(lambda: one.opens or two.opens)
            first, second = (one, two) if one.opens else (two, one)
            await until(lambda: len(first.sessions[0].machine.tokens) >= len(IDS) + 25)
            second.faults = Faults()
            await first.stop()
        assert work.result()["metrics"]["distributed"]["failovers"] == 1
    assert len(second.opens) == 1


async def test_a_verifier_that_restarts_on_the_same_port_gets_its_generation_back() -> None:
    async with FakeVerifier() as verifier, in_process([verifier]) as gateway:
        verifier.faults.pause_after = 25
        async with asyncio.TaskGroup() as group:
            group.create_task(exact(gateway))
            await until(lambda: verifier.sessions and len(verifier.sessions[0].machine.tokens) >= len(IDS) + 25)
            await verifier.stop()
            await until(lambda: not gateway.plane.pool.ready)
            verifier.faults = Faults()
            await verifier.start()
        assert moves(gateway, "reopen") == 1
    assert len(verifier.opens) == 2


async def test_many_generations_survive_the_death_of_a_verifier_together() -> None:
    count = 12
    async with FakeVerifier() as one, FakeVerifier() as two, in_process([one, two]) as gateway:
        one.faults.pause_after = two.faults.pause_after = 10
        async with asyncio.TaskGroup() as group:
            works = [group.create_task(exact(gateway)) for _ in range(count)]
            await until(lambda: len(one.opens) + len(two.opens) == count)
            assert len(one.opens) == len(two.opens) == count // 2, "placement goes to the least loaded"
            two.faults.resume.set()
            await one.stop()
        assert all(work.done() for work in works)
    assert len(two.opens) == count


async def test_repeated_tokens_are_taken_once() -> None:
    async with FakeVerifier() as verifier, in_process([verifier]) as gateway:
        verifier.faults.repeat = True
        answer = await exact(gateway)
        assert answer["metrics"]["distributed"]["failovers"] == 0


async def test_a_prediction_moves_along_with_its_generation() -> None:
    prediction = {"type": "content", "content": toy_target.decode(EXPECTED)}
    async with FakeVerifier() as verifier, in_process([verifier]) as gateway:
        whole = await exact(gateway, prediction=prediction)
        verifier.faults = Faults(break_after=20, forget=True)
        moved = await exact(gateway, prediction=prediction)
        assert moves(gateway, "reopen") == 1
    assert moved["choices"] == whole["choices"]
    assert moved["usage"]["completion_tokens_details"] == whole["usage"]["completion_tokens_details"]
    first, second, again = verifier.opens
    assert list(first.prediction) == toy_target.encode(toy_target.decode(EXPECTED))
    assert again.resume
    assert first.prediction == second.prediction == again.prediction


async def test_a_verifier_that_contradicts_itself_is_an_error_and_an_alarm_never_a_wrong_text() -> None:
    async with FakeVerifier() as verifier, in_process([verifier]) as gateway:
        verifier.faults.repeat = verifier.faults.lie = True
        response = await gateway.http.post("/v1/completions", json=FIELDS)
        assert "do not agree" in check_error(response, 500)
        assert response.headers["x-should-retry"] == "false"
        assert counted(gateway.plane.metrics, "nacre_contradictions_total") == 1


async def test_a_session_that_its_verifier_gave_up_goes_on() -> None:
    async with FakeVerifier() as verifier, in_process([verifier]) as gateway:
        verifier.faults.finish_early = 15
        answer = await exact(gateway)
        assert answer["metrics"]["distributed"]["failovers"] == 1


async def test_log_probabilities_survive_a_move_without_gap_or_repeat() -> None:
    async with FakeVerifier() as one, in_process([one]) as gateway:
        whole = await exact(gateway, logprobs=3)
        one.faults = Faults(break_after=20, forget=True)
        moved = await exact(gateway, logprobs=3)
        one.faults = Faults(break_after=30)
        rejoined = await exact(gateway, logprobs=3)
    assert moved["choices"] == whole["choices"] == rejoined["choices"]
    assert len(one.opens[2].resume) >= 20


@pytest.mark.parametrize("stop", [None, ["e", "in"]], ids=["no stop", "stop strings"])
async def test_a_stream_shows_no_trace_of_a_move(stop: list[str] | None) -> None:
    fields = {**FIELDS, "stop": stop, "max_tokens": 120}
    async with FakeVerifier() as one, FakeVerifier() as two, in_process([one, two]) as gateway:
        whole = await gateway.complete(**fields)
        for after in (3, 7, 8):
            one.faults = Faults(break_after=after, forget=True)
            two.faults = Faults(break_after=2 * after, forget=True)
            chunks = await gateway.streamed("/v1/completions", **fields)
            assert text_of(chunks) == whole["choices"][0]["text"]
            ids = [token for chunk in chunks for choice in chunk["choices"] for token in choice["token_ids"]]
            assert ids == whole["choices"][0]["token_ids"]


async def test_the_number_of_moves_is_bounded() -> None:
    async with FakeVerifier() as verifier, in_process([verifier], max_failovers=3) as gateway:
        verifier.faults = Faults(break_after=1, breaks=10**6, forget=True)
        response = await gateway.http.post("/v1/completions", json=FIELDS)
        message = check_error(response, 503)
    assert "moved 3 times" in message
    assert len(verifier.opens) == 4


async def test_the_wait_for_a_verifier_to_come_back_is_bounded_and_the_stream_ends_with_an_error() -> None:
    async with FakeVerifier() as verifier, in_process([verifier], failover_wait_s=0.3) as gateway:
        verifier.faults.pause_after = 25
        async with asyncio.TaskGroup() as group:
            work = group.create_task(gateway.streamed("/v1/completions", **FIELDS))
            await until(lambda: verifier.sessions and len(verifier.sessions[0].machine.tokens) >= len(IDS) + 25)
            await verifier.stop()
        *chunks, last = work.result()
        assert moves(gateway, "reopen", "failure") == 1
    assert last.keys() == {"error"}
    assert last["error"]["type"] == "service_unavailable_error"
    assert toy_target.decode(EXPECTED).startswith(text_of(chunks))


async def test_a_silent_verifier_is_given_up_for_another() -> None:
    async with (
        FakeVerifier() as one,
        FakeVerifier() as two,
        in_process([one, two], progress_timeout_s=0.3) as gateway,
    ):
        one.faults.pause_after = two.faults.pause_after = 25
        async with asyncio.TaskGroup() as group:
            work = group.create_task(exact(gateway))
            await until(lambda: one.opens or two.opens)
            second = two if one.opens else one
            second.faults = Faults()
        assert work.result()["metrics"]["distributed"]["failovers"] == 1


async def test_a_verifier_that_does_not_answer_an_opening_is_passed_over() -> None:
    async with FakeVerifier() as one, FakeVerifier() as two, in_process([one, two], open_timeout_s=0.3) as gateway:
        one.faults.mute = True
        for _ in range(2):
            await exact(gateway)
    assert len(two.opens) == 2


async def test_a_full_verifier_is_passed_over_and_two_full_ones_are_waited_for() -> None:
    async with FakeVerifier() as one, FakeVerifier() as two, in_process([one, two]) as gateway:
        one.faults.full = two.faults.full = True
        async with asyncio.TaskGroup() as group:
            group.create_task(exact(gateway))
            await until(lambda: one.opens and two.opens)
            two.faults.full = False
    assert two.sessions
    assert not one.sessions


async def test_verifiers_that_stay_full_mean_429_with_a_retry_header() -> None:
    async with FakeVerifier() as verifier, in_process([verifier], queue_timeout_s=0.2) as gateway:
        verifier.faults.full = True
        response = await gateway.http.post("/v1/completions", json=FIELDS)
        check_error(response, 429, None, "rate_limit_exceeded")
        assert response.headers["retry-after"] == "1"


async def test_a_verifier_that_came_back_with_another_model_does_not_continue_the_text() -> None:
    async with FakeVerifier() as verifier, in_process([verifier], failover_wait_s=0.5, poll_s=0.5) as gateway:
        verifier.faults.pause_after = 25
        async with asyncio.TaskGroup() as group:
            work = group.create_task(gateway.http.post("/v1/completions", json=FIELDS))
            await until(lambda: verifier.sessions and len(verifier.sessions[0].machine.tokens) >= len(IDS) + 25)
            await verifier.stop()
            verifier.fingerprint = "fp-other"
            verifier.faults = Faults()
            await verifier.start()
        check_error(work.result(), 503)


@pytest.mark.parametrize("fault", [Faults(), Faults(break_after=5, forget=True)], ids=["healthy", "breaking"])
async def test_a_generation_leaves_nothing_behind(fault: Faults) -> None:
    async with FakeVerifier() as verifier, in_process([verifier]) as gateway:
        verifier.faults = fault
        await exact(gateway)
        (upstream,) = gateway.plane.pool.verifiers.values()
        await until(lambda: not upstream.legs and not gateway.plane.admission.busy)
        assert not verifier.hosted, "the session has ended at the verifier too"
