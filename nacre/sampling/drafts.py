"""Perturbed scores for drafters: the best guesses under the noise that the verifier will use.

Rule: with the same key, position, parameters and history, a drafter's best id is exactly what the sampler would choose
from the same logits, and its next ids are what it would choose if the better ones were impossible. The closer the
draft model's logits are to the target's, the more often that is the target's token (the race coupling of Daliri et
al., 2024). Nothing here can change what is accepted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nacre.sampling.fixed_order import ln32
from nacre.sampling.params import RowContext
from nacre.sampling.processors import plan_of
from nacre.sampling.race import best_perturbed
from nacre.sampling.race_noise import F32Array, I64Array, noise_at
from nacre.sampling.sampler import inverse_temperatures, processed


@dataclass(frozen=True, slots=True)
class ReducedVocabulary:
    """A draft model's own vocabulary: column c of its logits belongs to target id `ids[c]`; ids are distinct."""

    ids: I64Array
    vocab_size: int  # of the target


def draft_scores(
    logits: F32Array, rows: Sequence[RowContext], top_m: int, reduced: ReducedVocabulary | None = None
) -> tuple[I64Array, F32Array]:
    """The best `top_m` ids of every row by perturbed score, best first, and the scores.  [rows, top_m] each

    `logits` are fp32, [rows, vocab], and are not changed. At temperature 0 the scores are the processed logits. Rows
    with fewer ids to offer (truncation, masks, a small vocabulary) are filled up with id -1 and score minus infinity;
    a row with NaN or an infinity offers none: a broken draft model costs speed, never a session.

    With `reduced`, all ids outside it count as impossible; parameters, history and the returned ids are in target ids.
    """
    assert logits.dtype == np.float32
    assert logits.ndim == 2
    assert len(logits) == len(rows)
    assert top_m >= 1
    best_ids = np.full((len(rows), top_m), -1, dtype=np.int64)
    best_scores = np.full((len(rows), top_m), -np.inf, dtype=np.float32)
    if not rows:
        return best_ids, best_scores
    plans = [plan_of(row.params) for row in rows]
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        work, top = processed(_full_width(logits, reduced), rows, plans)
        inverse = inverse_temperatures(plans)
        sound = np.isfinite(top * inverse)
        racing = [r for r, plan in enumerate(plans) if sound[r] and not plan.greedy]
        if racing:
            everything = len(racing) == len(rows)
            contexts = rows if everything else [rows[r] for r in racing]
            chosen_from = work if everything else work[racing]
            best_ids[racing], best_scores[racing] = best_perturbed(chosen_from, inverse[racing], contexts, top_m)
        for r, plan in enumerate(plans):
            if sound[r] and plan.greedy:
                ids = _greatest(work[r], top_m)
                best_ids[r, : len(ids)] = ids
                best_scores[r, : len(ids)] = work[r, ids]
    return best_ids, best_scores


def race_scores(
    logits: F32Array, key: int, position: int, inverse_temperature: float = 1.0, ids: I64Array | None = None
) -> F32Array:
    """The perturbed score of every entry of one row, or of `ids` if `logits` belong to these ids.  [len(logits)]

    The definition itself, without a shortcut: logits * fp32(1 / T) - ln32(S).
    """
    if ids is None:
        ids = np.arange(len(logits), dtype=np.int64)
    noise = noise_at(np.asarray(ids, dtype=np.int64), key, position)
    return logits * np.float32(inverse_temperature) - ln32(noise)


def _full_width(logits: F32Array, reduced: ReducedVocabulary | None) -> F32Array:
    if reduced is None:
        return logits
    full = np.full((len(logits), reduced.vocab_size), -np.inf, dtype=np.float32)
    full[:, reduced.ids] = logits
    return full


def _greatest(row: F32Array, count: int) -> I64Array:
    """The `count` greatest finite values of a row, by (value descending, id ascending)."""
    bound = np.finfo(np.float32).min
    if count < len(row):
        bound = max(bound, np.partition(row, len(row) - count)[len(row) - count])
    ids = np.flatnonzero(row >= bound)
    return ids[np.lexsort((ids, -row[ids]))[:count]]
