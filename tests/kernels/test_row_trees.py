"""Trees out of tables of rows: C and Python make the same, to the bit, and C stays within a table's memory."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from nacre_kernels import library
from nacre_kernels.growth import MOST_ROWS, RowTable

from nacre.drafting import row_trees
from nacre.drafting.aded import AdedProposer, TrigramTable
from nacre.drafting.adjacency import AdjacencyTable
from nacre.drafting.ngram_rows import key_of
from nacre.drafting.proposer import TIP, Guess
from nacre.drafting.row_trees import Race, RowTrees
from nacre.drafting.rows import Row
from nacre.drafting.stand import StandTable
from nacre.sim.dice import Dice

Both = Callable[[StandTable | TrigramTable | AdjacencyTable], tuple[RowTrees, RowTrees]]

SIZES = ((1, 256), (5, 3), (32, 12), (256, 1), (256, 12))  # rows, depth


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch) -> Both:
    """A table's trees in C and in Python."""

    def made(table: StandTable | TrigramTable | AdjacencyTable) -> tuple[RowTrees, RowTrees]:
        in_c = table.trees()
        with monkeypatch.context() as patch:
            patch.setattr(row_trees, "available", lambda: False)
            in_python = table.trees()
        assert in_c._compiled is not None
        assert in_python._compiled is None
        return in_c, in_python

    return made


def drawn(seed: int, lengths: Sequence[int], *, vocabulary: int = 40, count: int = 800) -> list[Row]:
    """Rows of one to eight tokens; weights are coarse, so that many are equal."""
    dice = Dice(seed)
    rows: list[Row] = []
    for _ in range(count):
        context = tuple(dice.below(vocabulary) for _ in range(lengths[dice.below(len(lengths))]))
        tokens = dict.fromkeys(dice.below(vocabulary) for _ in range(1 + dice.below(8)))
        rows.append((context, tuple((token, 255 - 8 * (1 + dice.below(9))) for token in tokens)))
    return rows


def keys(seed: int, length: int, vocabulary: int = 40) -> list[int]:
    """All contexts of a small vocabulary, or some; and two that may have no row."""
    if vocabulary**length <= 64:
        contexts = list(itertools.product(range(vocabulary), repeat=length))
    else:
        dice = Dice(seed + 1000)
        contexts = [tuple(dice.below(vocabulary) for _ in range(length)) for _ in range(16)]
    return [0, key_of((3,)), *map(key_of, contexts)]


def agree(pairs: Sequence[tuple[list[Guess], list[Guess]]]) -> None:
    """Equal, survivals to the bit; and not for want of guesses."""
    for in_c, in_python in pairs:
        assert in_c == in_python
    assert any(in_c for in_c, _ in pairs)


@pytest.mark.parametrize(("ngrams", "vocabulary"), [(8, 3), (64, 40), (4096, 40)])
@pytest.mark.parametrize("power", [1.0, 2.0, 1 / 0.7, 1 / 30, 1e-6])
def test_growth_by_chance_is_the_same(both: Both, ngrams: int, vocabulary: int, power: float) -> None:
    table = StandTable(ngrams)
    table.merge(drawn(1, (1, 2, 3), vocabulary=vocabulary))
    in_c, in_python = both(table)
    for rows, depth in SIZES:
        agree(
            [
                (in_c.grow(key, rows, depth, power=power), in_python.grow(key, rows, depth, power=power))
                for key in keys(1, 3, vocabulary)
            ]
        )


@pytest.mark.parametrize("temperature", [1e-5, 0.3, 1.0, 1e6])
@pytest.mark.parametrize("race_temperature", [1e-50, 0.1, 0.7, 30.0])
def test_growth_by_race_is_the_same_on_every_instruction_set(
    both: Both, temperature: float, race_temperature: float, isas: tuple[str, ...]
) -> None:
    table = StandTable(4096)
    table.merge(drawn(2, (1, 2, 3)))
    in_c, in_python = both(table)
    for noise_key, position in ((0, 0), (77, 900), (2**64 - 1, 2**33 + 1)):
        race = Race(noise_key, temperature, race_temperature)
        expected = [in_python.race(key, 32, 12, race, position) for key in keys(2, 3)]
        for isa in isas:
            library.set_isa(isa)
            found = [in_c.race(key, 32, 12, race, position) for key in keys(2, 3)]
            assert found == expected
        assert any(expected) or temperature < 0.3  # what a row lacks is taken for one token: cold, it may win


@pytest.mark.parametrize("level", [170, 210, 245])
def test_a_race_is_the_same_however_little_a_row_says(both: Both, level: int) -> None:
    table = StandTable(64)
    table.merge([((token,), tuple((other, level - other) for other in range(8))) for token in range(8)])
    in_c, in_python = both(table)
    race = Race(5, 1.0, 0.7)
    key = key_of((3,))
    agree([(in_c.race(key, 16, 4, race, at), in_python.race(key, 16, 4, race, at)) for at in range(40)])


