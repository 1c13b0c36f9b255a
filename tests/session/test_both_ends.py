"""Both halves of a session against the checkers, under any order of steps and deliveries."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nacre.sim.dice import Dice, mix
from tests.session.both_ends import exercise


@pytest.mark.parametrize("block", range(8))
def test_any_seeded_order_of_steps_keeps_the_invariants_and_both_ends_agree(block: int) -> None:
    for seed in range(block * 100, block * 100 + 100):
        try:
            exercise(Dice(mix(seed, 5)).below, steps=160)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error}") from error


@settings(max_examples=25, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_order_that_hypothesis_thinks_of_keeps_the_invariants(data: st.DataObject) -> None:
    steps = data.draw(st.integers(0, 60), label="steps")
    exercise(lambda bound: data.draw(st.integers(0, bound - 1)), steps)
