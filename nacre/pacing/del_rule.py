"""Which drafter, and how long: the pair with the most tokens per second.

Source: DEL (Entezari Zarch et al. 2025), which picks the exit layer l and the length k that maximise
TPL = (1 - a_l^(k+1)) / (1 - a_l) / (k·l + L), with a_l from a fading record that also counts shadow tokens: those of
layers that were not used but could be compared. Here a drafter stands in the layer's place, and the denominator is the
time of a round, k·d + R + V(k + 1).

DEL also leaves a draft early when the confidence falls; the bound used here on the draft's own probability is ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from nacre.errors import InvalidArgument
from nacre.pacing.chain import ChainPolicy
from nacre.pacing.dials import real, whole
from nacre.pacing.expected import AcceptanceRate, best_length, expected_tokens
from nacre.pacing.policy import MOST_STEPS, Costs, Outcome, PolicyTraits
from nacre.pacing.round_tree import RoundNode

#: The drafter's name where none are named.
ONLY = ""


class DelPolicy(ChainPolicy):
    """Chooses a drafter of `drafters` (name -> seconds per draft step) and a length from `least` to `most`.

    `drafter` is the choice of the round that has begun; without `drafters` there is one, named "", which takes
    `Costs.draft_s`. `prior`, `memory`: as in `AcceptanceRate`. A chain ends early after a guess whose draft
    probability is below `least_q`.
    """

    traits = PolicyTraits("del", "chain")

    def __init__(
        self,
        *,
        drafters: Mapping[str, float] | None = None,
        prior: float = 0.8,
        memory: float = 50.0,
        least: int = 1,
        most: int = 32,
        least_q: float = 0.1,
    ) -> None:
        super().__init__(whole("most", most, 1, MOST_STEPS))
        self._longest = most
        self._least = whole("least", least, 0, most)
        self._least_q = real("least_q", least_q, 0.0, 1.0)
        self._draft_s = {name: real("drafters", seconds, 0.0, 3600.0) for name, seconds in (drafters or {}).items()}
        self.rates = {name: AcceptanceRate(prior, memory=memory) for name in self._draft_s or (ONLY,)}
        self.drafter = next(iter(self.rates))

    def begin(self, costs: Costs) -> None:
        self.drafter, self._most = self.best_pair(costs)
        super().begin(costs)

    def best_pair(self, costs: Costs) -> tuple[str, int]:
        """The drafter and the length with the most expected tokens per second; the first named wins a tie."""
        best, most_per_s = (self.drafter, self._least), -1.0
        for name, rate in self.rates.items():
            own = replace(costs, draft_s=self._draft_s.get(name, costs.draft_s))
            length = best_length(rate.value, own, self._least, self._longest)
            per_s = expected_tokens(rate.value, length) / own.round_s(length, length)
            if per_s > most_per_s:
                best, most_per_s = (name, length), per_s
        return best

    def learned(self, outcome: Outcome) -> None:
        self.rates[self.drafter].learn(outcome)

    def shadow(self, drafter: str, came_true: bool) -> None:
        """A drafter that was not chosen would have guessed right or wrong where the others were right so far."""
        if drafter not in self.rates:
            raise InvalidArgument(f"drafter {drafter!r} is unknown; there are: {', '.join(self.rates)}")
        self.rates[drafter].observe(came_true)

    def _goes_on(self, line: list[RoundNode]) -> bool:
        return line[-1].q >= self._least_q