@pytest.mark.parametrize("power", [1.0, 1 / 0.9])
def test_growth_by_the_last_token_is_the_same(both: Both, power: float) -> None:
    table = AdjacencyTable(40)
    table.merge(drawn(3, (1,), count=70))
    in_c, in_python = both(table)
    for rows, depth in SIZES:
        agree(
            [
                (in_c.grow(key, rows, depth, power=power), in_python.grow(key, rows, depth, power=power))
                for key in keys(3, 1, 60)
            ]
        )


@pytest.mark.parametrize("seed", range(4))
def test_growth_over_trigrams_is_the_same(both: Both, seed: int) -> None:
    table = TrigramTable(1024)
    dice = Dice(seed)
    table.learn([dice.below(12) for _ in range(600)])
    in_c, in_python = both(table)
    for rows, depth in SIZES:
        agree([(in_c.grow(key, rows, depth), in_python.grow(key, rows, depth)) for key in keys(seed, 2, 12)])


@pytest.mark.parametrize("iterations", [1, 2, 9, 150, 700])
@pytest.mark.parametrize("learnt", [30, 4000])
def test_a_search_is_the_same(both: Both, iterations: int, learnt: int) -> None:
    table = TrigramTable(1024)
    dice = Dice(learnt)
    table.learn([dice.below(12) for _ in range(learnt)])
    in_c, in_python = both(table)
    explore = AdedProposer(table, iterations=iterations)._explore
    found = 0
    for rows in (1, 2, 3, 8, 32, 256):
        for seed in (0, 5, 2**40):
            for key in keys(seed, 2, 12):
                tree = in_c.search(key, rows, seed, explore)
                assert tree == in_python.search(key, rows, seed, explore)
                assert len(tree) <= rows
                found += len(tree)
    assert found


@pytest.mark.parametrize("seed", range(30))
def test_whatever_lies_in_a_table_its_trees_are_trees(seed: int) -> None:
    """Arrays full of noise, as another thread or a broken writer might leave them."""
    draw = np.random.default_rng(seed)
    rows = 8 << seed % 5
    tokens = draw.integers(0, 1 << 32, rows * 8, dtype=np.uint32)
    weights = draw.integers(0, 1 << 16, rows * 8, dtype=np.uint16)
    tokens[: rows * 4] %= rows + 1  # some lead on
    addresses = draw.integers(0, 1 << 64, rows, dtype=np.uint64)
    contexts = addresses if seed % 2 else None
    table = RowTable(tokens, weights, contexts, longest=2 if seed % 2 else 1, unseen=(None, 0, 700)[seed % 3])
    explore = np.linspace(0.0, 100.0, 60)
    for key in (0, 1, rows, rows + 1, (1 << 64) - 1, *addresses[:20].tolist()):
        for found in (
            table.grow(key, 1000, 1000, 0.0, power=1.0),
            table.grow(key, 32, 12, 0.002, power=1.5),
            table.grow(key, 32, 12, 0.002, power=1.0, sharpness=1.4, noise_key=9, position=(1 << 64) - 3),
            table.search(key, 1000, seed, explore),
        ):
            assert len(found[0]) == len(found[1]) == len(found[2]) <= MOST_ROWS
            assert all(TIP <= parent < place for place, parent in enumerate(found[1]))


def test_memory_that_is_no_table_is_refused() -> None:
    tokens, weights, contexts = np.zeros(64, np.uint32), np.zeros(64, np.uint16), np.zeros(8, np.uint64)
    RowTable(tokens, weights, contexts, longest=3)
    with pytest.raises(ValueError, match=r"tokens is int64 of shape \(64,\); it must be contiguous uint32 \[64\]"):
        RowTable(tokens.astype(np.int64), weights)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"weights is uint16 of shape \(32,\); it must be contiguous uint16 \[64\]"):
        RowTable(tokens, weights[::2])
    with pytest.raises(ValueError, match=r"keys is uint64 of shape \(7,\); it must be contiguous uint64 \[8\]"):
        RowTable(tokens, weights, contexts[:7])
    with pytest.raises(ValueError, match="tokens is uint32 of shape"):
        RowTable(tokens[:0], weights[:0])
    with pytest.raises(ValueError, match="the table has 24 rows; with keys it must have 8 times a power of two"):
        RowTable(np.zeros(192, np.uint32), np.zeros(192, np.uint16), np.zeros(24, np.uint64))
    for longest, shortest in ((4, 1), (1, 2), (1, 0)):
        with pytest.raises(ValueError, match=f"contexts of {shortest} to {longest} tokens are no keys"):
            RowTable(tokens, weights, contexts, longest=longest, shortest=shortest)
    with pytest.raises(ValueError, match="contexts of 1 to 2 tokens are no keys"):
        RowTable(tokens, weights, longest=2)
    with pytest.raises(ValueError, match="explore is int64"):
        RowTable(tokens, weights).search(1, 8, 0, np.zeros(3, np.int64))  # type: ignore[arg-type]
