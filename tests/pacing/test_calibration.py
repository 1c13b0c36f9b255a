"""Calibration: with no evidence the claim stands, with evidence the record does, and old records fade."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nacre.errors import InvalidArgument
from nacre.pacing import Calibration
from nacre.pacing.calibration import EDGES, RANKS
from nacre.session.messages import survival_of

observations = st.lists(st.tuples(st.integers(0, 20), st.floats(0, 1), st.booleans()), max_size=60)


def test_without_evidence_the_claim_stands() -> None:
    calibration = Calibration()
    for byte in range(256):
        assert calibration.survival(byte % 11, survival_of(byte)) == pytest.approx(survival_of(byte))


def test_counts_and_claim_are_weighed_as_stated() -> None:
    calibration = Calibration(strength=5, memory=1e12)
    for came_true in (True, False, False):
        calibration.observe(0, 0.9, came_true)
    assert calibration.survival(0, 0.9) == pytest.approx((1 + 5 * 0.9) / (3 + 5))
    assert calibration.survival(0, 0.88) == pytest.approx((1 + 5 * 0.88) / (3 + 5)), "the same bucket"
    assert calibration.survival(1, 0.9) == 0.9, "another rank"
    assert calibration.survival(0, 0.5) == 0.5, "another survival"


def test_late_siblings_share_a_rank() -> None:
    calibration = Calibration()
    calibration.observe(RANKS + 3, 0.05, True)
    assert calibration.survival(RANKS - 1, 0.05) == calibration.survival(99, 0.05) > 0.05
    assert calibration.survival(RANKS - 2, 0.05) == 0.05


def test_a_drafter_that_claims_too_much_is_found_out() -> None:
    calibration = Calibration()
    for _ in range(100):
        calibration.observe(0, 1.0, False)
    assert calibration.survival(0, 1.0) < 0.06


def test_it_converges_to_the_true_rate_whatever_was_claimed() -> None:
    random = np.random.default_rng(0)
    for claimed, true in ((0.95, 0.6), (0.3, 0.8), (0.02, 0.15)):
        calibration = Calibration(memory=4000)
        for came_true in random.random(8000) < true:
            calibration.observe(1, claimed, bool(came_true))
        assert calibration.survival(1, claimed) == pytest.approx(true, abs=0.03)


def test_old_observations_fade() -> None:
    calibration = Calibration(memory=50)
    for _ in range(1000):
        calibration.observe(0, 0.9, True)
    for _ in range(150):
        calibration.observe(0, 0.9, False)
    # What is left of the first thousand: 50 · (1 - 1/50)^150 observations.
    left = 50 * (1 - 1 / 50) ** 150
    assert calibration.survival(0, 0.9) == pytest.approx((left + 4.5) / (50 + 5), rel=1e-6)


@given(observations, st.integers(0, 20), st.floats(0, 1))
def test_a_survival_is_a_probability_and_evidence_is_bounded(
    seen: list[tuple[int, float, bool]], rank: int, raw: float
) -> None:
    calibration = Calibration(memory=10)
    for observation in seen:
        calibration.observe(*observation)
    assert 0 <= calibration.survival(rank, raw) <= 1
    assert 0 <= calibration.evidence(rank, raw) <= 10


def test_every_survival_has_one_bucket_and_edges_rise() -> None:
    assert list(EDGES) == sorted(set(EDGES))
    calibration = Calibration()
    for index, edge in enumerate(EDGES):
        calibration.observe(0, edge, True)
        assert calibration.evidence(0, edge) == pytest.approx(1), f"edge {index} opens a bucket of its own"
    assert calibration.evidence(0, 0.0) == 0


@pytest.mark.parametrize(
    ("option", "value"),
    [("strength", 0.0), ("strength", -1.0), ("strength", math.nan), ("memory", 1.0), ("memory", math.inf)],
)
def test_impossible_dials_are_refused(option: str, value: float) -> None:
    with pytest.raises(InvalidArgument, match=option):
        Calibration(**{option: value})
