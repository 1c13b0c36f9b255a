"""Norms and gated activations of a model, each row and element by the same instructions wherever it lies.

torch's element-wise loops treat the last elements of a tensor (of a thread's share) in another way than the rest, so a
value can depend on where it lies; and they are several calls where one suffices. `fuse_rowwise` replaces RMS norms and
gated MLPs by one kernel each.

Rule: a module is replaced only if the replacement computes what the module computes: it is tried on random inputs (and
random norm weights) first, one module of each kind. Rounding follows the model's own code: a norm rounds before or
after its weight, an activation is rounded before it gates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from nacre_kernels import reference
from nacre_kernels.library import available, check_threads, require

DTYPES = {torch.float32: 0, torch.bfloat16: 1}
ACTIVATIONS = {"silu": 0, "gelu_tanh": 1}
_CLOSE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}  # of the largest element: far below any other meaning
_PROBE_ROWS = 3


def rms_norm(
    x: torch.Tensor,  # [..., dim]
    weight: torch.Tensor | None,  # fp32 [dim]
    eps: float,
    *,
    late_rounding: bool = False,
    threads: int = 1,
) -> torch.Tensor:  # [..., dim], x's dtype
    """x / sqrt(mean(x²) + eps) in fp32, times weight: rounded to x's dtype before and after, or (late) only after."""
    shape, kind = x.shape, DTYPES.get(x.dtype)
    if kind is None:
        raise TypeError(f"x is {x.dtype}; it must be torch.float32 or torch.bfloat16")
    if not shape or not shape[-1]:
        raise ValueError(f"x has shape {tuple(shape)}; its last dimension must be at least 1")
    if weight is not None and (weight.dtype != torch.float32 or weight.shape != shape[-1:]):
        raise ValueError(f"weight is {weight.dtype} {tuple(weight.shape)}; it must be torch.float32 [{shape[-1]}]")
    check_threads(threads)
    if not (available() and x.is_cpu and (weight is None or weight.is_cpu)):
        return reference.rms_norm(x, weight, eps, late_rounding=late_rounding)
    x = x.contiguous()
    weight = None if weight is None else weight.contiguous()
    out = torch.empty_like(x)
    failed = require().nk_rms_norm(
        x.data_ptr(),
        None if weight is None else weight.data_ptr(),
        out.data_ptr(),
        kind,
        late_rounding,
        x.numel() // shape[-1],
        shape[-1],
        eps,
        threads,
    )
    if failed:
        raise MemoryError(f"no memory for a norm over {shape[-1]} elements")
    return out


def gated_activation(
    gate: torch.Tensor, up: torch.Tensor | None = None, kind: str = "silu", *, threads: int = 1
) -> torch.Tensor:
    """act(gate) rounded to its dtype, times `up` (same shape and dtype), rounded; kind: silu, gelu_tanh."""
    dtype = DTYPES.get(gate.dtype)
    if dtype is None:
        raise TypeError(f"gate is {gate.dtype}; it must be torch.float32 or torch.bfloat16")
    if kind not in ACTIVATIONS:
        raise ValueError(f"activation {kind!r} is not one of {', '.join(ACTIVATIONS)}")
    if up is not None and (up.shape != gate.shape or up.dtype != gate.dtype):
        raise ValueError(f"up is {up.dtype} {tuple(up.shape)}, gate {gate.dtype} {tuple(gate.shape)}; they must agree")
    check_threads(threads)
    if not (available() and gate.is_cpu and (up is None or up.is_cpu)):
        return reference.gated_activation(gate, up, kind)
    gate = gate.contiguous()
    up = None if up is None else up.contiguous()
    out = torch.empty_like(gate)
    above = None if up is None else up.data_ptr()
    require().nk_gate(gate.data_ptr(), above, out.data_ptr(), dtype, ACTIVATIONS[kind], gate.numel(), threads)
    return out


class FusedRMSNorm(torch.nn.Module):
    """An RMS norm in one call. `weight` stays the model's own parameter; a copy in fp32 is what is computed with."""

    def __init__(
        self, weight: torch.nn.Parameter | None, eps: float, *, offset: float, late_rounding: bool, threads: int = 1
    ) -> None:
        super().__init__()
        self.weight = weight
        self.eps = eps
        self.late_rounding = late_rounding
        self.threads = check_threads(threads)
        self._factor = None if weight is None else weight.detach().float() + offset

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return rms_norm(x, self._factor, self.eps, late_rounding=self.late_rounding, threads=self.threads)


class FusedGatedMLP(torch.nn.Module):
    """down(act(gate(x)) · up(x)) around the model's own three linear layers."""

    gate_proj: torch.nn.Module
    up_proj: torch.nn.Module
    down_proj: torch.nn.Module

    def __init__(self, mlp: torch.nn.Module, kind: str, threads: int = 1) -> None:
        super().__init__()
        for name in ("gate_proj", "up_proj", "down_proj"):
            setattr(self, name, getattr(mlp, name))
        self.kind = kind
        self.threads = check_threads(threads)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gated = gated_activation(self.gate_proj(x), self.up_proj(x), self.kind, threads=self.threads)
        out: torch.Tensor = self.down_proj(gated)
        return out


