"""The race: which ids of a row have the greatest perturbed scores, exactly, without drawing the noise of all.

Rule: score(id) = x(id) - ln32(S(id)), one fp32 subtraction, where x is the processed logit times 1 / T and S the race
noise; greater wins, equal scores go to the lower id.

Level 0 of the noise gives every block of 32 ids one certain score (its winner's) and bounds all others, for
S(id) >= the block's minimum. An id is left out only if its bound is below scores that are certain, so the race among
the candidates, a few dozen of a vocabulary, ends like the race among all. Rows share array operations, nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nacre.sampling.fixed_order import ln32
from nacre.sampling.noise_cache import SHARED_NOISE
from nacre.sampling.params import RowContext
from nacre.sampling.philox import MASK32
from nacre.sampling.race_noise import (
    BLOCK,
    BLOCK_SHIFT,
    MAX_LN_NOISE,
    F32Array,
    I64Array,
    id_noise_at,
)

# Up to this vocabulary size drafters remember the noise of all ids: 32 KiB per position.
MAX_REMEMBERED_IDS = 8192

_LOWEST = np.float32(np.finfo(np.float32).min)


@dataclass(frozen=True, slots=True)
class Candidates:
    """Ids that may win, sorted by (row, id); every row has at least one. All arrays are [candidates]."""

    row: I64Array
    id: I64Array
    x: F32Array
    minimum: F32Array  # level 0: the least S of the id's block
    is_winner: npt.NDArray[np.bool_]  # whether this id is the one with that S


def find_candidates(logits: F32Array, inverse: F32Array, rows: Sequence[RowContext], top_m: int = 1) -> Candidates:
    """Ids among which the best `top_m` of every row are.

    `logits` [rows, vocab] are contiguous and processed but for the factor 1 / T, which is `inverse` [rows]; every row
    has a finite greatest one. Minus infinity is never a candidate.
    """
    if logits.shape[1] % BLOCK:
        logits = _whole_blocks(logits)
    blocks = logits.shape[1] >> BLOCK_SHIFT
    streams = [(row.key, row.position) for row in rows]
    minimum, log_minimum, winner = SHARED_NOISE.blocks(streams, blocks)  # [rows, blocks] each

    flat_logits = logits.reshape(-1)
    row_starts = (np.arange(len(rows)) * logits.shape[1])[:, None]
    certain = flat_logits[winner + row_starts] * inverse[:, None] - log_minimum
    best = kth_greatest(certain, top_m)
    if top_m == 1:
        best = np.maximum(best, logits.max(axis=1) * inverse - np.float32(MAX_LN_NOISE))

    bound = np.maximum(logit_bound(best, log_minimum, inverse), _LOWEST)
    passes = logits.reshape(len(rows), blocks, BLOCK) >= bound[:, :, None]
    flat = np.flatnonzero(passes)
    row, ids = np.divmod(flat, logits.shape[1])
    cell = flat >> BLOCK_SHIFT
    return Candidates(
        row, ids, flat_logits[flat] * inverse[row], minimum.reshape(-1)[cell], winner.reshape(-1)[cell] == ids
    )


def logit_bound(best: Any, log_minimum: Any, inverse: Any) -> Any:
    """A logit below which no id of a block scores `best`.  [rows, blocks]

    Lower than need be by dozens of fp32 roundings, so it need not be computed exactly; only the race itself is.
    """
    margin = 4e-6 * (abs(best) + 32.0)
    return (log_minimum + (best - margin)[:, None]) * (1.0 / inverse)[:, None]


def kth_greatest(scores: F32Array, k: int) -> F32Array:
    """The k-th greatest of each row, minus infinity if there are fewer."""
    if k == 1:
        return scores.max(axis=1)
    if k > scores.shape[1]:
        return np.full(len(scores), -np.inf, dtype=np.float32)
    place = scores.shape[1] - k
    return np.partition(scores, place, axis=1)[:, place]


def perturbed(candidates: Candidates, rows: Sequence[RowContext]) -> F32Array:
    """The score of every candidate, with level-1 noise for those that are not their block's winner."""
    noise = candidates.minimum.copy()
    others = np.flatnonzero(~candidates.is_winner)
    if len(others):
        words = np.array([[row.key, row.position] for row in rows], dtype=np.uint64)[candidates.row[others]].T
        low, high = words & np.uint64(MASK32), words >> np.uint64(32)
        noise[others] += id_noise_at(candidates.id[others], (low[0], high[0]), (low[1], high[1]))
    return candidates.x - ln32(noise)


def race_winners(candidates: Candidates, scores: F32Array, rows: int) -> I64Array:
    """The id that wins in each row.  [rows]"""
    starts = np.searchsorted(candidates.row, np.arange(rows))
    best = np.maximum.reduceat(scores, starts)
    first_best = np.flatnonzero(scores == best[candidates.row])
    # Candidates are sorted by id inside a row: the first of equals is the lowest id.
    return candidates.id[first_best[np.searchsorted(first_best, starts)]]


def best_perturbed(
    logits: F32Array, inverse: F32Array, rows: Sequence[RowContext], top_m: int
) -> tuple[I64Array, F32Array]:
    """The ids of the best `top_m` scores of every row and the scores; see `find_candidates` and `ranked`.

    Asked for several ids per row, the candidates are many, and drafters return to a position again and again: for a
    vocabulary of moderate size remembering the noise of all ids is cheaper than finding out which are needed.
    """
    if logits.shape[1] > MAX_REMEMBERED_IDS:
        candidates = find_candidates(logits, inverse, rows, top_m)
        return ranked(candidates.row, candidates.id, perturbed(candidates, rows), len(rows), top_m)
    vocab = logits.shape[1]
    noise = SHARED_NOISE.log_noise([(row.key, row.position) for row in rows], -(-vocab // BLOCK))
    scores = logits * inverse[:, None] - noise[:, :vocab]
    bound = np.maximum(kth_greatest(scores, top_m), _LOWEST)
    row, ids = np.divmod(np.flatnonzero(scores >= bound[:, None]), vocab)
    return ranked(row, ids, scores[row, ids], len(rows), top_m)


def ranked(row: I64Array, ids: I64Array, scores: F32Array, rows: int, top_m: int) -> tuple[I64Array, F32Array]:
    """The best `top_m` of every row, best first; missing ones have id -1 and score minus infinity.  [rows, top_m]"""
    order = np.lexsort((ids, -scores, row))
    row = row[order]
    rank = np.arange(len(row)) - np.searchsorted(row, np.arange(rows))[row]
    placed = rank < top_m
    order, row, rank = order[placed], row[placed], rank[placed]
    best_ids = np.full((rows, top_m), -1, dtype=np.int64)
    best_scores = np.full((rows, top_m), -np.inf, dtype=np.float32)
    best_ids[row, rank] = ids[order]
    best_scores[row, rank] = scores[order]
    return best_ids, best_scores


def _whole_blocks(logits: F32Array) -> F32Array:
    """The logits with the vocabulary filled up to a multiple of 32 by impossible ids."""
    missing = -logits.shape[1] % BLOCK
    return np.pad(logits, ((0, 0), (0, missing)), constant_values=-np.inf)
