"""Dials are searched for every scenario, link and temperature, and never twice for the same."""

from __future__ import annotations

from typing import Any

from nacre.bench.baselines import load_baselines
from nacre.bench.one_session import Told
from nacre.bench.results import Results
from nacre.bench.scenarios import Scenario
from nacre.bench.tuning import WARM_UP_TOKENS, Settings
from nacre.bench.warm_up import tuned_as, warmed_up

PROMPTS, SEEDS = ((1, 2), (3, 4)), (5, 6)
BASELINES = load_baselines()


class Hill:
    """Generates fastest at a length of `peak`, in place of `Runners`."""

    def __init__(self, peak: int) -> None:
        self.peak = peak
        self.searching = 0

    async def generate(
        self, baseline: Any, prompt: Any, *, tokens: int, seed: int, settings: Settings, **more: Any
    ) -> Told:
        assert seed == SEEDS[PROMPTS.index(prompt)]
        self.searching += tokens != WARM_UP_TOKENS
        slow = 1 + abs(settings.get("gamma", self.peak) - self.peak)
        return Told(arrivals_s=[0.0, float(slow)], arrival_tokens=[1, tokens - 1])


async def warm(runners: Hill, results: Results, scenario: str, baseline: str = "sync", rtt_ms: float = 0.0) -> Settings:
    return await warmed_up(
        runners,  # type: ignore[arg-type]
        results,
        Scenario(scenario),
        BASELINES[baseline],
        PROMPTS,
        SEEDS,
        temperature=1.0,
        rtt_ms=rtt_ms,
    )


async def test_what_was_found_for_one_text_is_not_taken_for_another() -> None:
    results, code, prose = Results({}), Hill(4), Hill(14)
    assert await warm(code, results, "drafters-code") == {"gamma": 4}
    assert await warm(prose, results, "drafters-prose") == {"gamma": 14}
    assert set(results.kept) == {tuned_as(f"drafters-{text}", "sync", 0.0, 1.0) for text in ("code", "prose")}
    assert code.searching > 0
    assert prose.searching > 0


async def test_what_was_found_is_used_again_in_the_same_place_only() -> None:
    results = Results({})
    await warm(Hill(4), results, "rtt")
    again, elsewhere = Hill(14), Hill(14)
    assert await warm(again, results, "rtt") == {"gamma": 4}
    assert again.searching == 0
    assert await warm(elsewhere, results, "rtt", rtt_ms=50.0) == {"gamma": 14}


async def test_what_has_no_dials_is_only_run_once() -> None:
    results, runners = Results({}), Hill(4)
    assert await warm(runners, results, "rtt", "nacre") == {}
    assert runners.searching == 0
    assert results.kept == {}
