"""The logarithm of the race noise of a few ids, for drafters that have no logits to add it to.

Rule: the same noise as everywhere (`race_noise`), ln32(S(key, position, id)), to the bit. The C kernel is used where it
was built: numpy's few hundred array operations cost more than a table's whole proposal. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from nacre_kernels import available
from nacre_kernels.race import log_noise

from nacre.sampling.fixed_order import ln32
from nacre.sampling.race_noise import noise_at


def log_noise_of(ids: Sequence[int], position: int, key: int) -> list[float]:
    """ln32(S) of every id at a position; neither is negative.  [ids]"""
    if not ids:
        return []
    if available():
        return log_noise(ids, position, key)
    return ln32(noise_at(np.asarray(ids, dtype=np.int64), key, position)).tolist()
