"""The race sampler for torch tensors: the same tokens and the same bits of log-probability as `sampler.py`.

Rule: identical by construction, not by luck. The transcendental functions are the shared fixed-order ones, masses are
integers, and whatever is decided by order (ties, the crossing of top-p) is decided by (value descending, id ascending).
All that is as long as the vocabulary happens on the tensor's device; the few candidates of each row come to the
host and race in the numpy code.

Tensors on the CPU are sampled by numpy in place: it is the same memory, and numpy's calls are cheaper.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from nacre.sampling import sampler
from nacre.sampling.fixed_order import exp_mass, ln32
from nacre.sampling.logprobs import best_of, candidate_bound, log_normalizers, logprob
from nacre.sampling.params import Choice, RowContext, UnusableLogits
from nacre.sampling.philox import MASK32, MULTIPLIERS, ROUNDS, WEYL
from nacre.sampling.processors import ProcessorPlan, min_p_mass, penalized, plan_of
from nacre.sampling.race import Candidates, logit_bound, perturbed, race_winners
from nacre.sampling.race_noise import (
    BLOCK,
    BLOCK_SHIFT,
    MAX_LN_NOISE,
    PURPOSE_TARGET_RACE,
    F32Array,
    I64Array,
    race_exp,
)

_LOWEST = float(np.finfo(np.float32).min)


class TorchOps:
    """`fixed_order.ArrayOps` for torch tensors."""

    def where(self, condition: Any, yes: Any, no: Any) -> Any:
        return torch.where(condition, yes, no)

    def to_f32(self, integers: Any) -> Any:
        return integers.to(torch.float32)

    def to_i64(self, floats: Any) -> Any:
        return floats.to(torch.int64)

    def f32_to_i32(self, floats: Any) -> Any:
        return floats.to(torch.int32)

    def bits(self, floats: Any) -> Any:
        return floats.view(torch.int32)

    def from_bits(self, integers: Any) -> Any:
        return integers.view(torch.float32)

    def rint(self, floats: Any) -> Any:
        return torch.round(floats)  # half to even, like rint

    def at_least(self, floats: Any, bound: float) -> Any:
        return torch.clamp(floats, min=bound)


TORCH = TorchOps()


def choose_rows(logits: torch.Tensor, rows: Sequence[RowContext]) -> list[Choice]:
    """Choose the next token of every row; `logits` [rows, vocab] on any device. See `sampler.choose_rows`."""
    logits = logits.detach().to(torch.float32)
    if logits.device.type == "cpu":
        return sampler.choose_rows(logits.numpy(), rows)
    return choose_rows_on_device(logits, rows)


@torch.no_grad()
def choose_rows_on_device(logits: torch.Tensor, rows: Sequence[RowContext]) -> list[Choice]:
    """`choose_rows` with torch operations, for fp32 logits on any device."""
    assert logits.dtype == torch.float32
    assert logits.ndim == 2
    assert len(logits) == len(rows)
    if not rows:
        return []
    plans = [plan_of(row.params) for row in rows]
    work = logits.clone() if any(plan.edits or plan.truncates for plan in plans) else logits
    for r, plan in enumerate(plans):
        if plan.edits:
            _edit_row(work[r], rows[r], plan)
    with np.errstate(over="ignore", invalid="ignore"):
        top = work.amax(dim=1).cpu().numpy()
        raw_top = logits.amax(dim=1).cpu().numpy()
        errors = sampler.unusable(top, raw_top, rows, plans)
    if errors:
        sound = [r for r in range(len(rows)) if r not in errors]
        choices = choose_rows_on_device(logits[sound], [rows[r] for r in sound])
        raise UnusableLogits(sampler.spread(choices, sound, len(rows)), errors)
    truncated = [r for r, plan in enumerate(plans) if plan.truncates]
    if truncated:
        _truncate(work, truncated, rows, plans)
    tokens = _tokens(work, rows, plans)
    return _with_logprobs(logits, raw_top, rows, tokens)


def _upload(values: Any, like: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(np.array(values)).to(like.device)


def _edit_row(row: torch.Tensor, context: RowContext, plan: ProcessorPlan) -> None:
    """Steps 1 to 4 of `processors.py`, in place."""
    if len(plan.bias_ids):
        row[_upload(plan.bias_ids, row)] += _upload(plan.bias, row)
    if plan.penalizes:
        history, counts = context.history.counts(context.ancestors)
        tokens = _upload(history, row)
        row[tokens] = penalized(row[tokens], _upload(counts, row), context.params, TORCH)
    if plan.kept_ids is not None:
        ids = _upload(plan.kept_ids, row)
        kept = row[ids]
        row.fill_(-torch.inf)
        row[ids] = kept
    elif plan.banned_ids is not None:
        row[_upload(plan.banned_ids, row)] = -torch.inf


def _truncate(
    work: torch.Tensor, truncated: Sequence[int], rows: Sequence[RowContext], plans: Sequence[ProcessorPlan]
) -> None:
    """Steps 5 to 8 of `processors.py`, in place: minus infinity for all that does not survive."""
    params = [rows[r].params for r in truncated]
    vocab = work.shape[1]
    inverse = sampler.inverse_temperatures([plans[r] for r in truncated])
    top_k = np.array([min(p.top_k, vocab) if p.top_k > 0 else vocab for p in params])
    top_p = np.array([p.top_p for p in params], dtype=np.float64)
    least_mass = np.array([min_p_mass(p) if p.min_p > 0.0 else 0 for p in params], dtype=np.int64)

    index = _upload(np.array(truncated), work)
    values = work[index]
    # A stable descending sort is the order by (x descending, id ascending); + 0 makes -0 the equal of 0.
    x, order = torch.sort(values * _upload(inverse, work)[:, None] + 0.0, dim=1, descending=True, stable=True)
    keep = x > -torch.inf
    keep &= torch.arange(vocab, device=work.device) < _upload(top_k, work)[:, None]
    mass = torch.where(keep, exp_mass(x - x[:, :1], TORCH), 0)
    total = mass.sum(dim=1)
    share = torch.minimum(torch.ceil(_upload(top_p, work) * total.to(torch.float64)).to(torch.int64), total)
    before = torch.cumsum(mass, dim=1) - mass
    keep &= (before < share[:, None]) | _upload(top_p >= 1.0, work)[:, None]
    keep &= mass >= _upload(least_mass, work)[:, None]
    work[index] = torch.where(torch.zeros_like(keep).scatter(1, order, keep), values, -torch.inf)


def _tokens(work: torch.Tensor, rows: Sequence[RowContext], plans: Sequence[ProcessorPlan]) -> I64Array:
    tokens = np.empty(len(rows), dtype=np.int64)
    greedy = [r for r, plan in enumerate(plans) if plan.greedy]
    racing = [r for r, plan in enumerate(plans) if not plan.greedy]
    if greedy:
        tokens[greedy] = work[greedy].argmax(dim=1).cpu().numpy()  # torch, too, returns the first of equals
    if racing:
        contexts = [rows[r] for r in racing]
        inverse = sampler.inverse_temperatures([plans[r] for r in racing])
        candidates = _find_candidates(work[racing], inverse, contexts)
        tokens[racing] = race_winners(candidates, perturbed(candidates, contexts), len(racing))
    return tokens


def _find_candidates(logits: torch.Tensor, inverse: F32Array, rows: Sequence[RowContext]) -> Candidates:
    """`race.find_candidates` with torch operations and top_m = 1."""
    if logits.shape[1] % BLOCK:
        logits = torch.nn.functional.pad(logits, (0, -logits.shape[1] % BLOCK), value=-torch.inf)
    blocks = logits.shape[1] >> BLOCK_SHIFT
    minimum, winner = block_noise(rows, blocks, logits.device)
    log_minimum = ln32(minimum, TORCH)
    factor = _upload(inverse, logits)
    best = (logits.gather(1, winner) * factor[:, None] - log_minimum).amax(dim=1)
    best = torch.maximum(best, logits.amax(dim=1) * factor - MAX_LN_NOISE)
    bound = torch.clamp(logit_bound(best, log_minimum, factor), min=_LOWEST)
    passes = logits.view(len(rows), blocks, BLOCK) >= bound[:, :, None]
    flat = passes.view(-1).nonzero().view(-1)
    cell = flat >> BLOCK_SHIFT
    found = flat.cpu().numpy()
    row, ids = np.divmod(found, logits.shape[1])
    return Candidates(
        row,
        ids,
        logits.reshape(-1)[flat].cpu().numpy() * inverse[row],
        minimum.reshape(-1)[cell].cpu().numpy(),
        winner.reshape(-1)[cell].cpu().numpy() == ids,
    )


def block_noise(rows: Sequence[RowContext], blocks: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Level 0 of the noise: (minimum of S over each block, the id that attains it), [rows, blocks] each."""
    words = np.array([[row.key, row.position] for row in rows], dtype=np.uint64)
    low = torch.from_numpy((words & np.uint64(MASK32)).astype(np.int64)).to(device)
    high = torch.from_numpy((words >> np.uint64(32)).astype(np.int64)).to(device)
    block = torch.arange(blocks, device=device).expand(len(rows), blocks)
    purpose = torch.full_like(low[:, :1], PURPOSE_TARGET_RACE << 8)
    x0, x1 = _philox(block, low[:, 1:], high[:, 1:], purpose, low[:, :1], high[:, :1])
    return race_exp(x0, TORCH) * (1.0 / BLOCK), (block << BLOCK_SHIFT) | (x1 & (BLOCK - 1))


