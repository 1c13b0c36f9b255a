"""Measures, on the loaded model itself, whether a row's bits depend on anything but its own path.

Losslessness is tested with `==`, so this is not taken on trust. Two measurements at load time: every distinct
matrix shape of the model, fed the same rows alone, in small groups and in large ones at different offsets;
and whole passes of the model in which the same tokens arrive one by one, as one prompt chunk, and as a branch
of a tree between rivals and another session's rows. All must agree in every bit.

The verdict is a word in `EngineInfo.numerics`, `<guarantee>/<linears>/<dtype>`:

    exact        verified with no condition on the pass
    padded8      verified for passes of at least 8 rows; smaller ones are filled up with dummy rows
    unverified   some bit differed: text may differ from plain decoding where two scores nearly tie
    unchecked    the owner said that bits decide nothing here (a draft model)
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from nacre_kernels import PackedLinear
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from nacre.engine.fused import FusedForward
from nacre.engine.kv_pool import KvPool
from nacre.engine.loading import LoadedModel
from nacre.engine.packed import PackedForward, attention_of
from nacre.engine.recompute import RecomputeForward
from nacre.engine.rows import TIP, RowBlock
from nacre.errors import FailedPrecondition

PADDED_ROWS = 8
_MATRICES = (torch.nn.Linear, PackedLinear, Conv1D)
_VECTOR_ELEMENTS = 64  # two AVX-512 registers of bf16, the largest step of torch's element-wise loops
_PROBE_SLOTS = 128
_GROUPS = (1, 2, 3, 5, 8, 9, 15, 16, 17, 33)  # row counts around every tile edge that kernels use
_ROWS = 40
_TEXT = 9
_ROUNDING = {torch.float32: 1e-3, torch.bfloat16: 0.1}  # of the largest logit; wrong attention is off by about 1
_KNOWN = 4  # text[: _KNOWN + 1] is always prefix; the rows from _KNOWN on are compared


def settle(
    forward: PackedForward | RecomputeForward | FusedForward,
    loaded: LoadedModel,
    *,
    linears: str,
    exact: bool,
    provable: bool,
) -> str:
    """The numerics mode of this model; may raise `forward.min_rows` to the padding that makes it exact.

    `provable=False` says that the model has sources of dependence which a measurement of a few passes can
    miss: then it is unverified whatever the measurement finds.
    """
    dtype = str(loaded.dtype).removeprefix("torch.").replace("float", "fp").replace("bfp", "bf")
    if isinstance(forward, RecomputeForward):
        return f"exact/recompute/{dtype}"
    if isinstance(forward, FusedForward) or not exact:
        return f"unchecked/{linears}/{dtype}"
    for min_rows in sorted({forward.min_rows, PADDED_ROWS}) if provable else ():
        forward.min_rows = min_rows
        if rows_are_independent(forward, loaded.vocab_size):
            guarantee = "exact" if min_rows == 1 else f"padded{min_rows}"
            return f"{guarantee}/{linears}/{dtype}"
    return f"unverified/{linears}/{dtype}"


def plain_logits(loaded: LoadedModel) -> torch.Tensor:
    """The untouched model's logits for a short fixed text, float32 [rows, vocab]."""
    ids = torch.tensor([_draw(loaded.vocab_size, seed=2)], device=loaded.device)
    with attention_of(loaded.model, "eager"), torch.inference_mode():
        logits = loaded.model(input_ids=ids, use_cache=False).logits[0].float()
    if not bool(logits.isfinite().all()):
        raise FailedPrecondition(
            "the model's logits are not finite: its weights are corrupt, or too large for the dtype"
        )
    return logits


def agrees_with(plain: torch.Tensor, forward: PackedForward, vocab_size: int) -> bool:
    """Whether the packed and fused model's logits for the same text are the plain ones, up to rounding.

    The conformance probe has tested the class; this catches what only the real size, a multimodal wrapper or
    a replaced layer breaks.
    """
    pool, small = _small_pool(forward)
    text = _draw(vocab_size, seed=2)
    packed = run(small, pool, RowBlock(pool.open("plain", ()), text, commit=True))
    return float((packed - plain).abs().max()) <= _ROUNDING[forward.kv_dtype] * max(1.0, float(plain.abs().max()))


def rows_are_independent(forward: PackedForward, vocab_size: int) -> bool:
    """Both measurements of the module's docstring, for passes of at least `forward.min_rows` rows."""
    return all(_layer_holds(layer, forward) for layer in _distinct_layers(forward.model)) and _model_holds(
        forward, vocab_size
    )


def _distinct_layers(model: torch.nn.Module) -> Iterator[torch.nn.Module]:
    seen = set()
    for module in model.modules():
        if isinstance(module, _MATRICES):
            shape = (type(module), *_features(module))
            if shape not in seen:
                seen.add(shape)
                yield module


