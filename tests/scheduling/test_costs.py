"""Expected pass times follow the machine: all of it, or only the part that grows with rows."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable

import pytest

from nacre.errors import InvalidArgument
from nacre.scheduling import Pacer, PassCosts, RowBudget
from nacre.tree import DraftTree

#: Of a machine that reads weights for 20 ms and then computes.
IDLE = [(1, 0.020), (8, 0.024), (14, 0.032), (32, 0.068)]


def took(rows: int, *, level: float = 1.0, slope: float = 1.0) -> float:
    idle = PassCosts(IDLE)
    return level * (idle.seconds(1) + slope * (idle.seconds(rows) - idle.seconds(1)))


def followed(costs: PassCosts, rows: Iterable[int], **slowdown: float) -> PassCosts:
    """After passes of these rows on a machine whose times scatter by a twelfth."""
    noise = random.Random(5)
    for count in rows:
        costs.observe(count, took(count, **slowdown) * math.exp(noise.gauss(0, 0.08)))
    return costs


@pytest.mark.parametrize(("level", "slope"), [(1.5, 1.0), (1.0, 2.5), (1.3, 1.6), (0.7, 1.0), (1.2, 0.5)])
def test_two_causes_are_told_apart_by_passes_of_different_sizes(level: float, slope: float) -> None:
    choose = random.Random(3)
    costs = followed(PassCosts(IDLE), (choose.randint(1, 16) for _ in range(200)), level=level, slope=slope)
    for rows in (1, 8, 14, 32):
        assert costs.seconds(rows) == pytest.approx(took(rows, level=level, slope=slope), rel=0.12)
    followed(costs, (choose.randint(1, 16) for _ in range(200)))
    for rows in (1, 8, 14):
        assert costs.seconds(rows) == pytest.approx(took(rows), rel=0.12)


def test_passes_of_one_size_speak_for_their_own_size_first() -> None:
    costs = followed(PassCosts(IDLE), [14] * 25, slope=2.5)
    assert costs.seconds(14) == pytest.approx(took(14, slope=2.5), rel=0.08)
    assert costs.seconds(1) < 1.2 * took(1)


def eight_sessions() -> list[DraftTree]:
    """Each with a good guess and one below it that is worse."""
    trees = []
    for _ in range(8):
        tree = DraftTree(0, 0, max_nodes=16)
        tree.add(tree.add(tree.tip, 1, 0.75), 2, 0.2)
        trees.append(tree)
    return trees


def test_rows_that_no_longer_pay_are_left_out_and_come_back_where_they_do() -> None:
    """What is chosen is what is measured next."""
    trees = eight_sessions()
    pacer, noise = Pacer(PassCosts(IDLE), RowBudget(pass_rows=14, session_rows=4)), random.Random(7)
    now = 0.0

    def chosen(passes: int, **slowdown: float) -> list[int]:
        nonlocal now
        rows = []
        for _ in range(passes):
            rows.append(sum(pacer.share(trees).rows))
            seconds = took(rows[-1], **slowdown) * math.exp(noise.gauss(0, 0.08))
            now += seconds
            pacer.passed(now, rows=rows[-1], seconds=seconds, tokens=rows[-1], prompt_rows=0)
        return rows[50:]

    for slowdown, best in (
        ({}, 14),
        ({"slope": 3.0}, 8),
        ({}, 14),
        ({"level": 1.6}, 14),
        ({"level": 1.6, "slope": 3.0}, 8),
    ):
        rows = chosen(200, **slowdown)
        assert sum(count == best for count in rows) > 0.85 * len(rows), slowdown


def test_drafters_rest_where_no_guess_pays_however_little_is_known() -> None:
    """A row beyond the tips costs more than a tip: not even sure guesses are worth one."""
    costs = PassCosts([(1, 0.010), (8, 0.080), (32, 0.440)])
    pacer, noise = Pacer(costs, RowBudget()), random.Random(7)
    now = 0.0
    for _ in range(200):
        rows = sum(pacer.share(eight_sessions()).rows)
        seconds = 0.010 * rows * math.exp(noise.gauss(0, 0.08))
        now += seconds
        pacer.passed(now, rows=rows, seconds=seconds, tokens=rows, prompt_rows=0)
        assert pacer.offer(8) == 1


def test_one_very_slow_pass_changes_little() -> None:
    costs = PassCosts([(1, 1.0), (8, 1.1)])
    costs.observe(1, 1000.0)
    assert costs.seconds(1) < 1.2


def test_more_rows_are_never_taken_to_be_faster() -> None:
    assert PassCosts([(1, 1.0), (4, 0.8), (8, 2.0)]).seconds(4) == 1.0


@pytest.mark.parametrize("points", [[], [(0, 1.0)], [(1, 0.0)], [(1, float("nan"))]])
def test_impossible_measurements_are_refused(points: list[tuple[int, float]]) -> None:
    with pytest.raises(InvalidArgument):
        PassCosts(points)
