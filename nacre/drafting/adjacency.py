"""The adjacency table of Token Recycling: for each token, the target's best followers the last time it was seen there.

Rule: a row is replaced as a whole. Of the observations that arrive together, those of walked nodes are written last,
so that what was accepted wins over what was contradicted. Ids at or above `vocabulary` are ignored. Memory: 48 bytes
per token id up to the largest seen.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Sequence

import numpy as np

from nacre.drafting.growth import Children, shares
from nacre.drafting.proposer import Observation
from nacre.drafting.rows import ONE, ROW_WIDTH, Row, packed, unpacked, weights_of
from nacre.errors import InvalidArgument

MOST_VOCABULARY = 1 << 21
_FIRST = 1 << 10


class AdjacencyTable:
    """Rows by token. Shared by the sessions of one tenant."""

    def __init__(self, vocabulary: int = 1 << 18) -> None:
        if not 1 <= vocabulary <= MOST_VOCABULARY:
            raise InvalidArgument(f"the table's vocabulary is {vocabulary}; it must be 1 to {MOST_VOCABULARY}")
        self._vocabulary = vocabulary
        self._allocate(min(_FIRST, vocabulary))

    @property
    def size_bytes(self) -> int:
        return self._ids.nbytes + self._weights.nbytes

    def children(self, token: int, power: float = 1.0) -> Children:
        """What followed the token, with the target's probabilities to a power, best first."""
        if not 0 <= token < self._rows:
            return ()
        start = token * ROW_WIDTH
        if not self._weight_at[start]:
            return ()
        ids, weights = self._id_at[start : start + ROW_WIDTH], self._weight_at[start : start + ROW_WIDTH]
        return shares(ids.tolist(), weights.tolist(), power, ONE)

    def learn(self, observations: Sequence[Observation]) -> None:
        for walked in (False, True):
            for seen in observations:
                if seen.walked is walked and seen.context and seen.tokens:
                    chances = [math.exp(min(logprob, 0.0)) for logprob in seen.logprobs[:ROW_WIDTH]]
                    self._put(seen.context[-1], seen.tokens[:ROW_WIDTH], chances)

    def export(self) -> list[Row]:
        """All rows, by token."""
        held = np.flatnonzero(self._weights.reshape(-1, ROW_WIDTH)[:, 0]).tolist()
        rows = []
        for token in held:
            start = token * ROW_WIDTH
            ids, weights = self._id_at[start : start + ROW_WIDTH], self._weight_at[start : start + ROW_WIDTH]
            rows.append(packed((token,), ids.tolist(), weights.tolist()))
        return rows

    def merge(self, rows: Iterable[Row]) -> None:
        """Rows of another table replace those here."""
        for row in rows:
            tokens, chances = unpacked(row, self._vocabulary - 1)
            if len(row[0]) == 1 and tokens:
                self._put(row[0][0], tokens, chances)

    def _put(self, token: int, followers: Sequence[int], chances: Sequence[float]) -> None:
        if not 0 <= token < self._vocabulary or not all(0 <= i < 1 << 32 for i in followers):
            return
        while token >= self._rows:
            self._grow()
        start = token * ROW_WIDTH
        missing = [0] * (ROW_WIDTH - len(followers))
        self._id_at[start : start + ROW_WIDTH] = memoryview(array("I", [*followers, *missing]))
        self._weight_at[start : start + ROW_WIDTH] = memoryview(array("H", [*weights_of(chances), *missing]))

    def _allocate(self, rows: int) -> None:
        self._rows = rows
        self._ids = np.zeros(rows * ROW_WIDTH, dtype=np.uint32)
        self._weights = np.zeros(rows * ROW_WIDTH, dtype=np.uint16)
        self._id_at, self._weight_at = self._ids.data, self._weights.data

    def _grow(self) -> None:
        ids, weights = self._ids, self._weights
        self._allocate(min(2 * self._rows, self._vocabulary))
        self._ids[: len(ids)] = ids
        self._weights[: len(weights)] = weights
