"""Linear layers with packed weights whose rows never depend on one another.

Rule: y[m, n] = round(fma chain over k = 0..K-1 of x[m, k] · w[n, k], in fp32, + bias[n]); bf16 is widened exactly. One
accumulator per output in one order: the bits are the same for any number of rows, tile, threads and instruction set.

Weights lie in panels of 32 outputs, so that one pass over memory serves all rows; bf16 stays bf16 in memory. fp32
weights that bf16 can hold exactly (a bf16 checkpoint loaded in fp32) are stored as bf16 too: half the bytes, the same
bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from nacre_kernels import reference
from nacre_kernels.library import available, check_threads, require

DTYPES = {torch.float32: 0, torch.bfloat16: 1}
MAX_FEATURES = 1 << 24
_CACHE_LINE_BYTES = 64
_LARGE_PAGE_BYTES = 1 << 21


def large_page_memory(size: int) -> torch.Tensor:
    """An uninitialised uint8 tensor on a cache line; on large pages from two of them on, where the system has any."""
    alignment = _LARGE_PAGE_BYTES if size >= 2 * _LARGE_PAGE_BYTES else _CACHE_LINE_BYTES
    raw = torch.empty(size + alignment, dtype=torch.uint8)  # what is never touched costs no memory
    memory = raw[-raw.data_ptr() % alignment :][:size]
    if alignment == _LARGE_PAGE_BYTES:
        require().nk_prefer_large_pages(memory.data_ptr(), size - size % _LARGE_PAGE_BYTES)
    return memory


def _no_library(*_: object) -> int:
    raise RuntimeError("this PackedLinear holds no packed weight")


class PackedLinear(torch.nn.Module):
    """A drop-in for `nn.Linear` at inference; build it with `from_linear`. It has no `weight` and no parameters.

    `threads` may be changed at any time. Where the compiled library is missing, or the layer lies on another device, it
    keeps the plain weight and computes `reference.linear` (`is_packed` is then False).
    """

    def __init__(self, in_features: int, out_features: int, threads: int = 1) -> None:
        super().__init__()
        for name, size in (("in_features", in_features), ("out_features", out_features)):
            if not 1 <= size <= MAX_FEATURES:
                raise ValueError(f"{name} is {size}; it must lie in 1..{MAX_FEATURES}")
        self.in_features = in_features
        self.out_features = out_features
        self.threads = check_threads(threads)
        self.weight_dtype: torch.dtype | None = None  # as stored, None until from_linear has filled the layer
        self._packed: torch.Tensor | None = None
        self._plain: torch.Tensor | None = None
        self._bias: torch.Tensor | None = None  # fp32 when packed
        self._linear: Callable[..., int] = _no_library
        self._kind = -1  # DTYPES[weight_dtype] when packed

    @classmethod
    def from_linear(cls, linear: torch.nn.Linear, *, threads: int = 1) -> PackedLinear:
        """Pack a copy of `linear`'s weight. Raises TypeError for a dtype other than fp32 and bf16."""
        weight, bias = linear.weight.detach(), linear.bias
        if weight.dtype not in DTYPES:
            raise TypeError(f"weight is {weight.dtype}; only torch.float32 and torch.bfloat16 can be packed")
        if weight.dim() != 2:
            raise ValueError(f"weight has shape {tuple(weight.shape)}; it must be [out_features, in_features]")
        layer = cls(weight.shape[1], weight.shape[0], threads)
        if not available() or weight.device.type != "cpu":
            layer.weight_dtype, layer._plain = weight.dtype, weight
            layer._bias = None if bias is None else bias.detach()
            return layer
        if weight.dtype == torch.float32:
            narrow = weight.bfloat16()
            if torch.equal(narrow.float().view(torch.int32), weight.contiguous().view(torch.int32)):
                weight = narrow
        layer._fill(weight.contiguous(), None if bias is None else bias.detach().float().contiguous())
        return layer

    def _fill(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        lib = require()
        kind, shape = DTYPES[weight.dtype], (self.in_features, self.out_features)
        self._packed = large_page_memory(lib.nk_packed_bytes(kind, *shape))
        lib.nk_pack(weight.data_ptr(), kind, *shape, self._packed.data_ptr())
        self.weight_dtype, self._kind, self._bias, self._linear = weight.dtype, kind, bias, lib.nk_linear

    @property
    def is_packed(self) -> bool:
        return self._packed is not None

    @property
    def nbytes(self) -> int:
        """Memory that the layer holds."""
        held = (self._packed, self._plain, self._bias)
        return sum(tensor.numel() * tensor.element_size() for tensor in held if tensor is not None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [..., in_features] -> [..., out_features] in x's dtype (fp32 or bf16, whatever the weight's is)."""
        shape, kind = x.shape, DTYPES.get(x.dtype)
        if not shape or shape[-1] != self.in_features:
            raise ValueError(f"input has shape {tuple(shape)}; the last dimension must be {self.in_features}")
        if kind is None:
            raise TypeError(f"input is {x.dtype}; it must be torch.float32 or torch.bfloat16")
        if x.requires_grad and torch.is_grad_enabled():
            raise RuntimeError("packed layers do not train; run the model under torch.inference_mode()")
        if self._packed is None:
            if self._plain is None:
                raise RuntimeError("this PackedLinear is empty; build it with PackedLinear.from_linear")
            return reference.linear(x, self._plain, self._bias)
        if not x.is_cpu:
            raise ValueError(f"input is on {x.device}, the packed weights on the CPU; pack after moving the model")
        if not x.is_contiguous():
            x = x.contiguous()
        out = torch.empty((*shape[:-1], self.out_features), dtype=x.dtype)
        failed = self._linear(
            x.data_ptr(),
            kind,
            self._packed.data_ptr(),
            self._kind,
            0 if self._bias is None else self._bias.data_ptr(),
            out.data_ptr(),
            x.numel() // self.in_features,
            self.in_features,
            self.out_features,
            self.threads,
        )
        if failed:
            raise MemoryError(f"no memory for the scratch of an input of shape {tuple(shape)}")
        return out

    def extra_repr(self) -> str:
        shape = f"in_features={self.in_features}, out_features={self.out_features}, bias={self._bias is not None}"
        return f"{shape}, {self.weight_dtype}, {'packed' if self.is_packed else 'reference'}"


@dataclass(frozen=True, slots=True)
class PackReport:
    """What `pack_model` did: how many layers it replaced, their bytes, and what stays on torch and why."""

    packed: int
    packed_bytes: int
    left: tuple[tuple[str, str], ...]  # (module name, reason)


def pack_model(model: torch.nn.Module, threads: int = 1) -> PackReport:
    """Replace every `nn.Linear` inside `model` (the head of tied embeddings too; the embedding keeps its table).

    What cannot be packed is left as it is and reported: other layers that own matrices (GPT-2's Conv1D, fused experts,
    quantised linears), half precision, layers with hooks, layers off the CPU; everything when the library is missing.
    A rows-independent result is only promised for a model with nothing left.
    """
    check_threads(threads)
    done: dict[int, PackedLinear] = {}
    left: list[tuple[str, str]] = []
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if isinstance(module, PackedLinear) or not name:
            continue
        reason = _why_not(module)
        if reason is not None:
            left.append((name, reason))
        elif isinstance(module, torch.nn.Linear):
            if id(module) not in done:
                done[id(module)] = PackedLinear.from_linear(module, threads=threads)
            model.set_submodule(name, done[id(module)])
    layers = list(done.values())
    return PackReport(len(layers), sum(layer.nbytes for layer in layers), tuple(left))


def _why_not(module: torch.nn.Module) -> str | None:
    """Why a module that owns matrices stays on torch; None for one that can be packed, or owns none."""
    if type(module) is not torch.nn.Linear:
        if isinstance(module, torch.nn.Embedding):
            return None  # a table look-up: no arithmetic
        matrices = [key for key, value in module.named_parameters(recurse=False) if value.dim() >= 2]
        if isinstance(module, torch.nn.Linear) or matrices:
            return f"{type(module).__name__} is not torch.nn.Linear"
        return None
    if not available():
        return "the compiled kernels are missing"
    if module.weight.dtype not in DTYPES:
        return f"its weight is {module.weight.dtype}"
    if module.weight.device.type != "cpu":
        return f"its weight is on {module.weight.device}"
    if module._forward_hooks or module._forward_pre_hooks:
        return "it has forward hooks"
    return None
