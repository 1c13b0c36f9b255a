"""The packed pass: ragged rows of many sequences through a plain transformers model, as one batch of one.

transformers lets a model's attention be any registered function and hands it keyword arguments untouched. So
the model runs as it is, every layer but attention sees one long row list, and attention (`nacre_kernels`)
sees for each row exactly the slots of its own sequence and its own ancestors. No mask is built: a name that
is unknown to the mask registry makes transformers skip masks altogether, which is why only the attention
function is registered.

Rule: whatever a row may depend on is in its plan entry (its visible slots in position order) and its
position.

Padding. Where a layer's arithmetic depends on the number of rows (matrices that stay on torch), a pass is
filled up to `min_rows` with dummy rows that see only a trash slot behind the pool. The last row of a padded
pass is always a dummy: torch computes the last few elements of a tensor with other instructions than the
rest, and they may differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from nacre_kernels import AttentionPlan, append_kv, paged_tree_attention
from transformers import AttentionInterface, PreTrainedModel

from nacre.engine.kv_pool import Held, Placement
from nacre.errors import Unimplemented

ATTENTION = "nacre_tree"
_LAYER = "nacre_layer"


@dataclass(frozen=True, slots=True)
class LayerShape:
    """What one attention call keeps per token. `store` is the layer whose pools hold it: itself, unless
    shared.
    """

    store: int
    kv_heads: int
    key_dim: int
    value_dim: int
    dtype: torch.dtype

    @property
    def slot_bytes(self) -> int:
        return self.kv_heads * (self.key_dim + self.value_dim) * self.dtype.itemsize


class _Pass:
    """One pass's attention, called once per layer by the model."""

    __slots__ = ("_plan", "_pools", "_slots", "_stores", "_threads")

    def __init__(
        self,
        stores: list[int],
        pools: dict[int, tuple[torch.Tensor, torch.Tensor]],
        plan: AttentionPlan,
        slots: torch.Tensor,
        threads: int,
    ) -> None:
        self._stores = stores
        self._pools = pools
        self._plan = plan
        self._slots = slots
        self._threads = threads

    def attend(
        self,
        module: torch.nn.Module,
        query: torch.Tensor,  # [1, heads, rows, key_dim]
        key: torch.Tensor,  # [1, kv_heads, rows, key_dim]
        value: torch.Tensor,  # [1, kv_heads, rows, value_dim]
        scale: float,
        window: int | None,
        softcap: float | None,
        sinks: torch.Tensor | None,
    ) -> torch.Tensor:  # [1, rows, heads, value_dim]
        layer = module.__dict__[_LAYER]
        store = self._stores[layer]
        keys, values = self._pools[store]
        if store == layer:
            append_kv(keys, values, self._slots, key[0].transpose(0, 1), value[0].transpose(0, 1))
        rows = query[0].transpose(0, 1)
        out = paged_tree_attention(
            rows,
            keys,
            values,
            self._plan,
            scale=scale,
            window=window,
            softcap=softcap,
            sinks=sinks,
            threads=self._threads,
        )
        return out.unsqueeze(0)


class _Survey:
    """A pass of one row that learns in which order the model calls attention, and what each call stores.

    A layer that is handed the very key tensor of an earlier layer (shared-KV models) shares that layer's
    pools.
    """

    def __init__(self) -> None:
        self.layers: list[LayerShape] = []
        self._seen: dict[int, tuple[int, torch.Tensor]] = {}

    def attend(
        self,
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        *_: object,
    ) -> torch.Tensor:
        layer = len(self.layers)
        if _LAYER in module.__dict__ and module.__dict__[_LAYER] != layer:
            raise Unimplemented("one attention module is called twice in a pass; this model cannot run packed")
        module.__dict__[_LAYER] = layer
        store, _kept = self._seen.setdefault(key.data_ptr(), (layer, key))
        self.layers.append(LayerShape(store, key.shape[1], key.shape[3], value.shape[3], key.dtype))
        # One row that sees only itself: softmax of one score is 1.
        groups = query.shape[1] // value.shape[1]
        return value.repeat_interleave(groups, dim=1).transpose(1, 2)


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    nacre: _Pass | _Survey | None = None,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """What transformers calls in every attention layer. Other arguments are covered by the conformance probe."""
    if nacre is None or attention_mask is not None:
        raise Unimplemented(f"{type(module).__name__} does not hand the packed pass through to its attention")
    scale = query.shape[3] ** -0.5 if scaling is None else scaling
    return nacre.attend(module, query, key, value, scale, sliding_window, softcap, s_aux), None


