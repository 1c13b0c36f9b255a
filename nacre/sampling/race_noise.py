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

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
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


def block_noise_at(blocks: U64Array, keys: tuple[U64Array, U64Array], positions: tuple[U64Array, U64Array]) -> Any:
    """Level 0 of the given blocks: (minimum of S over the block, the id that attains it)."""
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


@dataclass(frozen=True, slots=True)
class BlockNoise:
    """Level 0 of consecutive positions. Read-only, shared between callers."""

    noise: F32Array  # [positions, 2, blocks]: the minimum of S over the block, and its ln32
    winner: I64Array  # [positions, blocks], token ids (one of the last block may lie outside the vocabulary)

    @property
    def size_bytes(self) -> int:
        return self.noise.nbytes + self.winner.nbytes


def make_block_noise(key: int, first: int, positions: int, blocks: int) -> BlockNoise:
    """Level 0 of `blocks` blocks at `positions` positions from `first` on."""
    block_ids = np.tile(np.arange(blocks, dtype=np.uint64), positions)
    index = np.repeat(np.arange(first, first + positions, dtype=np.uint64), blocks)
    halves = (index & np.uint64(MASK32), index >> np.uint64(32))
    minimum, winner = block_noise_at(block_ids, split64(key), halves)
    noise = np.stack([minimum.reshape(positions, blocks), ln32(minimum).reshape(positions, blocks)], axis=1)
    return BlockNoise(noise, winner.reshape(positions, blocks))


class BlockNoiseCache:
    """Level 0 by (key, position), least recently used out first.

    Rows of equal position share their noise, the drafters inside a process share it with the verifier, and a
    position is visited again by the next pass. With small vocabularies the cost of a call is the number of array
    operations, not their length, so a miss computes an aligned group of positions at once: the next ones will be
    asked for. Safe to use from several threads; a value never depends on what the cache holds.
    """

    GROUP_BLOCKS = 2048

    def __init__(self, max_bytes: int = 32 << 20) -> None:
        self._max_bytes = max_bytes
        self._size_bytes = 0
        self._groups: OrderedDict[tuple[int, int, int], BlockNoise] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def size_bytes(self) -> int:
        return self._size_bytes

    def stacked(self, streams: Sequence[tuple[int, int]], blocks: int) -> tuple[F32Array, F32Array, I64Array]:
        """Block minima, their ln32 and the block winners of every (key, position).  [streams, blocks] each"""
        group_shift = max(0, (self.GROUP_BLOCKS // blocks).bit_length() - 1)
        in_group = (1 << group_shift) - 1
        noise = np.empty((2, len(streams), blocks), dtype=np.float32)
        winner = np.empty((len(streams), blocks), dtype=np.int64)
        for i, (key, position) in enumerate(streams):
            group = self._group(key, position >> group_shift, blocks, group_shift)
            noise[:, i] = group.noise[position & in_group]
            winner[i] = group.winner[position & in_group]
        return noise[0], noise[1], winner

    def _group(self, key: int, number: int, blocks: int, group_shift: int) -> BlockNoise:
        name = (key, number, blocks)
        with self._lock:
            group = self._groups.get(name)
            if group is not None:
                self._groups.move_to_end(name)
                return group
        group = make_block_noise(key, number << group_shift, 1 << group_shift, blocks)
        with self._lock:
            if name not in self._groups:
                self._groups[name] = group
                self._size_bytes += group.size_bytes
                while self._size_bytes > self._max_bytes and len(self._groups) > 1:
                    _, evicted = self._groups.popitem(last=False)
                    self._size_bytes -= evicted.size_bytes
        return group


SHARED_BLOCK_NOISE = BlockNoiseCache()
