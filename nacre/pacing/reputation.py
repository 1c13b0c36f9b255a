"""What the guesses of one source have been worth: how far its claims can be believed, and whether it helps at all.

Both ends keep one per source. Calibration corrects what is claimed and learns slowly and finely; usefulness notices
fast that a source never helps, whatever it claims. A source that is hopeless is neither verified nor sent, but its
guesses go on being compared with what comes true, which costs next to nothing: that is its way back.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from nacre.pacing.calibration import Calibration

#: Weight of one position in the usefulness, and below what a source is hopeless.
_FOLLOW = 1 / 8
_LEAST_USEFULNESS = 0.03


@dataclass(slots=True)
class Reputation:
    """`usefulness`: share of the last positions it guessed at where one of its guesses was right; 1 before any."""

    calibration: Calibration = field(default_factory=Calibration)
    usefulness: float = 1.0

    @property
    def hopeless(self) -> bool:
        return self.usefulness < _LEAST_USEFULNESS

    def survival(self, rank: int, claimed: float) -> float:
        """What a guess is worth that is number `rank` among its siblings and is claimed to survive with `claimed`."""
        return self.calibration.survival(rank, claimed)

    def learn(self, outcomes: Iterable[tuple[int, float, bool]]) -> None:
        """(rank, claimed, came true) of all its guesses below one token of text."""
        right = False
        for rank, claimed, came_true in outcomes:
            self.calibration.observe(rank, claimed, came_true)
            right = right or came_true
        self.usefulness += _FOLLOW * (right - self.usefulness)

    def copy(self) -> Reputation:
        """One to start with where the same source was known before."""
        return Reputation(self.calibration.copy(), self.usefulness)
