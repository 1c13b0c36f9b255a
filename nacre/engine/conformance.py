"""Proves at load time that a model's class survives the packed pass, on a tiny random copy of it.

transformers promises that attention can be replaced; it does not promise that everything a model does about
positions, masks and caches goes through attention's arguments (Llama 4 hides chunked attention in a mask;
hybrids keep recurrent state). So a model of the same config class is built with random weights, at most six
layers covering every layer type of the real one, windows scaled down below the probe's text lengths; packed
trees of several sessions, in fp32, are then compared with the plain model run over each path. A class that
fails, raises or cannot be shrunk is refused with a line.

Not covered: sizes. A kernel that breaks only at the real width is the numerics probe's business.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from nacre.engine.kv_pool import KvPool
from nacre.engine.loading import one_line, quiet
from nacre.engine.packed import ATTENTION, PackedForward, attention_of
from nacre.engine.rows import TIP, RowBlock

TOLERANCE = 1e-4
_VOCABULARY = 97
_MAX_LAYERS = 6
_WINDOW = 6
_SLOTS = 256

_SMALL = {
    "vocab_size": _VOCABULARY,
    "vocab_size_per_layer_input": _VOCABULARY,
    "intermediate_size": 48,
    "intermediate_size_mlp": 48,
    "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 24,
    "hidden_size_per_layer_input": 16,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "sliding_window": _WINDOW,
    "attention_chunk_size": _WINDOW,
    "floor_scale": _WINDOW,
    "num_experts_per_tok": 2,
    "top_k_experts": 2,
    "moe_topk": 2,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
}
_NAMES = ("num_hidden_layers", "num_attention_heads", "hidden_size")
_LAYER_INDICES = ("mlp_only_layers", "moe_layers")
_TOKEN_IDS = ("pad_token_id", "bos_token_id", "eos_token_id")
_UNSAFE_ROPE = ("dynamic", "longrope")


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether packed trees conform; `refusal` is the reason in one line if they do not."""

    conforms: bool
    refusal: str
    error: float = math.inf  # largest difference of a logit, in units of the largest logit (at least 1)


_verdicts: dict[str, Verdict] = {}
_MAX_VERDICTS = 64


def check(config: PretrainedConfig) -> Verdict:
    """The verdict on models of this config; computed once per process and config, in about a second."""
    text = config.get_text_config(decoder=True)
    key = hashlib.sha256(f"{type(text).__name__}{text.to_json_string(use_diff=False)}".encode()).hexdigest()
    if key not in _verdicts:
        while len(_verdicts) >= _MAX_VERDICTS:
            del _verdicts[next(iter(_verdicts))]
        _verdicts[key] = _probe(text)
    return _verdicts[key]


def safe_positions(config: PretrainedConfig) -> int | None:
    """Up to which length rotary factors are constant; None where they always are.

    `dynamic` and `longrope` choose their factors by the longest sequence of the pass: one long session would
    rotate the others' keys differently. Below the original context they never change, so the engine stays
    below it.
    """
    text = config.get_text_config(decoder=True)
    parameters = getattr(text, "rope_parameters", None) or {}
    kinds = [parameters, *(value for value in parameters.values() if isinstance(value, dict))]
    limits = [
        kind.get("original_max_position_embeddings")
        or getattr(text, "original_max_position_embeddings", None)
        or text.max_position_embeddings
        for kind in kinds
        if kind.get("rope_type") in _UNSAFE_ROPE
    ]
    return min(limits) if limits else None


def _probe(config: PretrainedConfig) -> Verdict:
    name = config.model_type
    try:
        with quiet():
            if AutoModelForCausalLM._model_mapping[type(config)]._is_stateful:
                return Verdict(False, f"{name!r} keeps a recurrent state, which cannot branch or go back")
            model = tiny_model(config)
            model.set_attn_implementation(ATTENTION)
            if model.config._attn_implementation != ATTENTION:
                return Verdict(False, f"{name!r} does not let its attention be replaced")
            error, agree = compare(model)
    except Exception as problem:  # noqa: BLE001 - any way to fail is a reason not to run packed
        return Verdict(False, f"a packed pass of {name!r} failed ({one_line(problem)})")
    if not (agree and error <= TOLERANCE):
        return Verdict(
            False,
            f"packed logits of {name!r} differ from the plain model's by {error:.1e} (bound {TOLERANCE:.0e})",
            error,
        )
    return Verdict(True, "", error)


# -- a tiny model of the same class --------------------------------------------------------------------------


