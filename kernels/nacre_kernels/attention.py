"""Attention of packed rows over scattered KV slots: many sequences, trees of guesses, one call.

Every row names the slots it sees in position order: the slots of its sequence's committed prefix, then its ancestors
in the draft tree, itself last. Key j of that list has position j, so the row's own position is the list's length - 1.

Invariant: a row's output is a function of its ordered visible keys, values and its query only. Each score is one fp64
chain over the head dimension, each output one fp64 chain over the keys in position order, the softmax's sum eight fp64
chains over the keys (key j of the visible ones goes to chain j mod 8), and the result is rounded once.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NoReturn

import torch

from nacre_kernels import reference
from nacre_kernels.library import available, check_threads, require

DTYPES = {torch.float32: 0, torch.bfloat16: 1}
MAX_HEAD_DIM = 1024
PLAN_FIELDS = (
    *("prefix_offset", "prefix_length", "ancestor_offset", "ancestor_length"),
    *("prefix_slots", "ancestor_slots"),
)


class _Call(ctypes.Structure):
    """Mirror of `nk_attention_call` in kernels.h: pointers first, then 64-bit, 32-bit and double fields."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("q", "k", "v", "out", "sinks", "prefix_offset", "prefix_length")),
        *((name, ctypes.c_void_p) for name in ("ancestor_offset", "ancestor_length", "prefix_slots", "ancestor_slots")),
        *((name, ctypes.c_int64) for name in ("prefix_slot_count", "ancestor_slot_count", "rows", "heads", "kv_heads")),
        *((name, ctypes.c_int64) for name in ("dim", "value_dim", "slots", "q_row_stride", "q_head_stride")),
        *((name, ctypes.c_int64) for name in ("k_slot_stride", "v_slot_stride", "window", "bad_row", "bad_value")),
        *((name, ctypes.c_int32) for name in ("q_type", "k_type", "v_type", "threads")),
        ("scale", ctypes.c_double),
        ("softcap", ctypes.c_double),
    )


@dataclass(frozen=True, slots=True, eq=False)
class AttentionPlan:
    """Which slots each row of a pass sees. Built once per pass, used by every layer. All int32, 1-D, CPU, contiguous.

    Row r sees prefix_slots[prefix_offset[r] :][: prefix_length[r]] (its sequence's committed slots in position order)
    and then ancestor_slots[ancestor_offset[r] :][: ancestor_length[r]] (root-first, the row's own slot last). Rows of
    one sequence share a stretch of prefix_slots from one offset on (those of a prompt chunk a growing one); keep them
    adjacent and the kernel loads the keys that they all see once.

    Offsets, lengths and slots are checked on every call (a slot must lie in the pool); a row must see at least one key.
    """

    prefix_offset: torch.Tensor  # [rows]
    prefix_length: torch.Tensor  # [rows]
    ancestor_offset: torch.Tensor  # [rows]
    ancestor_length: torch.Tensor  # [rows]
    prefix_slots: torch.Tensor  # [all prefixes]
    ancestor_slots: torch.Tensor  # [all ancestor lists]
    _call: _Call = field(init=False, repr=False)  # what the library needs of the plan, filled once

    def __post_init__(self) -> None:
        for name in PLAN_FIELDS:
            tensor = getattr(self, name)
            if tensor.dtype != torch.int32 or tensor.dim() != 1:
                raise TypeError(f"plan.{name} is {tensor.dtype} of shape {tuple(tensor.shape)}; it must be 1-D int32")
            if tensor.device.type != "cpu" or not tensor.is_contiguous():
                raise ValueError(f"plan.{name} must be a contiguous CPU tensor; call .cpu().contiguous()")
        for name in ("prefix_length", "ancestor_offset", "ancestor_length"):
            if getattr(self, name).numel() != self.rows:
                found = getattr(self, name).numel()
                raise ValueError(f"plan.{name} has {found} rows, plan.prefix_offset has {self.rows}; they must agree")
        call = _Call(
            rows=self.rows,
            prefix_slot_count=self.prefix_slots.numel(),
            ancestor_slot_count=self.ancestor_slots.numel(),
            **{name: getattr(self, name).data_ptr() for name in PLAN_FIELDS},
        )
        object.__setattr__(self, "_call", call)

    @property
    def rows(self) -> int:
        return self.prefix_offset.numel()

    @classmethod
    def from_lists(cls, prefixes: Sequence[Sequence[int]], rows: Sequence[tuple[int, Sequence[int]]]) -> AttentionPlan:
        """A plan from plain lists: `prefixes[i]` = committed slots of sequence i; a row = (i, its ancestors' slots)."""
        starts = [0]
        for prefix in prefixes:
            starts.append(starts[-1] + len(prefix))
        ancestor_starts = [0]
        for _, ancestors in rows:
            ancestor_starts.append(ancestor_starts[-1] + len(ancestors))

        def int32(values: Sequence[int]) -> torch.Tensor:
            return torch.tensor(values, dtype=torch.int32)

        return cls(
            prefix_offset=int32([starts[i] for i, _ in rows]),
            prefix_length=int32([len(prefixes[i]) for i, _ in rows]),
            ancestor_offset=int32(ancestor_starts[:-1]),
            ancestor_length=int32([len(ancestors) for _, ancestors in rows]),
            prefix_slots=int32([slot for prefix in prefixes for slot in prefix]),
            ancestor_slots=int32([slot for _, ancestors in rows for slot in ancestors]),
        )

    def visible_slots(self, row: int, window: int | None = None) -> torch.Tensor:
        """The slots that `row` sees, in position order (int64); with a window only the last `window` positions."""
        start, length = int(self.prefix_offset[row]), int(self.prefix_length[row])
        first, count = int(self.ancestor_offset[row]), int(self.ancestor_length[row])
        slots = torch.cat([self.prefix_slots[start : start + length], self.ancestor_slots[first : first + count]])
        return slots.long() if window is None else slots.long()[-window:]


