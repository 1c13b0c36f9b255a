"""How long a pass of so many rows takes on the machine at hand.

The shape is measured once (`points`); while running, one factor follows how much faster or slower passes are than that:
longer contexts, a busy machine. A single factor cannot be misled by row counts that are seldom seen.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from nacre.errors import InvalidArgument

#: Weight of a new measurement in the factor, and how far one measurement may pull it.
_FOLLOW, _MOST = 0.1, 2.0


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

    def observe(self, rows: int, seconds: float) -> None:
        """A pass of `rows` rows, none of them prompt, took `seconds`."""
        ratio = seconds / self._shape(rows)
        self._factor += _FOLLOW * (min(ratio, _MOST * self._factor) - self._factor)

    def __str__(self) -> str:
        return ", ".join(
            f"{1e3 * seconds:.1f} ms for {rows}" for rows, seconds in zip(self._rows, self._seconds, strict=True)
        )

    def _shape(self, rows: int) -> float:
        if rows <= self._rows[0] or len(self._rows) == 1:
            return self._seconds[0]
        upper = min(bisect_left(self._rows, rows), len(self._rows) - 1)
        low, high = self._rows[upper - 1], self._rows[upper]
        low_s, high_s = self._seconds[upper - 1], self._seconds[upper]
        return low_s + (high_s - low_s) * (rows - low) / (high - low)
