"""Philox-4x32-10: a counter-based random generator.

Method: Salmon, Moraes, Dror and Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011.

Rule: the four output words are a pure function of a 128-bit counter and a 64-bit key. There is no state to carry, so
any process can compute the noise of any position, in any order, and gets the same bits.

Words are 32 bits wide but live in uint64 lanes, because a round multiplies two of them into a 64-bit product.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
MASK32 = 0xFFFFFFFF

U64Array = npt.NDArray[np.uint64]

_MULTIPLIERS = np.array(MULTIPLIERS, dtype=np.uint64)[:, None]  # [2, 1]
# The key of round i is the key plus i times the Weyl constants.  [rounds, 2, 1]
_KEY_BUMPS = (np.arange(ROUNDS, dtype=np.uint64)[:, None] * np.array(WEYL, dtype=np.uint64))[:, :, None]
_MASK32 = np.array(MASK32, dtype=np.uint64)
_SHIFT32 = np.array(32, dtype=np.uint64)


def philox4x32(
    c0: U64Array, c1: U64Array, c2: U64Array, c3: U64Array, k0: U64Array, k1: U64Array
) -> tuple[U64Array, U64Array, U64Array, U64Array]:
    """The four output words of every counter (c0, c1, c2, c3) under every key (k0, k1).

    All inputs are 1-D uint64 arrays of one length or of length 1, holding 32-bit words; the outputs likewise.
    """
    lanes = max(len(c0), len(c1), len(c2), len(c3), len(k0), len(k1))
    # Words 0 and 2 are multiplied in a round, words 1 and 3 are mixed in: keep each pair as the rows of one
    # array, so that a round is five array operations instead of ten.
    even = np.empty((2, lanes), dtype=np.uint64)
    odd = np.empty((2, lanes), dtype=np.uint64)
    even[0], even[1] = c0, c2
    odd[0], odd[1] = c1, c3
    key = np.empty((2, max(len(k0), len(k1))), dtype=np.uint64)
    key[0], key[1] = k0, k1
    keys = key + _KEY_BUMPS  # [rounds, 2, lanes or 1]
    keys &= _MASK32
    product = np.empty((2, lanes), dtype=np.uint64)
    swapped = product[::-1]
    for round_key in keys:
        np.multiply(even, _MULTIPLIERS, product)
        np.right_shift(swapped, _SHIFT32, even)
        np.bitwise_xor(even, odd, even)
        np.bitwise_xor(even, round_key, even)
        np.bitwise_and(swapped, _MASK32, odd)
    return even[0], odd[0], even[1], odd[1]


def word(value: int) -> U64Array:
    """One 32-bit word as an array that broadcasts against counters."""
    return np.array([value & MASK32], dtype=np.uint64)


def split64(value: int) -> tuple[U64Array, U64Array]:
    """The low and the high word of a 64-bit integer, each as a one-element array."""
    return word(value), word(value >> 32)
