"""What a guessed survival has been worth so far: counts of right and wrong guesses per bucket.

A drafter's survival is an estimate made without the target. How often such a guess came true is known a moment later,
so both ends count. A bucket is a node's rank among its siblings and its raw survival, cut into steps that are finest
near 1 and near 0. For guesses coupled by the race the raw survival is a function of the score gap, so that rank and
raw survival are rank and gap; q itself is no acceptance probability there.

Rule: calibrated = (right + strength · raw) / (right + wrong + strength). With no evidence the raw survival stands, and
each bucket speaks for itself: what is unlike anything seen stays as guessed.

Only a node whose parent came true may be counted: its survival is conditional on that. Every child of such a node has
an outcome, chosen or not.

Invariants: memory is fixed (`RANKS` times `len(EDGES) + 1` buckets); a bucket never weighs more than `memory`
observations, because each new one fades those before it.
"""

from __future__ import annotations

from bisect import bisect_right

from nacre.errors import InvalidArgument

#: Ranks told apart; all later siblings share the last one.
RANKS = 8

#: Where raw survival is cut. On the scale of log odds the steps are about equal.
EDGES = (0.01, 0.02, 0.04, 0.07, 0.12, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.87, 0.93, 0.97, 0.99)

_STEPS = len(EDGES) + 1


class Calibration:
    """Right and wrong guesses of one source, by rank and raw survival. Not thread-safe; a call takes under 1 µs.

    `strength` is what the raw survival weighs, in observations. `memory` is how many observations a bucket remembers:
    an observation that k others of its bucket have followed counts (1 - 1/memory)^k.
    """

    __slots__ = ("_keep", "_right", "_seen", "memory", "strength")

    def __init__(self, *, strength: float = 5.0, memory: float = 400.0) -> None:
        if not 0 < strength < float("inf"):
            raise InvalidArgument(f"strength is {strength}; it must be greater than 0 and finite", param="strength")
        if not 1 < memory < float("inf"):
            raise InvalidArgument(f"memory is {memory}; it must be greater than 1 and finite", param="memory")
        self.strength = strength
        self.memory = memory
        self._keep = 1.0 - 1.0 / memory
        self._right = [0.0] * (RANKS * _STEPS)
        self._seen = [0.0] * (RANKS * _STEPS)

    def survival(self, rank: int, raw: float) -> float:
        """The survival, in [0, 1], of a node that is number `rank` (from 0) among its siblings and claims `raw`."""
        bucket = (rank if rank < RANKS else RANKS - 1) * _STEPS + bisect_right(EDGES, raw)
        strength = self.strength
        return (self._right[bucket] + strength * raw) / (self._seen[bucket] + strength)

    def proven(self, rank: int, raw: float) -> float:
        """The part of `survival` that rests on what was seen, and not on the claim: 0 without evidence."""
        bucket = (rank if rank < RANKS else RANKS - 1) * _STEPS + bisect_right(EDGES, raw)
        return self._right[bucket] / (self._seen[bucket] + self.strength)

    def observe(self, rank: int, raw: float, came_true: bool) -> None:
        """Counts a node whose parent came true."""
        bucket = (rank if rank < RANKS else RANKS - 1) * _STEPS + bisect_right(EDGES, raw)
        keep = self._keep
        self._seen[bucket] = self._seen[bucket] * keep + 1.0
        self._right[bucket] = self._right[bucket] * keep + came_true

    def evidence(self, rank: int, raw: float) -> float:
        """How many observations, faded, the bucket of such a node holds."""
        return self._seen[min(rank, RANKS - 1) * _STEPS + bisect_right(EDGES, raw)]

    def copy(self) -> Calibration:
        new = Calibration(strength=self.strength, memory=self.memory)
        new._right, new._seen = self._right.copy(), self._seen.copy()
        return new
