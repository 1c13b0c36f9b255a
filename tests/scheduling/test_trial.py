"""Where guesses might not pay, both ways are tried and the faster one is kept."""

from __future__ import annotations

import itertools

import pytest

from nacre.scheduling import Pacer, PassCosts, RowBudget
from nacre.scheduling.trial import Trial
from nacre.tree import DraftTree

PASS_S = 0.05


def run(trial: Trial, passes: int, *, speed: float, gain: float) -> float:
    """So many passes of 8 sessions; guesses make them `speed` times as fast and are expected to make them `gain`
    times as fast. Returns the tokens/s of all, over those of passes without guesses."""
    tokens = seconds = 0.0
    for _ in range(passes):
        if trial.guesses:
            trial.expect(gain)
        here_s = PASS_S / speed if trial.guesses else PASS_S
        trial.passed(8, here_s)
        tokens += 8
        seconds += here_s
    return tokens / seconds / (8 / PASS_S)


@pytest.mark.parametrize("speed", [0.7, 0.9, 1.0])
def test_guesses_that_slow_passes_down_are_given_up_soon(speed: float) -> None:
    trial = Trial()
    run(trial, 40, speed=speed, gain=1.2)
    assert not trial.guesses
    assert run(trial, 2000, speed=speed, gain=1.2) > 0.99


@pytest.mark.parametrize("speed", [1.05, 1.2, 1.4])
def test_guesses_that_pay_are_kept_for_little(speed: float) -> None:
    trial = Trial()
    run(trial, 40, speed=speed, gain=1.2)
    assert trial.guesses
    assert run(trial, 2000, speed=speed, gain=1.2) > 0.99 * speed


def test_a_great_gain_is_not_doubted() -> None:
    trial = Trial()
    run(trial, 40, speed=2.0, gain=2.0)
    assert run(trial, 500, speed=2.0, gain=2.0) == pytest.approx(2.0)


def test_what_has_changed_is_found_out() -> None:
    trial = Trial()
    for speed, reached in ((0.8, 0.98), (1.3, 1.28), (0.8, 0.98)):
        run(trial, 1500, speed=speed, gain=1.2)
        assert run(trial, 1000, speed=speed, gain=1.2) > reached


def trees(count: int) -> list[DraftTree]:
    found = []
    for _ in range(count):
        tree = DraftTree(0, 0, max_nodes=8)
        tree.add(tree.tip, 1, 0.9)
        found.append(tree)
    return found


def passes(pacer: Pacer, sessions: int) -> list[bool]:
    """Of 60 passes that take two and a half times as long with guesses: which had any."""
    had, now = [], 0.0
    for _ in range(60):
        rows = pacer.share(trees(sessions)).rows
        had.append(sum(rows) > sessions)
        seconds = 2.5 * PASS_S if had[-1] else PASS_S
        now += seconds
        pacer.passed(now, rows=sum(rows), seconds=seconds, tokens=sum(rows), prompt_rows=0)
        assert (pacer.offer(sessions) == 1) == (not pacer.share(trees(sessions)).rows.count(2))
    return had


def test_a_load_is_tried_apart_from_others_and_few_sessions_never() -> None:
    pacer = Pacer(PassCosts([(1, PASS_S), (64, 2.6 * PASS_S)]), RowBudget(pass_rows=96))
    assert all(passes(pacer, 8))
    many = passes(pacer, 16)
    assert [way for way, _ in itertools.groupby(many)] == [False, True, False]
    assert sum(many) < 12
    assert any(passes(pacer, 40)), "a load of another size is tried for itself"
