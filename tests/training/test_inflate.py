"""An inflated model is the same function; what cannot be inflated is refused with a reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from nacre.errors import FailedPrecondition, InvalidArgument, NotFound
from nacre.training.inflate import inflate
from nacre.training.lean_llama import LeanLlama, Shape, load_hugging_face, save_hugging_face

SHAPE = Shape(hidden=32, layers=2, heads=2, intermediate=64, vocab=128, max_positions=64)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    model = LeanLlama(SHAPE, seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for block in model.blocks:
            block.out.normal_(0, 0.1, generator=generator)
            block.down.normal_(0, 0.1, generator=generator)
    save_hugging_face(model, tmp_path / "small", {})
    (tmp_path / "small" / "tokenizer.json").write_text("{}")
    return tmp_path / "small"


def sequential_mlp(tensors: dict[str, torch.Tensor], layer: int, x: torch.Tensor) -> torch.Tensor:
    """A gated MLP in fp32 that adds its neurons one after the other, as the engine's own product does."""
    gate, up, down = (
        tensors[f"model.layers.{layer}.mlp.{name}_proj.weight"].float() for name in ("gate", "up", "down")
    )
    total = torch.zeros(x.shape[0], down.shape[0])
    for neuron in range(gate.shape[0]):
        activity = torch.nn.functional.silu((x * gate[neuron]).sum(-1)) * (x * up[neuron]).sum(-1)
        total = total + activity[:, None] * down[:, neuron]
    return total


def test_every_mlp_computes_bitwise_what_the_sources_does(source: Path, tmp_path: Path) -> None:
    inflate(source, tmp_path / "big", parameters=200_000)
    small, big = (load_file(path / "model.safetensors") for path in (source, tmp_path / "big"))
    x = torch.randn(5, SHAPE.hidden, generator=torch.Generator().manual_seed(3))
    for layer in range(SHAPE.layers):
        expected, got = sequential_mlp(small, layer, x), sequential_mlp(big, layer, x)
        assert expected.abs().max() > 0
        assert torch.equal(expected, got)


def test_the_added_neurons_are_active_and_add_exactly_nothing(source: Path, tmp_path: Path) -> None:
    inflate(source, tmp_path / "big", parameters=200_000)
    small, big = (load_file(path / "model.safetensors") for path in (source, tmp_path / "big"))
    for name, tensor in small.items():
        kept = tuple(slice(0, size) for size in tensor.shape)
        assert torch.equal(big[name][kept], tensor)
        rest = big[name][:, tensor.shape[1] :] if "down_proj" in name else big[name][tensor.shape[0] :]
        if "down_proj" in name:
            assert rest.numel() > 0
            assert not rest.any()
        elif "gate_proj" in name or "up_proj" in name:
            assert rest.abs().sum() > 0
        else:
            assert rest.numel() == 0


def test_transformers_loads_it_and_the_whole_model_gives_the_sources_logits(source: Path, tmp_path: Path) -> None:
    parameters = inflate(source, tmp_path / "big", parameters=150_000)
    small, big = (
        AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64) for path in (source, tmp_path / "big")
    )
    tokens = torch.arange(40)[None] % SHAPE.vocab
    with torch.no_grad():
        expected, got = small(tokens).logits, big(tokens).logits
    # float64: what the library's blocking of the longer sum may round differently is far below a bf16 or fp32 bit
    assert float((expected - got).abs().max()) < 1e-12
    assert sum(weight.numel() for weight in big.parameters()) == parameters
    assert abs(parameters - 150_000) <= 3 * SHAPE.hidden * SHAPE.layers * 64


def test_the_card_and_the_config_say_that_it_is_inflated(source: Path, tmp_path: Path) -> None:
    new = inflate(source, tmp_path / "big", parameters=100_000)
    card = (tmp_path / "big" / "README.md").read_text()
    assert "Inflated" in card
    assert f"{new:,}" in card
    config = json.loads((tmp_path / "big" / "config.json").read_text())
    assert config["nacre_inflated_from_parameters"] == SHAPE.parameters()
    assert (tmp_path / "big" / "tokenizer.json").exists()


def test_the_same_seed_writes_the_same_file(source: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 4), ("b", 4), ("c", 5)):
        inflate(source, tmp_path / name, parameters=100_000, seed=seed)
    a, b, c = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")
    assert a == b
    assert a != c


@pytest.mark.parametrize("parameters", [0, -1, SHAPE.parameters(), 10**12])
def test_a_size_out_of_bounds_is_refused_with_the_bound(source: Path, tmp_path: Path, parameters: int) -> None:
    with pytest.raises(InvalidArgument, match=f"{SHAPE.parameters():,}"):
        inflate(source, tmp_path / "big", parameters=parameters)
    assert not (tmp_path / "big").exists()


def test_a_model_without_gated_mlps_is_refused(source: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    tensors = load_file(source / "model.safetensors")
    tensors["model.layers.0.mlp.experts.0.weight"] = torch.zeros(2, 2)
    save_file(tensors, source / "model.safetensors")
    with pytest.raises(FailedPrecondition, match="gate_proj, up_proj and down_proj"):
        inflate(source, tmp_path / "big", parameters=200_000)


def test_a_directory_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"config\.json"):
        inflate(tmp_path, tmp_path / "big")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(NotFound, match="safetensors"):
        inflate(tmp_path, tmp_path / "big")


def test_the_lean_model_reads_back_what_it_wrote(source: Path) -> None:
    again = source.parent / "again"
    save_hugging_face(load_hugging_face(source), again, {})
    assert (again / "model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()