def append_kv(
    k_pool: torch.Tensor,  # [slots, kv_heads, dim]
    v_pool: torch.Tensor,  # [slots, kv_heads, value_dim]
    slots: torch.Tensor,  # int64 [rows]
    k: torch.Tensor,  # [rows, kv_heads, dim]
    v: torch.Tensor,  # [rows, kv_heads, value_dim]
) -> None:
    """Write the rows' new keys and values into their slots (in place)."""
    k_pool.index_copy_(0, slots, k)
    v_pool.index_copy_(0, slots, v)


def paged_tree_attention(
    q: torch.Tensor,
    k_pool: torch.Tensor,
    v_pool: torch.Tensor,
    plan: AttentionPlan,
    *,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
    sinks: torch.Tensor | None = None,
    threads: int = 1,
) -> torch.Tensor:
    """q [rows, heads, dim], k_pool [slots, kv_heads, dim], v_pool [slots, kv_heads, value_dim]
    -> [rows, heads, value_dim] in q's dtype.

    fp32 or bf16 (pools and q may differ). Query head h reads kv head h // (heads / kv_heads). `scale` multiplies the
    scores; then `softcap` c maps s to c·tanh(s / c); `window` w lets a row see the last w positions only, itself
    included (older slots are never read); `sinks` [heads] adds one valueless key per head to the softmax. q may be
    strided except in its last dimension, the pools except in their last two. Raises ValueError / TypeError.
    """
    call = _call_for(q, k_pool, v_pool, plan)
    if window is not None and window < 1:
        raise ValueError(f"window is {window}; it must be at least 1, or None")
    if softcap is not None and not softcap > 0:
        raise ValueError(f"softcap is {softcap}; it must be positive, or None")
    if sinks is not None and sinks.shape != (call.heads,):
        raise ValueError(f"sinks has shape {tuple(sinks.shape)}; it must be [{call.heads}]")
    check_threads(threads)
    on_cpu = (q.is_cpu, k_pool.is_cpu, v_pool.is_cpu)
    if not all(on_cpu) and any(on_cpu):
        raise ValueError(f"q is on {q.device}, k_pool on {k_pool.device}, v_pool on {v_pool.device}; they must agree")
    if not all(on_cpu) or not available():
        return reference.paged_tree_attention(
            q, k_pool, v_pool, plan, scale=scale, window=window, softcap=softcap, sinks=sinks
        )
    out = torch.empty((call.rows, call.heads, call.value_dim), dtype=q.dtype)
    sink_values = None if sinks is None else sinks.detach().to("cpu", torch.float32).contiguous()
    call.q, call.k, call.v, call.out = q.data_ptr(), k_pool.data_ptr(), v_pool.data_ptr(), out.data_ptr()
    call.sinks = None if sink_values is None else sink_values.data_ptr()
    call.window, call.scale, call.softcap, call.threads = window or 0, scale, softcap or 0.0, threads
    status = require().nk_attention(ctypes.byref(call))
    if status:
        _raise(status, call, plan)
    return out


