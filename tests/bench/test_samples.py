"""What is read from samples: definitions by hand on small cases, intervals that cover and repeat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from nacre.bench.samples import Sample, figures, ratio, repeated_share, tokens_per_s, ttft_ratio

BUSY = {"verify_ms": 90.0, "prefill_ms": 5.0, "drafter_busy_ms": 38.0}  # of 190 ms


def sample(baseline: str = "ar", prompt: int = 0, seed: int = 1, *, gap_ms: float = 10.0, each: int = 1) -> Sample:
    """Ten messages of `each` tokens, `gap_ms` apart, the first after 100 ms."""
    return Sample(
        scenario="s",
        baseline=baseline,
        rtt_ms=0.0,
        temperature=1.0,
        prompt=prompt,
        seed=seed,
        tokens=tuple(range(10 * each)),
        arrivals_ms=tuple(100.0 + gap_ms * i for i in range(10)),
        arrival_tokens=(each,) * 10,
        counts={"passes": 10, "rows": 40, "verified": 30, "accepted": 15, "received": 60, "draft_bytes": 50, **BUSY},
    )


def test_tokens_per_s_counts_from_the_first_message_and_divides_sums() -> None:
    assert tokens_per_s([sample()]) == pytest.approx(9 / 0.09)
    # One fast and one slow sample: total tokens over total time, not the mean of two speeds.
    assert tokens_per_s([sample(gap_ms=10), sample(gap_ms=30)]) == pytest.approx(18 / 0.36)


def test_figures_are_what_their_definitions_say() -> None:
    found = figures([sample(each=2)])
    assert found["ttft_ms"] == 100.0
    assert found["itl_p50_ms"] == pytest.approx(10.0)
    assert found["tpot_ms"] == pytest.approx(90.0 / 19)
    assert found["acceptance_length"] == pytest.approx(2.0)
    assert found["acceptance_rate"] == pytest.approx(0.5)
    assert found["rows_per_token"] == pytest.approx(2.0)
    assert found["rolled_back_share"] == pytest.approx(0.75)
    assert found["wasted_rows_share"] == pytest.approx(0.5)
    assert found["payload_up_bytes_per_token"] == pytest.approx(2.5)
    assert found["verifier_idle_share"] == pytest.approx(0.5)
    assert found["drafter_idle_share"] == pytest.approx(0.8)


def test_what_was_not_counted_is_none() -> None:
    bare = Sample("s", "hf-ar", 0.0, 1.0, 0, 1, (1, 2), (1.0, 2.0), (1, 1))
    found = figures([bare])
    assert found["tokens_per_s"] == pytest.approx(1000.0)
    assert found["acceptance_length"] is None
    assert found["verifier_idle_share"] is found["drafter_idle_share"] is None
    assert found["wire_up_bytes_per_token"] is None


def test_a_ratio_is_of_the_prompts_both_have() -> None:
    fast = [sample("nacre", prompt, gap_ms=5) for prompt in range(4)]
    slow = [sample("ar", prompt, gap_ms=10) for prompt in range(1, 6)]
    found = ratio(fast, slow)
    assert found is not None
    assert found.prompts == 3
    assert found.value == pytest.approx(2.0)
    assert (found.low, found.high) == pytest.approx((2.0, 2.0))
    assert ratio(fast, []) is None


def test_the_interval_repeats_and_covers_the_value() -> None:
    fast = [sample("nacre", prompt, gap_ms=4 + prompt % 3) for prompt in range(12)]
    slow = [sample("ar", prompt, gap_ms=10) for prompt in range(12)]
    first, second = ratio(fast, slow), ratio(fast, slow)
    assert first == second
    assert first is not None
    assert first.low < first.value < first.high


def first_after(ttfts_ms: Sequence[float], baseline: str = "ar", seed: int = 1) -> list[Sample]:
    """A sample for each prompt, whose first message comes after so long."""
    return [
        replace(sample(baseline, prompt, seed), arrivals_ms=tuple(ttft_ms + 10 * i for i in range(10)))
        for prompt, ttft_ms in enumerate(ttfts_ms)
    ]


def test_time_to_first_token_is_compared_at_the_median_of_the_texts_both_have() -> None:
    fast = [*first_after([100, 200, 300, 9000], "nacre"), *first_after([1], "nacre", seed=2)]
    slow = first_after([200, 400, 600, 800, 1])
    found = ttft_ratio(fast, slow)
    assert found is not None
    # Four prompts with seed 1: 250 over 500. No mean, and neither the fifth prompt nor the second seed counts.
    assert (found.value, found.prompts) == (0.5, 4)
    assert found.low <= 0.5 <= found.high
    assert found == ttft_ratio(fast, slow)
    assert ttft_ratio(fast, []) is None
    assert ttft_ratio(first_after([1], seed=2), slow) is None


def test_the_interval_of_a_time_to_first_token_is_over_prompts() -> None:
    times = [100.0, 150.0, 400.0]
    # Twice as long for every prompt: whichever prompts are drawn, the ratio is the same.
    twice = ttft_ratio(first_after([2 * time for time in times]), first_after(times))
    assert twice is not None
    assert (twice.value, twice.low, twice.high) == (2.0, 2.0, 2.0)
    # Longer for some: the draws differ.
    some = ttft_ratio(first_after([100, 300, 400]), first_after(times))
    assert some is not None
    assert some.low < some.value == some.high == 2.0


def test_repeated_grams() -> None:
    assert repeated_share([[1, 2, 3, 4, 5, 6]]) == 0.0
    assert repeated_share([[1] * 8]) == pytest.approx(4 / 5)


def test_a_sample_survives_its_json() -> None:
    assert Sample.from_dict(sample().as_dict()) == sample()
