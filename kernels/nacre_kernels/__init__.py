"""CPU kernels whose result for one row never depends on what else is in the pass.

Losslessness is tested with `==`, so every kernel here fixes its order of floating-point operations per output element:

- `PackedLinear`: one fp32 accumulator per output, fused multiply-add, k = 0, 1, …, K-1, one final rounding. The number
  of rows, the tile shape, the thread count and the instruction set cannot change a bit.
- `paged_tree_attention`: a row's result is a function of the ordered list of keys it sees, and of nothing else: not
  of its neighbours, of the slots' numbers, or of whether a key is committed prefix or a tree ancestor.
- `rms_norm`, `gated_activation`: the same instructions for every row and element, wherever in the tensor it lies.
- `race.race_top`, `growth.RowTable`: what drafters guess; nacre has the same in numpy and Python, to the bit.

The C library is built by setup.py with nothing but a C compiler (`make setup`) and loaded with ctypes. `reference`
holds the torch twin of each op; it serves where the library is missing and on other devices. Inference only.

Errors: wrong shapes, dtypes, strides or slot numbers raise `ValueError`/`TypeError` naming the value and the bound,
before any memory is touched. A missing library raises `KernelsUnavailable` (a `RuntimeError`) from `require()`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from nacre_kernels.library import KernelsUnavailable, available, describe, require

if TYPE_CHECKING:
    from nacre_kernels.attention import AttentionPlan, append_kv, paged_tree_attention
    from nacre_kernels.packed import PackedLinear, PackReport, pack_model
    from nacre_kernels.rowwise import FuseReport, fuse_rowwise, gated_activation, rms_norm

#: What needs torch is imported when it is asked for: the noise of a drafter without a model does not.
_LATER = {
    "AttentionPlan": "attention",
    "FuseReport": "rowwise",
    "PackReport": "packed",
    "PackedLinear": "packed",
    "append_kv": "attention",
    "fuse_rowwise": "rowwise",
    "gated_activation": "rowwise",
    "pack_model": "packed",
    "paged_tree_attention": "attention",
    "rms_norm": "rowwise",
}


def __getattr__(name: str) -> Any:
    module = _LATER.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"nacre_kernels.{module}"), name)


__all__ = [
    "AttentionPlan",
    "FuseReport",
    "KernelsUnavailable",
    "PackReport",
    "PackedLinear",
    "append_kv",
    "available",
    "describe",
    "fuse_rowwise",
    "gated_activation",
    "pack_model",
    "paged_tree_attention",
    "require",
    "rms_norm",
]
