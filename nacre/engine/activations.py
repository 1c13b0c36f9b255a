"""Activations whose every element is computed by the same instructions, wherever it lies in its tensor.

torch's silu, sigmoid and tanh-gelu compute the last few elements of a thread's share by other instructions
than the rest, and about half of those differ in the last fp32 bit. Here they are spelled in operations that
IEEE rounds exactly (+, -, ·, /) and in exp and tanh, which torch computes alike everywhere. They cost a few
more passes over the tensor, so they are used only where the widths leave such a rest (`numerics.is_aligned`).

Rule: inside in fp32, one rounding to the input's dtype at the end, as torch's own do.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from transformers import activations as library


def silu(x: torch.Tensor) -> torch.Tensor:
    wide = x.float()
    return (wide / (1 + torch.exp(-wide))).to(x.dtype)


def sigmoid(x: torch.Tensor) -> torch.Tensor:
    return (1 / (1 + torch.exp(-x.float()))).to(x.dtype)


def tanh_gelu(x: torch.Tensor) -> torch.Tensor:
    wide = x.float()
    inner = math.sqrt(2 / math.pi) * (wide + 0.044715 * (wide * wide * wide))
    return (0.5 * wide * (1 + torch.tanh(inner))).to(x.dtype)


def quick_gelu(x: torch.Tensor) -> torch.Tensor:
    return x * sigmoid(1.702 * x)


_STEADY_FORMS: dict[type, Callable[[torch.Tensor], torch.Tensor]] = {
    torch.nn.SiLU: silu,
    library.SiLUActivation: silu,
    torch.nn.Sigmoid: sigmoid,
    library.GELUTanh: tanh_gelu,
    library.QuickGELUActivation: quick_gelu,
}
_STEADY_ALREADY = (
    library.GELUActivation,  # by erf, or spelled in Python
    library.NewGELUActivation,
    library.FastGELUActivation,
    library.ReLUSquaredActivation,
    torch.nn.ReLU,
    torch.nn.Tanh,
)


class SteadyActivation(torch.nn.Module):
    """A module around one of the functions above."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


def steady(model: torch.nn.Module, fused: bool) -> bool:
    """Replaces the activation modules that a fused kernel has not taken already.

    False if there was nothing to vouch for (a model that spells its activation in its own code), or an
    unknown one.
    """
    vouched = fused
    for name, module in list(model.named_modules()):
        if (function := _STEADY_FORMS.get(type(module))) is not None:
            model.set_submodule(name, SteadyActivation(function))
            vouched = True
        elif isinstance(module, _STEADY_ALREADY):
            vouched = True
        elif type(module).__module__ in (library.__name__, torch.nn.modules.activation.__name__):
            return False
    return vouched
