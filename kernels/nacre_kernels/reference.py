"""The torch twin of every kernel: the same meaning, written to be read.

Used where the C library is missing and on other devices, and by the tests as the truth. How close the twins are:

- attention: both accumulate in fp64 and round once; they differ at most in the last bit of a rare element.
- linear: the kernel accumulates sequentially in fp32, this one in fp64; they differ in the last bits. It is independent
  of the number of rows in practice (a change of order in fp64 almost never survives the final rounding), not by
  construction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from nacre_kernels.attention import AttentionPlan


def round_once(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Round fp64 to `dtype` in one step, to nearest even (torch goes through fp32, which would round bf16 twice)."""
    if dtype == torch.bfloat16:
        # Keep 8 of the 53 significant bits by integer arithmetic; the casts that follow are then exact.
        bits = x.contiguous().view(torch.int64)
        rounded = (bits + ((1 << 44) - 1) + ((bits >> 45) & 1)) & ~((1 << 45) - 1)
        x = torch.where(x.isfinite(), rounded.view(torch.float64), x).float()
    return x.to(dtype)


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """x @ weight.T + bias; x [..., K], weight [N, K] -> [..., N] in x's dtype."""
    out = x.double() @ weight.double().T
    if bias is not None:
        out = out + bias.double()
    return round_once(out, x.dtype)


def paged_tree_attention(
    q: torch.Tensor,  # [rows, heads, dim]
    k_pool: torch.Tensor,  # [slots, kv_heads, dim]
    v_pool: torch.Tensor,  # [slots, kv_heads, value_dim]
    plan: AttentionPlan,
    *,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
    sinks: torch.Tensor | None = None,  # [heads]
) -> torch.Tensor:  # [rows, heads, value_dim]
    rows, heads, _ = q.shape
    group = heads // k_pool.shape[1]
    out = torch.empty(rows, heads, v_pool.shape[2], dtype=q.dtype, device=q.device)
    for row in range(rows):
        slots = plan.visible_slots(row, window).to(k_pool.device)
        keys = k_pool[slots].double().repeat_interleave(group, dim=1)  # [visible, heads, dim]
        values = v_pool[slots].double().repeat_interleave(group, dim=1)
        scores = torch.einsum("hd,khd->hk", q[row].double(), keys) * scale  # [heads, visible]
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        if sinks is not None:  # a key without a value: it only takes probability away
            scores = torch.cat([scores, sinks.double()[:, None]], dim=1)
        weights = torch.softmax(scores, dim=1)[:, : slots.numel()]
        out[row] = round_once(torch.einsum("hk,khv->hv", weights, values), q.dtype)
    return out


def rms_norm(x: torch.Tensor, weight: torch.Tensor | None, eps: float, *, late_rounding: bool) -> torch.Tensor:
    """x [..., dim] / sqrt(mean(x²) + eps) by way of fp64 in fp32, times weight; see `rowwise.rms_norm`."""
    wide = x.double()
    normed = (wide * (1.0 / (wide.square().mean(dim=-1, keepdim=True) + eps).sqrt())).float()
    if weight is None:
        return normed.to(x.dtype)
    return ((normed if late_rounding else normed.to(x.dtype).float()) * weight).to(x.dtype)


def gated_activation(gate: torch.Tensor, up: torch.Tensor | None, kind: str) -> torch.Tensor:
    """act(gate) rounded to gate's dtype, times `up` (if there is one), rounded; kind: silu, gelu_tanh."""
    wide = gate.double()
    if kind == "silu":
        acted = wide * torch.sigmoid(wide)
    else:
        acted = torch.nn.functional.gelu(wide, approximate="tanh")
    acted = acted.float().to(gate.dtype)
    return acted if up is None else acted * up
