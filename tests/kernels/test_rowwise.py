"""Norms and activations: the same bits wherever a row lies, on every instruction set, and what models compute."""

from __future__ import annotations

import pytest
import torch
from nacre_kernels import fuse_rowwise, gated_activation, library, pack_model, reference, rms_norm, rowwise
from nacre_kernels.rowwise import FusedGatedMLP, FusedRMSNorm
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

F32, BF16 = torch.float32, torch.bfloat16
DIMS = (1, 7, 8, 15, 16, 31, 33, 64, 100, 257)
ULP = {F32: 2.0**-23, BF16: 2.0**-8}


def normal(*shape: int, dtype: torch.dtype = F32, seed: int = 0) -> torch.Tensor:
    return (2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))).to(dtype)


@pytest.mark.parametrize("dtype", [F32, BF16])
@pytest.mark.parametrize("late", [False, True])
def test_a_normed_row_is_the_same_alone_and_anywhere_on_every_path(
    dtype: torch.dtype, late: bool, isas: tuple[str, ...]
) -> None:
    for dim in DIMS:
        x, weight = normal(23, dim, dtype=dtype), normal(dim, seed=1)
        library.set_isa(isas[0])
        whole = rms_norm(x, weight, 1e-6, late_rounding=late)
        for isa in isas:
            library.set_isa(isa)
            assert torch.equal(rms_norm(x, weight, 1e-6, late_rounding=late, threads=3), whole)
            for start, stop in ((0, 1), (5, 6), (22, 23), (3, 17)):
                assert torch.equal(rms_norm(x[start:stop], weight, 1e-6, late_rounding=late), whole[start:stop])


@pytest.mark.parametrize("dtype", [F32, BF16])
def test_the_norm_is_what_its_reference_says(dtype: torch.dtype) -> None:
    for dim in DIMS:
        x = normal(9, dim, dtype=dtype)
        for weight in (None, normal(dim, seed=1)):
            for late in (False, True):
                got = rms_norm(x, weight, 1e-5, late_rounding=late)
                wanted = reference.rms_norm(x, weight, 1e-5, late_rounding=late)
                assert torch.allclose(got.double(), wanted.double(), rtol=2 * ULP[dtype], atol=0)
                assert (got == wanted).double().mean() > 0.99


@pytest.mark.parametrize("dtype", [F32, BF16])
@pytest.mark.parametrize("kind", ["silu", "gelu_tanh"])
def test_an_activation_does_not_know_where_it_lies(dtype: torch.dtype, kind: str, isas: tuple[str, ...]) -> None:
    gate, up = normal(20_011, dtype=dtype), normal(20_011, dtype=dtype, seed=1)
    library.set_isa(isas[0])
    whole = gated_activation(gate, up, kind)
    for isa in isas:
        library.set_isa(isa)
        assert torch.equal(gated_activation(gate, up, kind, threads=4), whole)
        for start, stop in ((0, 1), (1, 2), (5, 36), (17, 50), (20_010, 20_011), (8_191, 12_300)):
            assert torch.equal(gated_activation(gate[start:stop], up[start:stop], kind), whole[start:stop])


@pytest.mark.parametrize("dtype", [F32, BF16])
@pytest.mark.parametrize("kind", ["silu", "gelu_tanh"])
def test_the_activation_is_what_its_reference_says(dtype: torch.dtype, kind: str) -> None:
    gate = torch.cat([torch.linspace(-30, 30, 4001), normal(999), torch.tensor([0.0, -0.0, 1e-30, 3e38])]).to(dtype)
    up = normal(gate.numel(), dtype=dtype, seed=1)
    # e^x is good to two last bits; for large negative x the relative error of gelu's cubic grows with x².
    small = 4 * ULP[F32] if dtype == F32 else 1e-2
    for above in (None, up):
        got, wanted = gated_activation(gate, above, kind), reference.gated_activation(gate, above, kind)
        assert torch.allclose(got.double(), wanted.double(), rtol=small, atol=2e-6 if kind == "gelu_tanh" else 1e-30)
    assert gated_activation(torch.tensor([float("nan")] * 3 + [1.0]), None, kind).isnan().tolist() == [True] * 3 + [
        False
    ]


def config(kind: type[PretrainedConfig], **changes: object) -> PretrainedConfig:
    sizes = {"vocab_size": 61, "hidden_size": 48, "intermediate_size": 72, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 12}
    return kind(**{**sizes, **heads, "attn_implementation": "eager", **changes})


