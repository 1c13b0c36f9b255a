"""How many tokens a chain is worth, and the length that is worth most.

If every guess is right with probability a given those before it, a round of g guesses commits
1 + a + … + a^g = (1 - a^(g+1)) / (1 - a) tokens (Leviathan et al. 2023, eq. 1).
"""

from __future__ import annotations

from collections.abc import Callable

from nacre.pacing.dials import real
from nacre.pacing.policy import Costs, Outcome

Cost = Callable[[int], float]


def expected_tokens(acceptance: float, length: int) -> float:
    """Tokens that a round of `length` guesses commits on average; `acceptance` from 0 to 1."""
    if acceptance >= 1.0:
        return length + 1.0
    return float((1.0 - acceptance ** (length + 1)) / (1.0 - acceptance))


def best_length(acceptance: float, costs: Costs, least: int, most: int) -> int:
    """The length from `least` to `most` with the most expected tokens per second of the round, by enumeration."""
    lengths = range(min(least, most), most + 1)
    return max(lengths, key=lambda length: expected_tokens(acceptance, length) / costs.round_s(length, length))


class AcceptanceRate:
    """How often a guess came true given that its parent did: counts that fade, and a prior.

    `memory` is how many tries are remembered: a try that k others have followed counts (1 - 1/memory)^k. The prior
    weighs `strength` tries and does not fade.
    """

    __slots__ = ("_keep", "_right", "_seen", "prior", "strength")

    def __init__(self, prior: float, *, memory: float = 200.0, strength: float = 5.0) -> None:
        self.prior = real("prior", prior, 0.0, 1.0)
        self.strength = real("strength", strength, 1e-6, 1e9)
        self._keep = 1.0 - 1.0 / real("memory", memory, 1.0, 1e12)
        self._right = 0.0
        self._seen = 0.0

    @property
    def value(self) -> float:
        return (self._right + self.strength * self.prior) / (self._seen + self.strength)

    def observe(self, came_true: bool) -> None:
        self._seen = self._seen * self._keep + 1.0
        self._right = self._right * self._keep + came_true

    def learn(self, outcome: Outcome) -> None:
        """Counts the first guesses that were tried."""
        for node, came_true in outcome.judged():
            if node.rank == 0:
                self.observe(came_true)
