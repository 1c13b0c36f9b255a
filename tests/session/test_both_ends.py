"""Both halves of a session against the checkers, under any order of steps and deliveries."""

from __future__ import annotations

import pytest
from both_ends import exercise
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nacre.sim.dice import Dice, mix


@pytest.mark.parametrize("seed", range(150))
def test_any_seeded_order_of_steps_keeps_the_invariants_and_both_ends_agree(seed: int) -> None:
    exercise(Dice(mix(seed, 5)).below, steps=160)


@settings(
    max_examples=60, derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
@given(st.data())
def test_any_order_that_hypothesis_thinks_of_keeps_the_invariants(data: st.DataObject) -> None:
    exercise(lambda bound: data.draw(st.integers(0, bound - 1)), steps=64)
