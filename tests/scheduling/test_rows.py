"""Row choice: the pass that commits the most tokens per second, whatever the shape of V."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nacre.scheduling import PassCosts, RowBudget, share_rows
from nacre.scheduling.rows import row_offer
from nacre.tree import DraftTree

FREE = RowBudget(pass_rows=64, session_rows=64, least_survival=0.0)


def tree_of(*chains: Sequence[float]) -> DraftTree:
    """One rival chain below the tip per argument, with these survivals."""
    tree = DraftTree(0, 0, max_nodes=256)
    for token, chain in enumerate(chains):
        node = tree.tip
        for survival in chain:
            node = tree.add(node, token, survival)
    return tree


def flat(most: int = 64, step: float = 0.0) -> PassCosts:
    return PassCosts([(1, 1.0), (most, 1.0 + step * (most - 1))])


def test_where_rows_are_free_every_guess_gets_one() -> None:
    assert share_rows([tree_of([0.9, 0.5], [0.05])], flat(), FREE).rows == [4]


def test_a_row_that_costs_more_than_it_brings_is_left_out() -> None:
    # A guess adds its survival to 1 token and `step` to 1 second: worth it while survival > step x throughput.
    assert share_rows([tree_of([0.5, 0.5, 0.5])], flat(step=0.3), FREE).rows == [2]
    assert share_rows([tree_of([0.2])], flat(step=0.3), FREE).rows == [1]


def test_a_step_in_time_is_taken_whole_or_not_at_all() -> None:
    steps = PassCosts([(1, 1.0), (2, 1.6), (4, 1.6)])
    assert share_rows([tree_of([0.5])], steps, FREE).rows == [1]
    assert share_rows([tree_of([0.5, 0.9, 0.9])], steps, FREE).rows == [4]


def test_the_likeliest_guesses_of_all_sessions_come_first() -> None:
    shares = share_rows(
        [tree_of([0.9, 0.9]), tree_of([0.3]), tree_of()], flat(), RowBudget(pass_rows=5, session_rows=8)
    )
    assert shares.rows == [3, 1, 1]
    assert shares.tokens == pytest.approx(3 + 0.9 + 0.81)


def test_one_session_keeps_to_its_bound() -> None:
    shares = share_rows([tree_of([0.9] * 9), tree_of([0.1])], flat(), RowBudget(pass_rows=64, session_rows=4))
    assert shares.rows == [4, 2]


def test_guesses_below_the_least_survival_get_no_rows() -> None:
    assert share_rows([tree_of([0.01])], flat(), RowBudget(least_survival=0.02)).rows == [1]


@given(
    survivals=st.lists(st.lists(st.floats(0.01, 1.0), max_size=3), min_size=1, max_size=3),
    times=st.lists(st.floats(0.0, 1.0), min_size=12, max_size=12),
)
def test_no_other_choice_of_rows_is_faster(survivals: list[list[float]], times: list[float]) -> None:
    seconds = list(itertools.accumulate([1.0, *times]))
    costs = PassCosts(list(enumerate(seconds, start=1)))
    trees = [tree_of(chain) for chain in survivals]
    shares = share_rows(trees, costs, FREE)
    best = 0.0
    for counts in itertools.product(*(range(len(chain) + 1) for chain in survivals)):
        tokens = float(len(trees))
        for chain, count in zip(survivals, counts, strict=True):
            tokens += sum(itertools.accumulate(chain[:count], lambda a, b: a * b))
        best = max(best, tokens / costs.seconds(len(trees) + sum(counts)))
    assert shares.tokens / shares.seconds == pytest.approx(best)
    assert costs.seconds(sum(shares.rows)) == pytest.approx(shares.seconds)


def test_drafters_are_asked_for_as_much_as_still_speeds_up() -> None:
    budget = RowBudget(pass_rows=32, session_rows=16)
    assert row_offer(1, flat(), budget) == 16
    assert row_offer(4, flat(), budget) == 8
    linear = PassCosts([(1, 1.0), (64, 64.0)])
    assert row_offer(1, linear, budget) == 1