def tiny_model(config: PretrainedConfig) -> PreTrainedModel:
    """A random fp32 model of the config's class, a few layers deep, that exercises every layer type."""
    small = shrink(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(small, dtype=torch.float32, attn_implementation="eager")
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                noise = torch.randn_like(parameter)
                if parameter.dim() >= 2:
                    # Large enough that every score, gate and logit matters; the library's 0.02 would hide
                    # errors.
                    parameter.copy_(noise / parameter.shape[-1] ** 0.5)
                elif name.endswith("sinks"):
                    parameter.copy_(noise)
                else:
                    parameter.copy_(parameter.nan_to_num() + 0.1 * noise)
    return model.eval().requires_grad_(False)


def shrink(config: PretrainedConfig) -> PretrainedConfig:
    """The same config class, layer kinds, rotary type and head layout at a fraction of the size."""
    native = {**{name: name for name in _NAMES}, **config.attribute_map}
    fields = config.to_dict()
    for stray in ("quantization_config", "auto_map", "architectures", "dtype"):
        fields.pop(stray, None)
    layers = _pick_layers(fields, native)
    count = fields[native["num_hidden_layers"]]
    for name, value in fields.items():
        if name in _LAYER_INDICES and value is not None:
            fields[name] = [layers.index(layer) for layer in value if layer in layers]
        elif _is_per_layer(value, count):
            fields[name] = [value[layer] for layer in layers]
    for name, bound in _SMALL.items():
        _clamp(fields, native.get(name, name), bound)
    for name in _TOKEN_IDS:
        if fields.get(name) is not None:
            fields[name] = 0
    if fields.get("num_kv_shared_layers"):
        fields["num_kv_shared_layers"] = sum(layer >= _first_shared(fields, count) for layer in layers)
    fields[native["num_hidden_layers"]] = len(layers)
    _shrink_heads(fields, native, layers)
    return type(config).from_dict(fields)


def _clamp(fields: dict[str, Any], name: str, bound: int) -> None:
    value = fields.get(name)
    if isinstance(value, list):
        fields[name] = [min(entry, bound) for entry in value]
    elif isinstance(value, int):
        fields[name] = min(value, bound)


def _shrink_heads(fields: dict[str, Any], native: dict[str, str], layers: list[int]) -> None:
    """Few heads in the same proportion. Head dimensions stay: rotary factors are lists of that length."""
    heads = fields[native["num_attention_heads"]]
    kv_heads = fields.get("num_key_value_heads") or heads
    few_kv = min(kv_heads, 2)
    few = few_kv * min(heads // kv_heads, 2)
    width, head_dim = fields[native["hidden_size"]] // heads, fields.get("head_dim")
    fields[native["num_attention_heads"]] = few
    fields[native["hidden_size"]] = few * (width if head_dim is None else min(width, 32))
    if fields.get("num_key_value_heads") is not None:
        fields["num_key_value_heads"] = few_kv
    if overrides := fields.get("per_layer_config"):
        overrides = {int(layer): dict(override) for layer, override in overrides.items()}
        for override in overrides.values():
            _clamp(override, "num_key_value_heads", few_kv)
        fields["per_layer_config"] = {
            layers.index(layer): override for layer, override in overrides.items() if layer in layers
        }


def _pick_layers(fields: dict[str, Any], native: dict[str, str]) -> list[int]:
    """Indices of a few layers that cover every combination of per-layer settings, in order."""
    count = fields[native["num_hidden_layers"]]
    lists = [value for value in fields.values() if _is_per_layer(value, count)]
    indexed = [set(fields.get(name) or ()) for name in _LAYER_INDICES]
    overrides = {int(layer): str(override) for layer, override in (fields.get("per_layer_config") or {}).items()}
    shared = _first_shared(fields, count)
    kinds: dict[object, int] = {}
    for layer in range(count):
        kind = (
            *(str(value[layer]) for value in lists),
            *(layer in some for some in indexed),
            overrides.get(layer),
            layer >= shared,
        )
        # Of shared layers the last of a kind: some configs insist on the kind of the very last layer.
        kinds[kind] = layer if layer >= shared else kinds.get(kind, layer)
    picked = set(list(kinds.values())[:_MAX_LAYERS])
    if len(picked) == 1 and count > 1:
        picked.add(1)
    return sorted(picked)


def _is_per_layer(value: object, layers: int) -> bool:
    return isinstance(value, list | tuple) and len(value) == layers and layers > 1


def _first_shared(fields: dict[str, Any], count: int) -> int:
    """Index of the first layer that reads the keys and values of an earlier one."""
    return int(count - (fields.get("num_kv_shared_layers") or 0))


# -- packed trees against plain paths ------------------------------------------------------------------------


_Work = tuple[RowBlock, list[tuple[int, ...]]]
"""A block and, for each of its rows with logits, all tokens from the sequence's start."""


class _Session:
    """One sequence of the probe: makes its blocks and knows which path every row stands for."""

    def __init__(self, pool: KvPool, draw: np.random.Generator, vocabulary: int, length: int) -> None:
        self.pool = pool
        self.draw = draw
        self.vocabulary = vocabulary
        self.id = pool.open(f"probe-{length}", ())
        self.prompt = self.tokens(length)
        self.tip = self.prompt[:0]
        self.rows: list[int] = []  # ids of all tree rows so far
        self.paths: list[tuple[int, ...]] = []  # their tokens from the sequence's start

    def tokens(self, count: int) -> tuple[int, ...]:
        return tuple(int(token) for token in self.draw.integers(self.vocabulary, size=count))

    def chunk(self, end: int, logits_from: int = 0) -> _Work:
        """The prompt up to `end`."""
        start, self.tip = len(self.tip), self.prompt[:end]
        paths = [self.prompt[: position + 1] for position in range(start + logits_from, end)]
        return RowBlock(self.id, self.prompt[start:end], logits_from=logits_from, commit=True), paths

    def tree(self, *parents: int) -> _Work:
        """Random rows below the given tree rows (counted over all trees of this session) or TIP."""
        first = self.pool.held(self.id).next_row
        self.rows.extend(range(first, first + len(parents)))
        ids = [TIP if parent == TIP else self.rows[parent] for parent in parents]
        tokens = self.tokens(len(parents))
        for token, parent in zip(tokens, parents, strict=True):
            self.paths.append((*(self.tip if parent == TIP else self.paths[parent]), token))
        return RowBlock(self.id, tokens, tuple(ids)), self.paths[-len(parents) :]

    def advance(self, *path: int) -> None:
        self.pool.advance(self.id, [self.rows[row] for row in path])
        self.tip = self.paths[path[-1]]


def compare(model: PreTrainedModel) -> tuple[float, bool]:
    """Largest difference between packed and plain logits, in units of the largest; do all argmax agree?"""
    forward = PackedForward(model, kv_bytes=1 << 40, max_slots=_SLOTS)
    pool = KvPool(forward.slots, forward.slot_bytes)
    draw = np.random.default_rng(0)
    a, b, c = (_Session(pool, draw, model.config.vocab_size, length) for length in (11, 5, 17))
    packed: dict[tuple[int, ...], torch.Tensor] = {}

    def step(*work: _Work) -> None:
        placed = pool.reserve([block for block, _ in work])
        logits = forward(placed)
        pool.complete(placed)
        packed.update(zip([path for _, paths in work for path in paths], logits, strict=True))

    step(a.chunk(6, logits_from=6), b.chunk(5), c.chunk(9, logits_from=7))
    step(c.chunk(17), b.tree(TIP, 0, 0, TIP), a.chunk(11))
    step(a.tree(TIP, 0, 0, 2, 1, TIP), b.tree(0, 4, 2), c.tree(TIP, TIP, 1, 2, 2, 0, 4, 6))
    a.advance(0, 2)
    b.advance(0, 4)
    c.advance(1, 2, 4)
    step(c.tree(TIP, 8, 8, 6), a.tree(TIP, 3, 6), b.tree(5, TIP))
    return _difference(model, packed)


def _difference(model: PreTrainedModel, packed: dict[tuple[int, ...], torch.Tensor]) -> tuple[float, bool]:
    prefixes = {path[:end] for path in packed for end in range(len(path))}
    worst, agree = 0.0, True
    with attention_of(model, "eager"), torch.inference_mode():
        for leaf in (path for path in packed if path not in prefixes):
            plain = model(input_ids=torch.tensor([leaf]), use_cache=False).logits[0].float()
            scale = max(1.0, float(plain.abs().max()))
            for end in range(1, len(leaf) + 1):
                if (row := packed.get(leaf[:end])) is not None:
                    difference = float((row - plain[end - 1]).abs().max()) / scale
                    worst = max(worst, difference if difference == difference else math.inf)
                    agree = agree and int(row.argmax()) == int(plain[end - 1].argmax())
    return worst, agree
