"""What a draft model knew when it guessed: probability, score gap, entropy, the top of its distribution.

The distribution is the one the target's sampler would use if these logits were its own: penalties, temperature,
truncation; at temperature 0 the softmax of the processed logits. Policies of `nacre.pacing` read it; nothing else does,
so it is computed only on request.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nacre.drafting.proposer import GuessFeatures
from nacre.sampling import RowContext
from nacre.sampling.processors import plan_of
from nacre.sampling.sampler import inverse_temperatures, processed

#: How many of the largest probabilities are told.
TOP = 10

#: Stands for the gap to nothing: no other token was possible.
NO_RIVAL = 100.0


def features_of_rows(
    logits: np.ndarray, rows: Sequence[RowContext], ids: np.ndarray, scores: np.ndarray
) -> list[list[GuessFeatures]]:
    """For every row the features of its `ids`.

    `logits` [rows, vocab] fp32, `ids` [rows, children], `scores` [rows, at least 2, at least children] perturbed, best
    first. Ids of -1 and rows without sound logits get features that mean nothing.
    """
    plans = [plan_of(row.params) for row in rows]
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        work, top = processed(logits, rows, plans)
        exponent = (work - top[:, None]) * inverse_temperatures(plans)[:, None]
        weights = np.exp(exponent)
        total = weights.sum(axis=1)
        q = weights / total[:, None]
        # H = ln Z - E[x]; impossible tokens have weight 0 and an exponent of minus infinity.
        entropy = np.log(total) - np.where(weights > 0, q * exponent, 0.0).sum(axis=1)
        count = min(TOP, q.shape[1])
        tops = -np.sort(np.partition(-q, count - 1, axis=1)[:, :count], axis=1)
        best_other = np.repeat(scores[:, :1], ids.shape[1], axis=1)
        best_other[:, 0] = scores[:, 1]
        gaps = np.clip(np.nan_to_num(scores[:, : ids.shape[1]] - best_other), -NO_RIVAL, NO_RIVAL)
    chosen = np.take_along_axis(q, np.maximum(ids, 0), axis=1)
    return [
        [GuessFeatures(probability, gap, row_entropy, tuple(row_top)) for probability, gap in zip(*row, strict=True)]
        for row, row_entropy, row_top in zip(
            zip(chosen.tolist(), gaps.tolist(), strict=True), entropy.tolist(), tops.tolist(), strict=True
        )
    ]
