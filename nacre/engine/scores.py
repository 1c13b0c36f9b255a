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

#: Tokens that are looked at together first.
_BLOCK = 64


def best_tokens(logits: torch.Tensor, count: int) -> list[tuple[tuple[int, float], ...]]:
    """The `count` best (token, log-probability) of each row of `logits` [rows, vocab], best first.

    Decides nothing: it is what drafters learn from. A row that is not finite has none.
    """
    wide = logits.float()
    values, ids = _greatest(wide, min(count, wide.shape[1]))
    logprobs = values - torch.logsumexp(wide, dim=1, keepdim=True)
    return [
        tuple(zip(row_ids, row, strict=True)) if all(map(math.isfinite, row)) else ()
        for row_ids, row in zip(ids.tolist(), logprobs.tolist(), strict=True)
    ]


def _greatest(wide: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The `count` greatest of each row and their ids.  [rows, count] each

    They lie in the `count` blocks of the greatest maxima: of a block that is none of these every element is beaten by
    `count` others. In a large vocabulary that takes a third of the time of a search through all.
    """
    rows, vocab = wide.shape
    whole = vocab - vocab % _BLOCK
    if whole // _BLOCK <= count:
        return torch.topk(wide, count, dim=1)
    blocks = wide[:, :whole].unflatten(1, (-1, _BLOCK))
    places = torch.topk(blocks.amax(dim=2), count, dim=1).indices
    inside = torch.arange(_BLOCK, device=wide.device)
    near = blocks.gather(1, places[:, :, None].expand(rows, count, _BLOCK)).flatten(1)
    ids = (places[:, :, None] * _BLOCK + inside).flatten(1)
    if whole < vocab:
        near = torch.cat((near, wide[:, whole:]), dim=1)
        ids = torch.cat((ids, torch.arange(whole, vocab, device=wide.device).expand(rows, -1)), dim=1)
    values, found = torch.topk(near, count, dim=1)
    return values, ids.gather(1, found)


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
