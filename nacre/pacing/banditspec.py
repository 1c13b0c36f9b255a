"""A bandit over lengths.

Source: BanditSpec (Hou et al. 2025), the UCB variant: each length is an arm, its reward the tokens per second of the
round, scaled to [0, 1] by the largest seen. Play the arm with the largest mean_i + sqrt(weight · ln t / n_i). The
released code divides the bonus by the rounds of all arms, which makes it the same for every arm and the choice greedy;
here n_i counts the arm's own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from nacre.errors import InvalidArgument
from nacre.pacing.chain import ChainPolicy
from nacre.pacing.dials import real, whole
from nacre.pacing.policy import MOST_STEPS, Costs, Outcome, PolicyTraits
from nacre.pacing.round_tree import RoundNode


class BanditSpecPolicy(ChainPolicy):
    """`arms` are the lengths; each is played `forced` times before the bonus of `weight` decides."""

    traits = PolicyTraits("banditspec", "chain")

    def __init__(self, *, arms: Sequence[int] = (1, 2, 3, 4), forced: int = 2, weight: float = 6.0) -> None:
        if not arms or len(set(arms)) != len(arms):
            raise InvalidArgument(f"arms is {tuple(arms)}; give one or more different lengths", param="arms")
        self.arms = tuple(whole("arms", arm, 0, MOST_STEPS) for arm in arms)
        super().__init__(max(self.arms))
        self._forced = whole("forced", forced, 1, 1000)
        self._weight = real("weight", weight, 0.0, 1e6)
        self.plays = [0] * len(self.arms)
        self._rewards = [0.0] * len(self.arms)
        self._largest = 0.0
        self._arm = 0

    def begin(self, costs: Costs) -> None:
        self._arm = self._best_arm()
        self._most = self.arms[self._arm]
        super().begin(costs)

    def learned(self, outcome: Outcome) -> None:
        reward = len(outcome.tokens) / outcome.seconds if outcome.seconds > 0 else 0.0
        self.plays[self._arm] += 1
        self._rewards[self._arm] += reward
        self._largest = max(self._largest, reward)

    def _best_arm(self) -> int:
        for arm, plays in enumerate(self.plays):
            if plays < self._forced:
                return arm
        rounds = sum(self.plays)
        scale = self._largest or 1.0

        def bound(arm: int) -> float:
            plays = self.plays[arm]
            return self._rewards[arm] / plays / scale + math.sqrt(self._weight * math.log(rounds) / plays)

        return max(range(len(self.arms)), key=bound)

    def _goes_on(self, line: list[RoundNode]) -> bool:
        return True
