"""What the simulator says of loads and of useless drafters stands beside what was measured."""

from __future__ import annotations

from typing import Any

import pytest

from nacre.bench import predicted_loads
from nacre.bench.predicted_loads import Prediction, farthest, many_sessions, useless_drafters
from nacre.bench.prediction import predictor
from nacre.bench.trace import load_trace
from nacre.sim.acceptance import MISSED, Acceptance
from nacre.sim.capacity import predict
from nacre.sim.dials import Dials
from nacre.sim.figures import Figures
from tests.bench.test_prediction import KEPT as ONE
from tests.bench.test_prediction import RUN, TRACE, sample

#: What is guessed along the texts of a load of up to eight sessions.
KEPT = {f"trace/throughput/1/{request}": places for request, places in enumerate(4 * [*ONE.values()])}
KNOWN = [(1, 25.0), (8, 30.0), (16, 40.0), (32, 60.0)]


def load(baseline: str, sessions: int, *, pass_ms: float, rows: float, tokens_per_s: float) -> dict[str, Any]:
    """50 passes of `sessions` sessions."""
    counts = {"passes": 50 * sessions, "rows": 50 * rows, "verify_ms": 50 * pass_ms}
    return {
        "scenario": "throughput",
        "baseline": baseline,
        "sessions": sessions,
        "rtt_ms": 0,
        "repeat": 1,
        "tokens": 50 * sessions,
        "tokens_per_s": tokens_per_s,
        "counts": counts,
    }


def test_plain_decoding_of_many_sessions_is_predicted_from_its_passes() -> None:
    one = predictor(RUN, "rtt", TRACE, KNOWN)
    assert one is not None
    # A pass of eight rows took 36 ms there, and 1 ms lies between two passes.
    loads = [load("ar", 8, pass_ms=36.0, rows=8, tokens_per_s=8 / 0.037)]
    (told,) = many_sessions(loads, one, KEPT)
    assert (told.baseline, told.at) == ("ar", 8)
    assert told.apart == pytest.approx(1.0, abs=0.03)


def test_a_load_with_guesses_is_predicted_to_be_faster_and_what_was_not_counted_is_left_out() -> None:
    one = predictor(RUN, "rtt", TRACE, KNOWN)
    assert one is not None
    loads = [
        load("ar", 2, pass_ms=25.0, rows=2, tokens_per_s=70.0),
        load("nacre", 2, pass_ms=40.0, rows=16, tokens_per_s=140.0),
        {**load("nacre", 4, pass_ms=40.0, rows=16, tokens_per_s=140.0), "counts": {}},
    ]
    plain, guessing = many_sessions(loads, one, KEPT)
    assert guessing.predicted > 1.3 * plain.predicted
    assert many_sessions(loads, one, {}) == []


def test_useless_drafters_are_predicted_to_cost_nothing() -> None:
    samples = [sample(name, pass_ms=25.0, rows=1, gap_ms=1.0) for name in ("ar", "none", "silent", "random")]
    told = useless_drafters(samples, "rtt")
    assert [item.baseline for item in told] == ["none", "silent", "random"]
    assert farthest(told) == pytest.approx(1.0, abs=0.03)


def test_useless_drafters_are_simulated_with_the_rules_that_ship(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int, int, float]] = []

    def noted(dials: Dials, acceptance: Acceptance) -> Figures:
        found = predict(dials, acceptance)
        asked.append((dials.policy, dials.drafters_per_session, acceptance.children, found.drafts_per_token))
        return found

    monkeypatch.setattr(predicted_loads, "predict", noted)
    useless_drafters([sample(name, pass_ms=25.0, rows=1, gap_ms=1.0) for name in ("ar", "none", "silent")], "rtt")
    assert asked == [("nacre", 0, 0, 0.0), ("nacre", 1, 0, 0.0)]


def test_the_farthest_goes_both_ways() -> None:
    assert farthest([Prediction("nacre", 1, 80, 100), Prediction("nacre", 2, 110, 100)]) == pytest.approx(1.25)
    assert farthest([]) is None


def test_a_load_is_told_by_what_is_guessed_along_its_own_texts_or_not_at_all() -> None:
    kept = {
        "trace/throughput/2/0": [[[0.5], 0]],
        "trace/throughput/2/1": [[[0.5], MISSED]],
        "trace/rtt/2/2": [[[0.9], 0]],
    }
    two = {"scenario": "throughput", "repeat": 2, "sessions": 2}
    found = load_trace(kept, two)
    assert found is not None
    assert [text[0][1] for text in found.texts] == [0, MISSED]
    assert load_trace(kept, {**two, "sessions": 3}) is None
    assert load_trace(kept, {**two, "repeat": 3}) is None
