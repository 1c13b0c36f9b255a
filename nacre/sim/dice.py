"""Counter-based randomness for simulations: draw n of a stream is a hash of (key, n).

Rule: nothing is shared. Every actor throws its own dice, so adding one actor does not change another's luck, and a
seed replays a world exactly. The mixer is SplitMix64's finaliser (Steele, Lea and Flood 2014). Not for sampling
tokens: that noise field is fixed elsewhere and versioned.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


def mix(*words: int) -> int:
    """A well-mixed 64-bit word of the given integers, in order."""
    state = 0
    for word in words:
        state = (state + word + _GOLDEN) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state


def unit(word: int) -> float:
    """A 64-bit word as a number in [0, 1)."""
    return (word >> 11) * 2.0**-53


class Dice:
    """A stream of draws; `child` makes independent ones."""

    __slots__ = ("_count", "key")

    def __init__(self, key: int) -> None:
        self.key = key
        self._count = 0

    def child(self, *words: int) -> Dice:
        return Dice(mix(self.key, 0, *words))

    def word(self) -> int:
        self._count += 1
        return mix(self.key, self._count)

    def unit(self) -> float:
        return unit(self.word())

    def chance(self, probability: float) -> bool:
        return self.unit() < probability

    def below(self, bound: int) -> int:
        """An integer in [0, bound)."""
        return self.word() % bound

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self.unit()

    def pick(self, options: Sequence[T]) -> T:
        return options[self.below(len(options))]
