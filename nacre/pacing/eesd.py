"""Thompson sampling decides, step by step, whether to go on.

Source: EESD (Liu et al. 2024), the Beta variant: acceptance has a Beta(alpha, beta) belief; before each further guess
draw theta from it and go on with probability theta; afterwards add the accepted to alpha, the rejected to beta. Both
counts fade by `keep` per round, so that the belief follows the text; that is ours.
"""

from __future__ import annotations

from nacre.pacing.chain import ChainPolicy
from nacre.pacing.dials import real, whole
from nacre.pacing.draws import Draws
from nacre.pacing.policy import MOST_STEPS, Outcome, PolicyTraits
from nacre.pacing.round_tree import RoundNode


class EesdPolicy(ChainPolicy):
    """A chain of at most `most` guesses; `alpha` and `beta` are the belief before anything was seen and do not fade."""

    traits = PolicyTraits("eesd", "chain")

    def __init__(
        self, *, alpha: float = 4.0, beta: float = 1.0, keep: float = 0.98, most: int = 20, seed: int = 0
    ) -> None:
        super().__init__(whole("most", most, 1, MOST_STEPS))
        self._prior = real("alpha", alpha, 1e-3, 1e6), real("beta", beta, 1e-3, 1e6)
        self._keep = real("keep", keep, 0.0, 1.0)
        self._draws = Draws(whole("seed", seed, 0, (1 << 64) - 1))
        self._right = self._wrong = 0.0

    def learned(self, outcome: Outcome) -> None:
        tried = [right for node, right in outcome.judged() if node.rank == 0]
        self._right = self._right * self._keep + sum(tried)
        self._wrong = self._wrong * self._keep + len(tried) - sum(tried)

    def _goes_on(self, line: list[RoundNode]) -> bool:
        theta = self._draws.beta(self._prior[0] + self._right, self._prior[1] + self._wrong)
        return self._draws.unit() < theta
