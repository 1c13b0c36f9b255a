"""How long a pass of so many rows takes on the machine at hand.

Measured once (`points`), then followed while running in two ways: one factor for everything at once (longer contexts, a
busy machine), which row counts that are seldom seen need not wait for; and slowly the points themselves, because a
machine whose other cores draft is not the idle machine that was measured.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from nacre.errors import InvalidArgument

#: Weight of a new measurement in the factor and in the points next to it, and how far one measurement may pull.
_FOLLOW, _FOLLOW_POINT, _MOST = 0.1, 0.01, 2.0


class PassCosts:
    """V(rows): seconds of a pass, linear between measured points and beyond the last two.

    `points` are (rows, seconds), at least one. More rows never take less time: what was measured so is noise.
    """

    def __init__(self, points: Sequence[tuple[int, float]]) -> None:
        if not points:
            raise InvalidArgument("pass costs need at least one measured point (rows, seconds)")
        longest = 0.0
        self._rows: list[int] = []
        self._seconds: list[float] = []
        for rows, seconds in sorted(points):
            if rows < 1 or not 0 < seconds < float("inf"):
                raise InvalidArgument(f"a pass of {rows} rows in {seconds} s cannot have been measured")
            longest = max(longest, seconds)
            self._rows.append(rows)
            self._seconds.append(longest)
        self._factor = 1.0

    def seconds(self, rows: int) -> float:
        """Expected duration of a pass of `rows` rows."""
        return self._shape(rows) * self._factor

    @property
    def points(self) -> list[tuple[int, float]]:
        """(rows, seconds) of the measured points, as they are followed; rows ascending."""
        return [(rows, self.seconds(rows)) for rows in self._rows]

    def observe(self, rows: int, seconds: float) -> None:
        """A pass of `rows` rows, none of them prompt, took `seconds`."""
        ratio = seconds / self._shape(rows)
        surprise = min(ratio / self._factor, _MOST)
        for index, share in self._points_of(rows):
            self._seconds[index] *= 1 + _FOLLOW_POINT * share * (surprise - 1)
            # More rows never take less time: neighbours that know less give way.
            for lower in range(index - 1, -1, -1):
                self._seconds[lower] = min(self._seconds[lower], self._seconds[lower + 1])
            for upper in range(index + 1, len(self._seconds)):
                self._seconds[upper] = max(self._seconds[upper], self._seconds[upper - 1])
        self._factor *= 1 + _FOLLOW * (surprise - 1)

    def __str__(self) -> str:
        return ", ".join(
            f"{1e3 * seconds:.1f} ms for {rows}" for rows, seconds in zip(self._rows, self._seconds, strict=True)
        )

    def _points_of(self, rows: int) -> list[tuple[int, float]]:
        """The measured points that speak for a row count, and how much each does."""
        if rows <= self._rows[0] or len(self._rows) == 1:
            return [(0, 1.0)]
        upper = min(bisect_left(self._rows, rows), len(self._rows) - 1)
        low, high = self._rows[upper - 1], self._rows[upper]
        share = min(1.0, (rows - low) / (high - low))
        return [(index, weight) for index, weight in ((upper - 1, 1 - share), (upper, share)) if weight > 0]

    def _shape(self, rows: int) -> float:
        if rows <= self._rows[0] or len(self._rows) == 1:
            return self._seconds[0]
        upper = min(bisect_left(self._rows, rows), len(self._rows) - 1)
        low, high = self._rows[upper - 1], self._rows[upper]
        low_s, high_s = self._seconds[upper - 1], self._seconds[upper]
        return low_s + (high_s - low_s) * (rows - low) / (high - low)
