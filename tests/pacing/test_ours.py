"""Our rule: against the enumerated optimum for chains, brute force for trees, and its promises on the way out."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from nacre.pacing import Costs, Outcome, RoundTree
from nacre.pacing.expected import expected_tokens
from nacre.pacing.ours import OursPolicy
from tests.pacing.guessing import FakeGuess, chain_of, costs, grown, one_round, rows_of


def settled_length(acceptance: float, **more: float) -> tuple[int, list[float]]:
    """The length at which the rule settles when every guess has the same odds, and the rates of all lengths."""
    rates = [
        expected_tokens(acceptance, g) / costs(**more).round_s(g, g)
        for g in range(40)  # type: ignore[arg-type]
    ]
    policy = OursPolicy(children=1, batch=1, calibrate=False)
    offer = rows_of(acceptance)
    # Let the average over offers settle, then feed back the rate of what was sent, as a session would.
    length, rate = 0, 0.0
    for _ in range(60):
        tree, _ = grown(policy, offer, costs(throughput=rate, **more))
        length = len(policy.chosen(tree))
        rate = rates[length]
    return length, rates


@pytest.mark.parametrize(("acceptance", "rtt"), list(product((0.6, 0.8, 0.9), (0.0, 0.04, 0.1))))
def test_a_chain_of_equal_odds_gets_the_enumerated_best_length(acceptance: float, rtt: float) -> None:
    length, rates = settled_length(acceptance, rtt=rtt)
    assert length == rates.index(max(rates))


@pytest.mark.parametrize(("rtt", "guesses", "threshold"), [(0.0, 4, 0.39), (0.04, 6, 0.26), (0.1, 7, 0.18)])
def test_known_examples(rtt: float, guesses: int, threshold: float) -> None:
    # a = 0.8, d = 8 ms, V = 38 ms, V' = 0.3 ms.
    length, rates = settled_length(0.8, rtt=rtt)
    assert length == guesses
    assert (0.008 + 0.0003) * max(rates) == pytest.approx(threshold, abs=0.01)


@pytest.mark.parametrize("row", [0.0, 0.004, 0.02])
def test_dearer_rows_make_shorter_chains(row: float) -> None:
    length, rates = settled_length(0.8, rtt=0.05, row=row)
    assert length == rates.index(max(rates))


def test_the_slower_the_link_the_larger_the_tree() -> None:
    def size(rtt: float) -> int:
        policy = OursPolicy()
        luck = np.random.default_rng(0)
        rounds = [
            one_round(
                policy, rows_of(0.7, 0.15, 0.05), costs(rtt=rtt), lambda node: bool(luck.random() < node.survival)
            )
            for _ in range(60)
        ]
        return sum(len(outcome.sent) for outcome in rounds[20:])

    sizes = [size(rtt) for rtt in (0.0, 0.05, 0.2, 0.8)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]


@pytest.mark.parametrize("seed", range(6))
def test_what_is_sent_is_the_best_subset_of_what_was_drafted(seed: int) -> None:
    random = np.random.default_rng(seed)
    table = np.cumsum(random.exponential(0.004, size=40)) + 0.03
    round_costs = Costs(0.0, lambda rows: float(table[rows]), 0.02, throughput=20.0, most_nodes=9)
    policy = OursPolicy(calibrate=False, batch=3, steps=4)
    tree, _ = grown(policy, rows_of(0.6, 0.2, 0.1), round_costs)
    paths = sorted((node.path for node in tree.nodes), reverse=True)
    worth = [sum(paths[:n]) - 20.0 * table[n + 1] for n in range(min(9, len(paths)) + 1)]
    sent = policy.chosen(tree)
    assert len(sent) == int(np.argmax(worth))
    assert sorted((tree.nodes[i].path for i in sent), reverse=True) == paths[: len(sent)]


def test_a_step_of_a_pass_is_jumped_when_what_lies_beyond_pays() -> None:
    # The ninth row costs 10 ms, those after it nothing: send 7 guesses, or all that were drafted.
    round_costs = Costs(0.0, lambda rows: 0.04 if rows < 9 else 0.05, 0.0, throughput=30.0, most_nodes=20)
    policy = OursPolicy(children=1, batch=1, calibrate=False)
    tree, _ = grown(policy, chain_of([0.95] * 20), round_costs)
    assert len(policy.chosen(tree)) == 20
    unlikely = OursPolicy(children=1, batch=1, calibrate=False)
    tree, _ = grown(unlikely, chain_of([0.95] * 7 + [0.1] * 13), round_costs)
    assert len(unlikely.chosen(tree)) == 7


def test_a_node_that_is_dear_to_draft_stays_out_of_the_step() -> None:
    def widest(draft_node_s: float) -> int:
        policy = OursPolicy(calibrate=False)
        policy.begin(costs(draft=0.001, draft_node_s=draft_node_s, throughput=25.0))
        tree, most = RoundTree(), 0
        while nodes := policy.next(tree):
            most = max(most, len(nodes))
            for node in nodes:
                tree.extend(node, [FakeGuess(0, 0.5), FakeGuess(1, 0.4)])
        return most

    widths = [widest(seconds) for seconds in (0.0, 0.005, 0.05)]
    assert widths[0] > widths[1] > widths[2] == 1


def test_claims_are_checked_against_the_record() -> None:
    policy = OursPolicy(children=1, batch=1)
    for _ in range(60):
        one_round(policy, rows_of(0.95), costs(rtt=0.05), lambda node: node.depth < 2)
    boastful, _ = grown(policy, rows_of(0.95), costs(rtt=0.05))
    believed = OursPolicy(children=1, batch=1, calibrate=False)
    tree, _ = grown(believed, rows_of(0.95), costs(rtt=0.05))
    assert len(policy.chosen(boastful)) < len(believed.chosen(tree))


def test_a_hopeless_drafter_is_left_alone_but_for_a_probe_now_and_then() -> None:
    policy = OursPolicy(probe_every=10, strength=5.0)
    sent, drafted = [], []
    for _ in range(300):
        outcome = one_round(policy, rows_of(0.8, 0.1), costs(row=0.002), lambda node: False)
        sent.append(len(outcome.sent))
        drafted.append(len(outcome.tree))
    assert sum(sent[150:]) == 0
    assert 10 <= sum(count > 0 for count in drafted[150:]) <= 15


def test_and_comes_back_when_the_drafter_does() -> None:
    policy = OursPolicy(probe_every=4, memory=20.0, strength=5.0)
    for _ in range(60):
        one_round(policy, rows_of(0.8), costs(row=0.01), lambda node: False)
    sent = [len(one_round(policy, rows_of(0.8), costs(row=0.01), lambda node: True).sent) for _ in range(120)]
    assert sent[0] == 0
    assert sent[-1] > 0


def test_guesses_that_were_not_sent_teach_as_well() -> None:
    policy = OursPolicy()
    tree, _ = grown(policy, lambda tree, node: [FakeGuess(5, 0.9)], costs())
    before = policy.calibration.evidence(0, 0.9)
    policy.learned(Outcome(tree, [], [5], 0.05))
    assert policy.calibration.evidence(0, 0.9) == before + 1


def test_without_a_measured_rate_it_goes_by_its_own_rounds() -> None:
    fast, slow = OursPolicy(calibrate=False), OursPolicy(calibrate=False)
    tree, _ = grown(fast, rows_of(0.8), costs())
    fast.learned(Outcome(tree, [], [1] * 100, 0.1))
    slow.learned(Outcome(tree, [], [1], 1.0))
    lengths = [len(policy.chosen(grown(policy, rows_of(0.8), costs())[0])) for policy in (fast, slow)]
    assert lengths[0] == 0 < lengths[1]
