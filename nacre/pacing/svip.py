"""Stop where the draft model is uncertain.

Source: SVIP (Zhang et al. 2024): sqrt(c · H(q)) bounds the rejection rate, so a draft ends once it exceeds a threshold.
H is the entropy of the distribution that the last guess was taken from; that guess is still sent.
"""

from __future__ import annotations

from nacre.pacing.chain import ChainPolicy
from nacre.pacing.dials import real, whole
from nacre.pacing.policy import MOST_STEPS, PolicyTraits
from nacre.pacing.round_tree import RoundNode, features_of


class SvipPolicy(ChainPolicy):
    """Ends where sqrt(`scale` · entropy in nats) > `threshold`, after `most` guesses at the latest.

    The defaults are the released code's: it stops above 0.6 nats.
    """

    traits = PolicyTraits("svip", "chain", features=True)

    def __init__(self, *, threshold: float = 0.3, scale: float = 0.15, most: int = 40) -> None:
        super().__init__(whole("most", most, 1, MOST_STEPS))
        self._most_entropy = real("threshold", threshold, 0.0, 100.0) ** 2 / real("scale", scale, 1e-6, 1e6)

    def _goes_on(self, line: list[RoundNode]) -> bool:
        return features_of(line[-1], "svip").entropy <= self._most_entropy
