"""Hidden states as keys of an approximate nearest-neighbour search (usearch, an HNSW graph).

Rule: a state is standardised per dimension with the mean and deviation of the first states seen, projected to 128
dimensions by a fixed random matrix, and compared by its angle. Before enough states are known nothing is found.
Memory: about 1 KiB (`KEY_BYTES`) per key.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nacre.errors import FailedPrecondition

F32Array = npt.NDArray[np.float32]

DIMENSIONS = 128
KEY_BYTES = 1024
#: States whose mean and deviation stand for all that follow.
SETTLING = 64
_LEAST_DEVIATION = 1e-6


class DenseKeys:
    """Labels (positive numbers) by their keys."""

    def __init__(self, *, settling: int = SETTLING) -> None:
        try:
            from usearch.index import Index
        except ModuleNotFoundError:
            raise FailedPrecondition("usearch is not installed; run: pip install 'nacre[dense]'") from None
        self._index: Any = Index(ndim=DIMENSIONS, metric="cos", dtype="f16")
        self._settling = settling
        self._waiting: list[tuple[int, F32Array]] = []
        self._mean: F32Array | None = None
        self._projection: F32Array | None = None

    def add(self, labels: Iterable[int], states: F32Array) -> None:
        """`states` [labels, hidden]. States that are not finite are left out."""
        sound = [(label, state) for label, state in zip(labels, states, strict=True) if np.isfinite(state).all()]
        if not sound:
            return
        if self._projection is None:
            self._waiting.extend((label, np.array(state, dtype=np.float32)) for label, state in sound)
            if len(self._waiting) < self._settling:
                return
            sound, self._waiting = self._waiting, []
            self._settle(np.stack([state for _, state in sound]))
        keys = np.array([label for label, _ in sound], dtype=np.uint64)
        self._index.add(keys, self._projected(np.stack([state for _, state in sound])), threads=1)

    def nearest(self, state: F32Array, count: int) -> list[tuple[int, float]]:
        """(label, cosine) of the keys nearest to a state [hidden], the nearest first."""
        if self._projection is None or not np.isfinite(state).all():
            return []
        found = self._index.search(self._projected(state[None])[0], min(count, max(1, len(self._index))), threads=1)
        return [(int(label), 1.0 - float(d)) for label, d in zip(found.keys, found.distances, strict=True)]

    def remove(self, labels: Sequence[int]) -> None:
        """Forgets keys; unknown labels are ignored."""
        gone = set(labels)
        self._waiting = [item for item in self._waiting if item[0] not in gone]
        for label in labels:
            if label in self._index:
                self._index.remove(label)

    def _settle(self, states: F32Array) -> None:
        self._mean = states.mean(axis=0)
        deviation = np.maximum(states.std(axis=0), _LEAST_DEVIATION)
        draw = np.random.default_rng(0)  # fixed: equal states give equal keys in every process
        matrix = draw.standard_normal((states.shape[1], DIMENSIONS), dtype=np.float32)
        self._projection = (matrix / deviation[:, None]).astype(np.float32)

    def _projected(self, states: F32Array) -> F32Array:
        assert self._mean is not None, "nothing is projected before it has settled"
        assert self._projection is not None
        return np.ascontiguousarray((states - self._mean) @ self._projection, dtype=np.float32)