@dataclass(frozen=True, slots=True)
class FuseReport:
    """How many modules `fuse_rowwise` replaced, and which classes that look like them it left, because they differ."""

    norms: int
    mlps: int
    left: tuple[str, ...]


def fuse_rowwise(model: torch.nn.Module, threads: int = 1) -> FuseReport:
    """Replace the RMS norms and gated MLPs inside `model` (on the CPU, fp32 or bf16) by one kernel each.

    Call it after `pack_model`. Nothing is replaced when the compiled library is missing.
    """
    check_threads(threads)
    norms = mlps = 0
    left: set[str] = set()
    if not available():
        return FuseReport(0, 0, ("the compiled kernels are missing",))
    styles: dict[tuple[object, ...], tuple[float, bool] | str | None] = {}  # what a kind of module turned out to be
    for name, module in list(model.named_modules()):
        if not name or isinstance(module, FusedRMSNorm | FusedGatedMLP):
            continue
        new: torch.nn.Module | None = None
        if type(module).__name__.endswith("RMSNorm"):
            new = _fused_norm(module, styles, threads)
            norms += new is not None
        elif all(hasattr(module, part) for part in ("gate_proj", "up_proj", "down_proj", "act_fn")):
            new = _fused_mlp(module, styles, threads)
            mlps += new is not None
        else:
            continue
        if new is None:
            left.add(type(module).__name__)
        else:
            model.set_submodule(name, new.eval())
    return FuseReport(norms, mlps, tuple(sorted(left)))


def _fused_norm(
    module: torch.nn.Module, styles: dict[tuple[object, ...], tuple[float, bool] | str | None], threads: int
) -> FusedRMSNorm | None:
    weight = getattr(module, "weight", None)
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if not isinstance(eps, float) or not isinstance(weight, torch.nn.Parameter) or list(module.children()):
        return None
    if weight.dim() != 1 or weight.dtype not in DTYPES or not weight.is_cpu:
        return None
    kind = (type(module), weight.dtype)
    if kind not in styles:
        styles[kind] = _norm_style(module, weight, eps)
    style = styles[kind]
    if not isinstance(style, tuple):
        return None
    offset, late_rounding = style
    return FusedRMSNorm(weight, eps, offset=offset, late_rounding=late_rounding, threads=threads)


@torch.inference_mode()
def _norm_style(module: torch.nn.Module, weight: torch.nn.Parameter, eps: float) -> tuple[float, bool] | None:
    """(what is added to the weight, whether rounding waits for it), or None if it is no RMS norm of either kind."""
    generator = torch.Generator().manual_seed(0)
    x = (3 * torch.randn(_PROBE_ROWS, weight.numel(), generator=generator)).to(weight.dtype)
    before = weight.detach().clone()
    try:
        weight.copy_(torch.randn(weight.shape, generator=generator))
        wanted = module(x)
        tries = {
            (offset, late): FusedRMSNorm(weight, eps, offset=offset, late_rounding=late)(x)
            for offset in (0.0, 1.0)
            for late in (False, True)
        }
    finally:
        weight.copy_(before)
    best = min(tries, key=lambda style: _distance(tries[style], wanted))
    return best if _distance(tries[best], wanted) <= _CLOSE[weight.dtype] else None


def _fused_mlp(
    module: torch.nn.Module, styles: dict[tuple[object, ...], tuple[float, bool] | str | None], threads: int
) -> FusedGatedMLP | None:
    features = getattr(module.gate_proj, "in_features", None)
    dtype = next((p.dtype for p in module.parameters()), getattr(module.gate_proj, "weight_dtype", None))
    if not isinstance(features, int) or dtype not in DTYPES:
        return None
    if any(hooks for part in module.modules() for hooks in (part._forward_hooks, part._forward_pre_hooks)):
        return None
    kind = (type(module), type(module.act_fn), repr(module.act_fn), dtype, type(module.gate_proj))
    if kind not in styles:
        styles[kind] = _mlp_activation(module, features, dtype)
    style = styles[kind]
    return FusedGatedMLP(module, style, threads) if isinstance(style, str) else None


@torch.inference_mode()
def _mlp_activation(module: torch.nn.Module, features: int, dtype: torch.dtype) -> str | None:
    """The activation with which the fused MLP computes what `module` computes; None if there is none."""
    x = torch.randn(_PROBE_ROWS, features, generator=torch.Generator().manual_seed(0)).to(dtype)
    spread = torch.linspace(-6, 6, 97)
    act: Any = module.act_fn
    for activation in ACTIVATIONS:
        if _distance(gated_activation(spread, None, activation), act(spread)) > _CLOSE[torch.float32]:
            continue
        if _distance(FusedGatedMLP(module, activation)(x), module(x)) <= _CLOSE[dtype]:
            return activation
    return None


def _distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest difference as a share of the largest element of `b`; infinite where shapes or dtypes differ."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return float("inf")
    scale = float(b.float().abs().max())
    return float((a.float() - b.float()).abs().max()) / scale if scale > 0 else float("inf")
