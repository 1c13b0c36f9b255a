"""The race noise: one exponential variable S(key, position, id) per token id, computed from counters, in two levels.

Rule: S is a pure function of (key, position, token id); it depends on nothing else, neither the vocabulary size nor
who asks. Drafters and verifiers that share a key share the noise. NOISE_VERSION names the function: change one bit of
it and the version must change, for sessions continue across processes.

The race. With S(id) independent and Exp(1)-distributed, the id with the greatest `logit / T - ln S(id)` is an exact
sample of softmax(logits / T) (the Gumbel-max identity, for -ln S is Gumbel noise).

The two levels. Ids are taken in blocks of 32. Level 0 draws, per block, the minimum of its 32 variables, Exp(1) / 32,
and which id attains it. Level 1 draws an Exp(1) for each id; by memorylessness an id that is not the block's winner has
S = minimum + Exp(1). So one counter per block bounds every score of the block, and level 1 is needed only for the
few ids that could still win.

Counter layout: (block or id >> 2, position low, position high, purpose << 8 | level); level 1 uses word id & 3.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nacre.sampling.fixed_order import NUMPY, ArrayOps, ln32, ln_one_plus, split_float
from nacre.sampling.philox import MASK32, U64Array, philox4x32, split64, word

NOISE_VERSION = 1

BLOCK = 32
BLOCK_SHIFT = 5

# Counter streams, disjoint by purpose: noise that picked a token must never be used again for something else.
PURPOSE_TARGET_RACE = 1
PURPOSE_ACCEPTANCE = 2
PURPOSE_RESIDUAL_RACE = 3
PURPOSE_DRAFTER_PRIVATE = 4
PURPOSE_COMPLETION_KEY = 6  # 5 is reserved

# The greatest possible ln S: S is at most 22.88 / 32 + 22.88.
MAX_LN_NOISE = 3.2

F32Array = npt.NDArray[np.float32]
I64Array = npt.NDArray[np.int64]

_DIRECT_BELOW = 0x4AFB0CCC  # words below it have 1 - u above sqrt(1/2)


def race_exp(words: Any, ops: ArrayOps = NUMPY) -> Any:
    """32-bit words (as int64) -> Exp(1) variables -ln(1 - u), u = (w + 1/2) 2^-32: increasing, in [1.16e-10, 22.87].

    Small values, those that win races, are the finest grained: near 0 the logarithm is taken of 1 - u without
    forming it, elsewhere of the complement, which is computed exactly.
    """
    direct = words < _DIRECT_BELOW
    u = ops.to_f32(ops.where(direct, words, MASK32 - words)) * 2.0**-32 + 2.0**-33
    x, exponent = split_float(u, ops)
    x = ops.where(direct, -u, x)
    exponent = ops.where(direct, 0.0 * exponent, exponent)
    return -ln_one_plus(x, exponent)


def _signed(words: U64Array) -> I64Array:
    return words.view(np.int64)


def block_noise_at(
    blocks: U64Array, keys: tuple[U64Array, U64Array], positions: tuple[U64Array, U64Array]
) -> tuple[F32Array, I64Array]:
    """Level 0 of the given blocks: (minimum of S over the block, the id that attains it).

    Keys and positions are given as their low and high words; arrays of one length, or of length 1.
    """
    x0, x1, _, _ = philox4x32(blocks, *positions, word(PURPOSE_TARGET_RACE << 8), *keys)
    winners = (blocks << np.uint64(BLOCK_SHIFT)) | (x1 & np.uint64(BLOCK - 1))
    return race_exp(_signed(x0)) * np.float32(1 / BLOCK), _signed(winners)


def id_noise_at(ids: I64Array, keys: tuple[U64Array, U64Array], positions: tuple[U64Array, U64Array]) -> F32Array:
    """Level 1 of the given ids: what an id that is not its block's winner adds to the block's minimum."""
    words = philox4x32((ids >> 2).view(np.uint64), *positions, word(PURPOSE_TARGET_RACE << 8 | 1), *keys)
    which = ids & 3
    low = np.where(which & 1, words[1], words[0])
    high = np.where(which & 1, words[3], words[2])
    return race_exp(_signed(np.where(which & 2, high, low)))


def noise_at(ids: I64Array, key: int, position: int) -> F32Array:
    """S of the given ids at one position, both levels."""
    keys, positions = split64(key), split64(position)
    noise, winners = block_noise_at((ids >> BLOCK_SHIFT).view(np.uint64), keys, positions)
    return np.where(winners == ids, noise, noise + id_noise_at(ids, keys, positions))


def block_noise(key: int, first: int, positions: int, blocks: int) -> tuple[F32Array, F32Array, I64Array]:
    """Level 0 of blocks 0, 1, … at `positions` positions from `first` on: (minimum, its ln32, the id that attains it).

    Each is [positions, blocks]; an id of the last block may lie outside the vocabulary.
    """
    block_ids = np.tile(np.arange(blocks, dtype=np.uint64), positions)
    index = np.repeat(np.arange(first, first + positions, dtype=np.uint64), blocks)
    minimum, winner = block_noise_at(block_ids, split64(key), (index & np.uint64(MASK32), index >> np.uint64(32)))
    shape = (positions, blocks)
    return minimum.reshape(shape), ln32(minimum).reshape(shape), winner.reshape(shape)


def full_log_noise(key: int, position: int, minimum: F32Array, winner: I64Array) -> F32Array:
    """ln32(S) of all ids of the blocks whose level 0 at this position is given.  [32 * blocks]"""
    quads = np.arange(len(minimum) * (BLOCK // 4), dtype=np.uint64)
    words = philox4x32(quads, *split64(position), word(PURPOSE_TARGET_RACE << 8 | 1), *split64(key))
    noise = race_exp(_signed(np.stack(words, axis=1)).reshape(len(minimum), BLOCK)) + minimum[:, None]
    noise = noise.reshape(-1)
    noise[winner] = minimum
    return ln32(noise)
