"""The adjacency table of Token Recycling: for each token, the target's best followers the last time it was seen there.

Rule: a row is replaced as a whole. Of the observations that arrive together, those of walked nodes are written last,
so that what was accepted wins over what was contradicted. Ids at or above `vocabulary` are ignored. Memory: 48 bytes
per token id up to the greatest that has a row, in steps of 16,384 ids.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from nacre.drafting.growth import Children
from nacre.drafting.ngram_rows import MOST_TOKEN
from nacre.drafting.proposer import Observation
from nacre.drafting.row_trees import RowTrees, shares
from nacre.drafting.rows import ROW_WIDTH, Row, unpacked, weights_of
from nacre.errors import InvalidArgument

MOST_VOCABULARY = 1 << 21
_STEP = 1 << 14
_NONE: tuple[list[int], list[int]] = ([], [])


class AdjacencyTable:
    """Rows by token. Shared by the sessions of one tenant."""

    def __init__(self, vocabulary: int = 1 << 18) -> None:
        if not 1 <= vocabulary <= MOST_VOCABULARY:
            raise InvalidArgument(f"the table's vocabulary is {vocabulary}; it must be 1 to {MOST_VOCABULARY}")
        self._vocabulary = vocabulary
        self._ids: npt.NDArray[np.uint32] = np.zeros(0, dtype=np.uint32)
        self._weights: npt.NDArray[np.uint16] = np.zeros(0, dtype=np.uint16)
        self._grow(min(_STEP, vocabulary))

    @property
    def size_bytes(self) -> int:
        return self._ids.nbytes + self._weights.nbytes

    def halved(self) -> AdjacencyTable:
        """An empty table for half as many ids as this one has room for; the commonest tokens have the lowest."""
        return AdjacencyTable(max(1, self._tokens // 2))

    def children(self, token: int, power: float = 1.0) -> Children:
        """What followed the token, with the target's probabilities to a power, best first."""
        return shares(*self.row(token + 1), power)

    def row(self, key: int) -> tuple[list[int], list[int]]:
        """Tokens and weights after the token of this `key_of`, best first; the weights may end in zeros."""
        if not 1 <= key <= self._tokens:
            return _NONE
        start = (key - 1) * ROW_WIDTH
        return self._id_at[start : start + ROW_WIDTH].tolist(), self._weight_at[start : start + ROW_WIDTH].tolist()

    def trees(self) -> RowTrees:
        """The table as a source of trees, until `size_bytes` is another."""
        return RowTrees(self.row, self._ids, self._weights, longest=1, shortest=1)

    def learn(self, observations: Sequence[Observation]) -> None:
        for walked in (False, True):
            for seen in observations:
                if seen.walked is walked and seen.context and seen.tokens:
                    chances = [math.exp(min(logprob, 0.0)) for logprob in seen.logprobs[:ROW_WIDTH]]
                    self._put(seen.context[-1], seen.tokens[:ROW_WIDTH], chances)

    def merge(self, rows: Iterable[Row]) -> None:
        """Rows of another table replace those here."""
        for row in rows:
            tokens, chances = unpacked(row, self._vocabulary - 1)
            if len(row[0]) == 1 and tokens:
                self._put(row[0][0], tokens, chances)

    def _put(self, token: int, followers: Sequence[int], chances: Sequence[float]) -> None:
        if not 0 <= token < self._vocabulary or not all(0 <= i <= MOST_TOKEN for i in followers):
            return
        if token >= self._tokens:
            self._grow(min((token // _STEP + 1) * _STEP, self._vocabulary))
        start = token * ROW_WIDTH
        missing = [0] * (ROW_WIDTH - len(followers))
        self._id_at[start : start + ROW_WIDTH] = memoryview(array("I", [*followers, *missing]))
        self._weight_at[start : start + ROW_WIDTH] = memoryview(array("H", [*weights_of(chances), *missing]))

    def _grow(self, tokens: int) -> None:
        """Room for the rows of so many tokens."""
        self._tokens = tokens
        missing = tokens * ROW_WIDTH - self._ids.size
        self._ids = np.concatenate([self._ids, np.zeros(missing, dtype=np.uint32)])
        self._weights = np.concatenate([self._weights, np.zeros(missing, dtype=np.uint16)])
        self._id_at, self._weight_at = self._ids.data, self._weights.data