def _features(layer: torch.nn.Module) -> tuple[int, int]:
    if isinstance(layer, Conv1D):
        return int(layer.weight.shape[0]), int(layer.weight.shape[1])
    return int(layer.in_features), int(layer.out_features)  # type: ignore[arg-type]


def is_aligned(model: PreTrainedModel, threads: int) -> bool:
    """Whether torch computes every element of every activation by the same instructions.

    Its silu, sigmoid and tanh-gelu treat the last elements of a thread's share in another way than the rest:
    a difference in a rare last bit, too rare to be left to a measurement. Widths that are whole vectors in
    every share have no such elements. With one thread, padding keeps real rows away from the end as well.
    """
    step = _VECTOR_ELEMENTS * math.lcm(*range(1, threads + 1))
    width = getattr(model.config.get_text_config(), "intermediate_size", None)
    if isinstance(width, int):
        return width % step == 0
    head = model.get_output_embeddings()
    return all(
        _features(module)[1] % step == 0
        for module in model.modules()
        if isinstance(module, _MATRICES) and module is not head
    )


def _layer_holds(layer: torch.nn.Module, forward: PackedForward) -> bool:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(_ROWS, _features(layer)[0], generator=generator).to(forward.kv_dtype).to(forward.device)
    with torch.inference_mode():
        together = layer(x)
        for group in _GROUPS:
            if group < forward.min_rows:
                continue
            for start in (0, _ROWS - group):
                if not torch.equal(layer(x[start : start + group].contiguous()), together[start : start + group]):
                    return False
    return True


def _model_holds(forward: PackedForward, vocab_size: int) -> bool:
    """The same text through differently composed passes of a small pool of its own."""
    pool, small = _small_pool(forward)
    text, noise = _draw(vocab_size, seed=0), _draw(vocab_size, seed=1)
    other = pool.open("other", ())
    ways = (
        _one_by_one(small, pool, text),
        _as_chunk(small, pool, text, noise, other),
        _as_branch(small, pool, text, noise, other),
    )
    return all(torch.equal(ways[0], way) for way in ways[1:])


def _small_pool(forward: PackedForward) -> tuple[KvPool, PackedForward]:
    """The same model and padding over a few KV slots of its own."""
    small = PackedForward(
        forward.model,
        kv_bytes=_PROBE_SLOTS * forward.slot_bytes,
        min_rows=forward.min_rows,
        threads=forward.threads,
    )
    return KvPool(small.slots, small.slot_bytes), small


def _draw(vocab_size: int, seed: int) -> tuple[int, ...]:
    return tuple(int(token) for token in np.random.default_rng(seed).integers(vocab_size, size=_TEXT))


def run(forward: PackedForward, pool: KvPool, *blocks: RowBlock) -> torch.Tensor:
    """One pass outside an engine: reserve, compute, commit the chunks. Returns the logits."""
    placed = pool.reserve(blocks)
    logits = forward(placed)
    pool.complete(placed)
    return logits


def _one_by_one(forward: PackedForward, pool: KvPool, text: tuple[int, ...]) -> torch.Tensor:
    me = pool.open("one", ())
    logits = [run(forward, pool, RowBlock(me, text[: _KNOWN + 1], logits_from=_KNOWN, commit=True))]
    for token in text[_KNOWN + 1 :]:
        row = pool.held(me).next_row
        logits.append(run(forward, pool, RowBlock(me, (token,))))
        pool.advance(me, (row,))
    return torch.cat(logits)


def _as_chunk(
    forward: PackedForward, pool: KvPool, text: tuple[int, ...], noise: tuple[int, ...], other: int
) -> torch.Tensor:
    me = pool.open("chunk", ())
    before = RowBlock(other, noise[:7], logits_from=7, commit=True)
    return run(forward, pool, before, RowBlock(me, text, logits_from=_KNOWN, commit=True))


def _as_branch(
    forward: PackedForward, pool: KvPool, text: tuple[int, ...], noise: tuple[int, ...], other: int
) -> torch.Tensor:
    me = pool.open("branch", ())
    first = run(
        forward,
        pool,
        RowBlock(me, text[: _KNOWN + 1], logits_from=_KNOWN, commit=True),
        RowBlock(other, noise[:2], logits_from=2),
    )
    tokens: list[int] = []
    parents: list[int] = []
    at = TIP
    first_row = pool.held(me).next_row
    for token, rival in zip(text[_KNOWN + 1 :], noise, strict=False):
        tokens += [rival, token]
        parents += [at, at]
        at = first_row + len(tokens) - 1
    branch = run(forward, pool, RowBlock(other, noise[:3], logits_from=3), RowBlock(me, tuple(tokens), tuple(parents)))
    return torch.cat([first, branch[1::2]])