@pytest.mark.parametrize("dtype", [F32, BF16])
@pytest.mark.parametrize(
    ("make", "norms", "offset", "late"),
    [
        (lambda: LlamaForCausalLM(config(LlamaConfig)), 5, 0.0, False),
        (lambda: Qwen3ForCausalLM(config(Qwen3Config)), 9, 0.0, False),
        (lambda: Gemma3ForCausalLM(config(Gemma3TextConfig)), 13, 1.0, True),
    ],
    ids=["llama", "qwen3", "gemma3"],
)
def test_a_fused_model_computes_what_the_model_computes(
    make: object, norms: int, offset: float, late: bool, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    model: PreTrainedModel = make().to(dtype).eval()  # type: ignore[operator]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):
                parameter.normal_()
    weights = {name: value.clone() for name, value in model.state_dict().items() if "norm" in name}
    tokens = torch.arange(12)[None]
    with torch.inference_mode():
        before = model(tokens, use_cache=False).logits
        pack_model(model)
        report = fuse_rowwise(model, threads=1)
        after = model(tokens, use_cache=False).logits
    assert (report.norms, report.mlps, report.left) == (norms, 2, ())
    fused = [module for module in model.modules() if isinstance(module, FusedRMSNorm)]
    assert {module.late_rounding for module in fused} == {late} or dtype == F32
    assert all(torch.equal(module._factor, module.weight.float() + offset) for module in fused)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in weights.items())
    assert torch.allclose(
        after.float(), before.float(), atol=1e-5 if dtype == F32 else 0.05 * float(before.abs().max())
    )
    assert fuse_rowwise(model).norms == 0


class ShiftedRMSNorm(torch.nn.Module):
    """Looks like an RMS norm and is none."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(8))
        self.eps = 1e-6

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * x / x.square().mean(-1, keepdim=True).sqrt() + 1.0


class SparseMLP(torch.nn.Module):
    """Looks like a gated MLP and drops half of it."""

    def __init__(self) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = (torch.nn.Linear(8, 8) for _ in range(3))
        self.act_fn = torch.nn.SiLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = self.gate_proj(x)
        return self.down_proj(self.act_fn(torch.where(gate > gate.median(), gate, 0)) * self.up_proj(x))


def test_modules_that_only_look_alike_are_left_and_named() -> None:
    model = torch.nn.Sequential(ShiftedRMSNorm(), SparseMLP())
    report = fuse_rowwise(model)
    assert (report.norms, report.mlps, report.left) == (0, 0, ("ShiftedRMSNorm", "SparseMLP"))
    assert torch.equal(model[0].weight, torch.ones(8))


def test_without_the_library_nothing_is_fused_and_the_reference_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = normal(3, 20), normal(20, seed=1)
    normed, gated = rms_norm(x, weight, 1e-6), gated_activation(x, x)
    monkeypatch.setattr(rowwise, "available", lambda: False)
    assert torch.allclose(rms_norm(x, weight, 1e-6), normed, rtol=1e-6)
    assert torch.allclose(gated_activation(x, x), gated, rtol=1e-5)
    model = torch.nn.Sequential(torch.nn.Sequential(FusedGatedMLP(SparseMLP(), "silu")))
    assert fuse_rowwise(model).left == ("the compiled kernels are missing",)


def test_wrong_inputs_are_refused() -> None:
    with pytest.raises(TypeError, match=r"x is torch\.float64"):
        rms_norm(torch.zeros(2, 4, dtype=torch.float64), None, 1e-6)
    with pytest.raises(ValueError, match=r"weight is torch.float32 \(5,\); it must be torch.float32 \[4\]"):
        rms_norm(torch.zeros(2, 4), torch.zeros(5), 1e-6)
    with pytest.raises(ValueError, match="last dimension must be at least 1"):
        rms_norm(torch.zeros(2, 0), None, 1e-6)
    with pytest.raises(TypeError, match=r"gate is torch\.int64"):
        gated_activation(torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match="'relu' is not one of silu, gelu_tanh"):
        gated_activation(torch.zeros(2), None, "relu")
    with pytest.raises(ValueError, match="they must agree"):
        gated_activation(torch.zeros(2), torch.zeros(3))
    assert gated_activation(torch.zeros(0, 3)).shape == (0, 3)
    assert rms_norm(torch.zeros(0, 3), None, 1e-6).shape == (0, 3)
