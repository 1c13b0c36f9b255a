"""The pool against a naive model in which every slot remembers whose text was written into it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nacre.engine.kv_pool import KvPool
from nacre.engine.rows import TIP, RowBlock
from nacre.errors import InvalidArgument, NotFound, ResourceExhausted

SLOTS = 96
TOKENS = st.lists(st.integers(0, 1), min_size=1, max_size=36).map(tuple)


class PoolMachine(RuleBasedStateMachine):
    """`written[slot]` is (tenant, all tokens up to this one): what its keys and values would be a function
    of.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pool = KvPool(SLOTS, slot_bytes=8, max_sequences=6)
        self.written: dict[int, tuple[str, tuple[int, ...]]] = {}
        self.committed: dict[int, tuple[int, ...]] = {}
        self.tenant: dict[int, str] = {}
        self.rows: dict[int, dict[int, tuple[int, int]]] = {}  # sequence -> row id -> (parent, token)

    @initialize()
    def start(self) -> None:
        self.open_sequence("a", (0,))

    # -- what an owner does ----------------------------------------------------------------------------------

    @rule(tenant=st.sampled_from("ab"), prompt=TOKENS)
    def open_sequence(self, tenant: str, prompt: tuple[int, ...]) -> None:
        if len(self.committed) >= 6:
            with pytest.raises(ResourceExhausted):
                self.pool.open(tenant, prompt)
            return
        sequence = self.pool.open(tenant, prompt)
        cached = self.pool.held(sequence).length
        assert cached <= max(0, len(prompt) - 1)
        assert cached % 16 == 0
        self.tenant[sequence] = tenant
        self.committed[sequence] = prompt[:cached]
        self.rows[sequence] = {}

    @precondition(lambda self: self.committed)
    @rule(data=st.data(), prompt=TOKENS)
    def reopen(self, data: st.DataObject, prompt: tuple[int, ...]) -> None:
        sequence = data.draw(st.sampled_from(sorted(self.committed)))
        self.committed[sequence] = prompt[: self.pool.reopen(sequence, prompt)]
        self.rows[sequence] = {}

    @precondition(lambda self: self.committed)
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        sequence = data.draw(st.sampled_from(sorted(self.committed)))
        self.pool.close(sequence)
        for known in (self.committed, self.tenant, self.rows):
            del known[sequence]  # type: ignore[attr-defined]

    @precondition(lambda self: self.committed)
    @rule(data=st.data(), failing=st.booleans())
    def run_a_pass(self, data: st.DataObject, failing: bool) -> None:
        chosen = data.draw(st.lists(st.sampled_from(sorted(self.committed)), min_size=1, max_size=3, unique=True))
        blocks = [self.some_block(data, sequence) for sequence in chosen]
        admission = self.pool.admit(blocks)
        assert all(isinstance(error, ResourceExhausted) for _, error in admission.refused)
        if admission.refused:
            before = self.snapshot()
            with pytest.raises(ResourceExhausted):
                self.pool.reserve(blocks)
            assert self.snapshot() == before
        if not admission.accepted:
            return
        placed = self.pool.reserve(admission.accepted)
        self.notice_evictions({block.sequence for block in admission.accepted})
        if failing:
            self.pool.abandon(placed)
            return
        for placement in placed:
            self.write(placement.block, placement.slots, placement.row_ids)
        self.pool.complete(placed)

    @precondition(lambda self: any(self.rows.values()))
    @rule(data=st.data())
    def advance(self, data: st.DataObject) -> None:
        sequence = data.draw(st.sampled_from(sorted(s for s, rows in self.rows.items() if rows)))
        rows = self.rows[sequence]
        path: list[int] = []
        while below := sorted(row for row, (parent, _) in rows.items() if parent == (path[-1] if path else TIP)):
            choice = data.draw(st.sampled_from([None, *below]))
            if choice is None:
                break
            path.append(choice)
        self.pool.advance(sequence, path)
        self.committed[sequence] += tuple(rows[row][1] for row in path)
        kept: dict[int, tuple[int, int]] = {}
        if path:
            for row, (parent, token) in rows.items():
                if parent == path[-1] or parent in kept:
                    kept[row] = (TIP if parent == path[-1] else parent, token)
        self.rows[sequence] = kept

    # -- the naive side --------------------------------------------------------------------------------------

    def some_block(self, data: st.DataObject, sequence: int) -> RowBlock:
        tokens = data.draw(TOKENS)
        if data.draw(st.booleans()):
            return RowBlock(sequence, tokens, commit=True)
        tokens = tokens[:6]
        first = self.pool.held(sequence).next_row
        parents = []
        for index in range(len(tokens)):
            known = [TIP, *self.rows[sequence], *range(first, first + index)]
            parents.append(data.draw(st.sampled_from(known)))
        return RowBlock(sequence, tokens, tuple(parents))

    def write(self, block: RowBlock, slots: np.ndarray, row_ids: range) -> None:
        sequence = block.sequence
        tenant, rows = self.tenant[sequence], self.rows[sequence]
        if block.commit:
            for slot, token in zip(slots.tolist(), block.tokens, strict=True):
                self.committed[sequence] += (token,)
                self.written[slot] = (tenant, self.committed[sequence])
            rows.clear()
            return
        for slot, row, token, parent in zip(slots.tolist(), row_ids, block.tokens, block.parents, strict=True):
            rows[row] = (parent, token)
            self.written[slot] = (tenant, self.text(sequence, row))

    def text(self, sequence: int, row: int) -> tuple[int, ...]:
        tokens: list[int] = []
        while row != TIP:
            row, token = self.rows[sequence][row]
            tokens.append(token)
        return self.committed[sequence] + tuple(reversed(tokens))

    def notice_evictions(self, stepped: set[int]) -> None:
        for sequence in self.committed:
            held = self.pool.held(sequence)
            if sequence in stepped:
                assert held.length == len(self.committed[sequence]), "a sequence lost its keys in its own pass"
                assert set(self.rows[sequence]) <= set(held.rows)
            elif not held.length and not held.rows:
                self.committed[sequence] = ()
                self.rows[sequence] = {}

    def snapshot(self) -> object:
        return [
            (held.id, held.length, held.slots[: held.length].tolist(), sorted(held.rows), held.next_row)
            for held in (self.pool.held(sequence) for sequence in sorted(self.committed))
        ], self.pool.use()

    @invariant()
    def every_slot_has_exactly_one_owner(self) -> None:
        assert sorted(owned_slots(self.pool, self.committed)) == list(range(SLOTS))

    @invariant()
    def every_slot_holds_what_its_reader_expects(self) -> None:
        for sequence, committed in self.committed.items():
            held = self.pool.held(sequence)
            assert tuple(held.tokens[: held.length].tolist()) == committed
            for position, slot in enumerate(held.slots[: held.length].tolist()):
                assert self.written[slot] == (self.tenant[sequence], committed[: position + 1])
            assert set(held.rows) == set(self.rows[sequence])
            for row_id, row in held.rows.items():
                text = self.text(sequence, row_id)
                assert self.written[row.path[-1]] == (self.tenant[sequence], text)
                assert [self.written[slot][1] for slot in row.path] == [
                    text[: end + 1] for end in range(len(committed), len(text))
                ]

    def teardown(self) -> None:
        for sequence in list(self.committed):
            self.pool.close(sequence)
        use = self.pool.use()
        assert use.free_slots + use.idle_block_slots == SLOTS
        assert use.sequences == 0


