"""Log-probabilities: the log-softmax of the target's raw logits, before any processor.

Rule: logprob(id) = (l(id) - max l) - ln32(Z), where Z = sum of rint(e^(l - max) 2^40) over the row, rounded once to
fp32 and scaled by 2^-40; each an fp32 operation. Z is a sum of integers, so it depends neither on the order of
summation, nor on the other rows, nor on the library: the same logits give the same bits wherever they are sampled.
The `k` best are ordered by (logprob descending, id ascending); ids of probability 0 (minus infinity) are left out.
"""

from __future__ import annotations

import numpy as np

from nacre.sampling.fixed_order import MASS_ONE, ln32
from nacre.sampling.race_noise import F32Array, I64Array

_LOWEST = np.float32(np.finfo(np.float32).min)


def log_normalizers(row_masses: list[int]) -> F32Array:
    """ln32(Z) of every row."""
    scaled = np.array(row_masses, dtype=np.int64).astype(np.float32) * np.float32(1 / MASS_ONE)
    return ln32(scaled)


def logprob(values: F32Array, top: np.float32 | F32Array, log_normalizer: np.float32 | F32Array) -> F32Array:
    """Log-probabilities of raw logits, given the greatest logit and the normalizer of their row or rows."""
    return (values - top) - log_normalizer


def candidate_bound(kth: float, top: float, log_normalizer: float) -> float:
    """A logit below it has a log-probability below that of the k-th best logit, even after rounding."""
    return kth - 2e-6 * (1.0 + abs(kth) + (top - kth) + log_normalizer)


def top_candidates(logits: F32Array, k: int, top: np.float32, log_normalizer: np.float32) -> I64Array:
    """Ids among which the k best are."""
    if k >= len(logits):
        return np.flatnonzero(logits >= _LOWEST)
    kth = np.partition(logits, len(logits) - k)[len(logits) - k]
    bound = candidate_bound(float(kth), float(top), float(log_normalizer))
    return np.flatnonzero(logits >= max(np.float32(bound), _LOWEST))


def best_of(
    ids: I64Array, values: F32Array, k: int, top: np.float32, log_normalizer: np.float32
) -> tuple[tuple[int, float], ...]:
    """The k best of the candidates, as (id, logprob)."""
    log_probabilities = logprob(values, top, log_normalizer)
    order = np.lexsort((ids, -log_probabilities))[:k]
    return tuple(zip(ids[order].tolist(), log_probabilities[order].tolist(), strict=True))
