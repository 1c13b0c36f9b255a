"""Who owns which key/value slot. Pure bookkeeping: no tensor is touched here.

A slot holds the keys and values of one token in all layers. Pages are one slot long, so committing a path of
a draft tree is an edit of the sequence's slot table: nothing is copied, whatever rows were rejected in
between, and a kernel reads slots through the table anyway.

A sequence has committed tokens (a table of slots in position order, its head shared block-wise through the
prefix cache) and uncommitted rows (a tree below the last committed token). Rows persist until `advance`
commits or frees them.

Invariants, at every return: 1. every slot is owned exactly once: by the free list, by a prefix block, by a
sequence's committed tail or by a row; 2. a sequence reads only slots that it owns or blocks that count it as
a user; 3. `reserve` either places all blocks or raises and leaves everything as it was; 4. a closed sequence
owns nothing.

When the free list runs out, idle prefix blocks go first (least recently used), then the least recently
stepped sequence outside the pass loses its keys and values: its `cached` drops to 0 and its caller computes
the prefix again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from nacre.engine.prefix import BLOCK_TOKENS, Block, PrefixCache, root_name
from nacre.engine.rows import TIP, Admission, RowBlock
from nacre.errors import InvalidArgument, NacreError, NotFound, ResourceExhausted

_FIRST_TABLE = 256


@dataclass(slots=True, eq=False)
class Row:
    """An uncommitted row. `path` holds the slots from just below the tip down to this row, its own last."""

    token: int
    parent: int
    path: tuple[int, ...]


@dataclass(slots=True, eq=False)
class Held:
    """One sequence. `slots[:length]` are its committed tokens' slots in position order."""

    id: int
    tenant: str
    slots: np.ndarray = field(default_factory=lambda: np.empty(_FIRST_TABLE, np.int32))
    tokens: np.ndarray = field(default_factory=lambda: np.empty(_FIRST_TABLE, np.int32))
    length: int = 0
    blocks: list[Block] = field(default_factory=list)
    rows: dict[int, Row] = field(default_factory=dict)
    next_row: int = 0
    stepped: int = 0

    @property
    def owned(self) -> int:
        """Slots that are this sequence's alone."""
        return self.length - BLOCK_TOKENS * len(self.blocks) + len(self.rows)

    def room_for(self, length: int) -> None:
        """Grows the tables to at least `length` entries (doubling, so a token costs O(1))."""
        if length > self.slots.size:
            size = max(length, 2 * self.slots.size)
            self.slots = np.concatenate([self.slots[: self.length], np.empty(size - self.length, np.int32)])
            self.tokens = np.concatenate([self.tokens[: self.length], np.empty(size - self.length, np.int32)])


@dataclass(frozen=True, slots=True, eq=False)
class Placement:
    """Where the rows of one block live during a pass.

    A commit chunk's rows are at `held.slots[held.length : held.length + n]`; other rows are in `held.rows`.
    """

    block: RowBlock
    held: Held
    row_ids: range
    slots: np.ndarray  # int32 [rows]


@dataclass(frozen=True, slots=True)
class PoolUse:
    """How full the pool is, in slots, and how often it had to make room."""

    slots: int
    free_slots: int
    idle_block_slots: int
    sequences: int
    evicted_sequences: int
    evicted_blocks: int
    reused_tokens: int


