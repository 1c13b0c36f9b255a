"""Training text as one row of token ids, and the windows that each training step sees.

Rule: what step n sees is a pure function of (seed, n), so a resumed run continues with the very windows
that an uninterrupted one would have seen, and nothing about the data needs to be stored in a checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from nacre.models.python_text import Module
from nacre.training.bpe import END_OF_TEXT_ID


def token_stream(tokenizer: Tokenizer, modules: Sequence[Module], seed: int | None) -> Tensor:
    """All modules' tokens, each preceded by the end-of-text id, in shuffled order (None: in the given
    order).
    """
    order = range(len(modules)) if seed is None else np.random.default_rng(seed).permutation(len(modules))
    encodings = tokenizer.encode_batch([modules[i].text() for i in order])
    ids: list[int] = []
    for encoding in encodings:
        ids.append(END_OF_TEXT_ID)
        ids.extend(encoding.ids)
    return torch.tensor(ids, dtype=torch.int64)


class Windows:
    """Windows of `length` + 1 tokens: every epoch cuts the stream at another offset and shuffles the
    pieces.
    """

    def __init__(self, stream: Tensor, length: int, seed: int) -> None:
        self._stream, self._length, self._seed = stream, length, seed
        self._per_epoch = (len(stream) - 1) // length - 1
        assert self._per_epoch > 0, f"{len(stream)} tokens are too few for windows of {length}"

    def batch(self, first: int, rows: int) -> Tensor:
        """Windows number `first` to `first + rows` of the endless shuffled sequence, [rows, length + 1]."""
        return torch.stack([self._window(index) for index in range(first, first + rows)])

    def _window(self, index: int) -> Tensor:
        epoch, place = divmod(index, self._per_epoch)
        draw = np.random.default_rng((self._seed, self._length, epoch))
        start = int(draw.integers(self._length)) + int(draw.permutation(self._per_epoch)[place]) * self._length
        return self._stream[start : start + self._length + 1]
