"""Logits processors: the target's raw logits -> what the race is run on, in one fixed order.

Rule: the order is part of the meaning, so PROCESSOR_VERSION names it:

 1. logit bias            l[id] += bias
 2. repetition penalty    l = l / r if l > 0 else l * r, for every token of prompt, output and ancestors
 3. presence, frequency   l -= presence + frequency * count, for every token of output and ancestors
 4. allowed, banned ids   minus infinity for all that may not be chosen
 5. temperature           x = l * fp32(1 / T)
 6. top-k                 the k best by (x descending, id ascending)
 7. top-p                 the shortest prefix of that order with at least p of the mass left by top-k; the id that
                          crosses p is kept
 8. min-p                 ids with at least min_p of the probability of the best one

Every step is an fp32 operation rounded on its own; masses are integers (`exp_mass`), so no order of summation can show.
At temperature 0 steps 5 to 8 do nothing. A row is edited in a copy; the raw logits stay as they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from nacre.sampling.fixed_order import MASS_ONE, NUMPY, ArrayOps, exp_mass, masses
from nacre.sampling.params import RowContext, SamplingParams
from nacre.sampling.race_noise import F32Array, I64Array

PROCESSOR_VERSION = 1

_LOWEST = np.float32(np.finfo(np.float32).min)
# The search for the crossing of top-p looks at x in steps of 1/8 down to 32 below the best.
_STRETCHES_PER_NAT = np.float32(8)
_STRETCHES = 257
# So many ids are sorted sooner than searched.
_QUICKLY_SORTED = 512
# In longer rows, ids further below the best than this are looked at only if top-p reaches them.
_SHORT = 8192
_NEAR = np.float32(12)


@dataclass(frozen=True, slots=True)
class ProcessorPlan:
    """SamplingParams prepared for use: constants rounded to fp32, id lists as arrays."""

    greedy: bool
    inverse_temperature: np.float32
    penalizes: bool
    edits: bool
    truncates: bool
    bias_ids: I64Array
    bias: F32Array
    kept_ids: I64Array | None  # the only ids that may be chosen
    banned_ids: I64Array | None  # used if kept_ids is None


def make_plan(params: SamplingParams) -> ProcessorPlan:
    """Prepare parameters that have been validated."""
    greedy = params.greedy
    penalizes = params.repetition_penalty != 1.0 or params.presence_penalty != 0.0 or params.frequency_penalty != 0.0
    banned = np.array(sorted(set(params.banned_ids)), dtype=np.int64)
    kept = None
    if params.allowed_ids is not None:
        kept = np.setdiff1d(np.array(params.allowed_ids, dtype=np.int64), banned)
    return ProcessorPlan(
        greedy=greedy,
        inverse_temperature=np.float32(1.0 if greedy else 1.0 / params.temperature),
        penalizes=penalizes,
        edits=penalizes or bool(params.logit_bias) or kept is not None or len(banned) > 0,
        truncates=not greedy and (params.top_k > 0 or params.top_p < 1.0 or params.min_p > 0.0),
        bias_ids=np.array([token for token, _ in params.logit_bias], dtype=np.int64),
        bias=np.array([bias for _, bias in params.logit_bias], dtype=np.float32),
        kept_ids=kept,
        banned_ids=banned if kept is None and len(banned) else None,
    )


_PLANS: dict[int, tuple[SamplingParams, ProcessorPlan]] = {}
_MAX_PLANS = 1024


def plan_of(params: SamplingParams) -> ProcessorPlan:
    """The plan of these parameters. A session keeps one params object, so plans are remembered by identity:
    comparing would cost as much as its longest id list. The entry keeps the object alive, so its id stays its own."""
    entry = _PLANS.get(id(params))
    if entry is not None and entry[0] is params:
        return entry[1]
    plan = make_plan(params)
    if len(_PLANS) >= _MAX_PLANS:
        _PLANS.clear()
    _PLANS[id(params)] = (params, plan)
    return plan


def penalized(values: Any, counts: Any, params: SamplingParams, ops: ArrayOps = NUMPY) -> Any:
    """Steps 2 and 3 for tokens that have occurred: `values` are their logits, `counts` their counts in the output."""
    if params.repetition_penalty != 1.0:
        # An array, not a scalar: torch on a GPU divides by a scalar through its rounded reciprocal.
        factor = counts * 0.0 + float(np.float32(params.repetition_penalty))
        values = ops.where(values > 0.0, values / factor, values * factor)
    if params.presence_penalty != 0.0 or params.frequency_penalty != 0.0:
        presence = ops.where(counts > 0.0, counts * 0.0 + float(np.float32(params.presence_penalty)), counts * 0.0)
        values = values - (counts * float(np.float32(params.frequency_penalty)) + presence)
    return values


def edit_row(row: F32Array, context: RowContext, plan: ProcessorPlan) -> None:
    """Steps 1 to 4, in place."""
    if len(plan.bias_ids):
        row[plan.bias_ids] += plan.bias
    if plan.penalizes:
        tokens, counts = context.history.counts(context.ancestors)
        row[tokens] = penalized(row[tokens], counts, context.params)
    if plan.kept_ids is not None:
        kept = row[plan.kept_ids]
        row.fill(-np.inf)
        row[plan.kept_ids] = kept
    elif plan.banned_ids is not None:
        row[plan.banned_ids] = -np.inf


def truncate_row(row: F32Array, params: SamplingParams, inverse_temperature: np.float32) -> None:
    """Steps 5 to 8, in place: minus infinity for all that does not survive. The row itself is not scaled."""
    kept = survivors(row * inverse_temperature, params)
    values = row[kept]
    row.fill(-np.inf)
    row[kept] = values


def survivors(x: F32Array, params: SamplingParams) -> I64Array:
    """Steps 6 to 8: the ids of a scaled row that stay, in no particular order."""
    top = x.max()
    ids = None
    if 0 < params.top_k < len(x):
        ids = _top_k(x, params.top_k)
    if params.top_p < 1.0:
        ids = _top_p(x, top, params.top_p) if ids is None else ids[_top_p(x[ids], top, params.top_p)]
    if params.min_p > 0.0:
        if ids is None:  # all that could pass, found without an exponential
            ids = np.flatnonzero(x >= float(top) + math.log(params.min_p) - 1e-5 - 1e-6 * abs(float(top)))
        ids = ids[exp_mass(x[ids] - top) >= min_p_mass(params)]
    return np.arange(len(x)) if ids is None else ids


def min_p_mass(params: SamplingParams) -> int:
    """The least mass that passes min-p; that of the best id is 2^40."""
    return math.ceil(params.min_p * MASS_ONE)


def _top_k(x: F32Array, k: int) -> I64Array:
    """The k best by (x descending, id ascending), ascending; minus infinity never counts."""
    kth = max(np.partition(x, len(x) - k)[len(x) - k], _LOWEST)
    above = np.flatnonzero(x > kth)
    return np.sort(np.concatenate([above, np.flatnonzero(x == kth)[: k - len(above)]]))


def _top_p(x: F32Array, top: np.float32, p: float) -> I64Array:
    """Indices of the shortest prefix by (x descending, index ascending) that holds p of the mass."""
    mass = masses(x, top)
    total = int(mass.sum())
    share = min(math.ceil(p * total), total)
    if len(x) <= _SHORT:
        return _prefix(x, mass, top, share)
    near = np.flatnonzero(x >= top - _NEAR)
    if int(mass[near].sum()) < share:
        return _prefix(x, mass, top, share)
    return near[_prefix(x[near], mass[near], top, share)]


def _prefix(x: F32Array, mass: I64Array, top: np.float32, share: int) -> I64Array:
    """Indices of the shortest prefix by (x descending, index ascending) whose mass reaches the share.

    Only the stretch of x in which it is reached is sorted: all above stays, all below goes.
    """
    if len(x) <= _QUICKLY_SORTED:
        order = np.argsort(-x, kind="stable")
        return order[: int(np.searchsorted(np.cumsum(mass[order]), share)) + 1]
    stretch = np.minimum((top - x) * _STRETCHES_PER_NAT, _STRETCHES - 1).astype(np.int64)
    # Sums of floats find the stretch but for rounding, sums of integers settle it.
    about = np.cumsum(np.bincount(stretch, weights=mass, minlength=_STRETCHES))
    reached = min(int(np.searchsorted(about, share)), _STRETCHES - 1)
    while True:
        above = int(mass[stretch < reached].sum())
        inside = np.flatnonzero(stretch == reached)
        if above >= share:
            reached -= 1
        elif above + int(mass[inside].sum()) < share:
            reached += 1
        else:
            break
    inside = inside[np.argsort(-x[inside], kind="stable")]
    length = int(np.searchsorted(np.cumsum(mass[inside]), share - above)) + 1
    return np.concatenate([np.flatnonzero(stretch < reached), inside[:length]])
