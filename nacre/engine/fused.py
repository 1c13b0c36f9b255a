"""The fused pass: a Llama-shaped draft model's whole forward in one call of the kernel library.

transformers' Python costs a model of a few million parameters ten times its arithmetic. A draft model's bits decide
nothing about the text, so its weights may be 8-bit and its sums in any order; what remains is what the caches can
deliver. Same shape as `PackedForward`: placed blocks in, logits out.

Rule: nothing is taken on trust. The parameters must be those of the plain shape and no others (no biases, no extra
norms, no experts), and the logits of a short text and of a tree over it must be the plain model's up to rounding.
Otherwise `build` says why, and the caller keeps the way through transformers.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np
import torch
from nacre_kernels import available
from nacre_kernels.decoder import DecoderWeights, FusedDecoder, LayerWeights
from transformers import PreTrainedModel

from nacre.engine.kv_pool import KvPool, Placement
from nacre.engine.loading import LoadedModel
from nacre.engine.packed import attention_of
from nacre.engine.rows import TIP, RowBlock
from nacre.errors import Unimplemented

TOLERANCE = 0.05
"""Largest root mean square of the logits' differences, in units of the logits' own deviation. Rounding to 8 bits
costs about 0.01; anything misunderstood about a model costs about 1."""

_LAYER_PARAMETERS = {
    *(f"self_attn.{name}_proj.weight" for name in "qkvo"),
    *(f"mlp.{name}_proj.weight" for name in ("gate", "up", "down")),
    *("input_layernorm.weight", "post_attention_layernorm.weight"),
}
_STATIC_ROPE = ("default", "linear", "llama3", "yarn")
_PROBE_TEXT = 24
_PROBE_SLOTS = 64


class FusedForward:
    """See the module's docstring."""

    min_rows = 1

    def __init__(self, decoder: FusedDecoder) -> None:
        self._decoder = decoder
        self.slots = decoder.slots
        self.slot_bytes = decoder.kv.numel() // decoder.slots * decoder.kv.itemsize

    def __call__(self, placed: Sequence[Placement]) -> torch.Tensor:
        """Runs one pass. Returns float32 [rows with logits, vocab] in block order."""
        rows, ancestors, keep = array("i"), array("i"), array("i")
        prefixes: list[tuple[int, int]] = []
        count = 0
        for sequence, placement in enumerate(placed):
            block, held = placement.block, placement.held
            length = held.length
            keep.extend(range(count + block.logits_from, count + len(block.tokens)))
            count += len(block.tokens)
            if block.commit:
                # Row i of a chunk sees the committed slots and the chunk's own up to itself: a longer prefix.
                slots = placement.slots.tolist()
                for index, (token, slot) in enumerate(zip(block.tokens, slots, strict=True), length + 1):
                    rows.extend((token, slot, sequence, index, 0, 0))
                length += len(slots)
            else:
                before, start = TIP, 0
                for token, row_id in zip(block.tokens, placement.row_ids, strict=True):
                    row = held.rows[row_id]
                    path = row.path
                    if row.parent == before != TIP:  # goes on where the row before it ended
                        ancestors.append(path[-1])
                    else:
                        start = len(ancestors)
                        ancestors.extend(path)
                    rows.extend((token, path[-1], sequence, length, start, len(path)))
                    before = row_id
            prefixes.append((held.slots.ctypes.data, length))
        return self._decoder.run(rows, prefixes, ancestors, keep)


