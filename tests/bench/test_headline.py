"""Rows are judged by the figures of the run; what was not measured is neither reached nor missed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nacre.bench.headline import Row, headline_scenarios, judged, load_rows, rows_of
from nacre.bench.results import Results
from nacre.bench.samples import Sample, figures
from nacre.bench.scenarios import Scenario, by_text, load_scenario, scenario_files
from nacre.errors import InvalidArgument


def rtt_sample(baseline: str, gap_ms: float, prompt: int, *, scenario: str = "rtt", rtt_ms: float = 100.0) -> Sample:
    """Four messages so far apart, the first as long after the request."""
    arrivals = tuple(gap_ms * i for i in range(1, 5))
    counts = {"draft_bytes": 40.0, "received": 10.0, "accepted": 4.0, "rows": 8.0}
    return Sample(scenario, baseline, rtt_ms, 1.0, prompt, 1, (1, 2, 3, 4), arrivals, (1, 1, 1, 1), counts)


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


def measured() -> dict[str, Scenario]:
    return {one.name: one for file in scenario_files() for one in by_text(load_scenario(file.stem))}


def check_measured(row: Row) -> None:
    """Fails if the row's scenario does not measure what the row is about."""
    if row.kind in ("ratio", "ttft", "figure"):
        scenario = measured()[row.scenario]
        assert row.at in scenario.rtt_ms, row.name
        assert row.temperature in scenario.temperature or len(scenario.temperature) == 1, row.name
        assert {row.of, *row.against} <= {"ar", *scenario.baselines}, row.name
    if row.kind == "figure":
        assert row.figure in figures([rtt_sample("ar", 1.0, 0)]), row.name
    if row.kind == "load":
        assert row.at in load_scenario(row.scenario).sessions, row.name


def test_every_row_needs_a_scenario_that_is_run() -> None:
    run = set(headline_scenarios())
    assert {row.scenario for row in load_rows()} - {""} <= run
    for row in load_rows():
        check_measured(row)


def test_rows_of_a_scenario_are_about_that_scenario() -> None:
    found = {file.stem: load_rows(file) for file in scenario_files()}
    assert len(found["byte-budget"]) > 10
    for scenario, rows in found.items():
        assert {row.scenario for row in rows} <= {one.name for one in by_text(load_scenario(scenario))}
        assert len({row.name for row in rows}) == len(rows)
        for row in rows:
            check_measured(row)


def test_rows_are_those_of_what_is_asked_for() -> None:
    assert rows_of(["headline"]) == tuple(load_rows())
    assert rows_of(["rtt"]) == ()
    both = rows_of(["headline", "byte-budget", "byte-budget"])
    assert both == rows_of(["headline"]) + rows_of(["byte-budget"])
    with pytest.raises(InvalidArgument, match="'rttt' is unknown"):
        rows_of(["rttt"])


def test_a_row_of_texts_and_temperatures_is_one_for_each() -> None:
    results = Results({})
    for temperature, gap_ms in ((0.0, 20.0), (0.7, 50.0)):
        for baseline, its in (("ar", 40.0), ("nacre", 40.0), ("nacre-fusion", gap_ms)):
            sample = rtt_sample(baseline, its, 0, scenario="fusion-code")
            results.add(replace(sample, rtt_ms=50.0, temperature=temperature))
    told = {row["name"]: row for row in judged(rows_of(["fusion"]), results)}
    sure = told["code, T = 0, RTT 50 ms: fused in the drafter, over the draft model alone"]
    assert (sure["value"], sure["ok"]) == (pytest.approx(2.0), True)
    assert told["code, T = 0.7, RTT 50 ms: fused in the drafter, over the draft model alone"]["ok"] is False
    assert told["prose, T = 1, RTT 50 ms: fused in the drafter, over the best single source"]["why"]


def test_a_byte_budget_is_told_in_bytes_and_in_throughput() -> None:
    results = Results({})
    for baseline, gap_ms in (("ar", 40.0), ("nacre", 20.0), ("nacre-sent-5", 25.0)):
        results.add(rtt_sample(baseline, gap_ms, 0, scenario="byte-budget"))
    told = {row["name"]: row for row in judged(rows_of(["byte-budget"]), results)}
    about = "guesses below 5 % kept back"
    assert told[f"RTT 100 ms: payload up per committed token, {about}, bytes"]["value"] == 10.0
    speed = told[f"RTT 100 ms: throughput over the default, {about}"]
    assert (speed["value"], speed["beside"], speed["ok"]) == (pytest.approx(0.8), "nacre", None)
    assert told[f"RTT 50 ms: throughput over the default, {about}"]["why"]


@pytest.mark.parametrize(("nacre_ms", "ok"), [(41.0, True), (43.0, False)])
def test_the_first_token_may_not_come_later_than_that_of_ar(nacre_ms: float, ok: bool) -> None:
    results = Results({})
    for prompt in range(3):
        results.add(rtt_sample("ar", 40.0, prompt, rtt_ms=0.0))
        results.add(rtt_sample("nacre", nacre_ms, prompt, rtt_ms=0.0))
    row = named(results, "RTT 0 ms: time to first token, nacre over ar")
    assert (row["ok"], row["bound"], row["most"]) == (ok, 1.05, True)
    assert row["value"] == pytest.approx(nacre_ms / 40)
    assert row["interval"] == pytest.approx([nacre_ms / 40] * 2)


def test_the_first_token_far_away_is_reported() -> None:
    row = named(results_with(ar=40.0, nacre=50.0), "RTT 100 ms: time to first token, nacre over ar")
    assert (row["value"], row["bound"], row["ok"]) == (1.25, None, None)


def test_the_first_token_is_compared_with_transformers_own() -> None:
    results = Results({})
    for baseline, gap_ms in (("ar", 40.0), ("hf-ar", 80.0), ("nacre", 60.0)):
        results.add(rtt_sample(baseline, gap_ms, 0, scenario="transformers", rtt_ms=0.0))
    row = named(results, "RTT 0 ms: time to first token, nacre over transformers' generate")
    assert (row["value"], row["beside"], row["bound"], row["ok"]) == (0.75, "hf-ar", 1.0, True)


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


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[[row]]\nname = "x"\nkind = "ratio"\ncolour = 1\n', "colour"),
        ('[[row]]\nname = "x"\nkind = "odd"\n', "no known kind"),
        ('[[row]]\nkind = "ratio"\n', "a row has no name"),
        ('[row]\nname = "x"\n', "no known kind"),
        ("row = 3\n", "a row has no name"),
        ('[[row]]\nname = "x"\nkind = "load"\n', "against of row 'x' is []"),
        ('[[row]]\nname = "x"\nkind = "ttft"\nagainst = "ar"\n', "against of row 'x' is 'ar'"),
        ('[[row]]\nname = "x"\nkind = "micro"\ntext = "code"\n', "text of row 'x' is 'code'; write a list"),
        ('[[row]]\nname = "x"\nkind = "micro"\nat_most = 3\n', "bounds of row 'x' are no numbers"),
        ('[[row]]\nname = "x"\nkind = "micro"\nreported = ["a"]\n', "bounds of row 'x' are no numbers"),
    ],
)
def test_a_row_with_a_mistake_is_told(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "headline.toml"
    file.write_text(text)
    with pytest.raises(InvalidArgument) as caught:
        load_rows(file)
    assert told in caught.value.message
