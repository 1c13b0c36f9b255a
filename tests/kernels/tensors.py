"""Small tensors, written as their values."""

from __future__ import annotations

import torch


def int32(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32)
