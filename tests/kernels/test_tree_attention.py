"""A row's attention is a function of its ordered visible keys: pack, tree, cache history and machine cannot show."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest
import torch
from nacre_kernels import AttentionPlan, append_kv, attention, library, paged_tree_attention, reference

from tests.kernels.tensors import int32

F32, BF16 = torch.float32, torch.bfloat16


@dataclass(frozen=True)
class Case:
    """A kind of attention layer."""

    heads: int = 4
    kv_heads: int = 4
    dim: int = 16
    value_dim: int = 16
    q_dtype: torch.dtype = F32
    pool_dtype: torch.dtype = F32
    options: dict[str, object] = field(default_factory=dict)
    with_sinks: bool = False

    def __str__(self) -> str:
        return f"{self.heads}/{self.kv_heads}x{self.dim}-{self.value_dim}-{self.pool_dtype}".replace("torch.", "")


CASES = [
    Case(),
    Case(q_dtype=BF16, pool_dtype=BF16, dim=64, value_dim=64),
    Case(heads=8, kv_heads=2, options={"window": 7}),
    Case(heads=6, kv_heads=3, dim=20, value_dim=12, options={"softcap": 2.5}),
    Case(heads=4, kv_heads=1, dim=5, value_dim=9, q_dtype=BF16, pool_dtype=BF16, with_sinks=True),
    Case(heads=70, kv_heads=2, dim=8, value_dim=80, options={"window": 3, "softcap": 1.0}, with_sinks=True),
    Case(q_dtype=F32, pool_dtype=BF16, dim=1, value_dim=1),
]


@dataclass
class World:
    """Two sequences with committed prefixes and a draft tree each, in scattered slots."""

    case: Case
    k: torch.Tensor
    v: torch.Tensor
    q: torch.Tensor  # one query per row of `rows`
    prefixes: list[list[int]]
    rows: list[tuple[int, list[int]]]
    options: dict[str, object]

    def attend(self, picked: list[int] | None = None, **changes: object) -> torch.Tensor:
        picked = list(range(len(self.rows))) if picked is None else picked
        plan = AttentionPlan.from_lists(self.prefixes, [self.rows[i] for i in picked])
        return paged_tree_attention(self.q[picked], self.k, self.v, plan, **{**self.options, **changes})


def make_world(case: Case, seed: int = 0, prefix: int = 37) -> World:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    lengths = [prefix, 3]
    trees = [[-1, 0, 1, 1, 3, -1, 5], [-1, 0, 0]]  # parents
    slots = torch.randperm(sum(lengths) + 10 + 5, generator=generator).tolist()
    prefixes = [[slots.pop() for _ in range(length)] for length in lengths]
    rows: list[tuple[int, list[int]]] = []
    for sequence, parents in enumerate(trees):
        paths: list[list[int]] = []
        for parent in parents:
            paths.append([*(paths[parent] if parent >= 0 else []), slots.pop()])
        rows += [(sequence, path) for path in paths]
    total = sum(lengths) + 15
    options: dict[str, object] = {"scale": case.dim**-0.5, **case.options}
    if case.with_sinks:
        options["sinks"] = normal(case.heads)
    return World(
        case,
        normal(total, case.kv_heads, case.dim).to(case.pool_dtype),
        normal(total, case.kv_heads, case.value_dim).to(case.pool_dtype),
        normal(len(rows), case.heads, case.dim).to(case.q_dtype),
        prefixes,
        rows,
        options,
    )


def naive(world: World, row: int, head: int) -> torch.Tensor:
    """Written as the definition reads, key by key, in Python floats: fp64 [value_dim]."""
    options = world.options
    sequence, ancestors = world.rows[row]
    visible = [*world.prefixes[sequence], *ancestors]
    kv_head = head * world.case.kv_heads // world.case.heads
    query = world.q[row, head].double()
    scores = []
    for position, slot in enumerate(visible):
        if "window" in options and position <= len(visible) - 1 - options["window"]:
            continue
        score = float(query @ world.k[slot, kv_head].double()) * options["scale"]
        if "softcap" in options:
            score = options["softcap"] * math.tanh(score / options["softcap"])
        scores.append((slot, math.exp(score)))
    total = sum(weight for _, weight in scores)
    if "sinks" in options:
        total += math.exp(float(options["sinks"][head]))
    return sum(weight / total * world.v[slot, kv_head].double() for slot, weight in scores)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_kernel_and_its_reference_say_what_the_definition_says(case: Case) -> None:
    world = make_world(case)
    out = world.attend()
    plan = AttentionPlan.from_lists(world.prefixes, world.rows)
    twin = reference.paged_tree_attention(world.q, world.k, world.v, plan, **world.options)
    truth = torch.stack(
        [torch.stack([naive(world, row, head) for head in range(case.heads)]) for row in range(len(world.rows))]
    )
    assert out.dtype == twin.dtype == case.q_dtype
    rounded = reference.round_once(truth, case.q_dtype)
    for result in (out, twin):  # a rare element may lie on the edge between two neighbours
        assert (result == rounded).double().mean() > 0.995
        assert torch.allclose(result.double(), truth, rtol=2.0**-8 if case.q_dtype == BF16 else 2.0**-23, atol=1e-30)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_instruction_set_and_thread_count_gives_the_same_bits(case: Case, isas: tuple[str, ...]) -> None:
    world = make_world(case, prefix=150)
    library.set_isa(isas[0])
    expected = world.attend()
    for isa in isas:
        library.set_isa(isa)
        for threads in (1, 2, 5):
            assert torch.equal(world.attend(threads=threads), expected), (isa, threads)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_row_alone_has_the_bits_it_has_among_siblings_and_other_sequences(case: Case, isas: tuple[str, ...]) -> None:
    world = make_world(case)
    count = len(world.rows)
    for isa in isas:
        library.set_isa(isa)
        together = world.attend()
        for row in range(count):
            assert torch.equal(world.attend([row])[0], together[row])
        backwards = list(range(count))[::-1]
        assert torch.equal(world.attend(backwards), together[backwards])
        mixed = [i for pair in zip(range(7), [7, 8, 9, 7, 8, 9, 7], strict=True) for i in pair]
        assert torch.equal(world.attend(mixed), together[mixed])
        assert torch.equal(world.attend([*range(count)] * 9), together.repeat(9, 1, 1))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_committed_prefix_and_tree_ancestors_are_the_same_keys(case: Case) -> None:
    world = make_world(case)
    expected = world.attend()
    for moved in (0, 1, 5, 30):  # the last `moved` committed slots come in as ancestors instead
        rows = [
            (sequence, world.prefixes[sequence][-moved:] + path if moved else path) for sequence, path in world.rows
        ]
        prefixes = [prefix[:-moved] if moved else prefix for prefix in world.prefixes]
        plan = AttentionPlan.from_lists(prefixes, rows)
        assert torch.equal(paged_tree_attention(world.q, world.k, world.v, plan, **world.options), expected)
    everything = [(0, [*world.prefixes[sequence], *path]) for sequence, path in world.rows]
    plan = AttentionPlan.from_lists([[]], everything)
    assert torch.equal(paged_tree_attention(world.q, world.k, world.v, plan, **world.options), expected)
    committed = [[*world.prefixes[sequence], *path] for sequence, path in world.rows]
    plan = AttentionPlan.from_lists(committed, [(i, []) for i in range(len(committed))])
    assert torch.equal(paged_tree_attention(world.q, world.k, world.v, plan, **world.options), expected)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_where_the_slots_lie_does_not_matter(case: Case) -> None:
    world = make_world(case)
    expected = world.attend()
    order = torch.randperm(world.k.shape[0], generator=torch.Generator().manual_seed(5))
    place = order.argsort().tolist()
    world.k, world.v = world.k[order], world.v[order]
    world.prefixes = [[place[slot] for slot in prefix] for prefix in world.prefixes]
    world.rows = [(sequence, [place[slot] for slot in path]) for sequence, path in world.rows]
    assert torch.equal(world.attend(), expected)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_prompt_in_chunks_of_any_size_equals_token_by_token(case: Case, isas: tuple[str, ...]) -> None:
    length = 83
    world = make_world(case, prefix=length)
    slots = world.prefixes[0]
    queries = torch.randn(length, case.heads, case.dim, generator=torch.Generator().manual_seed(2)).to(case.q_dtype)

    def prefill(chunk: int) -> torch.Tensor:
        out = []
        for start in range(0, length, chunk):
            rows = [(0, slots[start : end + 1]) for end in range(start, min(start + chunk, length))]
            plan = AttentionPlan.from_lists([slots[:start]], rows)
            out.append(paged_tree_attention(queries[start : start + chunk], world.k, world.v, plan, **world.options))
        return torch.cat(out)

    def prefill_as_growing_prefixes(chunk: int) -> torch.Tensor:
        out = []
        for start in range(0, length, chunk):
            count = min(chunk, length - start)
            nothing = int32(*[0] * count)
            grown = int32(*range(start + 1, start + count + 1))
            plan = AttentionPlan(nothing, grown, nothing, nothing, int32(*slots), int32())
            out.append(paged_tree_attention(queries[start : start + count], world.k, world.v, plan, **world.options))
        return torch.cat(out)

    one_by_one = prefill(1)
    for isa in isas:
        library.set_isa(isa)
        for chunk in (2, 7, 16, 33, length):
            assert torch.equal(prefill(chunk), one_by_one), (isa, chunk)
            assert torch.equal(prefill_as_growing_prefixes(chunk), one_by_one), (isa, chunk)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_rows_below_different_tips_of_one_sequence_keep_their_bits(case: Case) -> None:
    world = make_world(case)
    lengths, ancestors = (5, 20, 12, 12, 37, 20), (1, 1, 2, 3, 2, 1)  # one offset, ancestors from one list
    count, nothing = len(lengths), [0] * len(lengths)
    plan = AttentionPlan(
        *(int32(*nothing), int32(*lengths), int32(*nothing), int32(*ancestors)),
        *(int32(*world.prefixes[0]), int32(*world.rows[3][1])),
    )
    together = paged_tree_attention(world.q[:count], world.k, world.v, plan, **world.options)
    for i in range(count):
        rows = [(0, world.rows[3][1][: ancestors[i]])]
        alone = AttentionPlan.from_lists([world.prefixes[0][: lengths[i]]], rows)
        expected = paged_tree_attention(world.q[i : i + 1], world.k, world.v, alone, **world.options)
        assert torch.equal(together[i : i + 1], expected)


def test_long_rows_that_change_the_tiling_keep_their_bits() -> None:
    generator = torch.Generator().manual_seed(4)
    slots = torch.randperm(9000, generator=generator).tolist()
    k, v = (torch.randn(9000, 2, 8, generator=generator) for _ in range(2))
    q = torch.randn(12, 8, 8, generator=generator)
    rows = [(0, slots[8000 : 8000 + 1 + 80 * (i % 3)]) for i in range(12)]
    together = paged_tree_attention(q, k, v, AttentionPlan.from_lists([slots[:8000]], rows), scale=0.5, threads=2)
    for row in range(12):
        plan = AttentionPlan.from_lists([slots[:8000]], [rows[row]])
        assert torch.equal(paged_tree_attention(q[row : row + 1], k, v, plan, scale=0.5)[0], together[row])


def test_slots_that_a_row_does_not_see_are_never_read(isas: tuple[str, ...]) -> None:
    case = Case(options={"window": 5})
    world = make_world(case)
    for isa in isas:
        library.set_isa(isa)
        expected = world.attend()
        row = len(world.rows) - 4  # depth 2 in the first tree
        sequence, path = world.rows[row]
        seen = {*[*world.prefixes[sequence], *path][-5:]}
        hidden = torch.tensor([slot for slot in range(world.k.shape[0]) if slot not in seen])
        k, v = world.k.clone(), world.v.clone()
        k[hidden] = v[hidden] = float("nan")
        plan = AttentionPlan.from_lists(world.prefixes, world.rows)
        out = paged_tree_attention(world.q, k, v, plan, **world.options)
        assert torch.equal(out[row], expected[row])


def test_far_apart_scores_neither_overflow_nor_vanish_wrongly(isas: tuple[str, ...]) -> None:
    k = torch.tensor([[[1e4]], [[-1e4]], [[9.999e3]], [[1e4]]])
    v = torch.tensor([[[1.0]], [[2.0]], [[4.0]], [[8.0]]])
    plan = AttentionPlan.from_lists([[0, 1, 2]], [(0, [3])])
    for isa in isas:
        library.set_isa(isa)
        for sign in (1.0, -1.0):
            q = torch.full((1, 1, 1), sign * 100.0)
            out = paged_tree_attention(q, k, v, plan, scale=1.0)
            assert out.item() == (4.5 if sign > 0 else 2.0)
        plain = paged_tree_attention(torch.full((1, 1, 1), 1e-3), k, v, plan, scale=1.0, softcap=1e-3)
        assert 1.0 < plain.item() < 8.0


def test_nan_in_a_visible_key_or_value_reaches_the_row(isas: tuple[str, ...]) -> None:
    world = make_world(Case())
    for isa in isas:
        library.set_isa(isa)
        for pool in (world.k, world.v):
            broken = pool.clone()
            broken[world.rows[4][1][-1]] = float("nan")  # seen by row 4 alone
            pools = (broken, world.v) if pool is world.k else (world.k, broken)
            plan = AttentionPlan.from_lists(world.prefixes, world.rows)
            out = paged_tree_attention(world.q, *pools, plan, **world.options)
            assert [bool(row.isnan().any()) for row in out] == [i == 4 for i in range(len(world.rows))]


def test_strided_queries_and_pools_are_read_in_place() -> None:
    world = make_world(Case(heads=4, kv_heads=2, value_dim=16))
    expected = world.attend()
    both = torch.stack([world.k, world.v], dim=1)  # [slots, 2, kv_heads, dim]
    plan = AttentionPlan.from_lists(world.prefixes, world.rows)
    heads_first = world.q.transpose(0, 1).contiguous().transpose(0, 1)
    assert not heads_first.is_contiguous()
    out = paged_tree_attention(heads_first, both[:, 0], both[:, 1], plan, **world.options)
    assert torch.equal(out, expected)


def test_no_rows_give_an_empty_result() -> None:
    out = paged_tree_attention(
        torch.empty(0, 2, 4), torch.zeros(3, 1, 4), torch.zeros(3, 1, 6), AttentionPlan.from_lists([], []), scale=1.0
    )
    assert out.shape == (0, 2, 6)


def test_appended_rows_are_found_in_their_slots() -> None:
    k_pool, v_pool = torch.zeros(5, 2, 3), torch.zeros(5, 2, 4)
    k, v = torch.randn(2, 2, 3), torch.randn(2, 2, 4)
    append_kv(k_pool, v_pool, torch.tensor([4, 1]), k, v)
    assert torch.equal(k_pool[[4, 1]], k)
    assert torch.equal(v_pool[[4, 1]], v)
    assert not k_pool[[0, 2, 3]].any()


def test_rounding_to_bf16_happens_once() -> None:
    just_above_a_tie = torch.tensor([1.0 + 2.0**-8 + 2.0**-40], dtype=torch.float64)
    assert just_above_a_tie.bfloat16().item() == 1.0  # by way of fp32 the tie is made, then broken to even
    assert reference.round_once(just_above_a_tie, BF16).item() == 1.0 + 2.0**-7
    # Two keys with weights 1 and 2^-32ish cannot be dialled exactly; a value pool can: one key, weight exactly 1.
    plan = AttentionPlan.from_lists([[]], [(0, [0])])
    value = torch.tensor([[[1.0 + 2.0**-8 + 2.0**-20]]])
    out = paged_tree_attention(torch.zeros(1, 1, 1, dtype=BF16), torch.zeros(1, 1, 1), value, plan, scale=1.0)
    assert out.item() == 1.0 + 2.0**-7


def test_without_the_library_the_reference_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    world = make_world(CASES[2])
    expected = world.attend()
    monkeypatch.setattr(attention, "available", lambda: False)
    assert torch.allclose(world.attend(), expected, rtol=2.0**-22, atol=0.0)
