"""What the simulator is told of a run, and what it says of it."""

from __future__ import annotations

from typing import Any

import pytest

from nacre.bench import prediction
from nacre.bench.prediction import Predictor, beyond, pass_times, predictor, scaled
from nacre.bench.samples import Sample
from nacre.bench.trace import kept_as, run_trace
from nacre.sim.acceptance import MISSED, Acceptance
from nacre.sim.dials import Dials

#: Two texts; every fifth token is none of the guesses.
KEPT = {
    f"trace/rtt/1/{prompt}": [[[0.8, 0.1], MISSED if (place + prompt) % 5 == 0 else 0] for place in range(160)]
    for prompt in range(2)
}
TRACE = run_trace(KEPT, "rtt")


def sample(baseline: str, *, pass_ms: float, rows: int, gap_ms: float, tokens: int = 1, **more: Any) -> Sample:
    """40 passes of so many rows, each telling `tokens`, with so much time between them."""
    count = 40
    arrivals = tuple(500 + (pass_ms + gap_ms) * index for index in range(count))
    return Sample(
        scenario="rtt",
        baseline=baseline,
        rtt_ms=0,
        temperature=1.0,
        prompt=0,
        seed=1,
        tokens=tuple(range(count * tokens)),
        arrivals_ms=arrivals,
        arrival_tokens=(tokens,) * count,
        pass_rows=(rows,) * count,
        pass_ms=(400.0, *(pass_ms,) * (count - 1)),
        **more,
    )


DRAFTED = {"draft_steps": 200, "draft_ms": 200.0}
RUN = [
    sample("ar", pass_ms=25.0, rows=1, gap_ms=1.0),
    sample("nacre", pass_ms=30.0, rows=8, gap_ms=2.0, tokens=4, counts=DRAFTED),
    sample("sync", pass_ms=29.0, rows=7, gap_ms=8.0, tokens=3, settings={"gamma": 6}, counts=DRAFTED),
]


def of_run(samples: list[Sample] = RUN) -> Predictor:
    found = predictor(samples, "rtt", TRACE)
    assert found is not None
    return found


def test_pass_times_are_medians_without_the_prompt_and_never_fall() -> None:
    assert pass_times(RUN[:2]) == [(1, 25.0), (8, 30.0)]
    slower = sample("ar", pass_ms=40.0, rows=1, gap_ms=1.0)
    assert pass_times([slower, RUN[1]]) == [(1, 40.0), (8, 40.0)]


def test_where_no_pass_has_been_the_verifiers_own_measure_goes_on() -> None:
    known = [(1, 20.0), (4, 20.0), (8, 30.0), (16, 60.0)]
    assert beyond([(1, 25.0), (6, 50.0)], known) == [(1, 25.0), (6, 50.0), (8, 60.0), (16, 120.0)]
    assert beyond([(1, 25.0), (16, 50.0)], known) == [(1, 25.0), (16, 50.0)]
    assert beyond([(1, 25.0)], []) == [(1, 25.0)]


def test_a_cell_that_was_slower_has_a_slower_v() -> None:
    points = [(1, 20.0), (8, 30.0)]
    assert scaled(points, [sample("nacre", pass_ms=45.0, rows=8, gap_ms=0.0)]) == [(1, 30.0), (8, 45.0)]
    assert scaled(points, []) == points


def test_a_trace_holds_the_texts_of_its_scenario_only() -> None:
    assert kept_as(RUN[0].scenario, RUN[0].seed, RUN[0].prompt) in KEPT
    assert TRACE is not None
    assert TRACE.on_line(1, 4) == ((0.8, 0.1), MISSED)
    assert run_trace(KEPT, "other") is None


def test_dials_are_what_the_run_has_measured_of_that_baseline() -> None:
    found = of_run()
    nacre, sync = found.dials("nacre", 0), found.dials("sync", 0)
    assert nacre is not None
    assert sync is not None
    assert nacre.overhead_ms == pytest.approx(1.0)
    assert (nacre.policy, nacre.pass_ms, nacre.draft_ms[-1]) == ("nacre", ((1, 25.0), (8, 30.0)), (4, 1.0))
    assert (sync.policy, sync.gamma, sync.pass_ms, sync.draft_ms) == ("sync", 6, ((1, 25.0), (7, 29.0)), ((1, 1.0),))
    assert nacre.requests == 2


@pytest.mark.parametrize(
    ("samples", "trace"), [(RUN, None), (RUN[1:], TRACE), ([], TRACE)], ids=["no trace", "no ar", "nothing"]
)
def test_a_run_that_has_not_measured_enough_predicts_nothing(samples: list[Sample], trace: Any) -> None:
    assert predictor(samples, "rtt", trace) is None


def test_what_is_predicted_stands_beside_what_was_measured() -> None:
    found = of_run()
    told = found.predictions()
    assert [(name, rtt) for name, rtt, _, _ in told] == [("nacre", 0), ("sync", 0)]
    apart = found.farthest()
    assert apart == max(max(p / m, m / p) for _, _, p, m in told)
    assert apart is not None
    assert 1 <= apart < 2
    reached = found.efficiency(0)
    assert reached is not None
    assert 0.5 < reached < 2
    assert found.efficiency(100) is None


def test_efficiency_is_counted_from_a_drafter_without_bookkeeping(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[float] = []

    def ideal(acceptance: Acceptance, dials: Dials) -> float:
        steps.append(dials.draft_ms[-1][1])
        return 100.0

    monkeypatch.setattr(prediction, "ideal_throughput", ideal)
    counted = sample("nacre", pass_ms=30.0, rows=8, gap_ms=2.0, tokens=4, counts={**DRAFTED, "propose_ms": 120.0})
    apart = of_run([RUN[0], counted, RUN[2]])
    assert apart.efficiency(0) == of_run().efficiency(0)
    # Half a step of bookkeeping is left out; without a count of its own the whole step stands for the proposer's.
    assert steps == [0.6, 1.0]
    # What is predicted has its bookkeeping.
    dials = apart.dials("nacre", 0)
    assert dials is not None
    assert dials.draft_ms[-1][1] == 1.0


def test_a_drafter_that_was_not_counted_is_not_predicted() -> None:
    uncounted = [RUN[0], sample("nacre", pass_ms=30.0, rows=8, gap_ms=2.0, tokens=4)]
    assert of_run(uncounted).farthest() is None