AttentionInterface.register(ATTENTION, _attention)


class PackedForward:
    """A model, its KV tensors and the way from placed blocks to logits."""

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        kv_bytes: int,
        min_rows: int = 1,
        threads: int = 1,
        max_slots: int = 1 << 30,
    ) -> None:
        self.model = model
        self.min_rows = min_rows
        self.threads = threads
        self.device = next(model.parameters()).device
        self.layers = survey(model)
        self.slot_bytes = sum(shape.slot_bytes for layer, shape in enumerate(self.layers) if shape.store == layer)
        self.slots = min(kv_bytes // self.slot_bytes, max_slots)
        self.hidden: torch.Tensor | None = None
        self._stores = [shape.store for shape in self.layers]
        # One slot more than the pool hands out: padding rows write there.
        self._pools = {
            layer: (
                torch.empty(self.slots + 1, shape.kv_heads, shape.key_dim, dtype=shape.dtype, device=self.device),
                torch.empty(self.slots + 1, shape.kv_heads, shape.value_dim, dtype=shape.dtype, device=self.device),
            )
            for layer, shape in enumerate(self.layers)
            if shape.store == layer
        }

    def keep_hidden(self) -> None:
        """From now on `hidden` has what the head was given in the last pass, float32 [rows with logits, hidden].

        Raises Unimplemented for a model without one.
        """
        head = self.model.get_output_embeddings()
        if head is None:
            raise Unimplemented(f"{type(self.model).__name__} has no head whose input could be kept")

        def keep(_: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
            self.hidden = given[0][0].float()

        head.register_forward_pre_hook(keep)

    @property
    def kv_dtype(self) -> torch.dtype:
        return self.layers[0].dtype

    def __call__(self, placed: Sequence[Placement]) -> torch.Tensor:
        """Runs one pass. Returns float32 [rows with logits, vocab] in block order."""
        layout = lay_out(placed, self.min_rows, trash=self.slots)
        wanted = len(layout.keep)
        if wanted == 0:
            # A model's head need not accept zero rows; one wasted row does no harm.
            layout.keep.append(0)
        # The head is a linear layer like any other: it sees at least min_rows rows too.
        layout.keep.extend(layout.keep[:1] * (self.min_rows - len(layout.keep)))
        plan = _Pass(
            self._stores,
            self._pools,
            layout.plan,
            torch.from_numpy(layout.slots).to(self.device),
            self.threads,
        )
        with torch.inference_mode():
            output = self.model(
                input_ids=torch.from_numpy(layout.tokens).to(self.device),
                position_ids=torch.from_numpy(layout.positions).to(self.device),
                use_cache=False,
                logits_to_keep=torch.tensor(layout.keep, device=self.device),
                nacre=plan,
            )
            if output.logits.shape[1] != len(layout.keep):
                raise Unimplemented(f"{type(self.model).__name__} cannot leave out the logits of rows")
            if self.hidden is not None:
                self.hidden = self.hidden[:wanted]
            return output.logits[0, :wanted].float()


def survey(model: PreTrainedModel) -> list[LayerShape]:
    """The model's attention layers in call order, from a pass of one row. Marks each module with its number."""
    found = _Survey()
    device = next(model.parameters()).device
    with torch.inference_mode():
        model(
            input_ids=torch.zeros(1, 1, dtype=torch.long, device=device),
            position_ids=torch.zeros(1, 1, dtype=torch.long, device=device),
            use_cache=False,
            logits_to_keep=torch.zeros(1, dtype=torch.long, device=device),
            nacre=found,
        )
    if not found.layers:
        raise Unimplemented(f"{type(model).__name__} has no attention layer that can be replaced")
    return found.layers


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """A pass as arrays. `keep` lists the rows that want logits."""

    tokens: np.ndarray  # int64 [1, rows]
    positions: np.ndarray  # int64 [1, rows]
    slots: np.ndarray  # int64 [rows]
    plan: AttentionPlan
    keep: list[int]


def lay_out(placed: Sequence[Placement], min_rows: int, trash: int) -> Layout:
    """Turns placed blocks into the arrays of one pass; no work per token in prompt chunks."""
    tokens: list[int] = []
    keep: list[int] = []
    positions: list[np.ndarray] = []
    offsets: list[np.ndarray] = []
    lengths: list[np.ndarray] = []
    ancestor_lengths: list[np.ndarray] = []
    ancestor_offsets: list[np.ndarray] = []
    prefixes: list[np.ndarray] = []
    ancestors: list[int] = []
    prefix_total = 0
    for placement in placed:
        block, held = placement.block, placement.held
        count = len(block.tokens)
        keep.extend(range(len(tokens) + block.logits_from, len(tokens) + count))
        tokens.extend(block.tokens)
        offsets.append(np.full(count, prefix_total, np.int32))
        if block.commit:
            # Row i of a chunk sees the committed slots and the chunk's own up to itself: a longer prefix.
            prefix = held.slots[: held.length + count]
            position = np.arange(held.length, held.length + count, dtype=np.int32)
            lengths.append(position + 1)
            depth = offset = np.zeros(count, np.int32)
        else:
            prefix = held.slots[: held.length]
            depth, offset = _spell_ancestors(held, placement.row_ids, ancestors)
            position = held.length - 1 + depth
            lengths.append(np.full(count, held.length, np.int32))
        ancestor_lengths.append(depth)
        ancestor_offsets.append(offset)
        positions.append(position)
        prefixes.append(prefix)
        prefix_total += prefix.size
    slots = [placement.slots for placement in placed]
    padding = max(min_rows - len(tokens), 1) if min_rows > 1 else 0
    if padding > 0:
        zeros, ones = np.zeros(padding, np.int32), np.ones(padding, np.int32)
        tokens.extend([0] * padding)
        positions.append(zeros)
        offsets.append(zeros)
        lengths.append(zeros)
        ancestor_lengths.append(ones)
        ancestor_offsets.append(np.full(padding, len(ancestors), np.int32))
        ancestors.append(trash)
        slots.append(np.full(padding, trash, np.int32))
    plan = AttentionPlan(
        prefix_offset=torch.from_numpy(np.concatenate(offsets)),
        prefix_length=torch.from_numpy(np.concatenate(lengths)),
        ancestor_offset=torch.from_numpy(np.concatenate(ancestor_offsets)),
        ancestor_length=torch.from_numpy(np.concatenate(ancestor_lengths)),
        prefix_slots=torch.from_numpy(np.concatenate(prefixes)),
        ancestor_slots=torch.from_numpy(np.array(ancestors, np.int32)),
    )
    return Layout(
        tokens=np.array([tokens], np.int64),
        positions=np.concatenate(positions).astype(np.int64)[None],
        slots=np.concatenate(slots).astype(np.int64),
        plan=plan,
        keep=keep,
    )


def _spell_ancestors(held: Held, row_ids: range, ancestors: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Appends the rows' ancestor slots to `ancestors`. Returns each row's number of them and where they
    start.

    A row below the row just spelled goes on where that one ended, so a chain costs one entry a row.
    """
    depth = np.empty(len(row_ids), np.int32)
    offset = np.empty(len(row_ids), np.int32)
    before, start = -1, 0
    for index, row_id in enumerate(row_ids):
        row = held.rows[row_id]
        if row.parent == before and before >= 0:
            ancestors.append(row.path[-1])
        else:
            start = len(ancestors)
            ancestors.extend(row.path)
        depth[index] = len(row.path)
        offset[index] = start
        before = row_id
    return depth, offset


@contextmanager
def attention_of(model: PreTrainedModel, implementation: str) -> Iterator[None]:
    """Runs the body with another attention implementation, then puts the old one back."""
    before = model.config._attn_implementation
    model.set_attn_implementation(implementation)
    try:
        yield
    finally:
        model.set_attn_implementation(before)
