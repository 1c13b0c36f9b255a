"""The best perturbed scores of rows of logits under the race noise: nacre's numpy sampler in C, with the same bits.

Rule: score = logit * inverse - ln S(key, position, id), one fp32 multiplication and one subtraction; equal scores go to
the lower id. S is computed from counters, so nothing is drawn and nothing remembered.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nacre_kernels.library import require


def race_top(
    logits: npt.NDArray[np.float32],
    inverse: npt.NDArray[np.float32],
    keys: npt.NDArray[np.uint64],
    positions: npt.NDArray[np.uint64],
    top: int,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """The best `top` ids of every row, best first, and their scores.  [rows, top] each

    `logits` [rows, vocab] are dense in their last dimension, and processed but for the factor `inverse` [rows]; where
    that is 0 the greatest logits are asked for, without noise. Missing ids are -1 with a score of minus infinity; a
    row with a NaN or without a finite greatest logit has none.
    """
    rows, vocab = logits.shape
    if logits.dtype != np.float32 or not vocab or (vocab > 1 and logits.strides[1] != 4) or logits.strides[0] % 4:
        raise ValueError(f"logits are {logits.dtype} of shape {logits.shape} with strides {logits.strides}")
    for name, values, kind in (("inverse", inverse, "f4"), ("keys", keys, "u8"), ("positions", positions, "u8")):
        if values.shape != (rows,) or values.dtype.str[1:] != kind or not values.flags.c_contiguous:
            raise ValueError(f"{name} is {values.dtype} of shape {values.shape}; it must be {kind} [{rows}]")
    if top < 1:
        raise ValueError(f"top is {top}; it must be at least 1")
    ids = np.empty((rows, top), dtype=np.int64)
    scores = np.empty((rows, top), dtype=np.float32)
    failed = require().nk_race_top(
        logits.ctypes.data,
        logits.strides[0] // 4,
        rows,
        vocab,
        inverse.ctypes.data,
        keys.ctypes.data,
        positions.ctypes.data,
        top,
        ids.ctypes.data,
        scores.ctypes.data,
    )
    if failed:
        raise MemoryError(f"no memory for the noise of {vocab} ids")
    return ids, scores
