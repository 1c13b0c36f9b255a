"""Perturbed scores of drafts, in C where that is possible: same contract and same bits as `nacre.sampling`'s.

A draft step computes the noise of a position it has never visited, which costs numpy more than the model's pass.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from nacre_kernels import available
from nacre_kernels.race import race_top

from nacre.sampling import RowContext
from nacre.sampling import draft_scores as numpy_scores
from nacre.sampling.processors import plan_of
from nacre.sampling.race_noise import F32Array, I64Array


def best_tokens(logits: torch.Tensor, count: int) -> list[tuple[tuple[int, float], ...]]:
    """The `count` best (token, log-probability) of each row of `logits` [rows, vocab], best first.

    Decides nothing: it is what drafters learn from. A row that is not finite has none.
    """
    wide = logits.float()
    values, ids = torch.topk(wide, min(count, wide.shape[1]), dim=1)
    logprobs = values - torch.logsumexp(wide, dim=1, keepdim=True)
    return [
        tuple(zip(row_ids, row, strict=True)) if all(map(math.isfinite, row)) else ()
        for row_ids, row in zip(ids.tolist(), logprobs.tolist(), strict=True)
    ]


def draft_scores(logits: F32Array, rows: Sequence[RowContext], top_m: int) -> tuple[I64Array, F32Array]:
    """`nacre.sampling.draft_scores`. Penalties, biases and truncation are numpy's: such rows take that way."""
    plans = [plan_of(row.params) for row in rows]
    if not rows or not available() or any(plan.edits or plan.truncates for plan in plans):
        return numpy_scores(logits, rows, top_m)
    return race_top(
        logits,
        np.array([0.0 if plan.greedy else plan.inverse_temperature for plan in plans], dtype=np.float32),
        np.array([row.key for row in rows], dtype=np.uint64),
        np.array([row.position for row in rows], dtype=np.uint64),
        top_m,
    )
