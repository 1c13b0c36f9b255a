"""Best-first growth: the most likely nodes, parents first, never more than asked."""

from __future__ import annotations

import itertools

import pytest

from nacre.drafting.growth import Children, checked_rows, grow
from nacre.drafting.proposer import TIP, Guess
from nacre.errors import InvalidArgument
from nacre.sim.dice import Dice

# The children of a node, by its token; 0 is the root.
TREE: dict[int, Children] = {0: [(1, 0.6), (2, 0.3)], 1: [(3, 0.9)], 2: [(4, 0.5), (5, 0.4)], 3: [(6, 0.1)]}


def grown(rows: int, *, depth: int = 16, least_path: float = 0.01) -> list[Guess]:
    return grow(0, lambda s: TREE.get(s, ()), lambda s, t: t, rows, depth=depth, least_path=least_path)


def test_the_likeliest_node_to_be_reached_is_added_next() -> None:
    # Paths: 1 .6, 3 .54, 2 .3, 4 .15, 5 .12, 6 .054.
    assert [guess.token for guess in grown(6)] == [1, 3, 2, 4, 5, 6]
    assert [guess.parent for guess in grown(6)] == [TIP, 0, TIP, 2, 2, 1]
    assert [guess.survival for guess in grown(3)] == [0.6, 0.9, 0.3]


def test_rows_depth_and_least_path_are_bounds() -> None:
    assert len(grown(2)) == 2
    assert [guess.token for guess in grown(6, depth=1)] == [1, 2]
    assert [guess.token for guess in grown(6, least_path=0.2)] == [1, 3, 2]


def test_no_children_is_no_tree() -> None:
    assert grow(9, lambda s: (), lambda s, t: t, 4) == []


@pytest.mark.parametrize("rows", [0, 257])
def test_a_tree_has_at_least_one_row_and_at_most_256(rows: int) -> None:
    with pytest.raises(InvalidArgument, match=f"a tree of {rows} guesses"):
        checked_rows(rows)


@pytest.mark.parametrize("seed", range(20))
def test_no_tree_of_that_size_has_a_greater_sum_of_paths(seed: int) -> None:
    dice = Dice(seed)
    rows = 1 + dice.below(12)
    children: dict[tuple[int, ...], Children] = {}
    paths: dict[tuple[int, ...], float] = {}

    def fill(node: tuple[int, ...], path: float) -> None:
        shares = sorted((dice.unit() / 3 for _ in range(dice.below(4))), reverse=True)
        children[node] = list(enumerate(shares))
        for token, share in children[node]:
            paths[*node, token] = path * share
            if len(node) < 4:
                fill((*node, token), path * share)

    fill((), 1.0)
    guesses = grow((), lambda s: children.get(s, ()), lambda s, t: (*s, t), rows, least_path=0.0)
    reached: list[float] = []
    for guess in guesses:
        reached.append(guess.survival * (1.0 if guess.parent == TIP else reached[guess.parent]))
    best = sorted(paths.values(), reverse=True)[:rows]
    assert reached == pytest.approx(best)
    assert all(a >= b for a, b in itertools.pairwise(reached))
