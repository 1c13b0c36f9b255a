"""Which model classes survive the packed pass, and that the probe catches those that do not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from transformers import (
    BloomConfig,
    Cohere2Config,
    DeepseekV3Config,
    Gemma2Config,
    Gemma3TextConfig,
    Gemma4TextConfig,
    GPT2Config,
    GptOssConfig,
    Lfm2Config,
    Llama4TextConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    Olmo2Config,
    Phi3Config,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
    Qwen3NextConfig,
)

from nacre.engine import conformance, packed
from nacre.engine.loading import quiet

CONFORMING: dict[str, Callable[[], PretrainedConfig]] = {
    "llama": LlamaConfig,
    "llama with llama3 rope": lambda: LlamaConfig(
        max_position_embeddings=131072,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 5e5,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
    ),
    "qwen2": Qwen2Config,
    "qwen3": Qwen3Config,
    "qwen3 moe": Qwen3MoeConfig,
    "mistral": MistralConfig,
    "phi3": lambda: Phi3Config(sliding_window=2047),
    "gemma2": Gemma2Config,
    "gemma3": Gemma3TextConfig,
    "gemma4": lambda: Gemma4TextConfig(num_kv_shared_layers=12),
    "gpt_oss": GptOssConfig,
    "olmo2": Olmo2Config,
    "cohere2": Cohere2Config,
    "gpt2": GPT2Config,
    "deepseek v3": DeepseekV3Config,
}

REFUSED: dict[str, tuple[Callable[[], PretrainedConfig], str]] = {
    "llama4": (Llama4TextConfig, "packed logits of 'llama4_text' differ from the plain model's by"),
    "qwen3 next": (Qwen3NextConfig, "'qwen3_next' keeps a recurrent state"),
    "mamba": (MambaConfig, "'mamba' keeps a recurrent state"),
    "lfm2": (lambda: Lfm2Config(full_attn_idxs=[1, 3]), "packed logits of 'lfm2' differ"),
    "bloom": (BloomConfig, "'bloom' does not let its attention be replaced"),
}


def build(make: Callable[[], PretrainedConfig]) -> PretrainedConfig:
    with quiet():
        return make()


@pytest.mark.parametrize("family", CONFORMING)
def test_a_conforming_family_passes_the_probe(family: str) -> None:
    verdict = conformance.check(build(CONFORMING[family]))
    assert verdict.conforms, verdict.refusal
    assert verdict.error <= conformance.TOLERANCE


@pytest.mark.parametrize("family", REFUSED)
def test_a_family_that_would_go_wrong_is_refused_with_a_line(family: str) -> None:
    make, message = REFUSED[family]
    verdict = conformance.check(build(make))
    assert not verdict.conforms
    assert message in verdict.refusal
    assert "\n" not in verdict.refusal


def test_the_tiny_model_keeps_every_kind_of_layer_and_scales_windows_below_the_text() -> None:
    config = build(Gemma3TextConfig)
    small = conformance.shrink(config)
    assert set(small.layer_types) == {"sliding_attention", "full_attention"}
    assert small.sliding_window < 11
    assert small.num_hidden_layers <= 6
    assert small.num_attention_heads // small.num_key_value_heads == 2
    assert config.num_hidden_layers == 26, "the real config is left alone"


def test_layers_that_share_keys_and_values_store_them_once() -> None:
    with quiet():
        model = conformance.tiny_model(Gemma4TextConfig(num_kv_shared_layers=12))
        model.set_attn_implementation(packed.ATTENTION)
    layers = packed.survey(model)
    sharing = [(layer, shape.store) for layer, shape in enumerate(layers) if shape.store != layer]
    assert sharing == [(2, 0), (3, 1)]
    forward = packed.PackedForward(model, kv_bytes=1 << 20)
    assert forward.slot_bytes == layers[0].slot_bytes + layers[1].slot_bytes


def test_the_verdict_is_computed_once_per_config(monkeypatch: pytest.MonkeyPatch) -> None:
    config = build(LlamaConfig)
    first = conformance.check(config)
    monkeypatch.setattr(conformance, "_probe", lambda _: pytest.fail("probed twice"))
    assert conformance.check(build(LlamaConfig)) is first


# The probe must be able to fail: each of these breaks one thing that attention has to honour.


def without(name: str) -> Callable[..., object]:
    whole = packed.paged_tree_attention

    def attention(*args: object, **options: object) -> object:
        options[name] = None
        return whole(*args, **options)  # type: ignore[arg-type]

    return attention


def with_another_scale(*args: object, scale: float, **options: object) -> object:
    return WHOLE(*args, scale=scale * 1.1, **options)  # type: ignore[arg-type]


def without_ancestors(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, plan: object, **options: object) -> object:
    """Every uncommitted row sees the prefix and itself, but no row of the tree above it."""
    from nacre_kernels import AttentionPlan

    assert isinstance(plan, AttentionPlan)
    length = plan.ancestor_length.clamp(max=1)
    own = plan.ancestor_offset + plan.ancestor_length - length
    blind = AttentionPlan(
        plan.prefix_offset, plan.prefix_length, own.int(), length.int(), plan.prefix_slots, plan.ancestor_slots
    )
    return WHOLE(q, k, v, blind, **options)  # type: ignore[arg-type]


WHOLE = packed.paged_tree_attention
MUTANTS: dict[str, tuple[Callable[[], PretrainedConfig], Callable[..., object]]] = {
    "window ignored": (Gemma3TextConfig, without("window")),
    "softcap ignored": (Gemma2Config, without("softcap")),
    "sinks ignored": (GptOssConfig, without("sinks")),
    "scale wrong": (LlamaConfig, with_another_scale),
    "ancestors ignored": (LlamaConfig, without_ancestors),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_probe_catches_a_broken_attention(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, attention = MUTANTS[mutant]
    monkeypatch.setattr(packed, "paged_tree_attention", attention)
    assert not conformance._probe(build(make)).conforms


@pytest.mark.parametrize(
    ("rope", "bound"),
    [
        ({"rope_type": "default", "rope_theta": 1e4}, None),
        ({"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}, None),
        ({"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}, 512),
        (
            {
                "rope_type": "longrope",
                "rope_theta": 1e4,
                "short_factor": [1.0] * 16,
                "long_factor": [2.0] * 16,
                "original_max_position_embeddings": 128,
            },
            128,
        ),
    ],
    ids=lambda value: value["rope_type"] if isinstance(value, dict) else str(value),
)
def test_rotary_factors_that_depend_on_the_longest_session_bound_the_context(
    rope: dict[str, object], bound: int | None
) -> None:
    with quiet():
        config = LlamaConfig(
            hidden_size=64, num_attention_heads=2, head_dim=32, max_position_embeddings=512, rope_parameters=rope
        )
    assert conformance.safe_positions(config) == bound
    assert conformance.check(config).conforms


def test_the_probe_is_quick_enough_for_every_load() -> None:
    """Counts work, not seconds: a tiny model of the largest known config stays tiny."""
    small = conformance.shrink(build(DeepseekV3Config))
    model = conformance.tiny_model(build(DeepseekV3Config))
    assert small.num_hidden_layers <= 6
    assert sum(parameter.numel() for parameter in model.parameters()) < 8_000_000
