"""How fast this machine reads packed weights: what bounds a pass of few rows."""

from __future__ import annotations

import time
from statistics import median

import torch
from nacre_kernels import PackedLinear

_OUTPUTS, _INPUTS = 32_768, 256
_COPIES = 12  # 200 MB: no cache keeps them from one round to the next
_SECONDS = 1.0


@torch.inference_mode()
def reading_bytes_per_s() -> float:
    """Bytes of bf16 weights that one thread multiplies with one row, per second: the median of a second."""
    row = torch.ones(1, _INPUTS, dtype=torch.bfloat16)
    plain = torch.nn.Linear(_INPUTS, _OUTPUTS, bias=False, dtype=torch.bfloat16)
    layers = [PackedLinear.from_linear(plain) for _ in range(_COPIES)]
    rounds_s: list[float] = []
    end_s = time.perf_counter() + _SECONDS
    while (started := time.perf_counter()) < end_s:
        for layer in layers:
            layer(row)
        rounds_s.append(time.perf_counter() - started)
    return sum(layer.nbytes for layer in layers) / median(rounds_s)