def owned_slots(pool: KvPool, sequences: Sequence[int]) -> list[int]:
    owned = pool._free[: pool._free_count].tolist()
    for slots in pool._prefix.slots():
        owned += slots.tolist()
    for sequence in sequences:
        held = pool.held(sequence)
        owned += held.slots[16 * len(held.blocks) : held.length].tolist()
        owned += [row.path[-1] for row in held.rows.values()]
    return owned


TestPool = PoolMachine.TestCase
TestPool.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


def commit(pool: KvPool, sequence: int, tokens: Sequence[int]) -> None:
    pool.complete(pool.reserve([RowBlock(sequence, tuple(tokens), commit=True)]))


def test_a_path_is_committed_by_editing_the_table_and_copies_no_slot() -> None:
    pool = KvPool(32, 8)
    me = pool.open("a", ())
    commit(pool, me, (1, 2))
    (placed,) = pool.reserve([RowBlock(me, (3, 4, 5, 6), (TIP, TIP, 3, 4))])
    rows = placed.row_ids
    before = {row: pool.held(me).rows[row].path[-1] for row in rows}
    pool.advance(me, [rows[1], rows[2]])
    held = pool.held(me)
    assert held.slots[2:4].tolist() == [before[rows[1]], before[rows[2]]]
    assert held.tokens[: held.length].tolist() == [1, 2, 4, 5]
    assert list(held.rows) == [rows[3]]
    assert pool.use().free_slots == 32 - 5


def test_all_descendants_of_the_new_tip_stay_with_their_paths_and_all_others_go() -> None:
    pool = KvPool(32, 8)
    me = pool.open("a", ())
    pool.reserve([RowBlock(me, (1, 2, 3, 4, 5, 6, 7), (TIP, 0, 1, 2, 2, 0, TIP))])
    slot = {row_id: row.path[-1] for row_id, row in pool.held(me).rows.items()}
    pool.advance(me, [0, 1])
    rows = pool.held(me).rows
    assert {row_id: row.parent for row_id, row in rows.items()} == {2: TIP, 3: 2, 4: 2}
    assert rows[4].path == (slot[2], slot[4])
    assert pool.use().free_slots == 32 - 5
    pool.advance(me, [2, 4])
    assert pool.held(me).tokens[:4].tolist() == [1, 2, 3, 5]
    assert pool.held(me).rows == {}


def test_a_sequence_is_never_evicted_for_its_own_pass() -> None:
    pool = KvPool(40, 8)
    oldest, newer = pool.open("a", ()), pool.open("b", ())
    commit(pool, oldest, (1,) * 10)
    commit(pool, newer, (1,) * 10)
    commit(pool, oldest, (2,) * 25)
    assert [pool.held(sequence).length for sequence in (oldest, newer)] == [35, 0]


