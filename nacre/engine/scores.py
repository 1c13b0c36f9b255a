"""Perturbed scores of drafts, in C where that is possible: same contract and same bits as `nacre.sampling`'s.

A draft step computes the noise of a position it has never visited, which costs numpy more than the model's pass.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from nacre_kernels import available
from nacre_kernels.race import race_top

from nacre.sampling import RowContext
from nacre.sampling import draft_scores as numpy_scores
from nacre.sampling.processors import plan_of
from nacre.sampling.race_noise import F32Array, I64Array


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
