"""How long a run will take: longer with more to do, and the headline within the time that is promised for it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nacre.bench.baselines import load_baselines
from nacre.bench.drafters import scenario_baselines
from nacre.bench.estimate import estimated_s
from nacre.bench.headline import headline_scenarios
from nacre.bench.scenarios import Scenario, by_text, load_scenario, scenario_files


def seconds(*scenarios: Scenario) -> float:
    known = load_baselines()
    return estimated_s(scenarios, {s.name: scenario_baselines(s, known) for s in scenarios})


@pytest.mark.parametrize("name", [path.stem for path in scenario_files()])
def test_every_scenario_has_an_estimate_and_a_quick_run_is_shorter(name: str) -> None:
    quick, full = seconds(load_scenario(name, quick=True)), seconds(load_scenario(name))
    assert 10 < quick <= full


@pytest.mark.parametrize(("quick", "most_s"), [(True, 600), (False, 7200)])
def test_the_headline_fits_into_ten_minutes_and_two_hours(quick: bool, most_s: float) -> None:
    assert seconds(*(load_scenario(name, quick=quick) for name in headline_scenarios())) < most_s


def test_drafters_side_by_side_in_ten_minutes() -> None:
    parts = by_text(load_scenario("drafters", quick=True))
    assert seconds(*parts) < 600
    assert seconds(replace(parts[0], rows=(8, 16, 32, 64))) > seconds(parts[0])
    assert seconds(replace(parts[0], methods=parts[0].methods[1:])) < seconds(parts[0])


def test_more_takes_longer() -> None:
    scenario = load_scenario("rtt")
    for more in ({"prompts": 48}, {"tokens": 200}, {"seeds": 3}, {"rtt_ms": (0.0, 200.0, 300.0, 400.0, 500.0)}):
        assert seconds(replace(scenario, **more)) > seconds(scenario)
