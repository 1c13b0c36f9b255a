"""A bounded table of rows keyed by the one to three tokens before them.

Set-associative, like a processor's cache: a context belongs to one bucket of 8 rows. Where its bucket is full, the row
that was touched least gives way, and the counts of the others are halved, so that what was common once does not stay
for ever. Keys are the contexts themselves (21 bits per token), so nothing is confused.

Rule: what follows a context are at most 8 tokens with 16-bit weights, the heaviest first; what the weights mean is the
method's affair. Memory: 58 bytes per row, allocated once.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from nacre.drafting.rows import ROW_WIDTH
from nacre.errors import InvalidArgument

LONGEST_CONTEXT = 3
TOKEN_BITS = 21
#: Larger token ids have no place in a key.
MOST_TOKEN = (1 << TOKEN_BITS) - 2
MOST_NGRAMS = 1 << 26
DEFAULT_NGRAMS = 1 << 16
_WAYS = 8
_SPREAD = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1
_MOST_COUNT = 65535


class NgramRows:
    """The table. A slot is a row's place; it stays the row's until a `claim` takes it for another."""

    def __init__(self, ngrams: int = DEFAULT_NGRAMS) -> None:
        if not _WAYS <= ngrams <= MOST_NGRAMS:
            raise InvalidArgument(f"the table's size is {ngrams} n-grams; it must be {_WAYS} to {MOST_NGRAMS}")
        slots = 1 << (ngrams - 1).bit_length()
        self._shift = 64 - (slots // _WAYS).bit_length() + 1
        self._keys = np.zeros(slots, dtype=np.uint64)
        self._tokens = np.zeros(slots * ROW_WIDTH, dtype=np.uint32)
        self._weights = np.zeros(slots * ROW_WIDTH, dtype=np.uint16)
        self._counts = np.zeros(slots, dtype=np.uint16)
        self._key_at, self._token_at = self._keys.data, self._tokens.data
        self._weight_at, self._count_at = self._weights.data, self._counts.data

    def __len__(self) -> int:
        return int(np.count_nonzero(self._keys))

    @property
    def size_bytes(self) -> int:
        return self._keys.nbytes + self._tokens.nbytes + self._weights.nbytes + self._counts.nbytes

    @property
    def memory(self) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint16], npt.NDArray[np.uint64]]:
        """Tokens [slots * 8], weights [slots * 8] and keys [slots], as long as the table lives."""
        return self._tokens, self._weights, self._keys

    @property
    def half(self) -> int:
        """The size of a table for half as many rows."""
        return max(_WAYS, len(self._keys) // 2)

    def find(self, context: Sequence[int]) -> int:
        """The slot of a context's row, -1 where there is none."""
        return self.find_key(key_of(context))

    def find_key(self, key: int) -> int:
        """The slot of the row of `key_of(context)`, -1 where there is none."""
        first = (key * _SPREAD & _MASK) >> self._shift << 3
        keys = self._key_at[first : first + _WAYS].tolist()
        return first + keys.index(key) if key in keys and key else -1

    def claim(self, context: Sequence[int]) -> int:
        """A slot for a context that has none, empty; -1 for a context that cannot be held."""
        key = key_of(context)
        if not key:
            return -1
        first = (key * _SPREAD & _MASK) >> self._shift << 3
        keys = self._key_at[first : first + _WAYS].tolist()
        if 0 in keys:
            slot = first + keys.index(0)
        else:
            counts = self._count_at[first : first + _WAYS].tolist()
            slot = first + counts.index(min(counts))
            self._counts[first : first + _WAYS] >>= 1
        self._key_at[slot] = key
        self._count_at[slot] = 0
        self.write(slot, (), ())
        return slot

    def read(self, slot: int) -> tuple[list[int], list[int]]:
        """Tokens and weights of a row, filled up with weights of 0.  [8] each"""
        start = slot << 3
        return self._token_at[start : start + 8].tolist(), self._weight_at[start : start + 8].tolist()

    def count(self, slot: int) -> int:
        """How often the row was written, less what ageing took."""
        return self._count_at[slot]

    def write(self, slot: int, tokens: Sequence[int], weights: Sequence[int]) -> None:
        """Replaces a row; at most 8, the heaviest first."""
        start, missing = slot << 3, [0] * (ROW_WIDTH - len(tokens))
        self._token_at[start : start + 8] = memoryview(array("I", [*tokens, *missing]))
        self._weight_at[start : start + 8] = memoryview(array("H", [*weights, *missing]))
        self._count_at[slot] = min(self._count_at[slot] + 1, _MOST_COUNT) if tokens else 0


def key_of(context: Sequence[int]) -> int:
    """The context as one number, 0 if it cannot be one."""
    if len(context) > LONGEST_CONTEXT:
        return 0
    key = 0
    for token in context:
        if not 0 <= token <= MOST_TOKEN:
            return 0
        key = key << TOKEN_BITS | (token + 1)
    return key
