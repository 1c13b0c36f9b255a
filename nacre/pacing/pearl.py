"""As many guesses as the drafter makes while the target makes one pass.

Source: PEARL (Liu et al. 2025): the window is the ratio of the two speeds, so that both sides finish together. PEARL
itself runs them side by side; here its ratio sets the length of a stop-and-wait round, where nothing overlaps.
"""

from __future__ import annotations

from nacre.pacing.chain import ChainPolicy
from nacre.pacing.dials import whole
from nacre.pacing.policy import MOST_STEPS, Costs, PolicyTraits
from nacre.pacing.round_tree import RoundNode


class PearlPolicy(ChainPolicy):
    """A chain of round(V(1) / d) guesses, from 1 to `most`."""

    traits = PolicyTraits("pearl", "chain")

    def __init__(self, *, most: int = 32) -> None:
        super().__init__(whole("most", most, 1, MOST_STEPS))
        self._longest = most

    def begin(self, costs: Costs) -> None:
        steps = costs.verify_s(1) / costs.draft_s if costs.draft_s > 0 else self._longest
        self._most = max(1, min(self._longest, round(steps)))
        super().begin(costs)

    def _goes_on(self, line: list[RoundNode]) -> bool:
        return True
