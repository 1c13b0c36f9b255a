"""Chi-square: the sampler draws from the exact softmax of the processed logits, and the test can tell when not."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from nacre.sampling import History, RowContext, SamplingParams, choose_rows
from tests.sampling import sampling_reference as reference

F32 = np.float32
VOCAB = 40
DRAWS = 10_000
# chi-square in standard deviations from its mean: a right sampler stays below, 10,000 draws from a wrong one do not.
CRITICAL = 4.5
PROMPT, OUTPUT, ANCESTORS = [1, 2, 3], [3, 4, 4], (5, 1)


def target_logits() -> np.ndarray:
    return (np.random.default_rng(2024).standard_normal(VOCAB) * 1.5).astype(F32)


def row(params: SamplingParams, key: int, position: int, history: History) -> RowContext:
    return RowContext(params, key, position, history, ANCESTORS)


def drawn(logits: np.ndarray, params: SamplingParams, key: int = 77, draws: int = DRAWS) -> list[int]:
    history = History(PROMPT, OUTPUT)
    rows = [row(params, key, position, history) for position in range(draws)]
    return [c.token for c in choose_rows(np.tile(logits, (len(rows), 1)), rows)]


def excess(tokens: Sequence[int], probabilities: np.ndarray) -> float:
    """(chi-square - degrees of freedom) / its standard deviation; rare outcomes are counted together."""
    counts = np.bincount(tokens, minlength=len(probabilities)).astype(np.float64)
    assert counts[probabilities == 0].sum() == 0, "an id of probability 0 was drawn"
    expected = probabilities * len(tokens)
    common = expected >= 8
    observed = np.append(counts[common], counts[~common].sum())
    expected = np.append(expected[common], expected[~common].sum())
    observed, expected = observed[expected > 0], expected[expected > 0]
    chi_square = float(((observed - expected) ** 2 / expected).sum())
    freedom = len(expected) - 1
    return (chi_square - freedom) / math.sqrt(2 * freedom)


def exact(logits: np.ndarray, params: SamplingParams) -> np.ndarray:
    with np.errstate(all="ignore"):
        return reference.probabilities(logits, row(params, 0, 0, History()), PROMPT, OUTPUT)


SETTINGS = {
    "plain": SamplingParams(),
    "cool": SamplingParams(temperature=0.7),
    "hot": SamplingParams(temperature=3.0),
    "top-k": SamplingParams(top_k=7),
    "top-p": SamplingParams(top_p=0.8),
    "min-p": SamplingParams(min_p=0.08),
    "all truncations": SamplingParams(temperature=1.3, top_k=20, top_p=0.9, min_p=0.02),
    "bias": SamplingParams(logit_bias=((0, 2.0), (9, -1.5), (33, 0.7))),
    "repetition": SamplingParams(repetition_penalty=1.8),
    "presence and frequency": SamplingParams(presence_penalty=0.9, frequency_penalty=0.6),
    "allowed": SamplingParams(allowed_ids=tuple(range(0, VOCAB, 3))),
    "banned": SamplingParams(banned_ids=(5, 6, 7, 31)),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_draws_follow_the_exact_distribution(name: str) -> None:
    logits, params = target_logits(), SETTINGS[name]
    probabilities = exact(logits, params)
    assert probabilities.sum() == pytest.approx(1)
    assert np.count_nonzero(probabilities) > 2
    assert excess(drawn(logits, params), probabilities) < CRITICAL


@pytest.mark.parametrize("name", [name for name in SETTINGS if name != "plain"])
def test_the_test_sees_each_setting_being_ignored(name: str) -> None:
    """Negative control: plain draws do not pass for any other setting's."""
    logits, params = target_logits(), SETTINGS[name]
    probabilities = exact(logits, params)
    allowed = [t for t in drawn(logits, SETTINGS["plain"]) if probabilities[t] > 0]
    renormalized = {"top-k", "top-p", "min-p", "allowed", "banned"}
    if name in renormalized:  # conditioned on the survivors, plain draws are right: then the forbidden ids must show
        assert len(allowed) < DRAWS
        assert excess(allowed, probabilities) < CRITICAL
    else:
        assert excess(allowed, probabilities) > 2 * CRITICAL


def test_draws_of_different_keys_at_one_position_are_right_too() -> None:
    logits = target_logits()
    history = History()
    rows = [RowContext(SamplingParams(), key, 12, history) for key in range(1500)]
    tokens = [c.token for c in choose_rows(np.tile(logits, (1500, 1)), rows)]
    p = np.exp(logits.astype(np.float64))
    assert excess(tokens, p / p.sum()) < CRITICAL


def test_successive_tokens_are_independent() -> None:
    logits = (np.random.default_rng(1).standard_normal(4)).astype(F32)
    tokens = np.array(drawn(np.append(logits, [-np.inf] * 4).astype(F32), SamplingParams()))
    p = np.exp(logits.astype(np.float64))
    p /= p.sum()
    pairs = tokens[0::2] * 4 + tokens[1::2]
    assert excess(pairs.tolist(), np.outer(p, p).ravel()) < CRITICAL


def test_a_large_vocabulary_is_drawn_from_without_bias_between_blocks() -> None:
    logits = np.zeros(4096, dtype=F32)
    logits[::64] = 3.0
    history = History()
    tokens: list[int] = []
    for start in range(0, 6000, 500):
        rows = [RowContext(SamplingParams(), 3, p, history) for p in range(start, start + 500)]
        tokens += [c.token for c in choose_rows(np.tile(logits, (500, 1)), rows)]
    p = np.exp(logits.astype(np.float64)).reshape(32, 128).sum(axis=1)
    assert excess([t // 128 for t in tokens], p / p.sum()) < CRITICAL
    favourites = float(np.mean([t % 64 == 0 for t in tokens]))
    share = 64 * math.exp(3) / (64 * math.exp(3) + 4032)
    assert abs(favourites - share) < 4.5 * math.sqrt(share * (1 - share) / 6000)


def rejection_sampled(residual_key: int) -> tuple[list[int], np.ndarray]:
    """Speculative rejection sampling with the guess drawn by key 1 and the residual by `residual_key`.

    The textbook algorithm: right if, and only if, the residual's noise is not the noise that made the guess.
    """
    rng, draws = np.random.default_rng(5), 30_000
    draft_logits, logits = ((rng.standard_normal(VOCAB) * 2).astype(F32) for _ in range(2))
    p, q = (np.exp(v.astype(np.float64)) / np.exp(v.astype(np.float64)).sum() for v in (logits, draft_logits))
    residual = np.maximum(p - q, 0)
    with np.errstate(divide="ignore"):
        residual_logits = np.log(residual / residual.sum()).astype(F32)
    guesses = np.array(drawn(draft_logits, SamplingParams(), 1, draws))
    accepted = rng.random(draws) * q[guesses] <= p[guesses]
    corrections = np.array(drawn(residual_logits, SamplingParams(), residual_key, draws))
    return np.where(accepted, guesses, corrections).tolist(), p


def test_noise_used_for_one_purpose_only_leaves_no_bias() -> None:
    assert excess(*rejection_sampled(residual_key=2)) < CRITICAL


def test_noise_used_twice_is_seen_as_bias() -> None:
    """Negative control: the same noise for the guess and for its correction is a known mistake, and it shows."""
    assert excess(*rejection_sampled(residual_key=1)) > 2 * CRITICAL


def test_a_slightly_wrong_temperature_is_seen() -> None:
    """Negative control: the test's resolution."""
    logits = target_logits()
    assert excess(drawn(logits, SamplingParams(temperature=0.9)), exact(logits, SamplingParams())) > CRITICAL