def test_advance_refuses_what_is_no_path_from_the_tip_and_changes_nothing() -> None:
    pool = KvPool(32, 8)
    me = pool.open("a", ())
    pool.reserve([RowBlock(me, (3, 4, 5), (TIP, 0, TIP))])
    for path in ([1], [0, 2], [7], [0, 1, 1]):
        with pytest.raises(InvalidArgument, match="not an uncommitted child"):
            pool.advance(me, path)
        assert sorted(pool.held(me).rows) == [0, 1, 2]
        assert pool.held(me).length == 0
    pool.advance(me, ())
    assert pool.use().free_slots == 32


def test_row_ids_count_up_and_are_never_reused() -> None:
    pool = KvPool(32, 8)
    me = pool.open("a", ())
    (first,) = pool.reserve([RowBlock(me, (1, 2))])
    pool.advance(me, ())
    (second,) = pool.reserve([RowBlock(me, (1,))])
    assert (first.row_ids, second.row_ids) == (range(2), range(2, 3))


def test_the_least_recently_stepped_idle_sequence_is_evicted_first() -> None:
    pool = KvPool(40, 8)
    old, recent, new = (pool.open(name, ()) for name in "abc")
    commit(pool, old, (1,) * 10)
    commit(pool, recent, (1,) * 10)
    commit(pool, old, (1,))
    commit(pool, new, (1,) * 25)
    assert [pool.held(sequence).length for sequence in (old, recent, new)] == [11, 0, 25]
    assert pool.use().evicted_sequences == 1


def test_idle_prefix_blocks_go_before_any_live_sequence() -> None:
    pool = KvPool(48, 8)
    past, live, new = (pool.open(name, ()) for name in "abc")
    commit(pool, past, (1,) * 32)
    pool.close(past)
    commit(pool, live, (1,) * 10)
    commit(pool, new, (1,) * 10)
    assert pool.held(live).length == 10
    assert pool.use().evicted_blocks == 1
    again = pool.open("a", (1,) * 40)
    assert pool.held(again).length == 16, "the later block goes first"


def test_a_block_that_cannot_fit_names_bytes_and_remedy() -> None:
    pool = KvPool(10, 8)
    me, other = pool.open("a", ()), pool.open("b", ())
    commit(pool, me, (1,) * 4)
    admission = pool.admit([RowBlock(other, (1,) * 3), RowBlock(me, (1,) * 7, commit=True), RowBlock(other, (1,))])
    assert [block.sequence for block in admission.accepted] == [other]
    no_room, twice = (error for _, error in admission.refused)
    assert isinstance(no_room, ResourceExhausted)
    assert "56 bytes" in no_room.message
    assert "of 80 bytes" in no_room.message
    assert "raise kv_bytes" in no_room.message
    assert "two blocks" in twice.message


def test_tenants_share_nothing_and_one_tenant_shares_whole_blocks_but_not_the_last_token() -> None:
    pool = KvPool(128, 8)
    prompt = tuple(range(32))
    first = pool.open("a", prompt)
    commit(pool, first, prompt)
    assert pool.held(pool.open("b", prompt)).length == 0
    assert pool.held(pool.open("a", prompt)).length == 16, "the last prompt token must be computed"
    assert pool.held(pool.open("a", (*prompt, 5))).length == 32
    assert pool.held(pool.open("a", (*prompt[:20], 99, *prompt[21:], 5))).length == 16
    assert pool.held(pool.open("a", ())).length == 0


def test_the_same_prompt_computed_twice_at_once_is_kept_once() -> None:
    pool = KvPool(128, 8)
    one, two = pool.open("a", ()), pool.open("a", ())
    commit(pool, one, range(33))
    commit(pool, two, range(33))
    assert pool.use().free_slots == 128 - 32 - 2
    assert pool.held(two).slots[:32].tolist() == pool.held(one).slots[:32].tolist()


def test_an_unknown_sequence_is_named() -> None:
    pool = KvPool(8, 8)
    with pytest.raises(NotFound, match="sequence 7 is not open"):
        pool.held(7)


def test_a_pool_without_room_for_one_token_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="raise kv_bytes"):
        KvPool(0, 4096)


def test_a_long_prefix_is_reused_whole_slot_for_slot() -> None:
    pool = KvPool(2048, 1, 8)
    tokens = [index % 90 for index in range(700)]
    first = pool.open("tenant", tokens)
    pool.complete(pool.reserve([RowBlock(first, tuple(tokens), logits_from=len(tokens), commit=True)]))
    slots = pool.held(first).slots[:688].tolist()
    pool.close(first)
    again = pool.open("tenant", tokens)
    assert pool.held(again).length == 688  # whole blocks of 16, never the last token
    assert pool.held(again).slots[:688].tolist() == slots
    assert pool.held(again).tokens[:688].tolist() == tokens[:688]
