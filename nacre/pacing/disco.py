"""A classifier decides after each guess whether to draft another.

Source: DISCO (Mamou et al. 2024): logistic regression on the draft distribution's ten largest probabilities, its
entropy and the position in the draft says whether the target will accept; a draft ends with the first guess that is
classed as a reject, which is sent too.
"""

from __future__ import annotations

from nacre.pacing.acceptance_head import load_head
from nacre.pacing.chain import ChainPolicy
from nacre.pacing.dials import real, whole
from nacre.pacing.policy import MOST_STEPS, PolicyTraits
from nacre.pacing.round_tree import RoundNode, features_of


class DiscoPolicy(ChainPolicy):
    """A chain that ends after a guess whose acceptance is classed below `threshold`, or after `most`.

    The threshold depends on the pair and is to be tuned; the default lies where the bundled pair's classifier is in
    doubt. `head` is the draft model whose classifier is used: a bundled model or a directory.
    """

    traits = PolicyTraits("disco", "chain", features=True)

    def __init__(self, *, threshold: float = 0.65, most: int = 20, head: str = "demo-draft") -> None:
        super().__init__(whole("most", most, 1, MOST_STEPS))
        self._threshold = real("threshold", threshold, 0.0, 1.0)
        self._head = load_head("disco", head)

    def _goes_on(self, line: list[RoundNode]) -> bool:
        last = line[-1]
        return self._head.acceptance(features_of(last, "disco"), last.survival, last.depth) >= self._threshold
