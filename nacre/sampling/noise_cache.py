"""The race noise of whole vocabularies, remembered: positions are visited more than once.

Rule: a cache of a pure function. What is returned never depends on what is held, only how soon it comes.

Rows of equal position share their noise, the drafters inside a process share it with the verifier, and the next pass
visits the same positions again. Memory is bounded; the least recently used goes first. Safe to use from several
threads: two may compute the same entry, and both get the same bits.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from nacre.sampling.race_noise import BLOCK, F32Array, I64Array, block_noise, full_log_noise

# With a small vocabulary the cost of level 0 is the number of array operations, not their length, so a miss
# computes this many blocks at once: an aligned group of positions, of which the next will soon be asked for.
GROUP_BLOCKS = 2048

Arrays = tuple[np.ndarray, ...]
Name = tuple[str, int, int, int]  # level, key, position or group of positions, blocks


class NoiseCache:
    """Noise by (key, position); the arrays it returns are the caller's own."""

    def __init__(self, max_bytes: int = 32 << 20) -> None:
        self._max_bytes = max_bytes
        self._size_bytes = 0
        self._entries: OrderedDict[Name, Arrays] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def size_bytes(self) -> int:
        return self._size_bytes

    def blocks(self, streams: Sequence[tuple[int, int]], blocks: int) -> tuple[F32Array, F32Array, I64Array]:
        """Level 0 for every (key, position): block minima, their ln32, block winners.  [streams, blocks] each"""
        minimum = np.empty((len(streams), blocks), dtype=np.float32)
        log_minimum = np.empty_like(minimum)
        winner = np.empty((len(streams), blocks), dtype=np.int64)
        for i, (key, position) in enumerate(streams):
            minimum[i], log_minimum[i], winner[i] = self._level0(key, position, blocks)
        return minimum, log_minimum, winner

    def log_noise(self, streams: Sequence[tuple[int, int]], blocks: int) -> F32Array:
        """ln32(S) of every id for every (key, position).  [streams, 32 * blocks]"""
        result = np.empty((len(streams), blocks * BLOCK), dtype=np.float32)
        for i, (key, position) in enumerate(streams):
            result[i] = self._both_levels(key, position, blocks)
        return result

    def _level0(self, key: int, position: int, blocks: int) -> Arrays:
        shift = max(0, (GROUP_BLOCKS // blocks).bit_length() - 1)
        group, row = position >> shift, position & ((1 << shift) - 1)
        name = ("blocks", key, group, blocks)
        arrays = self._find(name) or self._keep(name, block_noise(key, group << shift, 1 << shift, blocks))
        return tuple(array[row] for array in arrays)

    def _both_levels(self, key: int, position: int, blocks: int) -> F32Array:
        name = ("ids", key, position, blocks)
        arrays = self._find(name)
        if arrays is None:
            minimum, _, winner = self._level0(key, position, blocks)
            arrays = self._keep(name, (full_log_noise(key, position, minimum, winner),))
        return arrays[0]

    def _find(self, name: Name) -> Arrays | None:
        with self._lock:
            arrays = self._entries.get(name)
            if arrays is not None:
                self._entries.move_to_end(name)
            return arrays

    def _keep(self, name: Name, arrays: Arrays) -> Arrays:
        with self._lock:
            if name not in self._entries:
                self._entries[name] = arrays
                self._size_bytes += _size_bytes(arrays)
                while self._size_bytes > self._max_bytes and len(self._entries) > 1:
                    _, evicted = self._entries.popitem(last=False)
                    self._size_bytes -= _size_bytes(evicted)
        return arrays


def _size_bytes(arrays: Arrays) -> int:
    return sum(array.nbytes for array in arrays)


SHARED_NOISE = NoiseCache()