class KvPool:
    """See the module's docstring. Not thread-safe: one owner."""

    def __init__(self, slots: int, slot_bytes: int, max_sequences: int = 4096) -> None:
        if slots < 1:
            raise InvalidArgument(
                f"the KV pool has no room for a single token ({slot_bytes} bytes each); raise kv_bytes"
            )
        self.slots = slots
        self.slot_bytes = slot_bytes
        self._max_sequences = max_sequences
        self._free = np.arange(slots - 1, -1, -1, dtype=np.int32)  # a stack: the top is at the end
        self._free_count = slots
        self._prefix = PrefixCache()
        self._held: dict[int, Held] = {}
        self._next_sequence = 1
        self._clock = 0
        self._evicted_sequences = self._evicted_blocks = self._reused_tokens = 0

    # -- sequences -------------------------------------------------------------------------------------------

    def open(self, tenant: str, tokens: Sequence[int]) -> int:
        """A new sequence that reuses the tenant's longest cached prefix of `tokens`, never its last token."""
        if len(self._held) >= self._max_sequences:
            raise ResourceExhausted(
                f"{len(self._held)} sequences are open, the bound is {self._max_sequences}; close some first"
            )
        held = Held(self._next_sequence, tenant, stepped=self._clock)
        self._next_sequence += 1
        self._held[held.id] = held
        self._attach(held, tokens)
        return held.id

    def reopen(self, sequence: int, tokens: Sequence[int]) -> int:
        """Starts a sequence over with `tokens`, after an eviction. Returns how many are still cached."""
        held = self.held(sequence)
        self._strip(held)
        self._attach(held, tokens)
        return held.length

    def held(self, sequence: int) -> Held:
        held = self._held.get(sequence)
        if held is None:
            raise NotFound(f"sequence {sequence} is not open; open one first", param="sequence")
        return held

    def close(self, sequence: int) -> None:
        """Frees everything the sequence owns; its prefix blocks stay cached while there is room."""
        self._strip(self.held(sequence))
        del self._held[sequence]

    def use(self) -> PoolUse:
        return PoolUse(
            slots=self.slots,
            free_slots=self._free_count,
            idle_block_slots=BLOCK_TOKENS * self._prefix.idle_blocks,
            sequences=len(self._held),
            evicted_sequences=self._evicted_sequences,
            evicted_blocks=self._evicted_blocks,
            reused_tokens=self._reused_tokens,
        )

    # -- one pass --------------------------------------------------------------------------------------------

    def admit(self, blocks: Sequence[RowBlock]) -> Admission:
        """Which of `blocks`, in order, find room in one pass. Changes nothing."""
        accepted: list[RowBlock] = []
        refused: list[tuple[RowBlock, NacreError]] = []
        pinned: dict[int, Held] = {}
        need = 0
        for block in blocks:
            held = self._held.get(block.sequence)
            if held is None:
                refused.append((block, NotFound(f"sequence {block.sequence} is not open; open one first")))
                continue
            if held.id in pinned:
                refused.append((block, InvalidArgument(f"sequence {held.id} has two blocks in one pass; send one")))
                continue
            pinned[held.id] = held
            wanted = need + len(block.tokens)
            if wanted > self._free_count and (room := self.slots - _kept(pinned)) < wanted:
                del pinned[held.id]
                refused.append((block, self._no_room(block, room - need)))
                continue
            need = wanted
            accepted.append(block)
        return Admission(tuple(accepted), tuple(refused))

    def reserve(self, blocks: Sequence[RowBlock]) -> list[Placement]:
        """Gives every row of an admitted set of blocks its slot, making room where it must."""
        admission = self.admit(blocks)
        if admission.refused:
            raise admission.refused[0][1]
        self._clock += 1
        self._make_room(sum(len(block.tokens) for block in blocks), {block.sequence for block in blocks})
        placed = []
        for block in blocks:
            held = self._held[block.sequence]
            held.stepped = self._clock
            count = len(block.tokens)
            slots = self._take(count)
            row_ids = range(held.next_row, held.next_row + count)
            held.next_row += count
            if block.commit:
                held.room_for(held.length + count)
                held.slots[held.length : held.length + count] = slots
            else:
                _hang(held, block, row_ids, slots.tolist())
            placed.append(Placement(block, held, row_ids, slots))
        return placed

    def complete(self, placed: Sequence[Placement]) -> None:
        """The pass is done: commits the prompt chunks."""
        for placement in placed:
            if placement.block.commit:
                held = placement.held
                self._drop_rows(held)
                held.tokens[held.length : held.length + len(placement.slots)] = placement.block.tokens
                held.length += len(placement.slots)
                self._share(held)

    def abandon(self, placed: Sequence[Placement]) -> None:
        """The pass failed: takes every slot back as if it had never been asked for."""
        for placement in placed:
            held = placement.held
            held.next_row = placement.row_ids.start
            self._give(placement.slots)
            if not placement.block.commit:
                for row_id in placement.row_ids:
                    del held.rows[row_id]

    def advance(self, sequence: int, path: Sequence[int]) -> None:
        """Commits the rows of `path` (root first, the first one a child of the tip).

        Descendants of its last row stay, now below the new tip; all other uncommitted rows are freed.
        An empty path frees every uncommitted row.
        """
        held = self.held(sequence)
        last = TIP
        for row_id in path:
            row = held.rows.get(row_id)
            if row is None or row.parent != last:
                raise InvalidArgument(
                    f"row {row_id} of sequence {sequence} is not an uncommitted child of "
                    f"{'the tip' if last == TIP else f'row {last}'}; advance along rows of the last passes",
                    param="path",
                )
            last = row_id
        if not path:
            self._drop_rows(held)
            return
        held.room_for(held.length + len(path))
        for row_id in path:
            row = held.rows.pop(row_id)
            held.slots[held.length] = row.path[-1]
            held.tokens[held.length] = row.token
            held.length += 1
        self._prune(held, last, len(path))
        self._share(held)

    # -- slots -----------------------------------------------------------------------------------------------

    def _take(self, count: int) -> np.ndarray:
        self._free_count -= count
        return self._free[self._free_count : self._free_count + count][::-1].copy()

    def _give(self, slots: np.ndarray | list[int]) -> None:
        count = len(slots)
        self._free[self._free_count : self._free_count + count] = slots[::-1]
        self._free_count += count

    def _make_room(self, need: int, pinned: set[int]) -> None:
        while self._free_count < need:
            if self._prefix.idle_blocks:
                self._give(self._prefix.evict())
                self._evicted_blocks += 1
                continue
            victims = (held for held in self._held.values() if held.id not in pinned and (held.length or held.rows))
            victim = min(victims, key=lambda held: held.stepped)
            self._strip(victim)
            self._evicted_sequences += 1

    def _no_room(self, block: RowBlock, room: int) -> ResourceExhausted:
        return ResourceExhausted(
            f"sequence {block.sequence} needs {len(block.tokens) * self.slot_bytes} bytes of KV cache for "
            f"{len(block.tokens)} rows, but only {max(room, 0) * self.slot_bytes} of {self.slots * self.slot_bytes} "
            f"bytes can be freed; raise kv_bytes, shorten the text or run fewer sequences at once",
            param="tokens",
        )

    # -- one sequence's belongings ---------------------------------------------------------------------------

    def _attach(self, held: Held, tokens: Sequence[int]) -> None:
        held.blocks = self._prefix.match(held.tenant, tokens)
        reused = BLOCK_TOKENS * len(held.blocks)
        held.room_for(reused)  # before the length says that the tables hold it: they are copied up to there
        held.length = reused
        self._reused_tokens += reused
        if held.blocks:
            held.slots[: held.length] = np.concatenate([block.slots for block in held.blocks])
            held.tokens[: held.length] = tokens[: held.length]

    def _strip(self, held: Held) -> None:
        self._drop_rows(held)
        self._give(held.slots[BLOCK_TOKENS * len(held.blocks) : held.length])
        self._prefix.release(held.blocks)
        held.blocks = []
        held.length = 0

    def _drop_rows(self, held: Held) -> None:
        self._give([row.path[-1] for row in held.rows.values()])
        held.rows.clear()

    def _prune(self, held: Held, tip: int, depth: int) -> None:
        """Once the rows down to `tip` are committed: keeps its descendants, frees all other rows."""
        kept: dict[int, Row] = {}
        freed: list[int] = []
        for row_id, row in held.rows.items():  # parents come before children
            if row.parent == tip or row.parent in kept:
                row.parent = TIP if row.parent == tip else row.parent
                row.path = row.path[depth:]
                kept[row_id] = row
            else:
                freed.append(row.path[-1])
        held.rows = kept
        self._give(freed)

    def _share(self, held: Held) -> None:
        """Hands every full block of committed tokens to the prefix cache."""
        while (end := BLOCK_TOKENS * (len(held.blocks) + 1)) <= held.length:
            start = end - BLOCK_TOKENS
            parent = held.blocks[-1].name if held.blocks else root_name(held.tenant)
            own = held.slots[start:end]
            block = self._prefix.share(parent, held.tokens[start:end], own)
            if not np.array_equal(block.slots, own):  # another sequence was first: read its copy, free ours
                self._give(own.copy())
                held.slots[start:end] = block.slots
            held.blocks.append(block)


def _hang(held: Held, block: RowBlock, row_ids: range, slots: list[int]) -> None:
    """Adds the rows of an uncommitted block below their parents."""
    chain = not block.parents
    above = TIP
    for index, (row_id, token, slot) in enumerate(zip(row_ids, block.tokens, slots, strict=True)):
        parent = above if chain else block.parents[index]
        above = row_id
        path = (slot,) if parent == TIP else (*held.rows[parent].path, slot)
        held.rows[row_id] = Row(token, parent, path)


def _kept(pinned: dict[int, Held]) -> int:
    """Slots that must survive if exactly these sequences are stepped."""
    shared = {block.name for held in pinned.values() for block in held.blocks}
    return BLOCK_TOKENS * len(shared) + sum(held.owned for held in pinned.values())
