"""Policies that choose a length: against enumeration, definitions, and where regret must point."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from nacre.errors import InvalidArgument
from nacre.pacing import Costs, Policy, policy_named
from nacre.pacing.banditspec import BanditSpecPolicy
from nacre.pacing.del_rule import DelPolicy
from nacre.pacing.draws import Draws
from nacre.pacing.expected import AcceptanceRate, best_length, expected_tokens
from nacre.pacing.hf_schedules import HfHeuristicPolicy
from tests.pacing.guessing import FakeFeatures, FakeGuess, chain_of, costs, grown, one_round, rows_of

ENDLESS = rows_of(0.9)


def length(policy: Policy, round_costs: Costs) -> int:
    tree, _ = grown(policy, ENDLESS, round_costs)
    return len(policy.chosen(tree))


def simulated_tokens(acceptance: float, guesses: int) -> float:
    """Σ over outcomes of probability · tokens, without the closed form."""
    missed = sum(acceptance**k * (1 - acceptance) * (k + 1) for k in range(guesses))
    return missed + acceptance**guesses * (guesses + 1)


@pytest.mark.parametrize("acceptance", [0.0, 0.3, 0.8, 0.99, 1.0])
def test_expected_tokens_are_the_mean_over_outcomes(acceptance: float) -> None:
    for guesses in range(12):
        assert expected_tokens(acceptance, guesses) == pytest.approx(simulated_tokens(acceptance, guesses))


@pytest.mark.parametrize(("rtt", "guesses"), [(0.0, 4), (0.04, 6), (0.1, 7)])
def test_the_best_length_of_known_examples(rtt: float, guesses: int) -> None:
    # a = 0.8, d = 8 ms, V = 38 ms + 0.3 ms per row.
    assert best_length(0.8, costs(rtt=rtt), 0, 40) == guesses


@pytest.mark.parametrize("acceptance", [0.1, 0.5, 0.8, 0.95])
@pytest.mark.parametrize("rtt", [0.0, 0.02, 0.2])
def test_leviathan_finds_what_enumeration_finds(acceptance: float, rtt: float) -> None:
    round_costs = costs(rtt=rtt)
    rates = [simulated_tokens(acceptance, g) / (g * 0.008 + rtt + 0.038 + g * 0.0003) for g in range(33)]
    policy = policy_named("leviathan", prior=acceptance, least=0)
    assert length(policy, round_costs) == rates.index(max(rates))


def test_leviathan_follows_the_measured_acceptance() -> None:
    policy = policy_named("leviathan", prior=0.8)
    before = length(policy, costs())
    for _ in range(40):
        one_round(policy, ENDLESS, costs(), lambda node: False)
    assert length(policy, costs()) == 1 < before
    for _ in range(200):
        one_round(policy, ENDLESS, costs(), lambda node: True)
    assert length(policy, costs()) > before


def test_an_acceptance_rate_weighs_prior_and_record() -> None:
    rate = AcceptanceRate(0.8, memory=1e12)
    for came_true in (True, False, False):
        rate.observe(came_true)
    assert rate.value == pytest.approx((1 + 5 * 0.8) / 8)


@pytest.mark.parametrize(("draft_s", "guesses"), [(0.008, 5), (0.04, 1), (0.5, 1), (0.0, 32), (0.016, 2)])
def test_pearl_drafts_as_long_as_a_pass_takes(draft_s: float, guesses: int) -> None:
    assert length(policy_named("pearl"), costs(draft=draft_s, rtt=0.3)) == guesses


def test_fixed_is_fixed_but_for_what_fits() -> None:
    assert length(policy_named("fixed", gamma=6), costs()) == 6
    assert length(policy_named("fixed", gamma=0), costs()) == 0
    assert length(policy_named("fixed", gamma=6), costs(most_nodes=3)) == 3
    assert length(policy_named("fixed", gamma=6), costs(most_depth=2)) == 2


def test_rivals_are_left_aside_by_a_chain() -> None:
    policy = policy_named("fixed", gamma=3)
    tree, _ = grown(policy, rows_of(0.6, 0.3), costs())
    assert len(tree) == 6
    assert policy.chosen(tree) == [0, 2, 4]


def test_the_heuristic_schedule_adds_two_and_takes_one() -> None:
    policy = HfHeuristicPolicy(start=3)
    lengths = []
    for outcome in (True, True, False, False, False, True):
        lengths.append(policy.length)
        one_round(policy, ENDLESS, costs(), lambda node, outcome=outcome: outcome)  # type: ignore[misc]
    assert [*lengths, policy.length] == [3, 5, 7, 6, 5, 4, 6]
    for _ in range(10):
        one_round(policy, ENDLESS, costs(), lambda node: False)
    assert policy.length == 1


def test_the_bandit_plays_every_arm_first_and_then_the_best_most() -> None:
    policy = BanditSpecPolicy()
    luck = np.random.default_rng(1)
    round_costs = costs(rtt=0.1)
    played = []
    for _ in range(3000):
        outcome = one_round(policy, ENDLESS, round_costs, lambda node: bool(luck.random() < 0.9))
        played.append(len(outcome.sent))
    assert played[:8] == [1, 1, 2, 2, 3, 3, 4, 4]
    counts = Counter(played)
    assert counts[4] > counts[3] > counts[2] > counts[1]
    late = Counter(played[2000:])
    assert late[4] / 1000 > counts[4] / 3000, "regret per round falls"


def test_the_bandits_bonus_is_each_arms_own() -> None:
    policy = BanditSpecPolicy(arms=(1, 2), forced=1, weight=6.0)
    assert policy.plays == [0, 0]
    # Arm 1 is a little better, but after many plays of it the other's bonus is larger: a shared bonus never explores.
    rewards = {1: 1.0, 2: 0.98}
    played: list[int] = []
    for _ in range(30):
        policy.begin(costs())
        arm = policy.arms[policy._arm]
        played.append(arm)
        policy.plays[policy._arm] += 1
        policy._rewards[policy._arm] += rewards[arm]
        policy._largest = 1.0
    # By hand: 1 + sqrt(6 ln 2 / 1) against 0.98 + the same plays arm 1; then arm 2, whose bonus has grown past it.
    assert played[:4] == [1, 2, 1, 2]
    assert 12 <= played.count(2) <= 15


def test_thompson_sampling_draws_from_a_beta() -> None:
    draws = Draws(3)
    for alpha, beta in ((4.0, 1.0), (0.5, 0.5), (30.0, 70.0)):
        sample = np.array([draws.beta(alpha, beta) for _ in range(4000)])
        mean = alpha / (alpha + beta)
        variance = mean * (1 - mean) / (alpha + beta + 1)
        assert sample.mean() == pytest.approx(mean, abs=4 * math.sqrt(variance / len(sample)))
        assert sample.var() == pytest.approx(variance, rel=0.12)
        assert 0 <= sample.min() <= sample.max() <= 1
    units = np.array([draws.unit() for _ in range(4000)])
    assert np.histogram(units, 8, (0, 1))[0].min() > 420


def test_thompson_sampling_goes_on_as_often_as_it_believes() -> None:
    def mean_length(belief: bool) -> float:
        policy = policy_named("eesd", seed=9)
        for _ in range(100):
            one_round(policy, ENDLESS, costs(), lambda node: belief)
        return float(np.mean([length(policy, costs()) for _ in range(200)]))

    assert mean_length(True) > 15
    assert mean_length(False) < 1.3
    hopeful = policy_named("eesd", alpha=1e6, beta=1e6, keep=1.0)
    # Goes on with probability 1/2 after each guess: 2 guesses on average.
    assert np.mean([length(hopeful, costs()) for _ in range(2000)]) == pytest.approx(2.0, abs=0.15)


def test_del_chooses_drafter_and_length_by_tokens_per_second() -> None:
    policy = DelPolicy(drafters={"small": 0.002, "large": 0.01}, prior=0.8, memory=1e9)
    for index in range(4000):
        policy.shadow("small", index % 10 < 6)
        policy.shadow("large", index % 10 < 9)
    for rtt in (0.0, 0.3):
        options = {
            (name, k): simulated_tokens(a, k) / (k * d + rtt + 0.038 + 0.0003 * k)
            for name, a, d in (("small", 0.6, 0.002), ("large", 0.9, 0.01))
            for k in range(1, 33)
        }
        best = max(options, key=lambda pair: options[pair])
        assert policy.best_pair(costs(rtt=rtt)) == best
    assert policy.best_pair(costs(rtt=0.3))[0] == "large"


def test_del_learns_of_the_drafter_that_was_used() -> None:
    policy = DelPolicy(drafters={"good": 0.005, "bad": 0.001})
    for _ in range(60):
        policy.begin(costs())
        good = policy.drafter == "good"
        one_round(policy, ENDLESS, costs(), lambda node, good=good: good)  # type: ignore[misc]
    policy.begin(costs())
    assert policy.drafter == "good"
    with pytest.raises(InvalidArgument, match="'other' is unknown; there are: good, bad"):
        policy.shadow("other", True)


def test_del_leaves_a_draft_early_where_confidence_falls() -> None:
    policy = policy_named("del", least_q=0.2)
    features = [FakeFeatures(q=q) for q in (0.9, 0.5, 0.1, 0.9)]
    tree, _ = grown(policy, chain_of([0.9] * 4, features), costs(rtt=1.0))
    assert len(policy.chosen(tree)) == 3


def test_a_rank_beyond_the_first_teaches_a_chain_nothing() -> None:
    policy = policy_named("leviathan", prior=0.5)
    offer = [FakeGuess(0, 0.5), FakeGuess(1, 0.5)]
    one_round(policy, lambda tree, node: offer, costs(), lambda node: node.rank == 1)
    rate = policy._rate.value  # type: ignore[attr-defined]
    assert rate == pytest.approx(2.5 / 6), "one try, one miss"
