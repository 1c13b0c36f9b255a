"""Stop when a reject somewhere in the chain has become likely.

Source: SpecDec++ (Huang, Guo and Wang 2024): a trained head estimates each guess's acceptance; a draft ends once the
chance of at least one reject, 1 - Π acceptance, exceeds a threshold. As in the released code, a guess is judged when
the next one has been made: the first evaluation is of a token that is verified already, and counts as 1. Our head and
its inputs: `acceptance_head.py`.
"""

from __future__ import annotations

from nacre.pacing.acceptance_head import load_head
from nacre.pacing.chain import ChainPolicy
from nacre.pacing.dials import real, whole
from nacre.pacing.policy import MOST_STEPS, PolicyTraits
from nacre.pacing.round_tree import RoundNode, features_of


class SpecDecPolicy(ChainPolicy):
    """A chain of `least` to `most` guesses that ends where 1 - Π acceptance > `threshold`, the last guess apart.

    `head` is the draft model whose head is used: a bundled model or a directory.
    """

    traits = PolicyTraits("specdec++", "chain", features=True)

    def __init__(self, *, threshold: float = 0.7, least: int = 2, most: int = 20, head: str = "demo-draft") -> None:
        super().__init__(whole("most", most, 1, MOST_STEPS))
        self._least = whole("least", least, 1, most)
        self._threshold = real("threshold", threshold, 0.0, 1.0)
        self._head = load_head("specdec++", head)

    def _goes_on(self, line: list[RoundNode]) -> bool:
        if len(line) < self._least:
            return True
        survives = 1.0
        for node in line[:-1]:
            survives *= self._head.acceptance(features_of(node, "specdec++"), node.survival, node.depth)
        return 1.0 - survives <= self._threshold
