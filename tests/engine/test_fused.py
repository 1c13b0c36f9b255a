"""The fused pass says what the plain model says, up to the rounding of its weights, however the rows arrive."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from nacre_kernels import library
from transformers import LlamaConfig, MistralConfig, PretrainedConfig, PreTrainedModel

from nacre.engine import Engine, LoadedModel, RowBlock, fused, load_model
from nacre.engine.loading import quiet
from nacre.engine.rows import TIP
from nacre.errors import InvalidArgument, ResourceExhausted, Unimplemented

MakeModel = Callable[[PretrainedConfig], PreTrainedModel]

PLAIN = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 256,
}
SHAPES = {
    "plain": {},
    "grouped": {"num_key_value_heads": 2},
    "one key head": {"num_key_value_heads": 1, "num_attention_heads": 8, "head_dim": 16},
    "odd sizes": {"hidden_size": 72, "head_dim": 18, "intermediate_size": 100, "vocab_size": 130},
    "tied": {"tie_word_embeddings": True},
    "wide heads": {"head_dim": 80, "num_attention_heads": 2, "num_key_value_heads": 2},
    "one layer": {"num_hidden_layers": 1},
    "stretched": {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}},
}
TEXT = tuple((7 * i * i + 3 * i) % 97 for i in range(70))


@pytest.fixture(autouse=True)
def every_instruction_set_is_put_back() -> Iterator[None]:
    before = library.isa()
    yield
    library.set_isa(before)


@pytest.fixture
def loaded(make_random_model: MakeModel, plain: Callable[..., LoadedModel]) -> Callable[..., LoadedModel]:
    """A random model of another configuration, as if it had been loaded."""

    def make(config: PretrainedConfig) -> LoadedModel:
        return dataclasses.replace(
            plain("llama"),
            model=make_random_model(config).requires_grad_(False),
            vocab_size=config.vocab_size,
            max_positions=config.max_position_embeddings,
        )

    return make


def plain_logits(model: PreTrainedModel, tokens: tuple[int, ...]) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0].float()


def close(mine: torch.Tensor, theirs: torch.Tensor) -> bool:
    deviation = (theirs - theirs.mean(dim=-1, keepdim=True)).square().mean().sqrt()
    return mine.shape == theirs.shape and float((mine - theirs).square().mean().sqrt() / deviation) < 0.03


def fused_engine(model: LoadedModel, kv_bytes: int = 1 << 20) -> Engine:
    engine = Engine(model, kv_bytes=kv_bytes, exact=False)
    assert engine.info.numerics.startswith("unchecked/fused8/")
    return engine


def chunk(engine: Engine, sequence: int, tokens: tuple[int, ...]) -> torch.Tensor:
    return engine.step([RowBlock(sequence, tokens, commit=True)]).logits


@pytest.mark.parametrize("shape", SHAPES)
def test_logits_are_the_plain_models_up_to_rounding(loaded: Callable[..., LoadedModel], shape: str) -> None:
    model = loaded(LlamaConfig(**{**PLAIN, **SHAPES[shape]}))
    engine = fused_engine(model)
    expected = plain_logits(model.model, TEXT)
    sequence = engine.open("a", ())
    assert close(chunk(engine, sequence, TEXT), expected)


@pytest.mark.parametrize("isa", library.ISAS)
def test_every_instruction_set_says_the_same_up_to_rounding(loaded: Callable[..., LoadedModel], isa: str) -> None:
    if isa not in library.supported_isas():
        pytest.skip(f"this CPU has no {isa}")
    model = loaded(LlamaConfig(**{**PLAIN, **SHAPES["odd sizes"], "num_key_value_heads": 2}))
    engine = fused_engine(model)
    best = chunk(engine, engine.open("a", ()), TEXT)
    library.set_isa(isa)
    other = chunk(engine, engine.open("b", ()), TEXT)
    assert float((best - other).abs().max()) < 1e-2 * float(best.abs().max())


def test_chunks_single_rows_and_branches_agree(loaded: Callable[..., LoadedModel]) -> None:
    """However a text comes into the cache, with rivals and another sequence beside it, its logits are the same."""
    model = loaded(LlamaConfig(**{**PLAIN, "num_key_value_heads": 2}))
    engine = fused_engine(model)
    expected = plain_logits(model.model, TEXT)
    one, other = engine.open("a", ()), engine.open("b", ())
    chunk(engine, other, TEXT[5:20])
    parts = [chunk(engine, one, TEXT[:3]), chunk(engine, one, TEXT[3:40])]
    for start in range(40, 64, 4):
        row, beside = engine.next_row(one), engine.next_row(other)
        a, b, c, d = TEXT[start : start + 4]
        # a - b - c - d is the text; rivals beside b and d, and a pair of rows of the other sequence.
        tree = RowBlock(one, (a, 9, b, c), (TIP, row, row, row + 2))
        logits = engine.step([RowBlock(other, (3, 4), (TIP, beside)), tree]).logits
        last = engine.step([RowBlock(one, (9, d), (row + 3, row + 3))]).logits
        parts += [logits[2:3], logits[4:6], last[1:2]]
        engine.advance(one, [row, row + 2])
        engine.advance(one, [row + 3, row + 5])
        engine.advance(other, [beside])
    assert close(torch.cat(parts), expected[:64])
    for sequence in (one, other):
        engine.close(sequence)
    assert engine.use().free_slots + engine.use().idle_block_slots == engine.use().slots


def test_rows_rolled_back_leave_no_trace(loaded: Callable[..., LoadedModel]) -> None:
    model = loaded(LlamaConfig(**PLAIN))
    engine = fused_engine(model)
    sequence = engine.open("a", ())
    chunk(engine, sequence, TEXT[:30])
    engine.step([RowBlock(sequence, (1, 2, 3))])
    engine.advance(sequence, ())
    row = engine.next_row(sequence)
    logits = engine.step([RowBlock(sequence, TEXT[30:33], (TIP, row, row + 1))]).logits
    assert close(logits, plain_logits(model.model, TEXT[:33])[30:])


def test_only_rows_that_want_logits_get_them(loaded: Callable[..., LoadedModel]) -> None:
    model = loaded(LlamaConfig(**PLAIN))
    engine = fused_engine(model)
    one, two = engine.open("a", ()), engine.open("b", ())
    blocks = [
        RowBlock(one, TEXT[:50], logits_from=49, commit=True),
        RowBlock(two, TEXT[:40], logits_from=40, commit=True),
    ]
    logits = engine.step(blocks).logits
    assert close(logits, plain_logits(model.model, TEXT[:50])[49:])


def test_logits_that_someone_holds_are_not_written_over(loaded: Callable[..., LoadedModel]) -> None:
    engine = fused_engine(loaded(LlamaConfig(**PLAIN)))
    sequence = engine.open("a", ())
    first = chunk(engine, sequence, TEXT[:5])
    kept, view = first.clone(), first[1:3].numpy()
    del first
    for token in range(6):
        engine.step([RowBlock(sequence, (token,))])
    assert np.array_equal(view, kept[1:3].numpy())


def test_memory_is_bounded_and_the_oldest_gives_way(loaded: Callable[..., LoadedModel]) -> None:
    model = loaded(LlamaConfig(**PLAIN))
    slot_bytes = fused.build(model, kv_bytes=1 << 20).slot_bytes
    engine = fused_engine(model, kv_bytes=40 * slot_bytes)
    assert engine.use().slots == 40
    first, second = engine.open("a", ()), engine.open("b", ())
    chunk(engine, first, TEXT[:30])
    chunk(engine, second, TEXT[:35])
    assert engine.cached(first) == 0
    with pytest.raises(ResourceExhausted):
        chunk(engine, second, TEXT[:35])


def test_tokens_outside_the_vocabulary_are_refused(loaded: Callable[..., LoadedModel]) -> None:
    engine = fused_engine(loaded(LlamaConfig(**PLAIN)))
    with pytest.raises(InvalidArgument):
        chunk(engine, engine.open("a", ()), (97,))


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (lambda: LlamaConfig(**PLAIN, attention_bias=True), "bias"),
        (lambda: LlamaConfig(**PLAIN, mlp_bias=True), "bias"),
        (lambda: LlamaConfig(**PLAIN, hidden_act="gelu"), "activation"),
        (lambda: MistralConfig(**PLAIN, sliding_window=40), "window"),
    ],
)
def test_what_it_does_not_cover_goes_the_old_way(
    loaded: Callable[..., LoadedModel], config: Callable[[], PretrainedConfig], reason: str
) -> None:
    model = loaded(config())
    with pytest.raises(Unimplemented, match=reason):
        fused.build(model, kv_bytes=1 << 20)
    engine = Engine(model, kv_bytes=1 << 20, exact=False)
    assert "fused8" not in engine.info.numerics
    assert engine.info.tree_mode


@pytest.mark.parametrize("family", ["qwen3", "gemma3", "gpt2"])
def test_other_families_are_refused_with_a_reason(plain: Callable[..., LoadedModel], family: str) -> None:
    with pytest.raises(Unimplemented, match="parameters"):
        fused.build(plain(family), kv_bytes=1 << 20)


def test_a_model_that_computes_something_else_is_refused(loaded: Callable[..., LoadedModel]) -> None:
    """The same parameters are no proof: here attention's scale is another."""
    model = loaded(LlamaConfig(**PLAIN))
    for layer in model.model.model.layers[1:]:
        layer.self_attn.scaling *= 3
    with pytest.raises(Unimplemented, match="differ"):
        fused.build(model, kv_bytes=1 << 20)


def test_a_target_is_never_fused(model_copy: Path) -> None:
    assert "fused8" not in Engine(load_model(model_copy, dtype="float32"), kv_bytes=1 << 20).info.numerics


def test_without_the_library_it_goes_the_old_way(
    plain: Callable[..., LoadedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused, "available", lambda: False)
    with quiet(), pytest.raises(Unimplemented, match="kernels"):
        fused.build(plain("llama"), kv_bytes=1 << 20)
