"""Random draws without a generator: draw n of a stream is a hash of (seed, n), so a seed replays a session.

The mixer is SplitMix64's finaliser (Steele, Lea and Flood 2014). Not for sampling tokens.
"""

from __future__ import annotations

import math

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


class Draws:
    """A stream of draws."""

    __slots__ = ("_count", "_seed")

    def __init__(self, seed: int) -> None:
        self._seed = seed & _MASK
        self._count = 0

    def unit(self) -> float:
        """A number in (0, 1)."""
        self._count += 1
        state = self._seed
        for word in (self._count, self._count >> 32):
            state = (state + word + _GOLDEN) & _MASK
            state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
            state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
            state ^= state >> 31
        return ((state >> 11) + 0.5) * 2.0**-53

    def normal(self) -> float:
        """A standard normal number (Box and Muller 1958)."""
        return math.sqrt(-2.0 * math.log(self.unit())) * math.cos(2.0 * math.pi * self.unit())

    def gamma(self, shape: float) -> float:
        """A gamma variate of scale 1 (Marsaglia and Tsang 2000); `shape` greater than 0."""
        if shape < 1.0:
            return self.gamma(shape + 1.0) * self.unit() ** (1.0 / shape)
        d = shape - 1.0 / 3.0
        c = 1.0 / math.sqrt(9.0 * d)
        while True:
            x = self.normal()
            v = (1.0 + c * x) ** 3
            if v > 0.0 and math.log(self.unit()) < 0.5 * x * x + d - d * v + d * math.log(v):
                return d * v

    def beta(self, alpha: float, beta: float) -> float:
        """A beta variate in [0, 1]; both parameters greater than 0."""
        one, other = self.gamma(alpha), self.gamma(beta)
        return one / (one + other) if one + other > 0.0 else 0.5
