"""A whole Llama-shaped decoder as one call: for draft models, whose bits decide nothing.

Rule: fast before all. Weights become 8-bit integers with one scale per output and 64 inputs, activations 16-bit
integers with one scale per row; their products are summed exactly, everything else is fp32, keys and values are bf16.
So the result is that of the plain model up to rounding, never to the bit, and rows do depend on nothing but what they
see. A model of a few million parameters lies in the caches then, and Python's part of a step is one call.

What is not covered (biases, sliding windows, other activations, mixtures of experts …) is the caller's to refuse: this
module knows matrices, not configurations.
"""

from __future__ import annotations

import ctypes
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from nacre_kernels.library import check_threads, require
from nacre_kernels.packed import large_page_memory

GROUP = 64
PANEL = 32
ROW_FIELDS = 6
"""Integers of a row: token, slot, sequence, prefix, ancestor, ancestors (see `FusedDecoder.run`)."""

_HEAD_STEP = 32
_FEW_ROWS = 32
_MATRICES = ("qkv", "out", "gate_up", "down")


class _Layer(ctypes.Structure):
    """Mirror of `nk_decoder_layer` in decoder.h."""

    _fields_ = tuple((name, ctypes.c_void_p) for name in (*_MATRICES, "attention_norm", "mlp_norm"))


class _Decoder(ctypes.Structure):
    """Mirror of `nk_decoder`."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("layers", "embedding", "final_norm", "head", "frequencies", "kv")),
        *((name, ctypes.c_int64) for name in ("layer_count", "hidden", "intermediate", "heads", "kv_heads")),
        *((name, ctypes.c_int64) for name in ("head_dim", "vocab", "slots")),
        *((name, ctypes.c_double) for name in ("eps", "score_scale", "rotary_scale")),
    )


class _Pass(ctypes.Structure):
    """Mirror of `nk_decoder_pass`."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("rows", "prefix_slots", "prefix_counts", "ancestor_slots", "keep")),
        ("logits", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("row_count", "sequence_count", "ancestor_count", "keep_count")),
        ("threads", ctypes.c_int64),
        ("bad_row", ctypes.c_int64),
    )


@dataclass(frozen=True, slots=True, eq=False)
class LayerWeights:
    """One layer's plain matrices, [outputs, inputs] each, and its two norms [hidden]."""

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    out: torch.Tensor
    gate: torch.Tensor
    up: torch.Tensor
    down: torch.Tensor
    attention_norm: torch.Tensor
    mlp_norm: torch.Tensor


@dataclass(frozen=True, slots=True, eq=False)
class DecoderWeights:
    """A plain model's weights and numbers. `frequencies` [head_dim / 2] turn positions into angles; both halves of a
    head are rotated against each other. `rotary_scale` multiplies cosines and sines, `score_scale` the scores."""

    embedding: torch.Tensor  # [vocab, hidden]
    layers: Sequence[LayerWeights]
    final_norm: torch.Tensor  # [hidden]
    head: torch.Tensor  # [vocab, hidden]
    frequencies: torch.Tensor
    heads: int
    kv_heads: int
    head_dim: int
    eps: float
    score_scale: float
    rotary_scale: float = 1.0


