"""Packing a whole model: what is replaced, what is left on torch and said so, and that its rows become independent."""

from __future__ import annotations

import pytest
import torch
from nacre_kernels import PackedLinear, pack_model, packed
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM


def tiny_llama(dtype: torch.dtype, tied: bool = True) -> LlamaForCausalLM:
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=97,
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=tied,
        attn_implementation="eager",
    )
    return LlamaForCausalLM(config).to(dtype).eval()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tied", [True, False])
def test_every_linear_of_a_llama_is_packed_and_the_logits_stay(dtype: torch.dtype, tied: bool) -> None:
    model = tiny_llama(dtype, tied)
    tokens = torch.arange(12)[None]
    with torch.inference_mode():
        before = model(tokens, use_cache=False).logits
        table = model.get_input_embeddings().weight.clone()
        report = pack_model(model, threads=1)
        after = model(tokens, use_cache=False).logits
    assert report.packed == 2 * 7 + 1
    assert report.left == ()
    assert report.packed_bytes == sum(m.nbytes for m in model.modules() if isinstance(m, PackedLinear))
    assert not any(type(module) is torch.nn.Linear for module in model.modules())
    assert isinstance(model.get_output_embeddings(), PackedLinear)
    assert torch.equal(model.get_input_embeddings().weight, table)
    assert torch.allclose(after.float(), before.float(), atol=1e-5 if dtype == torch.float32 else 0.03)


def test_packing_twice_changes_nothing_more() -> None:
    model = tiny_llama(torch.float32)
    pack_model(model)
    report = pack_model(model)
    assert (report.packed, report.left) == (0, ())


def test_what_cannot_be_packed_is_left_and_named() -> None:
    model = GPT2LMHeadModel(GPT2Config(vocab_size=31, n_embd=16, n_layer=1, n_head=2, n_positions=8)).eval()
    report = pack_model(model)
    assert report.packed == 1  # the head
    assert dict(report.left)["transformer.h.0.attn.c_attn"] == "Conv1D is not torch.nn.Linear"
    assert len(report.left) == 4


class Special(torch.nn.Linear):
    pass


def test_subclasses_half_precision_and_hooked_layers_stay_on_torch() -> None:
    shared = torch.nn.Linear(4, 4)
    model = torch.nn.ModuleDict(
        {
            "special": Special(4, 4),
            "narrow": torch.nn.Linear(4, 4).half(),
            "hooked": torch.nn.Linear(4, 4),
            "table": torch.nn.Embedding(4, 4),
            "norm": torch.nn.LayerNorm(4),
            "one": shared,
            "two": shared,
        }
    )
    model["hooked"].register_forward_hook(lambda *_: None)
    report = pack_model(model, threads=2)
    assert report.packed == 1
    assert model["one"] is model["two"]
    assert model["one"].threads == 2
    assert dict(report.left) == {
        "special": "Special is not torch.nn.Linear",
        "narrow": "its weight is torch.float16",
        "hooked": "it has forward hooks",
    }


def test_without_the_library_nothing_is_packed_and_the_report_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "available", lambda: False)
    model = torch.nn.Sequential(torch.nn.Linear(4, 4))
    report = pack_model(model)
    assert report.packed == 0
    assert report.left == (("0", "the compiled kernels are missing"),)
    assert type(model[0]) is torch.nn.Linear


def test_without_the_library_a_layer_computes_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    linear = torch.nn.Linear(40, 30)
    x = torch.randn(5, 40)
    compiled = PackedLinear.from_linear(linear)
    monkeypatch.setattr(packed, "available", lambda: False)
    plain = PackedLinear.from_linear(linear)
    assert (compiled.is_packed, plain.is_packed) == (True, False)
    with torch.inference_mode():
        assert torch.allclose(plain(x), compiled(x), atol=1e-5)
