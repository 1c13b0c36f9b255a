"""What the simulator is told of a run, and what it says of it."""

from __future__ import annotations

from typing import Any

import pytest

from nacre.bench.prediction import efficiency, farthest, measured_rig, pass_times, predictions
from nacre.bench.samples import Sample


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


RUN = [
    sample("ar", pass_ms=25.0, rows=1, gap_ms=1.0),
    sample("nacre", pass_ms=30.0, rows=8, gap_ms=2.0, tokens=4),
    sample("sync", pass_ms=30.0, rows=7, gap_ms=8.0, tokens=3, settings={"gamma": 6}),
]


def test_pass_times_are_medians_without_the_prompt_and_never_fall() -> None:
    assert pass_times(RUN[:2]) == [(1, 25.0), (8, 30.0)]
    slower = sample("ar", pass_ms=40.0, rows=1, gap_ms=1.0)
    assert pass_times([slower, RUN[1]]) == [(1, 40.0), (8, 40.0)]


def test_the_rig_is_what_the_run_has_measured() -> None:
    rig = measured_rig(RUN, "rtt", 0.6)
    assert rig is not None
    assert rig.dials.overhead_ms == pytest.approx(1.0)
    assert rig.dials.pass_ms == ((1, 25.0), (8, 30.0))


@pytest.mark.parametrize(("samples", "draft_ms"), [(RUN, None), (RUN[1:], 0.6), (RUN[:1], 0.6), ([], 0.6)])
def test_a_run_that_has_not_measured_enough_predicts_nothing(samples: list[Sample], draft_ms: float | None) -> None:
    assert measured_rig(samples, "rtt", draft_ms) is None


def test_what_is_predicted_stands_beside_what_was_measured() -> None:
    rig = measured_rig(RUN, "rtt", 0.6)
    assert rig is not None
    told = predictions(rig, RUN)
    assert [(name, rtt) for name, rtt, _, _ in told] == [("nacre", 0), ("sync", 0)]
    apart = farthest(rig, RUN)
    assert apart == max(max(p / m, m / p) for _, _, p, m in told)
    assert apart is not None
    assert 1 <= apart < 2
    reached = efficiency(rig, RUN, "rtt", 0)
    assert reached is not None
    assert 0.5 < reached < 1.5
    assert efficiency(rig, RUN, "rtt", 100) is None
