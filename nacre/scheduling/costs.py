"""How long a pass of so many rows takes on the machine at hand.

Measured once on an idle machine (`points`), then followed while running. What changes there has two parts: whatever
slows every pass alike (longer contexts, a slower clock), and what slows only the part that grows with the rows (a
neighbour that computes on the same core while weights are read from memory as before, or our own drafter beside us).
The first says little about which rows pay, the second decides it, and one pass cannot tell them apart: passes of
different sizes do. Hence a Kalman filter of two states, both logarithms that walk at random, the slope back to 0:

    V(rows) = exp(level) * (V0(fewest) + exp(slope) * (V0(rows) - V0(fewest)))

While all passes have one size, a change of times is shared out by what usually changes, and the doubt grows that this
was right. Who chooses rows can ask what holds at either end of the doubt (`seconds`): where that is another choice, one
pass of it settles the question.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence

from nacre.errors import InvalidArgument

#: Variances of logarithms: of one measurement, and of what a state changes from pass to pass. What they predict of the
#: next pass is best about there, over 240 recorded generations, and hardly worse at half or twice as much.
_NOISE, _LEVEL_WALK, _SLOPE_WALK = 0.08**2, 6e-4, 6e-3
#: What is left of the slope after a pass: only passes of different sizes keep it up, and who has once found large ones
#: slow tries again after some hundreds.
_SLOPE_KEPT = 0.998
#: At the start: how sure the measurements of an idle machine are of a busy one.
_LEVEL_VARIANCE, _SLOPE_VARIANCE = 0.05**2, 0.3**2
#: No state becomes less certain than about this, and no measurement to be further from what was expected.
_MOST_VARIANCE, _MOST_SURPRISE = 0.4**2, 0.35


class PassCosts:
    """V(rows): seconds of a pass, linear between measured points and beyond the last two.

    `points` are (rows, seconds), at least one. More rows never take less time: what was measured so is noise.
    """

    def __init__(self, points: Sequence[tuple[int, float]]) -> None:
        if not points:
            raise InvalidArgument("pass costs need at least one measured point (rows, seconds)")
        longest = 0.0
        self._rows: list[int] = []
        self._idle: list[float] = []  # seconds
        for rows, seconds in sorted(points):
            if rows < 1 or not 0 < seconds < float("inf"):
                raise InvalidArgument(f"a pass of {rows} rows in {seconds} s cannot have been measured")
            longest = max(longest, seconds)
            self._rows.append(rows)
            self._idle.append(longest)
        self._level = self._slope = 0.0
        # Variances of both and their covariance.
        self._level_variance, self._slope_variance = _LEVEL_VARIANCE, _SLOPE_VARIANCE
        self._covariance = 0.0

    def seconds(self, rows: int, doubt: float = 0.0) -> float:
        """Expected duration of a pass of `rows` rows, if the slope is `doubt` standard deviations more than thought."""
        deviation = math.sqrt(self._slope_variance)
        level = self._level + doubt * self._covariance / deviation
        return math.exp(level) * (self._idle[0] + math.exp(self._slope + doubt * deviation) * self._growth(rows))

    @property
    def points(self) -> list[tuple[int, float]]:
        """(rows, seconds) of the measured points, as they are followed; rows ascending."""
        return [(rows, self.seconds(rows)) for rows in self._rows]

    def observe(self, rows: int, seconds: float) -> None:
        """A pass of `rows` rows, none of them prompt, took `seconds`."""
        expected = self.seconds(rows)
        # Of the expected time, what the slope speaks for.
        share = math.exp(self._level + self._slope) * self._growth(rows) / expected
        surprise = math.log(max(seconds, 1e-9) / expected)
        surprise = max(-_MOST_SURPRISE, min(_MOST_SURPRISE, surprise))
        level_variance = self._level_variance + (_LEVEL_WALK if self._level_variance < _MOST_VARIANCE else 0.0)
        slope_variance = self._slope_variance + (_SLOPE_WALK if self._slope_variance < _MOST_VARIANCE else 0.0)
        to_level = level_variance + share * self._covariance
        to_slope = self._covariance + share * slope_variance
        whole = to_level + share * to_slope + _NOISE
        self._level += to_level / whole * surprise
        self._slope = _SLOPE_KEPT * (self._slope + to_slope / whole * surprise)
        self._level_variance = level_variance - to_level * to_level / whole
        self._slope_variance = slope_variance - to_slope * to_slope / whole
        self._covariance -= to_level * to_slope / whole

    def __str__(self) -> str:
        return ", ".join(f"{1e3 * seconds:.1f} ms for {rows}" for rows, seconds in self.points)

    def _growth(self, rows: int) -> float:
        """Seconds on the idle machine beyond those of the fewest rows measured."""
        if rows <= self._rows[0] or len(self._rows) == 1:
            return 0.0
        upper = min(bisect_left(self._rows, rows), len(self._rows) - 1)
        low, high = self._rows[upper - 1], self._rows[upper]
        low_s, high_s = self._idle[upper - 1], self._idle[upper]
        return low_s + (high_s - low_s) * (rows - low) / (high - low) - self._idle[0]
