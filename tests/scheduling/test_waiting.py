"""When a free engine waits: for guesses that come soon and are likely, and never for long."""

from __future__ import annotations

import pytest

from nacre.scheduling import AnswerTimes, Arrivals, Pacer, PassCosts, RowBudget, Waiting
from nacre.scheduling.waiting import next_gain
from nacre.tree import DraftTree

PASS_S = 0.030


def pacer(throughput: float = 60.0) -> Pacer:
    made = Pacer(PassCosts([(1, PASS_S), (8, 1.1 * PASS_S)]), RowBudget())
    for count in range(1, 40):
        made.passed(count * PASS_S, rows=1, seconds=PASS_S, tokens=1, prompt_rows=0)
    made._tokens = throughput * made._seconds
    made._ended = 0.0
    return made


def arrivals(answer_s: float, gap_s: float) -> Arrivals:
    """A session whose drafter has answered misses so far after `answer_s`, then every `gap_s`."""
    known = Arrivals()
    for count in range(20):
        start = -100.0 + count
        known.committed(start, hungry=True)
        known.came(start + answer_s, hungry=True)
        known.came(start + answer_s + gap_s, hungry=True)
    known.committed(0.0, hungry=True)
    known.credit_s = 1.0
    return known


def empty() -> DraftTree:
    return DraftTree(0, 0, max_nodes=64)


def test_after_a_miss_a_near_drafter_is_waited_for() -> None:
    pause_s = pacer().pause_s(0.0, [Waiting(empty(), arrivals(0.003, 0.002), 0.8)])
    assert 0.003 <= pause_s <= 0.5 * PASS_S


def test_a_far_or_silent_or_hopeless_drafter_is_not() -> None:
    assert pacer().pause_s(0.0, [Waiting(empty(), arrivals(0.100, 0.002), 0.8)]) == 0.0
    assert pacer().pause_s(0.0, [Waiting(empty(), Arrivals(), 0.8)]) == 0.0
    assert pacer().pause_s(0.0, [Waiting(empty(), arrivals(0.003, 0.002), 0.05)]) == 0.0


def test_what_would_only_add_an_unlikely_token_is_not_waited_for() -> None:
    tree = empty()
    node = tree.tip
    for _ in range(10):
        node = tree.add(node, 1, 0.7)
    known = arrivals(0.003, 0.003)
    known.came(0.001, hungry=True)
    assert pacer().pause_s(0.001, [Waiting(tree, known, 0.8)]) == 0.0
    assert next_gain(tree, 0.8) == pytest.approx(0.7**10 * 0.8)


def test_pauses_are_paid_from_what_guesses_saved() -> None:
    hopeful = [Waiting(empty(), arrivals(0.003, 0.002), 0.8)]
    hopeful[0].arrivals.credit_s = 0.0
    assert pacer().pause_s(0.0, hopeful) == 0.0
    now = 0.0
    paused_s = 0.0
    made = pacer()
    for _ in range(400):  # it never comes, and nothing is ever right
        hopeful[0].arrivals.committed(now, hungry=True, matched=0, pass_s=PASS_S)
        pause_s = made.pause_s(now, hopeful)
        paused_s += pause_s
        now += pause_s + PASS_S
        made.passed(now, rows=1, seconds=PASS_S, tokens=1, prompt_rows=0)
    assert 0 < paused_s <= 0.011 * now
    hopeful[0].arrivals.committed(now, hungry=True, matched=1, pass_s=PASS_S)
    assert made.pause_s(now, hopeful) > 0.0


def test_nobody_waits_for_the_drafter_of_somebody_else() -> None:
    both = [Waiting(empty(), arrivals(0.003, 0.002), 0.8), Waiting(empty(), Arrivals(), 0.0)]
    assert pacer().pause_s(0.0, both) == 0.0


def test_an_overdue_message_and_a_long_pause_end_the_waiting() -> None:
    waiting = [Waiting(empty(), arrivals(0.003, 0.002), 0.8)]
    assert pacer().pause_s(0.0061, waiting) == 0.0
    assert pacer().pause_s(0.5 * PASS_S, [Waiting(empty(), arrivals(0.020, 0.002), 1.0)]) == 0.0


def test_only_what_comes_while_guesses_are_wanted_is_measured() -> None:
    known = arrivals(0.003, 0.002)
    known.committed(1.0, hungry=False)
    known.came(1.5, hungry=False)
    known.came(2.5, hungry=False)
    known.committed(3.0, hungry=True)
    assert known.due_s(3.0) == pytest.approx(0.003, rel=0.01)


def test_a_clump_that_came_when_a_pass_let_go_of_the_core_is_no_short_gap() -> None:
    known = Arrivals()
    for count in range(20):
        start = float(count)
        known.committed(start, hungry=True)
        known.came(start + 0.002, hungry=True)
        for late in range(8):
            known.came(start + 0.006 + late * 0.00003, hungry=True)
    assert 0.0005 <= (known.times.gap_s or 0.0) <= 0.004


def test_until_the_first_answer_others_answers_are_believed_and_then_only_ones_own() -> None:
    known = Arrivals(like=AnswerTimes(answer_s=0.003, gap_s=0.002))
    known.committed(0.0, hungry=True)
    assert known.due_s(0.0) == pytest.approx(0.003)
    known.came(0.010, hungry=True)
    assert known.times == AnswerTimes(answer_s=0.010, gap_s=0.002)


def test_after_a_silence_the_next_guess_answers_the_commit_even_if_the_tree_is_not_empty() -> None:
    known = arrivals(0.003, 0.001)
    known.committed(1.0, hungry=True)
    known.came(1.003, hungry=False)
    known.committed(1.030, hungry=False)
    assert known.due_s(1.030) == pytest.approx(0.003, rel=0.1)
    known.came(1.0595, hungry=False)
    known.committed(1.060, hungry=False)  # guesses are coming in: the next one is on its way
    assert known.due_s(1.060) == pytest.approx(0.001, rel=0.1)


def test_a_pacer_without_pauses_never_waits_and_nobody_waits_for_nobody() -> None:
    impatient = pacer()
    impatient.pauses = False
    assert impatient.pause_s(0.0, [Waiting(empty(), arrivals(0.003, 0.002), 0.8)]) == 0.0
    assert pacer().pause_s(0.0, []) == 0.0


def test_throughput_counts_pauses_but_not_idle_hours() -> None:
    made = Pacer(PassCosts([(1, PASS_S)]), RowBudget())
    now = 0.0
    for _ in range(200):
        now += 1.5 * PASS_S  # a third of the time is pause
        made.passed(now, rows=1, seconds=PASS_S, tokens=3, prompt_rows=0)
    assert made.throughput == pytest.approx(3 / (1.5 * PASS_S), rel=0.01)
    made.passed(now + 3600, rows=1, seconds=PASS_S, tokens=3, prompt_rows=0)
    assert made.throughput == pytest.approx(3 / (1.5 * PASS_S), rel=0.1)
