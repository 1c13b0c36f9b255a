"""The load-time measurement of row independence, and that it can tell exact from inexact."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, PretrainedConfig, PreTrainedModel

from nacre.engine import Engine, activations, load_model, numerics
from nacre.engine.loading import quiet
from nacre.engine.packed import PackedForward

MakeModel = Callable[[PretrainedConfig], PreTrainedModel]


class RowDependent(torch.nn.Linear):
    """Rounds differently when it sees fewer than `threshold` rows, as a library that switches kernels does."""

    threshold = 8

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = super().forward(x)
        return y * (1 + 2**-20) if x.shape[-2] < self.threshold else y


def infect(engine: Engine, threshold: int) -> PackedForward:
    """Makes one matrix of the engine's model depend on the number of rows."""
    forward = engine._forward
    assert isinstance(forward, PackedForward)
    for module in forward.model.modules():
        if type(module) is torch.nn.Linear:
            module.__class__ = RowDependent
            module.threshold = threshold  # type: ignore[assignment]
            break
    return forward


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3"])
def test_packed_models_are_exact_without_any_padding(
    family: str, dtype: str, new_engine: Callable[..., Engine]
) -> None:
    engine = new_engine(family, dtype)
    assert engine.info.numerics.startswith("exact/packed-")
    assert engine.info.numerics.endswith({"float32": "fp32", "bfloat16": "bf16"}[dtype])
    assert engine._forward.min_rows == 1  # type: ignore[union-attr]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_models_on_torch_linears_are_padded(family: str, new_engine: Callable[..., Engine]) -> None:
    engine = new_engine(family, linear="torch" if family == "llama" else "packed")
    assert engine.info.numerics.split("/")[0] in ("padded8", "unverified")
    assert engine._forward.min_rows == 8  # type: ignore[union-attr]


def test_experts_on_torch_are_never_called_exact(new_engine: Callable[..., Engine]) -> None:
    for dtype in ("float32", "bfloat16"):  # in bf16 a few passes show no difference
        assert new_engine("gpt_oss", dtype).info.numerics.startswith("unverified/")


def test_a_draft_model_is_not_measured_and_not_padded(new_engine: Callable[..., Engine]) -> None:
    engine = new_engine(linear="torch", exact=False)
    assert engine.info.numerics.startswith("unchecked/torch")
    assert engine._forward.min_rows == 1  # type: ignore[union-attr]


def test_the_measurement_finds_a_matrix_that_depends_on_the_row_count(new_engine: Callable[..., Engine]) -> None:
    forward = infect(new_engine(linear="torch"), threshold=8)
    forward.min_rows = 1
    assert not numerics.rows_are_independent(forward, 96)
    forward.min_rows = 8
    assert numerics.rows_are_independent(forward, 96)


def test_padding_that_does_not_help_is_reported_as_unverified(new_engine: Callable[..., Engine], plain) -> None:  # type: ignore[no-untyped-def]
    forward = infect(new_engine(linear="torch"), threshold=16)
    mode = numerics.settle(forward, plain("llama"), linears="torch", exact=True, provable=True)
    assert mode == "unverified/torch/fp32"


def test_passes_alone_find_what_no_single_matrix_shows(new_engine: Callable[..., Engine]) -> None:
    engine = new_engine()
    forward = engine._forward
    assert isinstance(forward, PackedForward)
    norm = forward.model.model.norm  # type: ignore[union-attr]
    whole = norm.forward

    def drifting(x: torch.Tensor) -> torch.Tensor:
        return whole(x) * (1 + 2**-20 * x.shape[-2])

    norm.forward = drifting  # type: ignore[method-assign]
    assert not numerics.rows_are_independent(forward, 96)


def change_config(directory: Path, make_random_model: MakeModel, **changes: object) -> None:
    config = LlamaConfig.from_pretrained(directory)
    for name, value in changes.items():
        setattr(config, name, value)
    make_random_model(config).save_pretrained(directory)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("activation", ["silu", "gelu_pytorch_tanh", "quick_gelu", "gelu"])
def test_an_activation_of_odd_width_is_made_steady_and_the_model_is_exact(
    activation: str, threads: int, model_copy: Path, make_random_model: MakeModel
) -> None:
    change_config(model_copy, make_random_model, intermediate_size=52, hidden_act=activation)
    engine = Engine(load_model(str(model_copy), dtype="float32", threads=threads), kv_bytes=1 << 20)
    assert engine.info.numerics.startswith("exact/packed")


def test_an_unknown_activation_of_odd_width_is_padded_and_then_exact(
    model_copy: Path, make_random_model: MakeModel
) -> None:
    change_config(model_copy, make_random_model, intermediate_size=52, hidden_act="mish")
    one, three = (load_model(str(model_copy), dtype="float32", threads=threads) for threads in (1, 3))
    assert Engine(one, kv_bytes=1 << 20).info.numerics.startswith("padded8/packed")
    assert Engine(three, kv_bytes=1 << 20).info.numerics.startswith("unverified/packed")


def test_one_unknown_activation_is_enough_to_vouch_for_nothing() -> None:
    known, unknown = torch.nn.SiLU(), torch.nn.Mish()
    assert activations.steady(torch.nn.Sequential(known), fused=False)
    assert not activations.steady(torch.nn.Sequential(known, unknown), fused=True)
    assert not activations.steady(torch.nn.Sequential(torch.nn.Linear(2, 2)), fused=False)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("function", "library"),
    [
        (activations.silu, torch.nn.functional.silu),
        (activations.sigmoid, torch.sigmoid),
        (activations.tanh_gelu, lambda x: torch.nn.functional.gelu(x, approximate="tanh")),
    ],
)
def test_a_steady_activation_does_not_depend_on_where_an_element_lies(
    function: Callable[[torch.Tensor], torch.Tensor],
    library: Callable[[torch.Tensor], torch.Tensor],
    dtype: torch.dtype,
    threads: int,
) -> None:
    torch.set_num_threads(threads)
    x = (4 * torch.randn(2000, 52, generator=torch.Generator().manual_seed(0))).to(dtype)
    together = function(x)
    assert all(torch.equal(function(row.clone()), out) for row, out in zip(x, together, strict=True))
    torch.testing.assert_close(together, library(x))
    ends = torch.tensor([-1e30, -1e4, -100.0, 0.0, 100.0, 1e4], dtype=dtype)
    assert function(ends).isfinite().all()


@pytest.mark.parametrize(
    ("width", "threads", "aligned"), [(128, 1, True), (72, 1, False), (128, 2, True), (192, 2, False), (128, 3, False)]
)
def test_whole_vectors_in_every_threads_share_count_as_aligned(
    width: int, threads: int, aligned: bool, make_random_model: MakeModel
) -> None:
    with quiet():
        config = LlamaConfig(
            vocab_size=97, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=width
        )
    assert numerics.is_aligned(make_random_model(config), threads) == aligned