def build(loaded: LoadedModel, *, kv_bytes: int) -> FusedForward:
    """The fused pass of this model, proven on it. Raises Unimplemented with the reason why it has none."""
    _require_shape(loaded)
    model = loaded.model
    weights = _weights_of(model)
    head_pad = -(-weights.head_dim // 32) * 32
    slot_bytes = len(weights.layers) * weights.kv_heads * 2 * head_pad * 2
    slots = max(kv_bytes // slot_bytes, 1)
    # A pool smaller than the probe cannot be probed itself: one of the probe's size stands for it.
    forward = FusedForward(FusedDecoder(weights, slots=max(slots, _PROBE_SLOTS), threads=loaded.threads))
    error = difference(loaded, forward)
    if not error <= TOLERANCE:
        raise Unimplemented(f"fused logits differ from the plain model's by {error:.2g} (bound {TOLERANCE})")
    forward.slots = slots
    return forward


def difference(loaded: LoadedModel, forward: FusedForward) -> float:
    """Root mean square of fused less plain logits over the plain ones' deviation: a text in chunks, and a tree."""
    draw = np.random.default_rng(0)
    text = tuple(int(token) for token in draw.integers(loaded.vocab_size, size=_PROBE_TEXT))
    known = _PROBE_TEXT // 2
    with attention_of(loaded.model, "eager"), torch.inference_mode():
        plain = loaded.model(input_ids=torch.tensor([text]), use_cache=False).logits[0].float()
    pool = KvPool(_PROBE_SLOTS, forward.slot_bytes)
    sequence = pool.open("probe", ())

    def run(block: RowBlock) -> torch.Tensor:
        placed = pool.reserve([block])
        logits = forward(placed)
        pool.complete(placed)
        return logits

    parts = [run(RowBlock(sequence, text[: known - 3], commit=True))]
    parts.append(run(RowBlock(sequence, text[known - 3 : known], commit=True)))
    tokens: list[int] = []
    parents: list[int] = []
    above, first = TIP, pool.held(sequence).next_row
    for token in text[known:]:  # beside every right token a rival, after which nothing comes
        tokens += [(token + 1) % loaded.vocab_size, token]
        parents += [above, above]
        above = first + len(tokens) - 1
    parts.append(run(RowBlock(sequence, tuple(tokens), tuple(parents)))[1::2])
    fused = torch.cat(parts)
    deviation = (plain - plain.mean(dim=1, keepdim=True)).square().mean().sqrt()
    return float((fused - plain).square().mean().sqrt() / deviation.clamp_min(1e-9))


def _require_shape(loaded: LoadedModel) -> None:
    """What the numbers of a short text cannot show, and what would only show as an exception."""
    if not available():
        raise Unimplemented("the compiled kernels are missing")
    if loaded.device.type != "cpu":
        raise Unimplemented(f"the model is on {loaded.device}")
    model, config = loaded.model, loaded.model.config.get_text_config()
    if config is not loaded.model.config:
        raise Unimplemented("the language model is a part of a larger one")
    count = getattr(config, "num_hidden_layers", 0)
    expected = {f"model.layers.{index}.{name}" for index in range(count) for name in _LAYER_PARAMETERS}
    expected |= {"model.embed_tokens.weight", "model.norm.weight"}
    found = {name for name, _ in model.named_parameters()}
    strange = sorted((found ^ expected) - {"lm_head.weight"})
    if strange:
        raise Unimplemented(f"its parameters are not a plain Llama's ({strange[0]})")
    # A window longer than the probe's text would not show.
    if getattr(config, "sliding_window", None) or set(getattr(config, "layer_types", None) or ()) - {"full_attention"}:
        raise Unimplemented("its attention has a window")
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") not in _STATIC_ROPE:
        raise Unimplemented(f"its rotary embedding is {rope.get('rope_type')!r}")
    if getattr(config, "hidden_act", None) != "silu":
        raise Unimplemented(f"its activation is {getattr(config, 'hidden_act', None)!r}")


def _weights_of(model: PreTrainedModel) -> DecoderWeights:
    config = model.config
    inner = model.model
    layers = [
        LayerWeights(
            query=layer.self_attn.q_proj.weight,
            key=layer.self_attn.k_proj.weight,
            value=layer.self_attn.v_proj.weight,
            out=layer.self_attn.o_proj.weight,
            gate=layer.mlp.gate_proj.weight,
            up=layer.mlp.up_proj.weight,
            down=layer.mlp.down_proj.weight,
            attention_norm=layer.input_layernorm.weight,
            mlp_norm=layer.post_attention_layernorm.weight,
        )
        for layer in inner.layers
    ]
    head_dim = layers[0].query.shape[0] // config.num_attention_heads
    frequencies = inner.rotary_emb.inv_freq
    if head_dim % 2 or frequencies.numel() != head_dim // 2:
        raise Unimplemented(f"its rotary embedding turns {2 * frequencies.numel()} of {head_dim} dimensions")
    return DecoderWeights(
        embedding=inner.embed_tokens.weight,
        layers=layers,
        final_norm=inner.norm.weight,
        head=model.get_output_embeddings().weight,
        frequencies=frequencies,
        heads=config.num_attention_heads,
        kv_heads=layers[0].key.shape[0] // head_dim,
        head_dim=head_dim,
        eps=float(config.rms_norm_eps),
        score_scale=float(inner.layers[0].self_attn.scaling),
        rotary_scale=float(inner.rotary_emb.attention_scaling),
    )
