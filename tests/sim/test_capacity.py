"""The capacity simulator: what it must agree with, that it repeats itself, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from nacre.errors import InvalidArgument
from nacre.runtime import draft_worker
from nacre.sim import drafters
from nacre.sim.acceptance import DialledAcceptance
from nacre.sim.capacity import (
    _parts,
    compare,
    ideal_throughput,
    predict,
    requests_of,
    saturation,
    sweep,
    swept,
)
from nacre.sim.dials import Dials, Spread, with_dials
from nacre.sim.figures import _interval, _percentile
from nacre.sim.fleet import Fleet

SMALL = with_dials(Dials(), {"requests": 4, "output_tokens": 48, "prompt_tokens": 8})


def small(**changes: Any) -> Dials:
    return with_dials(SMALL, changes)


def test_decoding_alone_takes_one_pass_per_token_and_nothing_else() -> None:
    found = predict(small(policy="plain", pass_ms=[[1, 20.0]], rtt=30, overhead_ms=3, commit_ms=2))
    assert found.session_tokens_per_s == pytest.approx(1 / 0.025)
    assert found.itl_p50_ms == pytest.approx(25)
    assert found.itl_p99_ms == pytest.approx(25)
    # The request travels, its pass runs (its 8 tokens of prompt in it), the answer travels.
    assert found.ttft_p50_ms == pytest.approx(30 + 25)
    assert found.acceptance_length == found.rows_per_token == 1
    assert found.wasted_rows_share == 0
    assert found.payload_up_bytes_per_token == 0
    assert found.drafter_idle_share is None
    assert found.verifier_s_per_token == pytest.approx(0.025)


def test_a_prompt_costs_rows_of_passes_in_chunks() -> None:
    times = {
        prompt: predict(small(policy="plain", pass_ms=[[1, 10], [101, 110]], prompt_tokens=prompt))
        for prompt in (1, 201, 601)
    }
    assert times[1].ttft_p50_ms == pytest.approx(10)
    assert times[201].ttft_p50_ms == pytest.approx(210)
    # 600 tokens before the tip: 256, 256, and 88 with the tip in the last pass.
    assert times[601].ttft_p50_ms == pytest.approx(265 + 265 + 98)


def test_messages_take_time_of_the_cores() -> None:
    free = predict(small(rtt=0, acceptance=[0.8]))
    dear = predict(small(rtt=0, acceptance=[0.8], verifier_message_ms=1.0))
    slow = predict(small(rtt=0, acceptance=[0.8], drafter_message_ms=4.0))
    assert free.session_tokens_per_s is not None
    assert (dear.session_tokens_per_s or 0) < 0.97 * free.session_tokens_per_s
    assert (slow.session_tokens_per_s or 0) < 0.97 * free.session_tokens_per_s


def test_a_perfect_drafter_next_door_fills_every_pass_that_pays() -> None:
    found = predict(small(acceptance=[1.0], pass_ms=[[1, 20.0]], draft_ms=0.5, output_tokens=160, session_rows=8))
    assert found.acceptance_length > 6
    assert found.acceptance_rate == 1.0
    assert found.rolled_back_share == 0.0


def test_a_hopeless_drafter_costs_next_to_nothing() -> None:
    hopeless = compare(small(acceptance=[0.0], output_tokens=160))
    assert hopeless.session_speed_up == pytest.approx(1.0, abs=0.03)


def test_the_same_seed_gives_the_same_figures_and_another_seed_others() -> None:
    dials = small(rtt=[5, 80], jitter_ms=4, drafter_speeds=[1.0, 3.0], arrivals_per_s=2.0, concurrency=3)
    assert predict(dials) == predict(dials)
    assert predict(dials) != predict(replace(dials, seed=2))


@pytest.mark.parametrize("policy", ["nacre", "sync", "pearl", "pipelined"])
@pytest.mark.parametrize("rtt", [0, 30])
def test_every_policy_ends_every_text_at_every_length(policy: str, rtt: float) -> None:
    for tokens in (1, 2, 3, 9, 17):
        found = predict(small(policy=policy, rtt=rtt, output_tokens=tokens, requests=2, gamma=3))
        assert found.tokens == 2 * tokens


def test_worlds_of_a_fleet_keep_every_invariant() -> None:
    for device in (False, True):
        dials = small(
            rtt=20, jitter_ms=10, device=device, concurrency=4, requests=6, verifiers=3, crash_share=0.6, span_s=2.0,
            cuts_per_minute=60,
        )  # fmt: skip
        seen = Fleet(dials, DialledAcceptance(dials.acceptance), checked=True).run()
        assert [sum(count for _, count in generation.received) for generation in seen.generations] == [48] * 6


def test_failures_cost_time_but_no_text() -> None:
    quiet = small(concurrency=4, requests=8, verifiers=4, rtt=20)
    harried = replace(quiet, crash_share=0.5, span_s=1.0, cuts_per_minute=30.0)
    assert predict(harried).tokens == predict(quiet).tokens == 8 * 48
    assert predict(harried).tokens_per_s < predict(quiet).tokens_per_s


def test_a_session_survives_any_number_of_cuts_but_not_so_many_that_it_never_gets_on() -> None:
    # Some ten cuts a second for eight seconds.
    often = small(policy="plain", pass_ms=20.0, cuts_per_minute=600, output_tokens=400, requests=1)
    assert predict(often).tokens == 400
    with pytest.raises(InvalidArgument, match="no new token between 1000 cuts"):
        predict(replace(often, rtt_ms=Spread(5000.0, 5000.0)))


@pytest.mark.parametrize("policy", ["sync", "pearl", "pipelined"])
@pytest.mark.parametrize(
    "changes",
    [
        {"concurrency": 16, "requests": 16},
        {"gamma": 8, "window_nodes": 4},
        {"gamma": 8, "session_rows": 2},
        {"concurrency": 6, "requests": 6, "pass_rows": 6, "window_nodes": 6},
    ],
    ids=["many", "small window", "few rows", "tips alone"],
)
def test_those_that_wait_for_one_another_never_wait_for_ever(policy: str, changes: dict[str, Any]) -> None:
    dials = small(policy=policy, rtt=5, output_tokens=24, **changes)
    assert predict(dials).tokens == dials.requests * 24


def test_time_counts_from_the_first_request() -> None:
    at_once, late = (predict(small(policy="plain", requests=1, arrivals_per_s=rate)) for rate in (0, 0.01))
    assert late.seconds == pytest.approx(at_once.seconds)
    assert late.tokens_per_s == pytest.approx(at_once.tokens_per_s)
    assert late.verifier_idle_share == pytest.approx(at_once.verifier_idle_share, abs=1e-6)


def test_a_device_saves_the_verifier_messages() -> None:
    apart, own = (predict(small(rtt=20, device=device, verifier_message_ms=1.0)) for device in (False, True))
    assert own.verifier_idle_share > 0
    assert (own.session_tokens_per_s or 0) > (apart.session_tokens_per_s or 0)


def test_a_pool_of_drafters_is_shared() -> None:
    lone, shared = (predict(small(concurrency=4, requests=8, drafter_pool=pool, pass_ms=20.0)) for pool in (4, 1))
    assert shared.tokens_per_s <= lone.tokens_per_s
    assert (shared.drafter_idle_share or 0) < (lone.drafter_idle_share or 0)


def test_a_narrow_link_slows_drafts_down() -> None:
    wide, narrow = (predict(small(rtt=10, kbit_per_s=rate)) for rate in (0, 40))
    assert (narrow.session_tokens_per_s or 0) < (wide.session_tokens_per_s or 0)


def test_some_verifiers_stand_for_all() -> None:
    dials = small(verifiers=8, concurrency=16, requests=240, rtt=20, output_tokens=8)
    whole, some = predict(dials), predict(dials, sample=4)
    assert some.tokens == whole.tokens
    assert some.tokens_per_s_interval is not None
    assert whole.tokens_per_s_interval is None
    assert some.tokens_per_s == pytest.approx(whole.tokens_per_s, rel=0.1)
    assert some.itl_p50_ms == pytest.approx(whole.itl_p50_ms, rel=0.1)


def test_as_many_verifiers_of_a_sample_die_as_of_the_whole_fleet() -> None:
    dials = small(verifiers=100, requests=1000, concurrency=100, crash_share=0.02, span_s=5)
    parts = _parts(dials, 20)
    assert [part.verifiers for part in parts] == [5] * 4
    dying = sum((part.verifiers - 1) * part.crash_share for part in parts)  # the last of each lives
    assert dying == pytest.approx(0.02 * 99 * 20 / 100)
    assert requests_of(dials, 20) == 200
    for sample in (1, 7):
        with pytest.raises(InvalidArgument, match=f"sample is {sample}; where verifiers die"):
            requests_of(dials, sample)


def test_money_is_machine_time() -> None:
    found = predict(small(policy="plain", verifiers=2, concurrency=2, verifier_dollars_per_hour=3.6))
    assert found.dollars_per_million_tokens == pytest.approx(2 * found.seconds * 1e-3 / found.tokens * 1e6)
    assert predict(small()).dollars_per_million_tokens is None


def test_the_ideal_has_no_overheads() -> None:
    burdened = small(overhead_ms=4, commit_ms=1, verifier_message_ms=0.3, drafter_message_ms=0.3, jitter_ms=2)
    acceptance = DialledAcceptance(burdened.acceptance)
    ideal = ideal_throughput(acceptance, burdened)
    assert ideal == predict(SMALL, acceptance).session_tokens_per_s
    assert ideal > (predict(burdened, acceptance).session_tokens_per_s or 0)


def test_saturation_is_where_load_brings_no_more() -> None:
    points = sweep(
        small(requests=32, output_tokens=16, pass_ms=[[1, 20], [8, 22], [16, 44], [32, 88]]),
        "concurrency",
        [1, 4, 8, 32],
    )
    assert saturation(points) == 3
    assert saturation(points[:2]) is None


def test_a_sweep_is_refused_before_anything_runs() -> None:
    with pytest.raises(InvalidArgument, match="rtt_ms is -1"):
        swept(SMALL, "rtt", [0, -1])
    assert [point.rtt_ms for point in swept(SMALL, "rtt", [0, [5, 9]])] == [Spread(0, 0), Spread(5, 9)]


@pytest.mark.parametrize(
    ("dial", "value", "told"),
    [
        ("rtt_ms", -5, "at least 0"),
        ("acceptance", [0.9, 0.8], "must not fall"),
        ("acceptance", [1.2], "lie in 0 to 1"),
        ("acceptance", [], "at least one"),
        ("acceptance", ["x"], "list of chances"),
        ("pass_ms", [[1, 0.0]], "greater than 0"),
        ("pass_ms", [[1, 20], [8, 19]], "must not take less time"),
        ("pass_ms", [[8, 20], [1, 19]], "must grow"),
        ("pass_ms", [], "at least one point"),
        ("pass_ms", "fast", "rows, milliseconds"),
        ("draft_ms", -1, "greater than 0"),
        ("requests", 0, "at least 1"),
        ("requests", 1.5, "whole number"),
        ("verifiers", 0, "at least 1"),
        ("requests", float("inf"), "whole number"),
        ("requests", float("nan"), "whole number"),
        ("requests", 10**400, "at most 10,000,000"),
        ("requests", True, "whole number"),
        ("seed", 1 << 63, "at most 9,223,372,036,854,775,807"),
        ("output_tokens", float("inf"), "at most 1,000,000"),
        ("output_tokens", 10**400, "number or"),
        ("rtt_ms", [9, 5], "least comes first"),
        ("rtt_ms", [0, float("nan")], "at least 0"),
        ("rtt_ms", [], r"number or \[least, most\]"),
        ("rtt_ms", [1, 2, 3], r"number or \[least, most\]"),
        ("jitter_ms", float("inf"), "at most 1,000,000"),
        ("jitter_ms", True, "must be a number"),
        ("kbit_per_s", 1e-9, "0 or at least 0.001"),
        ("arrivals_per_s", 1e-300, "0 or at least 1e-06"),
        ("pass_ms", [[float("inf"), 20]], "rows, milliseconds"),
        ("pass_ms", [[1, 20], [10**400, 30]], "up to 1,000,000"),
        ("pass_ms", [[1, float("nan")]], "greater than 0"),
        ("pass_ms", ["12"], "rows, milliseconds"),
        ("pass_ms", {"1": 20}, "rows, milliseconds"),
        ("draft_ms", float("inf"), "greater than 0"),
        ("acceptance", [float("nan")], "lie in 0 to 1"),
        ("drafter_speeds", [], "greater than 0"),
        ("drafter_speeds", [float("inf")], "greater than 0"),
        ("trace", 5, "must be text"),
        ("mode", "off", "one of latency, throughput"),
        ("rtt_ms", "far", r"number or \[least, most\]"),
        ("device", 1, "true or false"),
        ("policy", "magic", "one of nacre"),
        ("drafter_speeds", [0], "greater than 0"),
        ("crash_share", 0.1, "needs span_s"),
        ("jitter_ms", float("nan"), "at least 0"),
        ("sessions", 3, "no dial 'sessions'"),
    ],
)
def test_an_impossible_dial_is_named(dial: str, value: Any, told: str) -> None:
    with pytest.raises(InvalidArgument, match=told) as refused:
        with_dials(Dials(), {dial: value})
    assert dial in refused.value.message


def test_methods_that_wait_for_guesses_need_a_row_for_one() -> None:
    for dial in ("session_rows", "pass_rows"):
        with pytest.raises(InvalidArgument, match=f"dial {dial} is 1; policy sync"):
            small(policy="sync", **{dial: 1})


def test_numbers_may_be_written_as_people_write_them() -> None:
    # TOML knows neither of the first two: they come as text, which must not be taken for a list of two digits.
    assert small(rtt="05").rtt_ms == Spread(5, 5)
    assert small(overhead=".5").overhead_ms == 0.5
    assert small(requests=3.0).requests == 3
    assert small(seed=2**53 + 1).seed == 2**53 + 1


def test_too_few_requests_cannot_be_shared() -> None:
    with pytest.raises(InvalidArgument, match="requests is 4: too few"):
        predict(small(verifiers=8), sample=2)
    with pytest.raises(InvalidArgument, match="sample is 9"):
        predict(small(verifiers=8), sample=9)


def test_percentiles_and_intervals() -> None:
    assert _percentile([1, 2, 3, 4], 0.5) == 2.5
    assert _percentile([7], 0.99) == 7
    low, high = _interval([10.0, 12.0], 2.0)
    assert (low + high) / 2 == pytest.approx(22)
    assert high - low == pytest.approx(2 * 2 * 12.71)


def test_drafts_wait_for_company_as_long_as_the_shipped_ones() -> None:
    assert drafters.COALESCE_S == draft_worker.COALESCE_S
