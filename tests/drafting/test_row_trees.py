"""What the children of a row are: shares of it, sharpened; or its order in a race."""

from __future__ import annotations

import numpy as np
import pytest

from nacre.drafting.row_trees import Race, raced, shares, sharpening
from nacre.drafting.rows import ONE
from nacre.sampling import race_scores

ROW = ([5, 6, 7, 0], [30000, 20000, 10000, 0])


@pytest.mark.parametrize("power", [0.4, 1.0, 1.3, 2.0])
def test_shares_keep_the_rows_sum_and_order(power: float) -> None:
    children = shares(*ROW, power)
    assert [token for token, _ in children] == [5, 6, 7]
    assert sum(share for _, share in children) == pytest.approx(60000 / ONE, rel=1e-6)
    assert children[0][1] / children[2][1] == pytest.approx(3**power, rel=1e-5)


def test_weights_that_are_no_probabilities_share_with_the_unseen() -> None:
    children = shares(*ROW, 1.0, 20000)
    assert [share for _, share in children] == pytest.approx([3 / 8, 2 / 8, 1 / 8])
    # Rows of observations may claim more than certainty: nothing survives with more.
    assert shares([1, 2], [ONE, ONE]) == [(1, 0.5), (2, 0.5)]


def test_an_empty_row_has_no_children() -> None:
    assert shares([], []) == shares([4, 4], [0, 0]) == raced([4], [0], Race(1, 1.0, 0.7), 0) == ()


def test_a_colder_target_sharpens_but_not_without_end() -> None:
    assert (sharpening(2.0), sharpening(0.5), sharpening(0.0)) == (0.5, 2.0, 2.0)


@pytest.mark.parametrize("position", range(30))
def test_the_first_in_a_race_is_the_targets_choice_among_the_row(position: int) -> None:
    weights = [40000, 12000, 9000, 4000]
    logits = np.full(64, -np.inf, dtype=np.float32)
    logits[[3, 60, 31, 32]] = np.log(np.array(weights) / ONE)
    children = raced([3, 60, 31, 32], weights, Race(77, 0.8, 0.7), position)
    assert children[0][0] == int(np.argmax(race_scores(logits, 77, position, 1 / 0.8)))
    survivals = [survival for _, survival in children]
    assert survivals == sorted(survivals, reverse=True)
    assert 0.4 < sum(survivals) < 1
