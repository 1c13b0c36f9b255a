"""A row's logits depend on its path alone, bit for bit: `torch.equal`, never a tolerance."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest
import torch

from nacre.engine import TIP, Engine, RowBlock

VOCABULARY = 96
TEXT = tuple(random.Random(7).randrange(VOCABULARY) for _ in range(40))
NOISE = tuple(random.Random(8).randrange(VOCABULARY) for _ in range(64))
KNOWN = 31
"""TEXT[KNOWN:] are the tokens whose rows are compared; prefixes of up to 31 tokens leave one full cached
block.
"""

EXACT = [(family, dtype) for family in ("llama", "gemma3") for dtype in ("float32", "bfloat16")]


@pytest.fixture(scope="module", params=EXACT, ids=lambda case: "-".join(case))
def engine(request: pytest.FixtureRequest, new_engine: Callable[..., Engine]) -> Engine:
    engine = new_engine(*request.param)
    assert engine.info.numerics.startswith("exact/packed"), engine.info.numerics
    return engine


@pytest.fixture(scope="module")
def alone(engine: Engine) -> torch.Tensor:
    """Plain decoding: one chunk of prompt, then one row a pass. The truth that every other way must equal."""
    me = engine.open("alone", ())
    chunk(engine, me, TEXT[:KNOWN])
    rows = []
    for token in TEXT[KNOWN:]:
        result = engine.step([RowBlock(me, (token,))])
        engine.advance(me, result.row_ids[0])
        rows.append(result.logits)
    engine.close(me)
    return torch.cat(rows)


def chunk(engine: Engine, sequence: int, tokens: Sequence[int]) -> None:
    engine.step([RowBlock(sequence, tuple(tokens), logits_from=len(tokens), commit=True)])


def tail(engine: Engine, sequence: int) -> torch.Tensor:
    """The compared rows as one chain below the committed prefix."""
    return engine.step([RowBlock(sequence, TEXT[KNOWN:])]).logits


def test_plain_decoding_is_repeatable(engine: Engine, alone: torch.Tensor) -> None:
    me = engine.open("again", ())
    chunk(engine, me, TEXT[:KNOWN])
    assert torch.equal(engine.step([RowBlock(me, TEXT[KNOWN : KNOWN + 1])]).logits[0], alone[0])
    engine.close(me)


def test_a_chain_of_guesses_gets_the_logits_of_decoding_one_by_one(engine: Engine, alone: torch.Tensor) -> None:
    me = engine.open("chain", ())
    chunk(engine, me, TEXT[:KNOWN])
    assert torch.equal(tail(engine, me), alone)
    engine.close(me)


@pytest.mark.parametrize("others", [1, 3, 7, 40])
def test_rows_of_other_sessions_change_nothing(engine: Engine, alone: torch.Tensor, others: int) -> None:
    me, other, third = (engine.open(f"mix-{name}-{others}", ()) for name in "abc")
    chunk(engine, me, TEXT[:KNOWN])
    chunk(engine, other, NOISE[:others])
    result = engine.step(
        [RowBlock(other, NOISE[:others]), RowBlock(me, TEXT[KNOWN:]), RowBlock(third, NOISE[others:], commit=True)]
    )
    assert torch.equal(result.logits[others : others + len(alone)], alone)
    for sequence in (me, other, third):
        engine.close(sequence)


def test_siblings_in_the_tree_change_nothing(engine: Engine, alone: torch.Tensor) -> None:
    draw = random.Random(3)
    me = engine.open("tree", ())
    chunk(engine, me, TEXT[:KNOWN])
    tokens: list[int] = []
    parents: list[int] = []
    mine: list[int] = []
    first, at = engine.next_row(me), TIP
    for token in TEXT[KNOWN:]:
        rivals = [draw.randrange(VOCABULARY) for _ in range(draw.randrange(4))]
        for rival in rivals[: len(rivals) // 2]:
            tokens.append(rival)
            parents.append(at)
        mine.append(len(tokens))
        tokens.append(token)
        parents.append(at)
        for rival in rivals[len(rivals) // 2 :]:
            tokens.append(rival)
            parents.append(draw.choice([TIP, *range(first, first + len(tokens) - 1)]))
        at = first + mine[-1]
    logits = engine.step([RowBlock(me, tuple(tokens), tuple(parents))]).logits
    assert len(tokens) > len(mine)
    assert torch.equal(logits[mine], alone)
    engine.close(me)


@pytest.mark.parametrize("size", [1, 2, 5, 13, 30])
def test_how_the_prompt_was_cut_into_chunks_changes_nothing(engine: Engine, alone: torch.Tensor, size: int) -> None:
    me = engine.open(f"chunks-{size}", ())
    for start in range(0, KNOWN, size):
        chunk(engine, me, TEXT[start : min(start + size, KNOWN)])
    assert torch.equal(tail(engine, me), alone)
    engine.close(me)


def test_a_prefix_reused_from_the_cache_changes_nothing(engine: Engine, alone: torch.Tensor) -> None:
    first = engine.open("reuse", ())
    chunk(engine, first, TEXT[:KNOWN])
    engine.close(first)
    me = engine.open("reuse", TEXT[:KNOWN])
    assert engine.cached(me) == 16
    chunk(engine, me, TEXT[16:KNOWN])
    assert torch.equal(tail(engine, me), alone)
    engine.close(me)


def test_a_prefix_computed_again_after_eviction_changes_nothing(
    new_engine: Callable[..., Engine], engine: Engine, alone: torch.Tensor
) -> None:
    info = engine.info
    family = "gemma3" if "gemma3" in info.model_id else "llama"
    dtype = info.dtype
    slot_bytes = info.kv_bytes // engine.use().slots
    small = new_engine(family, dtype, kv_bytes=60 * slot_bytes)
    me = small.open("evicted", ())
    chunk(small, me, TEXT[:KNOWN])
    greedy = small.open("other", ())
    chunk(small, greedy, NOISE[:50])
    assert small.cached(me) == 0
    chunk(small, me, TEXT[:KNOWN])
    assert torch.equal(tail(small, me), alone)


def test_rows_verified_as_guesses_and_then_committed_change_nothing(engine: Engine, alone: torch.Tensor) -> None:
    """The prefix comes from accepted branches of trees, rivals rejected in between, slots scattered."""
    draw = random.Random(11)
    me = engine.open("accepted", ())
    chunk(engine, me, TEXT[:5])
    at = 5
    while at < KNOWN:
        length = min(draw.randrange(1, 5), KNOWN - at)
        first = engine.next_row(me)
        tokens = [draw.randrange(VOCABULARY)]
        parents = [TIP]
        path: list[int] = []
        for token in TEXT[at : at + length]:
            tokens += [token, draw.randrange(VOCABULARY)]
            parents += [path[-1] if path else TIP] * 2
            path.append(first + len(tokens) - 2)
        engine.step([RowBlock(me, tuple(tokens), tuple(parents))])
        engine.advance(me, path)
        at += length
    assert engine.cached(me) == KNOWN
    assert torch.equal(tail(engine, me), alone)
    engine.close(me)


def test_a_tree_grown_over_several_passes_gets_the_same_logits(engine: Engine, alone: torch.Tensor) -> None:
    """As a model drafter works: below yesterday's rows, then on after a commit that leaves descendants
    standing.
    """
    me = engine.open("grown", ())
    chunk(engine, me, TEXT[:KNOWN])
    rows: list[int] = []
    got: list[torch.Tensor] = []
    for index, token in enumerate(TEXT[KNOWN:]):
        parent = rows[-1] if rows else TIP
        result = engine.step([RowBlock(me, (NOISE[index], token), (parent, parent))])
        got.append(result.logits[1])
        rows.append(result.row_ids[0][1])
        if index == 4:
            engine.advance(me, rows[:3])
            assert engine.cached(me) == KNOWN + 3
    assert torch.equal(torch.stack(got), alone)
    engine.close(me)