def _philox(c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """The first two words of `philox.philox4x32`, on int64 tensors.

    A product of two words may pass 2^63 and wrap: its low word is right all the same, and so is its high word once
    the copies of the sign bit are masked off.
    """
    for _ in range(ROUNDS):
        first, second = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0 = ((second >> 32) & MASK32) ^ c1 ^ k0
        c2 = ((first >> 32) & MASK32) ^ c3 ^ k1
        c1, c3 = second & MASK32, first & MASK32
        k0, k1 = (k0 + WEYL[0]) & MASK32, (k1 + WEYL[1]) & MASK32
    return c0, c1


def _with_logprobs(
    logits: torch.Tensor, raw_top: F32Array, rows: Sequence[RowContext], tokens: I64Array
) -> list[Choice]:
    choices = [Choice(token) for token in tokens.tolist()]
    asked = [r for r, row in enumerate(rows) if row.top_logprobs >= 0]
    if not asked:
        return choices
    tops = raw_top[asked]
    masses = exp_mass(logits[asked] - _upload(tops, logits)[:, None], TORCH).sum(dim=1)
    normalizers = log_normalizers(masses.tolist())
    values = logits[asked, _upload(tokens[asked], logits)].cpu().numpy()
    chosen = logprob(values, tops, normalizers)
    for i, r in enumerate(asked):
        best = _best_logprobs(logits[r], rows[r].top_logprobs, tops[i], normalizers[i])
        choices[r] = Choice(int(tokens[r]), float(chosen[i]), best)
    return choices


def _best_logprobs(row: torch.Tensor, k: int, top: np.float32, normalizer: np.float32) -> tuple[tuple[int, float], ...]:
    if k <= 0:
        return ()
    bound = _LOWEST
    if k < len(row):
        kth = float(torch.topk(row, k).values[-1])
        bound = max(bound, candidate_bound(kth, float(top), float(normalizer)))
    ids = (row >= bound).nonzero().view(-1)
    return best_of(ids.cpu().numpy(), row[ids].cpu().numpy(), k, top, normalizer)
