"""Policies that stop by what the draft model knew: against their definitions."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from nacre.errors import FailedPrecondition
from nacre.pacing import policy_named
from nacre.pacing.acceptance_head import FILE_NAME, INPUTS, AcceptanceHead, load_head
from nacre.pacing.hf_schedules import HfConfidencePolicy, roc_threshold
from tests.pacing.guessing import FakeFeatures, chain_of, costs, grown, one_round

Pairs = list[tuple[float, bool]]


def sent(policy: object, features: list[FakeFeatures], survivals: list[float] | None = None) -> int:
    tree, _ = grown(policy, chain_of(survivals or [0.9] * len(features), features), costs())  # type: ignore[arg-type]
    return len(policy.chosen(tree))  # type: ignore[attr-defined]


def test_confidence_ends_with_the_first_guess_below_the_threshold() -> None:
    policy = HfConfidencePolicy(threshold=0.4)
    assert sent(policy, [FakeFeatures(q=q) for q in (0.9, 0.4, 0.39, 0.9)]) == 3
    assert sent(policy, [FakeFeatures(q=0.9)] * 30) == 20


@given(st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.3, 0.5, 0.8, 0.9]), st.booleans()), min_size=2, max_size=40))
def test_the_roc_threshold_is_the_one_of_least_cost(seen: Pairs) -> None:
    right = [p for p, true in seen if true]
    wrong = [p for p, true in seen if not true]
    assume(right and wrong)

    def cost(threshold: float) -> float:
        false_alarms = sum(p >= threshold for p in wrong) / len(wrong)
        missed = sum(p < threshold for p in right) / len(right)
        return false_alarms + 3 * missed

    candidates = [math.inf, *sorted({p for p, _ in seen}, reverse=True)]
    least = min(map(cost, candidates))
    chosen = roc_threshold(seen)
    assert cost(chosen) == pytest.approx(least)
    assert all(cost(other) > least + 1e-12 for other in candidates if other > chosen)


def test_the_threshold_is_tuned_once_there_is_enough_to_go_by() -> None:
    policy = HfConfidencePolicy(threshold=0.0)
    features = [FakeFeatures(q=q) for q in (0.9, 0.8, 0.7, 0.2)]
    true = {0: True, 1: True, 2: True, 3: False}
    one_round(policy, chain_of([0.9] * 4, features), costs(), lambda node: true[node.token])
    assert policy.threshold == 0.0, "four samples are too few"
    one_round(policy, chain_of([0.9] * 4, features), costs(), lambda node: true[node.token])
    assert policy.threshold == 0.7
    fixed = HfConfidencePolicy(threshold=0.0, tune=False)
    for _ in range(5):
        one_round(fixed, chain_of([0.9] * 4, features), costs(), lambda node: true[node.token])
    assert fixed.threshold == 0.0


def test_what_follows_the_first_miss_is_no_sample() -> None:
    policy = HfConfidencePolicy(threshold=0.0)
    features = [FakeFeatures(q=q) for q in (0.9, 0.8, 0.7, 0.6)]
    one_round(policy, chain_of([0.9] * 4, features), costs(), lambda node: node.depth != 2)
    assert list(policy._seen) == [(0.9, True), (0.8, False)]


def test_svip_stops_above_six_tenths_of_a_nat() -> None:
    policy = policy_named("svip")
    assert math.sqrt(0.15 * 0.6) == pytest.approx(0.3)
    assert sent(policy, [FakeFeatures(entropy=h) for h in (0.1, 0.599, 0.601, 0.1)]) == 3
    assert sent(policy, [FakeFeatures(entropy=0.0)] * 60) == 40


class Constant(AcceptanceHead):
    """Says q."""

    def __init__(self) -> None:
        pass

    def acceptance(self, features: object, survival: float, depth: int) -> float:
        return features.q  # type: ignore[attr-defined, no-any-return]


def test_specdec_stops_when_a_reject_has_become_likely() -> None:
    policy = policy_named("specdec++", threshold=0.5)
    policy._head = Constant()  # type: ignore[attr-defined]
    # 0.9, 0.81, 0.65, 0.45: more likely than not a reject among four, which is known when there are five.
    assert sent(policy, [FakeFeatures(q=q) for q in (0.9, 0.9, 0.8, 0.7, 0.9, 0.9, 0.9)]) == 5
    assert sent(policy, [FakeFeatures(q=0.1)] * 5) == 2
    assert sent(policy, [FakeFeatures(q=1.0)] * 40) == 20


def test_the_first_evaluation_of_specdec_counts_as_one() -> None:
    """When the first guess is there, what is judged is the verified token before it; the first guess is judged next."""
    policy = policy_named("specdec++", threshold=0.5, least=1)
    policy._head = Constant()  # type: ignore[attr-defined]
    assert sent(policy, [FakeFeatures(q=0.1)] * 5) == 2
    assert sent(policy, [FakeFeatures(q=q) for q in (0.9, 0.1, 0.9, 0.9)]) == 3


def test_specdec_never_sends_fewer_than_least() -> None:
    policy = policy_named("specdec++", threshold=0.5, least=4)
    policy._head = Constant()  # type: ignore[attr-defined]
    assert sent(policy, [FakeFeatures(q=0.1)] * 8) == 4


def test_disco_stops_at_the_first_that_is_classed_as_a_reject() -> None:
    policy = policy_named("disco", threshold=0.5)
    policy._head = Constant()  # type: ignore[attr-defined]
    assert sent(policy, [FakeFeatures(q=q) for q in (0.9, 0.6, 0.4, 0.9)]) == 3


def test_a_head_computes_residual_blocks() -> None:
    random = np.random.default_rng(0)
    count = INPUTS["specdec++"][1]
    layers = [(random.normal(size=(3, count)), random.normal(size=3)), (random.normal(size=(3, 3)), np.zeros(3))]
    layers.append((random.normal(size=(1, 3)), np.array([0.2])))
    weights = {
        "mean": [0.5] * count,
        "scale": [2.0] * count,
        "layers": [[matrix.tolist(), bias.tolist()] for matrix, bias in layers],
    }
    features = FakeFeatures(0.7, 1.5, 0.9, (0.7, 0.2, 0.1))
    x = (np.array(INPUTS["specdec++"][0](features, 0.8, 3)) - 0.5) * 2.0

    def silu(y: np.ndarray) -> np.ndarray:
        return y / (1 + np.exp(-y))

    hidden = silu(layers[0][0] @ x + layers[0][1])
    hidden = hidden + silu(layers[1][0] @ hidden)
    expected = 1 / (1 + np.exp(-(layers[2][0] @ hidden + 0.2)))
    assert AcceptanceHead("specdec++", weights).acceptance(features, 0.8, 3) == pytest.approx(float(expected[0]))


@pytest.mark.parametrize("name", sorted(INPUTS))
def test_inputs_are_finite_and_as_many_as_stated(name: str) -> None:
    vector, count = INPUTS[name]
    for features, survival in (
        (FakeFeatures(0.0, -1e9, 0.0, ()), 0.0),
        (FakeFeatures(1.0, 100.0, 12.0, (0.1,) * 10), 1.0),
    ):
        inputs = vector(features, survival, 99)
        assert len(inputs) == count
        assert np.isfinite(inputs).all()


@pytest.mark.parametrize("name", sorted(INPUTS))
def test_the_bundled_head_trusts_a_sure_guess_more_than_a_doubtful_one(name: str) -> None:
    head = load_head(name, "demo-draft")
    sure = head.acceptance(FakeFeatures(0.99, 6.0, 0.05, (0.99, 0.005)), 0.99, 2)
    doubtful = head.acceptance(FakeFeatures(0.05, 0.1, 5.0, (0.05,) * 10), 0.3, 2)
    assert 0 < doubtful < sure < 1


@pytest.mark.parametrize("text", ["no json", "{}", '{"disco": {"mean": [1], "scale": [1], "layers": []}}'])
def test_an_unsound_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE_NAME).write_text(text)
    with pytest.raises(FailedPrecondition, match="holds no sound head 'disco'"):
        load_head("disco", str(tmp_path))


def test_the_head_file_holds_plain_numbers() -> None:
    from nacre.models import bundled

    text = (bundled("demo-draft") / FILE_NAME).read_text()
    assert len(text) < 20_000
    assert set(json.loads(text)) == set(INPUTS)
