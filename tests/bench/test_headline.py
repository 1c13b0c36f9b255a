"""Rows are judged by the figures of the run; what was not measured is neither reached nor missed."""

from __future__ import annotations

from pathlib import Path

import pytest

from nacre.bench.headline import headline_scenarios, judged, load_rows
from nacre.bench.results import Results
from nacre.bench.samples import Sample
from nacre.bench.scenarios import load_scenario
from nacre.errors import InvalidArgument


def rtt_sample(baseline: str, gap_ms: float, prompt: int) -> Sample:
    arrivals = tuple(gap_ms * i for i in range(1, 5))
    counts = {"draft_bytes": 40.0, "received": 10.0, "accepted": 4.0, "rows": 8.0}
    return Sample("rtt", baseline, 100.0, 1.0, prompt, 1, (1, 2, 3, 4), arrivals, (1, 1, 1, 1), counts)


def results_with(**gaps_ms: float) -> Results:
    results = Results({})
    for baseline, gap_ms in gaps_ms.items():
        for prompt in range(3):
            results.add(rtt_sample(baseline, gap_ms, prompt))
    return results


def named(results: Results, name: str) -> dict:
    return next(row for row in judged(load_rows(), results) if row["name"] == name)


def test_every_row_of_the_file_can_be_judged_without_any_sample() -> None:
    rows = judged(load_rows(), Results({}))
    assert len({row["name"] for row in rows}) == len(rows) > 30
    assert all(row["ok"] is None and row["why"] and row["value"] is None for row in rows)


def test_every_row_needs_a_scenario_that_is_run() -> None:
    run = set(headline_scenarios())
    assert {row.scenario for row in load_rows()} - {""} <= run
    for row in load_rows():
        if row.kind in ("ratio", "figure"):
            scenario = load_scenario(row.scenario)
            assert row.at in scenario.rtt_ms, row.name
            assert {row.of, *row.against} <= {"ar", *scenario.baselines}, row.name
        if row.kind == "load":
            assert row.at in load_scenario(row.scenario).sessions, row.name


def test_a_ratio_is_over_the_best_rival() -> None:
    results = results_with(ar=40.0, nacre=20.0, sync=80.0, pearl=30.0)
    over_ar = named(results, "RTT 100 ms: nacre over ar")
    assert over_ar["value"] == pytest.approx(2.0)
    assert over_ar["ok"] is True
    assert over_ar["bound"] == 1.35
    over_rivals = named(results, "RTT 100 ms: nacre over the best of sync and pearl")
    assert over_rivals["value"] == pytest.approx(1.5)
    assert over_rivals["beside"] == "pearl"


def test_a_missed_bound_is_told() -> None:
    assert named(results_with(ar=40.0, nacre=39.0), "RTT 100 ms: nacre over ar")["ok"] is False


def test_a_reported_figure_has_no_bound() -> None:
    row = named(results_with(ar=40.0, nacre=20.0), "RTT 100 ms: payload up per committed token, bytes")
    assert (row["value"], row["bound"], row["ok"]) == (10.0, None, None)


def test_an_upper_bound_is_kept_from_below() -> None:
    results = Results({})
    name = "packed forward over the plain model with its own cache, 8 rows"
    for value, ok in ((1.0, True), (1.2, False)):
        results.keep("micro/engine/8", {"ratio": value, "low": value, "high": value})
        assert named(results, name)["ok"] is ok


def test_a_row_with_a_mistake_is_told(tmp_path: Path) -> None:
    file = tmp_path / "headline.toml"
    file.write_text('[[row]]\nname = "x"\nkind = "ratio"\ncolour = 1\n')
    with pytest.raises(InvalidArgument, match="colour"):
        load_rows(file)
