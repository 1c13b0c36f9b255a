"""The inflated target computes the very same function in the engine, bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nacre.engine import Engine, RowBlock, load_model
from nacre.models import bundled
from nacre.training.inflate import inflate

TEXT = tuple(range(40, 80))


def logits(directory: Path, dtype: str) -> torch.Tensor:
    engine = Engine(load_model(directory, dtype=dtype, device="cpu", threads=1), kv_bytes=1 << 24)
    sequence = engine.open("local", TEXT)
    return engine.step([RowBlock(sequence, TEXT)]).logits


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_added_neurons_change_no_bit(dtype: str, tmp_path: Path) -> None:
    source = bundled("demo-target")
    inflate(source, tmp_path / "inflated", parameters=12_000_000)
    assert torch.equal(logits(source, dtype), logits(tmp_path / "inflated", dtype))
