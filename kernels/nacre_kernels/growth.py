"""Trees of guesses out of a table's rows, in C: best-first growth and PUCT search over memory that numpy owns.

A row is 8 tokens and their 8 weights: fractions of 65535, falling, of which 0 ends the row. A key is a context of up to
three tokens, each plus one, 21 bits for each. With `keys`, a key's row is one of the 8 in its bucket; without them, row
i follows token i.

Rule: what a tree consists of is defined by nacre's drafting, which does the same in Python. Calls take microseconds and
keep the interpreter's lock: to get it back from another thread could take longer than the call.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from nacre_kernels.library import require

WIDTH = 8
MOST_ROWS = 256
LONGEST_CONTEXT = 3

#: Of each guess its token, its parent (an earlier guess, -1: the start) and its survival.
Grown = tuple[list[int], list[int], list[float]]


class _Table(ctypes.Structure):
    """Mirror of `nk_rows` in growth.c."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("keys", "tokens", "weights")),
        ("rows", ctypes.c_int64),
        *((name, ctypes.c_int32) for name in ("shift", "longest", "shortest", "unseen")),
    )


_Tokens = ctypes.c_uint32 * MOST_ROWS
_Parents = ctypes.c_int32 * MOST_ROWS
_Survivals = ctypes.c_double * MOST_ROWS

_POINTER, _INT, _KEY, _REAL = ctypes.c_void_p, ctypes.c_int, ctypes.c_uint64, ctypes.c_double
_OUT = (_POINTER, _POINTER, _POINTER)
_GROW = ctypes.PYFUNCTYPE(_INT, _POINTER, _KEY, _KEY, _INT, _INT, _REAL, _REAL, _REAL, _KEY, *_OUT)
_SEARCH = ctypes.PYFUNCTYPE(_INT, _POINTER, _KEY, _KEY, _INT, _INT, _POINTER, *_OUT)


@functools.cache
def _functions() -> tuple[Any, Any]:
    library = require()
    return _GROW(("nk_grow_rows", library)), _SEARCH(("nk_search_rows", library))


class RowTable:
    """A table's memory as C sees it. The arrays may be written between calls, never be replaced or resized.

    A key's row is that of its last `longest` to `shortest` tokens, the most that are known. `unseen` is the weight of
    the tokens that a row lacks; None: what its weights lack of 65535.
    """

    def __init__(
        self,
        tokens: npt.NDArray[np.uint32],  # [rows * 8]
        weights: npt.NDArray[np.uint16],  # [rows * 8]
        keys: npt.NDArray[np.uint64] | None = None,  # [rows]
        *,
        longest: int = 1,
        shortest: int = 1,
        unseen: int | None = None,
    ) -> None:
        rows = tokens.size // WIDTH
        checks: list[tuple[str, npt.NDArray[Any], Any, int]] = [
            ("tokens", tokens, np.uint32, rows * WIDTH),
            ("weights", weights, np.uint16, rows * WIDTH),
        ]
        if keys is not None:
            checks.append(("keys", keys, np.uint64, rows))
        for name, values, kind, size in checks:
            if values.dtype != kind or values.shape != (size,) or not values.flags.c_contiguous or not size:
                raise ValueError(
                    f"{name} is {values.dtype} of shape {values.shape}; it must be contiguous {np.dtype(kind)} [{size}]"
                )
        buckets = rows // WIDTH
        if keys is not None and (rows % WIDTH or buckets & (buckets - 1)):
            raise ValueError(f"the table has {rows} rows; with keys it must have 8 times a power of two")
        if not 1 <= shortest <= longest <= (LONGEST_CONTEXT if keys is not None else 1):
            raise ValueError(f"contexts of {shortest} to {longest} tokens are no keys of this table")
        self._arrays = (tokens, weights, keys)  # what the table points to
        self._table = _Table(
            keys=None if keys is None else keys.ctypes.data,
            tokens=tokens.ctypes.data,
            weights=weights.ctypes.data,
            rows=rows,
            shift=65 - buckets.bit_length(),
            longest=longest,
            shortest=shortest,
            unseen=-1 if unseen is None else unseen,
        )
        self._at = ctypes.addressof(self._table)
        self._grow, self._search = _functions()

    def grow(
        self,
        key: int,
        rows: int,
        depth: int,
        least_path: float,
        *,
        power: float,
        sharpness: float = 0.0,
        noise_key: int = 0,
        position: int = 0,
    ) -> Grown:
        """Best first, at most `rows` guesses (and 256), by shares to a `power`.

        With a `sharpness` above 0 by race: `power` is 1 / temperature, `sharpness` 1 / race temperature, and the first
        guesses are for `position`.
        """
        tokens, parents, survivals = _Tokens(), _Parents(), _Survivals()
        made = self._grow(
            *(self._at, key, position, rows, depth, least_path, power, sharpness, noise_key),
            *(tokens, parents, survivals),
        )
        return tokens[:made], parents[:made], survivals[:made]

    def search(self, key: int, rows: int, seed: int, explore: npt.NDArray[np.float64]) -> Grown:
        """PUCT, as many iterations as `explore` is long: what is added for a child's prior, by its parent's visits."""
        if explore.dtype != np.float64 or explore.ndim != 1 or not explore.flags.c_contiguous:
            raise ValueError(f"explore is {explore.dtype} of shape {explore.shape}; it must be float64 [iterations]")
        tokens, parents, survivals = _Tokens(), _Parents(), _Survivals()
        made = self._search(
            *(self._at, key, seed, len(explore), rows, explore.ctypes.data),
            *(tokens, parents, survivals),
        )
        if made < 0:
            raise MemoryError(f"no memory for a search of {len(explore)} iterations")
        return tokens[:made], parents[:made], survivals[:made]
