"""The length that is best for the measured acceptance, by enumeration.

Source: Leviathan, Kalman and Matias 2023, section 3.5, with the round trip and a pass time that depends on its rows
in place of their constant cost ratio: the g that maximises (1 - a^(g+1)) / (1 - a) / (g·d + R + V(g + 1)).
"""

from __future__ import annotations

from nacre.pacing.chain import ChainPolicy
from nacre.pacing.dials import whole
from nacre.pacing.expected import AcceptanceRate, best_length
from nacre.pacing.policy import MOST_STEPS, Costs, Outcome, PolicyTraits
from nacre.pacing.round_tree import RoundNode


class LeviathanPolicy(ChainPolicy):
    """A chain of the best length from `least` to `most`; `prior` is the acceptance assumed before any was seen.

    `memory` is how many tries the measured acceptance remembers.
    """

    traits = PolicyTraits("leviathan", "chain")

    def __init__(self, *, prior: float = 0.8, memory: float = 200.0, least: int = 1, most: int = 32) -> None:
        super().__init__(whole("most", most, 1, MOST_STEPS))
        self._longest = most
        self._least = whole("least", least, 0, most)
        self._rate = AcceptanceRate(prior, memory=memory)

    def begin(self, costs: Costs) -> None:
        self._most = best_length(self._rate.value, costs, self._least, self._longest)
        super().begin(costs)

    def learned(self, outcome: Outcome) -> None:
        self._rate.learn(outcome)

    def _goes_on(self, line: list[RoundNode]) -> bool:
        return True
