"""What comes before a cell is measured: every path is run once, and the dials of the rivals are searched.

Only decoding counts here, so the verifier may know the prompts. What a search has found is kept in the results under
scenario, baseline, link and temperature: another text or another link is another search.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nacre.bench.baselines import Baseline
from nacre.bench.one_session import Told
from nacre.bench.results import Results
from nacre.bench.runners import Runners
from nacre.bench.scenarios import Scenario
from nacre.bench.tuning import WARM_UP_TOKENS, Settings, best_settings, first_settings


def tuned_as(scenario: str, baseline: str, rtt_ms: float, temperature: float) -> str:
    """The name in the results of what a search has found. A scenario has one kind of text (`scenarios.by_text`)."""
    return f"tuned/{scenario}/{baseline}/{rtt_ms:g}/{temperature:g}"


async def warmed_up(
    runners: Runners,
    results: Results,
    scenario: Scenario,
    baseline: Baseline,
    prompts: Sequence[tuple[int, ...]],
    seeds: Sequence[int],
    *,
    temperature: float,
    rtt_ms: float,
) -> Settings:
    """Runs every path once, and finds the best dials of a baseline that has some; returns those.

    `prompts[i]` is continued with `seeds[i]`. Raises NacreError.
    """
    fixed = replace(baseline, policy="")

    async def one(settings: Settings, number: int, tokens: int, what: Baseline = baseline) -> Told:
        return await runners.generate(
            what,
            prompts[number],
            tokens=tokens,
            temperature=temperature,
            seed=seeds[number],
            rtt_ms=rtt_ms,
            settings=settings,
            read_before=True,
        )

    async def samples(settings: Settings) -> list[Told]:
        return [await one(settings, number, WARM_UP_TOKENS) for number in range(len(prompts))]

    async def speeds(all_settings: Sequence[Settings]) -> list[float]:
        tokens, seconds = [0] * len(all_settings), [0.0] * len(all_settings)
        for number in range(len(prompts)):
            for place, settings in enumerate(all_settings):
                told = await one(settings, number, scenario.tune_tokens)
                tokens[place] += sum(told.arrival_tokens[1:])
                seconds[place] += told.arrivals_s[-1] - told.arrivals_s[0]
        return [count / each for count, each in zip(tokens, seconds, strict=True)]

    known = tuned_as(scenario.name, baseline.name, rtt_ms, temperature)
    first = first_settings(baseline)
    if known in results.kept:
        best: Settings = results.kept[known]["best"]
        await samples(best)
        return best
    if baseline.policy:
        # What passes and rounds cost must be known at several lengths before a policy weighs them.
        for settings in first_settings(fixed):
            await one(settings, 0, WARM_UP_TOKENS, fixed)
    if not first:
        await samples({})
        return {}
    told = await samples(first[0])
    best, tried = await best_settings(first_settings(baseline, ratio=_ratio(told)), speeds)
    results.keep(known, {"best": best, "tried": tried})
    return best


def _ratio(told: Sequence[Told]) -> float | None:
    """Duration of a pass over that of a draft step, where both are told."""
    passes = [t.counts["verify_ms"] / t.counts["passes"] / 1e3 for t in told if t.counts.get("passes")]
    steps = [t.extra["draft_step_s"] for t in told if t.extra.get("draft_step_s")]
    return sum(passes) / len(passes) / (sum(steps) / len(steps)) if passes and steps else None
