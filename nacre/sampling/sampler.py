"""The race sampler in numpy: logits and row contexts in, one choice per row out.

Rule (exact): a row's token is argmax over ids of x(id) - ln32(S(key, position, id)), with x the processed logits times
1 / T; at temperature 0 it is the argmax of the processed logits. Equal values go to the lower id. It is a function of
that row's logits and context alone: any batch, any order and the torch sampler give the same token and the same bits
of log-probability.

Method: the Gumbel-max identity with counter-based noise, so that whoever knows the key can guess with the same
noise (Daliri, Musco and Suresh, "Coupling without Communication and Drafter-Invariant Speculative Decoding", 2024).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nacre.errors import Internal, NacreError
from nacre.sampling.fixed_order import masses
from nacre.sampling.logprobs import best_of, log_normalizers, logprob, top_candidates
from nacre.sampling.params import Choice, RowContext, UnusableLogits
from nacre.sampling.processors import ProcessorPlan, edit_row, plan_of, truncate_row
from nacre.sampling.race import find_candidates, perturbed, race_winners
from nacre.sampling.race_noise import F32Array, I64Array


def choose_rows(logits: F32Array, rows: Sequence[RowContext]) -> list[Choice]:
    """Choose the next token of every row.

    `logits` are fp32, [rows, vocab], and are not changed. Raises UnusableLogits, which carries the choices of the
    sound rows, if some rows hold NaN or an infinity or leave no token to choose.
    """
    assert logits.dtype == np.float32
    assert logits.ndim == 2
    assert len(logits) == len(rows)
    if not rows:
        return []
    plans = [plan_of(row.params) for row in rows]
    logprobs = any(row.top_logprobs >= 0 for row in rows)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        work, top = processed(logits, rows, plans)
        raw_top = logits.max(axis=1) if logprobs else top
        errors = unusable(top, raw_top, rows, plans)
        if errors:
            sound = [r for r in range(len(rows)) if r not in errors]
            choices = choose_rows(logits[sound], [rows[r] for r in sound])
            raise UnusableLogits(spread(choices, sound, len(rows)), errors)
        tokens = _tokens(work, rows, plans)
        if not logprobs:
            return [Choice(token) for token in tokens.tolist()]
        return _with_logprobs(logits, raw_top, rows, tokens)


def processed(
    logits: F32Array, rows: Sequence[RowContext], plans: Sequence[ProcessorPlan]
) -> tuple[F32Array, F32Array]:
    """All processors but the factor 1 / T: (the logits, minus infinity where an id may not win; each row's greatest).

    Rows whose greatest is not finite are left as they are. The logits are `logits` itself if nothing is to be changed.
    """
    copied = any(plan.edits or plan.truncates for plan in plans)
    work = np.array(logits, order="C") if copied else np.ascontiguousarray(logits)
    for r, plan in enumerate(plans):
        if plan.edits:
            edit_row(work[r], rows[r], plan)
    top = work.max(axis=1)
    for r, plan in enumerate(plans):
        if plan.truncates and np.isfinite(top[r] * plan.inverse_temperature):
            truncate_row(work[r], rows[r].params, plan.inverse_temperature)
    return work, top


def inverse_temperatures(plans: Sequence[ProcessorPlan]) -> F32Array:
    return np.array([plan.inverse_temperature for plan in plans], dtype=np.float32)


def unusable(
    top: F32Array, raw_top: F32Array, rows: Sequence[RowContext], plans: Sequence[ProcessorPlan]
) -> dict[int, NacreError]:
    """The rows that cannot be sampled, given the greatest processed and raw logit of each (NaN if there is one)."""
    sound = np.isfinite(top * inverse_temperatures(plans))
    if raw_top is not top:
        sound &= np.isfinite(raw_top) | np.array([row.top_logprobs < 0 for row in rows])
    if sound.all():
        return {}
    greatest = np.where(np.isfinite(top), raw_top, top)
    return {
        r: Internal(
            f"row {r} (position {rows[r].position}): the greatest logit is {greatest[r]}; it must be finite: "
            "check the model's weights and dtype, and that some allowed token is possible"
        )
        for r in np.flatnonzero(~sound).tolist()
    }


def spread(choices: Sequence[Choice], sound: Sequence[int], rows: int) -> list[Choice | None]:
    """The choices of the sound rows in their places, None elsewhere."""
    placed: list[Choice | None] = [None] * rows
    for r, choice in zip(sound, choices, strict=True):
        placed[r] = choice
    return placed


def _tokens(work: F32Array, rows: Sequence[RowContext], plans: Sequence[ProcessorPlan]) -> I64Array:
    racing = [r for r, plan in enumerate(plans) if not plan.greedy]
    if not racing:
        return work.argmax(axis=1)
    if len(racing) == len(rows):
        return _raced(work, rows, plans)
    tokens = np.empty(len(rows), dtype=np.int64)
    greedy = [r for r, plan in enumerate(plans) if plan.greedy]
    tokens[greedy] = work[greedy].argmax(axis=1)
    tokens[racing] = _raced(work[racing], [rows[r] for r in racing], [plans[r] for r in racing])
    return tokens


def _raced(work: F32Array, rows: Sequence[RowContext], plans: Sequence[ProcessorPlan]) -> I64Array:
    candidates = find_candidates(work, inverse_temperatures(plans), rows)
    return race_winners(candidates, perturbed(candidates, rows), len(rows))


def _with_logprobs(logits: F32Array, raw_top: F32Array, rows: Sequence[RowContext], tokens: I64Array) -> list[Choice]:
    choices = [Choice(token) for token in tokens.tolist()]
    asked = [r for r, row in enumerate(rows) if row.top_logprobs >= 0]
    normalizers = log_normalizers([int(masses(logits[r], raw_top[r]).sum()) for r in asked])
    chosen = logprob(logits[asked, tokens[asked]], raw_top[asked], normalizers)
    for r, normalizer, value in zip(asked, normalizers, chosen.tolist(), strict=True):
        best: tuple[tuple[int, float], ...] = ()
        if rows[r].top_logprobs > 0:
            ids = top_candidates(logits[r], rows[r].top_logprobs, raw_top[r], normalizer)
            best = best_of(ids, logits[r, ids], rows[r].top_logprobs, raw_top[r], normalizer)
        choices[r] = Choice(int(tokens[r]), value, best)
    return choices
