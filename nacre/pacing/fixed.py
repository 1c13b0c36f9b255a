"""Always the same number of guesses. Source: Leviathan et al. 2023; Chen et al. 2023 (speculative sampling)."""

from __future__ import annotations

from nacre.pacing.chain import ChainPolicy
from nacre.pacing.dials import whole
from nacre.pacing.policy import MOST_STEPS, PolicyTraits
from nacre.pacing.round_tree import RoundNode


class FixedPolicy(ChainPolicy):
    """A chain of `gamma` guesses; 0 guesses nothing."""

    traits = PolicyTraits("fixed", "chain")

    def __init__(self, *, gamma: int = 4) -> None:
        super().__init__(whole("gamma", gamma, 0, MOST_STEPS))

    def _goes_on(self, line: list[RoundNode]) -> bool:
        return True
