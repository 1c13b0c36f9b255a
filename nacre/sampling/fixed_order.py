"""fp32 logarithm and exponential as fixed sequences of multiplications and additions.

Rule: every operation is a single IEEE fp32 multiply or add, rounded on its own, in the order written here (the
single-precision schemes of the Cephes library). numpy, torch on a CPU and torch on a GPU therefore return the same
bits, which their own `log` and `exp` do not. Never fuse a multiply with an add here.

The functions are written once for both libraries; `ArrayOps` holds the few things that the two spell differently.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

# e^0 as a fixed-point integer. Sums of such integers do not depend on the order of summation, and a sum over a
# vocabulary of up to 2^22 ids stays below 2^63.
MASS_BITS = 40
MASS_ONE = 1 << MASS_BITS


class ArrayOps(Protocol):
    """What the shared arithmetic needs beyond operators."""

    def where(self, condition: Any, yes: Any, no: Any) -> Any: ...
    def to_f32(self, integers: Any) -> Any: ...
    def to_i64(self, floats: Any) -> Any: ...
    def f32_to_i32(self, floats: Any) -> Any: ...
    def bits(self, floats: Any) -> Any: ...
    def from_bits(self, integers: Any) -> Any: ...
    def rint(self, floats: Any) -> Any: ...
    def at_least(self, floats: Any, bound: float) -> Any: ...


class NumpyOps:
    """`ArrayOps` for numpy arrays."""

    def where(self, condition: Any, yes: Any, no: Any) -> Any:
        return np.where(condition, yes, no)

    def to_f32(self, integers: Any) -> Any:
        return integers.astype(np.float32)

    def to_i64(self, floats: Any) -> Any:
        return floats.astype(np.int64)

    def f32_to_i32(self, floats: Any) -> Any:
        return floats.astype(np.int32)

    def bits(self, floats: Any) -> Any:
        return floats.view(np.int32)

    def from_bits(self, integers: Any) -> Any:
        return integers.view(np.float32)

    def rint(self, floats: Any) -> Any:
        return np.rint(floats)

    def at_least(self, floats: Any, bound: float) -> Any:
        return np.maximum(floats, np.float32(bound))


NUMPY = NumpyOps()


def _f32(value: float) -> float:
    """The Python float that equals the nearest fp32 number, so that no library rounds the constant differently."""
    return float(np.float32(value))


_SQRT_HALF_BITS = 0x3F3504F3  # fp32 bits of the square root of one half
_MANTISSA = 0x007FFFFF
_LN2_HIGH = _f32(0.693359375)
_LN2_LOW = _f32(-2.12194440e-4)
_LN_FIRST = _f32(7.0376836292e-2)
_LN_REST = tuple(
    _f32(c)
    for c in (
        -1.1514610310e-1,
        1.1676998740e-1,
        -1.2420140846e-1,
        1.4249322787e-1,
        -1.6668057665e-1,
        2.0000714765e-1,
        -2.4999993993e-1,
        3.3333331174e-1,
    )
)
_LOG2_E = _f32(1.44269504088896341)
_EXP_FIRST = _f32(1.9875691500e-4)
_EXP_REST = tuple(
    _f32(c) for c in (1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
)
# The exponential of so many numbers at a time stays in the near caches.
_CHUNK = 8192
# e^-32 is 2^-46: below half of one unit of mass, so everything under it counts as nothing.
_NO_MASS = -32.0


def ln_one_plus(x: Any, exponent: Any) -> Any:
    """ln(1 + x) + exponent * ln 2 for x in [sqrt(1/2) - 1, sqrt(2) - 1]; both fp32, exponent a whole number."""
    y = x * _LN_FIRST
    for c in _LN_REST[:-1]:
        y = (y + c) * x
    y = y + _LN_REST[-1]
    z = x * x
    y = (y * x) * z
    y = y + exponent * _LN2_LOW
    y = y - z * 0.5
    return (x + y) + exponent * _LN2_HIGH


def split_float(v: Any, ops: ArrayOps) -> tuple[Any, Any]:
    """(x, exponent) with v = (1 + x) * 2^exponent and 1 + x in [sqrt(1/2), sqrt(2)); v positive and normal."""
    offset = ops.bits(v) - _SQRT_HALF_BITS
    one_plus_x = ops.from_bits((offset & _MANTISSA) + _SQRT_HALF_BITS)
    return one_plus_x - 1.0, ops.to_f32(offset >> 23)


def ln32(v: Any, ops: ArrayOps = NUMPY) -> Any:
    """Natural logarithm of positive normal fp32 numbers; relative error below 2e-7."""
    x, exponent = split_float(v, ops)
    return ln_one_plus(x, exponent)


def exp_mass(d: Any, ops: ArrayOps = NUMPY) -> Any:
    """rint(e^d * 2^40) as int64, for fp32 d <= 0 (minus infinity included)."""
    d = ops.at_least(d, _NO_MASS)
    n = ops.rint(d * _LOG2_E)
    x = (d - n * _LN2_HIGH) - n * _LN2_LOW
    y = x * _EXP_FIRST
    for c in _EXP_REST[:-1]:
        y = (y + c) * x
    y = y + _EXP_REST[-1]
    y = (y * (x * x) + x) + 1.0
    power_of_two = ops.from_bits((ops.f32_to_i32(n) + (127 + MASS_BITS)) << 23)
    return ops.to_i64(ops.rint(y * power_of_two))


def masses(row: npt.NDArray[np.float32], top: np.float32) -> npt.NDArray[np.int64]:
    """`exp_mass(row - top)` for a numpy vector of any length, in pieces that stay in the cache."""
    if len(row) <= _CHUNK:
        return exp_mass(row - top)
    result = np.empty(len(row), dtype=np.int64)
    for start in range(0, len(row), _CHUNK):
        result[start : start + _CHUNK] = exp_mass(row[start : start + _CHUNK] - top)
    return result
