"""The two schedules of transformers' assisted generation.

Source: `transformers.generation.candidate_generator.AssistedCandidateGenerator` and `ConfidenceCriteria`. Confidence:
draft up to 20 tokens, stop after one whose draft probability lies below a threshold; the threshold is re-tuned on the
ROC curve of what was seen (Mamou et al. 2024 call the tuned rule dynamic speculation). Heuristic: two tokens more after
a round that was all right, one less after any other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from nacre.pacing.chain import ChainPolicy
from nacre.pacing.dials import real, whole
from nacre.pacing.policy import MOST_STEPS, Costs, Outcome, PolicyTraits
from nacre.pacing.round_tree import RoundNode

#: No re-tuning with fewer samples than this.
_FEWEST_SAMPLES = 6
_MISS_WEIGHT = 3.0


class HfConfidencePolicy(ChainPolicy):
    """A chain of at most `most` guesses that ends with the first below `threshold`, which is sent too.

    With `tune` the threshold follows the last `history` (probability, outcome) pairs; transformers keeps all of them.
    """

    traits = PolicyTraits("hf-confidence", "chain")

    def __init__(self, *, threshold: float = 0.4, most: int = 20, tune: bool = True, history: int = 1000) -> None:
        super().__init__(whole("most", most, 1, MOST_STEPS))
        self.threshold = real("threshold", threshold, 0.0, 1.0)
        self._tune = tune
        self._seen: deque[tuple[float, bool]] = deque(maxlen=whole("history", history, _FEWEST_SAMPLES, 100_000))

    def learned(self, outcome: Outcome) -> None:
        self._seen.extend((node.q, right) for node, right in outcome.judged() if node.rank == 0)
        matches = sum(right for _, right in self._seen)
        if self._tune and len(self._seen) >= _FEWEST_SAMPLES and 0 < matches < len(self._seen):
            self.threshold = roc_threshold(self._seen)

    def _goes_on(self, line: list[RoundNode]) -> bool:
        return line[-1].q >= self.threshold


class HfHeuristicPolicy(ChainPolicy):
    """A chain of `start` guesses at first; after each round two more if all were right, else one less (at least 1).

    transformers started with 5 while this schedule was its default.
    """

    traits = PolicyTraits("hf-heuristic", "chain")

    def __init__(self, *, start: int = 5, most: int = 64) -> None:
        super().__init__(whole("most", most, 1, MOST_STEPS))
        self._longest = most
        self.length = whole("start", start, 1, most)

    def begin(self, costs: Costs) -> None:
        self._most = self.length
        super().begin(costs)

    def learned(self, outcome: Outcome) -> None:
        if not outcome.sent:
            return
        if len(outcome.accepted()) == len(outcome.sent):
            self.length = min(self._longest, self.length + 2)
        else:
            self.length = max(1, self.length - 1)

    def _goes_on(self, line: list[RoundNode]) -> bool:
        return True


def roc_threshold(seen: Sequence[tuple[float, bool]] | deque[tuple[float, bool]]) -> float:
    """The threshold with the least false-positive rate + 3 · false-negative rate, the largest such.

    `seen` are (probability, came true) with both outcomes among them; at least the threshold counts as a yes.
    """
    positives = sum(right for _, right in seen)
    negatives = len(seen) - positives
    # Costs are counted in units of 1 / (positives · negatives): whole numbers tie exactly.
    best, least = float("inf"), _MISS_WEIGHT * positives * negatives
    caught = false_alarms = 0
    falling = sorted(seen, key=lambda pair: -pair[0])
    for place, (probability, right) in enumerate(falling):
        caught += right
        false_alarms += not right
        last_of_its_value = place + 1 == len(falling) or falling[place + 1][0] != probability
        cost = false_alarms * positives + _MISS_WEIGHT * (positives - caught) * negatives
        if last_of_its_value and cost < least:
            best, least = probability, cost
    return best