def _call_for(q: torch.Tensor, k_pool: torch.Tensor, v_pool: torch.Tensor, plan: AttentionPlan) -> _Call:
    """The shapes, strides and types of a call, checked; pointers and options are still to be filled in."""
    if not (q.dim() == k_pool.dim() == v_pool.dim() == 3):
        found = f"{q.dim()}, {k_pool.dim()}, {v_pool.dim()}"
        raise ValueError(f"q, k_pool, v_pool have {found} dimensions; each must have 3")
    rows, heads, dim = q.shape
    slots, kv_heads, key_dim = k_pool.shape
    value_slots, value_heads, value_dim = v_pool.shape
    q_row, q_head, q_step = q.stride()
    k_slot, k_head, k_step = k_pool.stride()
    v_slot, v_head, v_step = v_pool.stride()
    q_type, k_type, v_type = DTYPES.get(q.dtype), DTYPES.get(k_pool.dtype), DTYPES.get(v_pool.dtype)
    if q_type is None or k_type is None or v_type is None:
        found = f"{q.dtype}, {k_pool.dtype}, {v_pool.dtype}"
        raise TypeError(f"q, k_pool, v_pool are {found}; each must be torch.float32 or torch.bfloat16")
    if dim != key_dim or slots != value_slots or kv_heads != value_heads:
        raise ValueError(
            f"shapes do not fit: q {tuple(q.shape)}, k_pool {tuple(k_pool.shape)}, v_pool {tuple(v_pool.shape)}; "
            "k_pool and v_pool share slots and heads, q and k_pool the head dimension"
        )
    if not (heads and kv_heads and heads % kv_heads == 0):
        raise ValueError(f"{heads} query heads cannot share {kv_heads} key heads evenly")
    if not (0 < dim <= MAX_HEAD_DIM and 0 < value_dim <= MAX_HEAD_DIM):
        raise ValueError(f"head dimensions are {dim} and {value_dim}; they must lie in 1..{MAX_HEAD_DIM}")
    if not (
        (q_step == k_step == 1 or dim == 1)
        and (v_step == 1 or value_dim == 1)
        and (kv_heads == 1 or (k_head == dim and v_head == value_dim))
    ):
        raise ValueError(
            f"strides {q.stride()}, {k_pool.stride()}, {v_pool.stride()} of q, k_pool, v_pool: q must be dense in its "
            "last dimension, the pools in their last two; call .contiguous()"
        )
    if plan.rows != rows:
        raise ValueError(f"q has {rows} rows, the plan {plan.rows}; they must agree")
    call = _Call.from_buffer_copy(plan._call)  # a copy: one plan may serve several threads
    call.heads, call.kv_heads, call.dim, call.value_dim, call.slots = heads, kv_heads, dim, value_dim, slots
    call.q_row_stride, call.q_head_stride, call.k_slot_stride, call.v_slot_stride = q_row, q_head, k_slot, v_slot
    call.q_type, call.k_type, call.v_type = q_type, k_type, v_type
    return call


def _raise(status: int, call: _Call, plan: AttentionPlan) -> NoReturn:
    """Turn the library's finding into an exception (the codes are NK_BAD_… in kernels.h)."""
    row, value = call.bad_row, call.bad_value
    if status == 1:
        raise MemoryError(f"no memory for the attention scores of a row with {value} keys")
    if status == 2:
        raise ValueError(f"plan row {row} sees {value} keys; a row sees at least itself")
    if status == 3:
        where, bound = "its prefix stretch", f"prefix_slots [0, {plan.prefix_slots.numel()})"
        raise ValueError(f"plan row {row}: {where} ends at {value}, outside {bound}")
    if status == 4:
        where, bound = "its ancestor stretch", f"ancestor_slots [0, {plan.ancestor_slots.numel()})"
        raise ValueError(f"plan row {row}: {where} ends at {value}, outside {bound}")
    raise ValueError(f"plan row {row} names slot {value}; the pool has slots 0..{call.slots - 1}")