class FusedDecoder:
    """The packed model and its key/value slots. Needs the compiled library. Not thread-safe: one caller at a time."""

    def __init__(self, weights: DecoderWeights, *, slots: int, threads: int = 1) -> None:
        self._decode = require().nk_decode
        self.slots = slots
        self.threads = check_threads(threads)
        self.vocab, hidden = weights.embedding.shape
        self._padded_vocab = _rounded(self.vocab, PANEL)
        self._logits = np.empty((0, self._padded_vocab), np.float32)
        self._kept: list[torch.Tensor] = []  # what C sees must live as long as this does
        packer = _Packer(weights)
        layers = (_Layer * len(weights.layers))(*(self._layer(layer, packer) for layer in weights.layers))
        self._layers = layers
        pad = _rounded(weights.head_dim, _HEAD_STEP)
        self.kv = torch.empty(len(layers), weights.kv_heads, 2, slots, pad, dtype=torch.bfloat16)
        self._model = _Decoder(
            layers=ctypes.addressof(layers),
            embedding=self._keep(weights.embedding.detach().to(torch.bfloat16)),
            final_norm=self._keep(weights.final_norm.detach().float()),
            head=packer.pack(weights.head),
            frequencies=self._keep(weights.frequencies.detach().float()),
            kv=self.kv.data_ptr(),
            layer_count=len(layers),
            hidden=hidden,
            intermediate=weights.layers[0].gate.shape[0],
            heads=weights.heads,
            kv_heads=weights.kv_heads,
            head_dim=weights.head_dim,
            vocab=self.vocab,
            slots=slots,
            eps=weights.eps,
            score_scale=weights.score_scale,
            rotary_scale=weights.rotary_scale,
        )
        self._packed = packer.memory
        self._address = ctypes.addressof(self._model)

    @property
    def weight_bytes(self) -> int:
        """Memory of the packed matrices."""
        return self._packed.numel()

    def run(
        self,
        rows: array[int],
        prefixes: Sequence[tuple[int, int]],
        ancestors: array[int],
        keep: array[int],
    ) -> torch.Tensor:
        """One pass: stores the rows' keys and values and returns float32 [len(keep), vocab], a view.

        `rows` are int32, `ROW_FIELDS` each: token, slot, sequence, prefix, ancestor, ancestors. Such a row sees the
        first `prefix` slots of its sequence, then `ancestors` of the slots in `ancestors` from `ancestor` on, its own
        among them as the last it sees; its position is how many it sees, less one. Rows of one sequence are adjacent.
        `prefixes` are (address, length) of int32 slots per sequence; the caller keeps them alive. `keep` lists the
        rows that want logits, ascending. Raises ValueError for a row that names what is not there.
        """
        starts = array("q", [address for address, _ in prefixes])
        counts = array("q", [length for _, length in prefixes])
        logits = self._room_for(len(keep))
        call = _Pass(
            rows.buffer_info()[0],
            starts.buffer_info()[0],
            counts.buffer_info()[0],
            ancestors.buffer_info()[0],
            keep.buffer_info()[0],
            logits.ctypes.data,
            len(rows) // ROW_FIELDS,
            len(prefixes),
            len(ancestors),
            len(keep),
            self.threads,
            -1,
        )
        status = self._decode(self._address, ctypes.addressof(call))
        if status == 1:
            raise MemoryError(f"no memory for the scratch of {len(rows) // ROW_FIELDS} rows")
        if status:
            raise ValueError(f"row {call.bad_row} of the pass: {_FINDINGS[status]}")
        return torch.from_numpy(logits[:, : self.vocab])

    def _room_for(self, rows: int) -> np.ndarray:
        """An array for logits: the last one again unless someone still looks at it. Fresh memory costs a fault a page,
        together as much as the head's arithmetic."""
        if rows > _FEW_ROWS:
            return np.empty((rows, self._padded_vocab), np.float32)
        if not len(self._logits) or sys.getrefcount(self._logits) > 2:  # its attribute, and the argument itself
            self._logits = np.empty((_FEW_ROWS, self._padded_vocab), np.float32)
        return self._logits[:rows]

    def _layer(self, layer: LayerWeights, packer: _Packer) -> _Layer:
        gate = torch.nn.functional.pad(layer.gate.detach(), (0, 0, 0, -layer.gate.shape[0] % PANEL))
        return _Layer(
            qkv=packer.pack(torch.cat([layer.query, layer.key, layer.value])),
            out=packer.pack(layer.out),
            gate_up=packer.pack(torch.cat([gate, layer.up])),
            down=packer.pack(layer.down),
            attention_norm=self._keep(layer.attention_norm.detach().float()),
            mlp_norm=self._keep(layer.mlp_norm.detach().float()),
        )

    def _keep(self, tensor: torch.Tensor) -> int:
        self._kept.append(tensor.contiguous().clone())
        return self._kept[-1].data_ptr()


_FINDINGS = {
    2: "its token lies outside the vocabulary",
    3: "a slot lies outside the pool",
    4: "what it sees, or is kept, lies outside the lists",
}


class _Packer:
    """Packs matrices one behind the other, in the order of their use: reading ahead of one reaches the next."""

    def __init__(self, weights: DecoderWeights) -> None:
        lib = require()
        self._pack = lib.nk_pack_8
        self._bytes = lib.nk_packed_8_bytes
        size = self._bytes(weights.head.shape[1], weights.head.shape[0])
        for layer in weights.layers:
            hidden, heads = layer.out.shape
            keys, (inner, _) = layer.key.shape[0], layer.gate.shape
            shapes = ((hidden, heads + 2 * keys), (heads, hidden), (hidden, _rounded(inner, PANEL) + inner))
            size += sum(self._bytes(*shape) for shape in (*shapes, (inner, hidden)))
        self.memory = large_page_memory(size).zero_()
        self._end = 0

    def pack(self, matrix: torch.Tensor) -> int:
        """The address of the packed copy of a matrix [outputs, inputs]."""
        plain = matrix.detach().float().contiguous()
        outputs, inputs = plain.shape
        address = self.memory.data_ptr() + self._end
        self._pack(plain.data_ptr(), inputs, outputs, address)
        self._end += self._bytes(inputs, outputs)
        return address


def _rounded(count: int, step: int) -> int:
    return -(-count // step) * step
